//! Initiations from peers (receive.c: `wg_receive_handshake_packet`; noise.c:
//! `wg_noise_handshake_consume_initiation`), after the check of their macs.
//!
//! The costly steps are [`PendingResponse`]s, which leave the device to be computed, and come back.
//! Two of one peer may overtake each other: the order of their timestamps decides, so the older one
//! is refused like a replay.

use std::sync::Arc;

use subtle::ConstantTimeEq as _;
use wg_bounce_dataplane::messages::HandshakeMessage;
use wg_bounce_dataplane::wire::INITIATION_LEN;
use wg_bounce_sys::Endpoint;
use wg_bounce_sys::clock::Millis;

use super::io::{LogEvent, Now, Output};
use super::peer_entry::{PeerEntry, StaticStatic};
use super::pending_response::{Claimant, PendingResponse};
use super::state::{Core, Device};
use crate::limits::{LOG_INTERVAL, UNKNOWN_LOG_INTERVAL};
use crate::noise::set_sender;
use crate::tai64n::Timestamp;

impl Device {
    /// Begins the response to an initiation whose macs are right.
    pub(super) fn begin_response(&mut self, message: &HandshakeMessage, out: &mut Vec<Output>) {
        let Some(own) = &self.core.own else { return };
        self.core.counters.messages_tried += 1;
        let pending = PendingResponse::new(Arc::clone(&own.identity), message);
        out.push(Output::Compute(Box::new(pending)));
    }

    /// Continues a response of which a step was computed. The state may have changed meanwhile.
    pub(super) fn continue_response(
        &mut self,
        pending: Box<PendingResponse>,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let own = self.core.own.as_ref();
        if !self.core.is_active() {
            self.core.counters.drop_inactive += 1;
        } else if own.is_none_or(|own| !Arc::ptr_eq(&own.identity, &pending.identity)) {
            // It was for a private key that is ours no longer.
            self.core.counters.drop_bad_mac1 += 1;
        } else if pending.claimant.is_none() {
            self.look_up(pending, now, out);
        } else {
            self.conclude(pending, now, out);
        }
    }

    /// Finds the peer that an initiation claims to be from.
    fn look_up(&mut self, mut pending: Box<PendingResponse>, now: Now, out: &mut Vec<Output>) {
        let Some(claimed) = &pending.claimed else {
            self.core.counters.drop_not_authentic += 1;
            return;
        };
        let Some(id) = self.by_key.get(&claimed.remote_static) else {
            self.core.counters.drop_not_authentic += 1;
            self.core.log_unknown(claimed.remote_static, pending.from, now.monotonic, out);
            return;
        };
        let entry = self.peers.get(id).expect("a key has its peer");
        pending.claimant = self.core.claimant(entry, now);
        match pending.claimant {
            Some(_) => out.push(Output::Compute(pending)),
            None => self.core.counters.drop_not_authentic += 1,
        }
    }

    /// Installs the session of a complete response, and sends the response.
    fn conclude(&mut self, mut pending: Box<PendingResponse>, now: Now, out: &mut Vec<Output>) {
        let claimant = pending.claimant.as_ref().expect("looked up");
        let Some(entry) = self.peers.get_mut(&claimant.id) else {
            self.core.counters.drop_not_authentic += 1;
            return;
        };
        entry.static_static.learn(|| claimant.static_static.clone());
        let Some(timestamp) = pending.timestamp else {
            self.core.counters.drop_not_authentic += 1;
            return;
        };
        if timestamp <= entry.greatest_received {
            self.core.counters.drop_replayed += 1;
            // Otherwise a later one has overtaken it.
            if timestamp <= claimant.greatest_received {
                entry.log_stale(timestamp, pending.from, now.monotonic, out);
            }
        } else if claimant.is_too_soon || self.core.is_too_soon(entry, now) {
            self.core.counters.drop_too_soon += 1;
        } else if !bool::from(entry.psk.ct_eq(&*claimant.psk)) {
            // The initiator expects a response with the preshared key of now.
            pending.claimant = self.core.claimant(entry, now);
            out.push(Output::Compute(pending));
        } else {
            self.core.respond(entry, timestamp, &mut pending, now, out);
        }
    }
}

impl Core {
    /// The values for the rest of a response; none if the peer's key is of low order.
    fn claimant(&mut self, entry: &PeerEntry, now: Now) -> Option<Claimant> {
        let static_static = match &entry.static_static {
            StaticStatic::Unknown => None,
            StaticStatic::Known(secret) => Some(secret.clone()),
            StaticStatic::Refused => return None,
        };
        Some(Claimant {
            id: entry.shared.id,
            static_static,
            psk: entry.psk.clone(),
            ephemeral: self.random_secret(),
            greatest_received: entry.greatest_received,
            is_too_soon: self.is_too_soon(entry, now),
        })
    }

    fn is_too_soon(&self, entry: &PeerEntry, now: Now) -> bool {
        let spacing = self.settings.timings.initiation_spacing;
        entry.last_initiation_received.is_some_and(|last| now.monotonic < last + spacing)
    }

    /// Answers an authentic, fresh initiation, which replaces a handshake of our own.
    fn respond(
        &mut self,
        entry: &mut PeerEntry,
        timestamp: Timestamp,
        pending: &mut PendingResponse,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let Some(keys) = &pending.keys else {
            // Its ephemeral key is of low order.
            self.counters.drop_not_authentic += 1;
            return;
        };
        self.apply_confirmation(entry, now, out);
        entry.greatest_received = timestamp;
        entry.last_initiation_received = Some(now.monotonic);
        if entry.handshake.is_some() {
            entry.crossings = entry.crossings.saturating_add(1);
        }
        self.abandon_handshake(entry, out);
        entry.move_to(pending.from, now.monotonic, out);
        let local_index = self.allocate_index(entry);
        set_sender(&mut pending.response, local_index);
        entry.cookie_signer.sign(&mut pending.response, now.monotonic);
        self.begin_as_responder(entry, keys, local_index, now.monotonic, out);
        entry.shared.counters.received_bytes.add(INITIATION_LEN as u64);
        self.note_received(entry, now);
        self.counters.responses_sent += 1;
        self.send_handshake(entry, &pending.response, now, out);
        self.update_peer(entry, now, out);
    }

    /// Logs a key that no peer has; once a second.
    fn log_unknown(&mut self, key: [u8; 32], from: Endpoint, now: Millis, out: &mut Vec<Output>) {
        if self.logged_unknown.is_none_or(|last| now.since(last) >= UNKNOWN_LOG_INTERVAL) {
            self.logged_unknown = Some(now);
            out.push(Output::Log(LogEvent::UnknownKey { key, from }));
        }
    }
}

impl PeerEntry {
    /// Logs that an initiation was refused because of its timestamp; once an hour. A copy of the
    /// last initiation is no reason: networks duplicate datagrams.
    fn log_stale(
        &mut self,
        timestamp: Timestamp,
        from: Endpoint,
        now: Millis,
        out: &mut Vec<Output>,
    ) {
        let is_silent = self.logged_stale.is_some_and(|last| now.since(last) < LOG_INTERVAL);
        if timestamp == self.greatest_received || is_silent {
            return;
        }
        self.logged_stale = Some(now);
        let (peer, behind) = (Arc::clone(&self.shared), self.greatest_received.since(timestamp));
        out.push(Output::Log(LogEvent::StaleTimestamp { peer, from, behind }));
    }
}
