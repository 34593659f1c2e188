//! The response to an initiation: what any thread can compute of it.
//!
//! 1. Open: one DH tells the static key that the initiator claims.
//! 2. The device looks up the peer.
//! 3. Prove and respond: the initiator's proof, then three DH for the response and the session.
//! 4. The device installs the session, if the response is still right: key, peers, timestamps and
//!    sessions may have changed meanwhile.
//!
//! Secrets stay in their place from one step to the next, and are zeroed there.

use std::sync::Arc;

use wg_bounce_dataplane::messages::HandshakeMessage;
use wg_bounce_dataplane::peer::PeerId;
use wg_bounce_dataplane::wire::{INITIATION_LEN, RESPONSE_LEN};
use wg_bounce_sys::Endpoint;

use crate::noise::{Claimed, Identity, Secret, SessionKeys, open_initiation, wiping};
use crate::tai64n::Timestamp;

/// A response to an initiation, in the making.
pub struct PendingResponse {
    /// The identity that it was begun with.
    pub(super) identity: Arc<Identity>,
    pub(super) from: Endpoint,
    initiation: [u8; INITIATION_LEN],
    /// The opened initiation; none if it is not for us.
    pub(super) claimed: Option<Claimed>,
    /// The peer; none before it was looked up.
    pub(super) claimant: Option<Claimant>,
    /// The initiation's timestamp; none unless it is authentic.
    pub(super) timestamp: Option<Timestamp>,
    /// The response, all but our index and its macs.
    pub(super) response: [u8; RESPONSE_LEN],
    /// The keys of the session; none if the initiation must not be answered.
    pub(super) keys: Option<SessionKeys>,
}

/// The peer that an initiation claims to be from, as far as the device knows it.
pub(super) struct Claimant {
    pub(super) id: PeerId,
    /// The DH of both static keys; computed with the rest if it is unknown.
    pub(super) static_static: Option<Secret>,
    pub(super) psk: Secret,
    pub(super) ephemeral: Secret,
    /// The greatest timestamp received from the peer: an older initiation is not answered.
    pub(super) greatest_received: Timestamp,
    /// The peer's last initiation was just answered, so the next is not.
    pub(super) is_too_soon: bool,
}

impl PendingResponse {
    /// Begins the response to an initiation.
    ///
    /// # Panics
    /// If the message does not have the length of an initiation.
    pub(super) fn new(identity: Arc<Identity>, message: &HandshakeMessage) -> PendingResponse {
        PendingResponse {
            identity,
            from: message.from,
            initiation: message.bytes.as_slice().try_into().expect("classified by its length"),
            claimed: None,
            claimant: None,
            timestamp: None,
            response: [0; RESPONSE_LEN],
            keys: None,
        }
    }

    /// Computes the next step: one DH, or up to four.
    pub fn compute(&mut self) {
        wiping(|| match self.claimant {
            None => self.claimed = open_initiation(&self.identity, &self.initiation),
            Some(_) => self.prove_and_respond(),
        });
    }

    fn prove_and_respond(&mut self) {
        let (Some(claimed), Some(claimant)) = (&self.claimed, &mut self.claimant) else { return };
        if claimant.static_static.is_none() {
            claimant.static_static = self.identity.static_static(&claimed.remote_static);
        }
        let Some(static_static) = &claimant.static_static else { return };
        let Some(proven) = claimed.prove(static_static) else { return };
        self.timestamp = Some(proven.timestamp);
        let is_answered = proven.timestamp > claimant.greatest_received && !claimant.is_too_soon;
        let Claimant { psk, ephemeral, .. } = claimant;
        self.keys =
            is_answered.then(|| proven.respond(psk, ephemeral, 0, &mut self.response)).flatten();
    }
}
