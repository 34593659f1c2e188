//! Messages from peers (receive.c: `wg_receive_handshake_packet`).
//!
//! 1. Type and index: messages with an unknown index are rejected before any crypto.
//! 2. mac1, and under load mac2 and the rate limit of the source, before any DH.
//! 3. The handshake itself; a message that fails here changes no state. Initiations are in
//!    `initiations`.
//! 4. Endpoint, sessions, timers; the answer.

use std::sync::Arc;

use wg_bounce_dataplane::messages::HandshakeMessage;
use wg_bounce_dataplane::peer::PeerId;
use wg_bounce_dataplane::wire::{COOKIE_REPLY_LEN, Kind, RESPONSE_LEN, classify};
use wg_bounce_sys::Endpoint;
use wg_bounce_sys::clock::Millis;

use super::io::{LogEvent, Now, Output};
use super::peer_entry::PeerEntry;
use super::staged::{send_keepalive, send_staged, workers_staging};
use super::state::{Core, Device};
use crate::cookie::MacState;
use crate::limits::FORGED_RESPONSES_MAX;

/// The standing of a response, by its receiver index and its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No handshake awaits it.
    Unexpected,
    /// A handshake awaits it.
    Expected,
    /// A handshake awaits it, and has received more forged responses than its budget.
    Doubtful {
        /// It comes from the endpoint that the initiation was sent to.
        is_from_endpoint: bool,
    },
}

impl Device {
    pub(super) fn handle_message(
        &mut self,
        message: &HandshakeMessage,
        under_load: bool,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        if !self.core.is_active() {
            self.core.counters.drop_inactive += 1;
            return;
        }
        let bytes = message.bytes.as_slice();
        match classify(bytes) {
            Some(Kind::Initiation) => {
                if self.core.admit(bytes, message.from, under_load, now, out) {
                    self.begin_response(message, out);
                }
            }
            Some(Kind::Response(index)) => {
                let Some(id) = self.awaits_response(index) else {
                    self.core.counters.drop_unknown_index += 1;
                    return;
                };
                let entry = self.peers.get_mut(&id).expect("an index has its peer");
                // The first responses need no cookie under load: forgers can spend only a few
                // tries for each initiation of ours.
                let needs_mac2 = under_load && entry.is_doubtful();
                if self.core.admit(bytes, message.from, needs_mac2, now, out) {
                    self.core.consume_response(entry, message, now, out);
                }
            }
            Some(Kind::CookieReply(index)) => self.consume_cookie_reply(index, bytes, now),
            Some(Kind::Data(_)) | None => self.core.counters.drop_bad_mac1 += 1,
        }
    }

    /// The standing of a response, for the order in which responses are tried.
    pub fn standing(&self, response: &HandshakeMessage) -> Standing {
        let index = match classify(&response.bytes) {
            Some(Kind::Response(index)) => index,
            _ => return Standing::Unexpected,
        };
        let entry = self.awaits_response(index).and_then(|id| self.peers.get(&id));
        match entry {
            None => Standing::Unexpected,
            Some(entry) if !entry.is_doubtful() => Standing::Expected,
            Some(entry) => {
                let endpoint = entry.shared.endpoint().map(|endpoint| endpoint.remote);
                Standing::Doubtful { is_from_endpoint: endpoint == Some(response.from.remote) }
            }
        }
    }

    fn awaits_response(&self, index: u32) -> Option<PeerId> {
        let id = self.core.indexes.owner(index)?;
        let handshake = self.peers.get(&id)?.handshake.as_ref()?;
        (handshake.local_index == index).then_some(id)
    }

    /// Stores the cookie for the next message. Sends nothing, and does not change the endpoint.
    fn consume_cookie_reply(&mut self, index: u32, bytes: &[u8], now: Now) {
        let bytes: &[u8; COOKIE_REPLY_LEN] = bytes.try_into().expect("classified by its length");
        let owner = self.core.indexes.owner(index).and_then(|id| self.peers.get_mut(&id));
        match owner.map(|entry| entry.cookie_signer.consume(bytes, now.monotonic)) {
            Some(true) => self.core.counters.cookies_received += 1,
            Some(false) => self.core.counters.drop_not_authentic += 1,
            None => self.core.counters.drop_unknown_index += 1,
        }
    }
}

impl Core {
    /// Whether to spend a DH on an initiation or response. If it needs a mac2, sources without a
    /// valid one get a cookie reply; others are rate-limited.
    fn admit(
        &mut self,
        bytes: &[u8],
        from: Endpoint,
        needs_mac2: bool,
        now: Now,
        out: &mut Vec<Output>,
    ) -> bool {
        let Some(own) = &mut self.own else { return false };
        let now = now.monotonic;
        let state = own.checker.judge(bytes, from.remote, needs_mac2, now, &mut *self.rng);
        match state {
            MacState::Invalid => {
                self.counters.drop_bad_mac1 += 1;
                false
            }
            MacState::ValidMac1 if !needs_mac2 => true,
            MacState::ValidMac1 => {
                let reply = own.checker.reply(bytes, from.remote, now, &mut *self.rng);
                out.push(Output::Cookie { to: from, reply });
                self.counters.cookie_replies_sent += 1;
                false
            }
            MacState::ValidMac1And2 => {
                let allowed = self.limiter.allow(from.remote.ip(), now);
                self.counters.drop_rate_limited += u64::from(!allowed);
                allowed
            }
        }
    }

    fn consume_response(
        &mut self,
        entry: &mut PeerEntry,
        message: &HandshakeMessage,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let bytes: &[u8; RESPONSE_LEN] =
            message.bytes.as_slice().try_into().expect("classified by its length");
        self.counters.messages_tried += 1;
        let (Some(own), Some(initiated)) = (&self.own, &entry.handshake) else { return };
        let Some(keys) = initiated.finish(&own.identity, &entry.psk, bytes) else {
            self.counters.drop_not_authentic += 1;
            entry.forged_responses = entry.forged_responses.saturating_add(1);
            return;
        };
        let local_index = initiated.local_index;
        entry.handshake = None;
        self.apply_confirmation(entry, now, out);
        entry.move_to(message.from, now.monotonic, out);
        entry.shared.counters.received_bytes.add(RESPONSE_LEN as u64);
        self.begin_as_initiator(entry, &keys, local_index, now.monotonic, out);
        self.counters.sessions_initiated += 1;
        entry.complete_handshake(now);
        // Staged packets confirm the session to the responder; if there are none, a keepalive.
        if workers_staging(&entry.shared).next().is_some() {
            send_staged(entry, out);
        } else {
            send_keepalive(entry, out);
        }
        self.note_received(entry, now);
        self.update_peer(entry, now, out);
    }
}

impl PeerEntry {
    /// Whether the handshake has received more forged responses than its budget.
    fn is_doubtful(&self) -> bool {
        self.forged_responses >= FORGED_RESPONSES_MAX
    }

    /// Sends to where an authentic handshake message came from.
    pub(super) fn move_to(&mut self, from: Endpoint, now: Millis, out: &mut Vec<Output>) {
        if self.shared.set_endpoint(from) && self.shared.note_roamed(now) {
            out.push(Output::Log(LogEvent::Roamed(Arc::clone(&self.shared))));
        }
    }
}
