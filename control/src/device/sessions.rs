//! The previous, current and next session of a peer (noise.c: `add_new_keypair`,
//! `wg_noise_received_with_keypair`).

use std::sync::Arc;

use wg_bounce_aead::Key;
use wg_bounce_dataplane::messages::Command;
use wg_bounce_dataplane::receive_session::ReceiveSession;
use wg_bounce_dataplane::session::{KeypairInfo, SendSession};
use wg_bounce_sys::clock::Millis;

use super::indexes::command;
use super::io::{Now, Output};
use super::peer_entry::{PeerEntry, Sessions};
use super::staged::send_staged;
use super::state::Core;
use crate::noise::SessionKeys;

impl Core {
    pub(super) fn allocate_index(&mut self, entry: &mut PeerEntry) -> u32 {
        self.indexes.allocate(entry, &mut *self.rng)
    }

    /// Tells a worker to pass on the answer to our handshake.
    pub(super) fn expect(&self, index: u32, out: &mut Vec<Output>) {
        out.push(command(index, Command::Expect { index }));
    }

    /// Discards our own handshake, which another one has replaced.
    pub(super) fn abandon_handshake(&mut self, entry: &mut PeerEntry, out: &mut Vec<Output>) {
        if let Some(initiated) = entry.handshake.take() {
            self.indexes.free(initiated.local_index, out);
        }
    }

    /// Installs a session that we initiated; it becomes current at once. An unconfirmed `next`
    /// session becomes the previous one if it is fresh, since the peer may already use it. (The
    /// kernel module keeps it at any age. When handshakes have crossed, an old `next` session is
    /// left over, and the kernel then drops the session in use, with the packets in flight.)
    pub(super) fn begin_as_initiator(
        &mut self,
        entry: &mut PeerEntry,
        keys: &SessionKeys,
        local_index: u32,
        now: Millis,
        out: &mut Vec<Output>,
    ) {
        let session = self.install(entry, keys, local_index, true, now, out);
        out.push(Output::SetSession {
            peer: Arc::clone(&entry.shared),
            session: Some(Arc::clone(&session)),
        });
        let current = entry.sessions.current.replace(session).map(|old| old.info.local_index);
        let next = entry.sessions.next.take().map(|next| next.info);
        let rekey_timeout = self.settings.timings.rekey_timeout;
        let is_fresh = next.is_some_and(|next| now.since(next.created) < rekey_timeout);
        let next = next.map(|next| next.local_index);
        let (previous, dropped) = if is_fresh { (next, current) } else { (current, next) };
        let before = std::mem::replace(&mut entry.sessions.previous, previous);
        for index in [dropped, before].into_iter().flatten() {
            self.indexes.free(index, out);
        }
    }

    /// Installs a session that the peer initiated; it must be confirmed before it is used. The
    /// response may never arrive, and the initiation may have been replayed before its original
    /// (§5.4.6).
    pub(super) fn begin_as_responder(
        &mut self,
        entry: &mut PeerEntry,
        keys: &SessionKeys,
        local_index: u32,
        now: Millis,
        out: &mut Vec<Output>,
    ) {
        let session = self.install(entry, keys, local_index, false, now, out);
        let next = entry.sessions.next.replace(session).map(|old| old.info.local_index);
        let previous = entry.sessions.previous.take();
        for index in [next, previous].into_iter().flatten() {
            self.indexes.free(index, out);
        }
    }

    /// Makes the `next` session current: a message received on it proves that the peer has it.
    pub(super) fn confirm(&mut self, entry: &mut PeerEntry, now: Now, out: &mut Vec<Output>) {
        let confirmed = entry.shared.confirmed_index.load(std::sync::atomic::Ordering::Acquire);
        let Some(next) = entry.sessions.next.take_if(|next| next.info.local_index == confirmed)
        else {
            return;
        };
        out.push(Output::SetSession {
            peer: Arc::clone(&entry.shared),
            session: Some(Arc::clone(&next)),
        });
        let current = entry.sessions.current.replace(next).map(|old| old.info.local_index);
        if let Some(before) = std::mem::replace(&mut entry.sessions.previous, current) {
            self.indexes.free(before, out);
        }
        self.counters.sessions_confirmed += 1;
        entry.complete_handshake(now);
        send_staged(entry, out);
    }

    /// Ends all sessions and the handshake of a peer.
    pub(super) fn clear_sessions(&mut self, entry: &mut PeerEntry, out: &mut Vec<Output>) {
        self.abandon_handshake(entry, out);
        let Sessions { previous, current, next } = std::mem::take(&mut entry.sessions);
        if current.is_some() {
            out.push(Output::SetSession { peer: Arc::clone(&entry.shared), session: None });
        }
        let index = |session: Arc<SendSession>| session.info.local_index;
        for index in [previous, current.map(index), next.map(index)].into_iter().flatten() {
            self.indexes.free(index, out);
        }
        self.indexes.release_worker(entry);
    }

    /// Gives the receiving half to its worker, which takes over the index of the handshake.
    fn install(
        &mut self,
        entry: &mut PeerEntry,
        keys: &SessionKeys,
        local_index: u32,
        is_initiator: bool,
        now: Millis,
        out: &mut Vec<Output>,
    ) -> Arc<SendSession> {
        let info = KeypairInfo {
            local_index,
            remote_index: keys.remote_index,
            created: now,
            is_initiator,
            lifetime: self.settings.timings.lifetime,
        };
        let peer = Arc::clone(&entry.shared);
        let receive = ReceiveSession::new(Key::new(&keys.receive), info, peer);
        out.push(command(local_index, Command::Install(Box::new(receive))));
        entry.timers.unanswered_jitter = self.jitter();
        entry.timers.zero_keys_at = Some(now + self.settings.timings.keys_zeroed_after);
        Arc::new(SendSession::new(Key::new(&keys.send), info))
    }
}
