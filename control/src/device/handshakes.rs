//! Messages from peers (receive.c: `wg_receive_handshake_packet`).
//!
//! 1. Type and index: messages with an unknown index are rejected before any crypto.
//! 2. mac1, and under load mac2 and the rate limit of the source, before any DH.
//! 3. The handshake itself; a message that fails here changes no state.
//! 4. Endpoint, sessions, timers; the answer.

use arrayvec::ArrayVec;
use wg_bounce_dataplane::messages::HandshakeMessage;
use wg_bounce_dataplane::peer::PeerId;
use wg_bounce_dataplane::wire::{COOKIE_REPLY_LEN, INITIATION_LEN, Kind, RESPONSE_LEN, classify};
use wg_bounce_sys::Endpoint;

use super::io::{Now, Output};
use super::peer_entry::PeerEntry;
use super::staged::{send_keepalive, send_staged, workers_staging};
use super::state::{Core, Device};
use crate::cookie::MacState;
use crate::noise::{Proven, open_initiation};

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
                    self.consume_initiation(message, now, out);
                }
            }
            Some(Kind::Response(index)) => {
                let Some(id) = self.awaits_response(index) else {
                    self.core.counters.drop_unknown_index += 1;
                    return;
                };
                if self.core.admit(bytes, message.from, under_load, now, out) {
                    let entry = self.peers.get_mut(&id).expect("an index has its peer");
                    self.core.consume_response(entry, message, now, out);
                }
            }
            Some(Kind::CookieReply(index)) => self.consume_cookie_reply(index, bytes, now),
            Some(Kind::Data(_)) | None => self.core.counters.drop_bad_mac1 += 1,
        }
    }

    fn awaits_response(&self, index: u32) -> Option<PeerId> {
        let id = self.core.indexes.owner(index)?;
        let handshake = self.peers.get(&id)?.handshake.as_ref()?;
        (handshake.local_index == index).then_some(id)
    }

    fn consume_initiation(&mut self, message: &HandshakeMessage, now: Now, out: &mut Vec<Output>) {
        let Some(own) = &self.core.own else { return };
        let bytes: &[u8; INITIATION_LEN] =
            message.bytes.as_slice().try_into().expect("classified by its length");
        self.core.counters.messages_tried += 1;
        let entry = open_initiation(&own.identity, bytes).and_then(|claimed| {
            let id = self.by_key.get(&claimed.remote_static)?;
            let entry = self.peers.get_mut(id)?;
            let remote = &claimed.remote_static;
            let static_static = entry.static_static.get(&own.identity, remote)?.clone();
            let proven = claimed.prove(&static_static)?;
            Some((entry, proven))
        });
        let Some((entry, proven)) = entry else {
            self.core.counters.drop_not_authentic += 1;
            return;
        };
        if proven.timestamp <= entry.greatest_received {
            self.core.counters.drop_replayed += 1;
            return;
        }
        let spacing = self.core.settings.timings.initiation_spacing;
        if entry.last_initiation_received.is_some_and(|last| now.monotonic < last + spacing) {
            self.core.counters.drop_too_soon += 1;
            return;
        }
        self.core.respond(entry, proven, message.from, now, out);
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
    /// Whether to spend a DH on an initiation or response. Under load, sources without a valid mac2
    /// get a cookie reply; others are rate-limited.
    fn admit(
        &mut self,
        bytes: &[u8],
        from: Endpoint,
        under_load: bool,
        now: Now,
        out: &mut Vec<Output>,
    ) -> bool {
        let Some(own) = &mut self.own else { return false };
        let now = now.monotonic;
        let state = own.checker.judge(bytes, from.remote, under_load, now, &mut *self.rng);
        match state {
            MacState::Invalid => {
                self.counters.drop_bad_mac1 += 1;
                false
            }
            MacState::ValidMac1 if !under_load => true,
            MacState::ValidMac1 => {
                let sender = u32::from_le_bytes(bytes[4..8].try_into().expect("four bytes"));
                let reply = own.checker.reply(bytes, sender, from.remote, now, &mut *self.rng);
                let message = ArrayVec::try_from(reply.as_slice()).expect("shorter than any");
                out.push(Output::Send { peer: None, to: from, message });
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

    /// Answers an authentic, fresh initiation, which replaces a handshake of our own.
    fn respond(
        &mut self,
        entry: &mut PeerEntry,
        proven: Proven,
        from: Endpoint,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        // The flags may hold the confirmation of the session that this one replaces.
        self.apply_flags(entry, now, out);
        entry.greatest_received = proven.timestamp;
        entry.last_initiation_received = Some(now.monotonic);
        self.abandon_handshake(entry, out);
        entry.shared.set_endpoint(from);
        let local_index = self.allocate_index(entry);
        let mut message = [0; RESPONSE_LEN];
        let ephemeral = self.random_secret();
        let Some(keys) = proven.respond(&entry.psk, &ephemeral, local_index, &mut message) else {
            self.indexes.free_unannounced(local_index);
            return;
        };
        entry.cookie_signer.sign(&mut message, now.monotonic);
        self.begin_as_responder(entry, &keys, local_index, now.monotonic, out);
        entry.shared.counters.received_bytes.add(INITIATION_LEN as u64);
        self.note_received(entry, now);
        self.counters.responses_sent += 1;
        self.send_handshake(entry, &message, now, out);
        self.update_peer(entry, now, out);
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
            return;
        };
        let local_index = initiated.local_index;
        entry.handshake = None;
        self.apply_flags(entry, now, out);
        entry.shared.set_endpoint(message.from);
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
