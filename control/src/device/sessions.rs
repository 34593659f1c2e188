//! Indexes, and the previous, current and next session of a peer (noise.c: `add_new_keypair`,
//! `wg_noise_received_with_keypair`).

use std::collections::HashMap;
use std::sync::Arc;

use rand_core::CryptoRng;
use wg_bounce_aead::Key;
use wg_bounce_dataplane::messages::Command;
use wg_bounce_dataplane::peer::PeerId;
use wg_bounce_dataplane::session::{KeypairInfo, ReceiveSession, SendSession};
use wg_bounce_sys::clock::Millis;

use super::entry::PeerEntry;
use super::{Core, Now, Output, workers_staging};
use crate::noise::SessionKeys;

/// The sessions of one peer. Of the previous one only the receiving half is of use.
#[derive(Default)]
pub(super) struct Sessions {
    /// Our index of the session before the current one: what is on its way still arrives.
    pub(super) previous: Option<u32>,
    /// What we send with.
    pub(super) current: Option<Arc<SendSession>>,
    /// A session that the peer began and has not confirmed yet: nothing may be sent with it.
    pub(super) next: Option<Arc<SendSession>>,
}

/// The indexes that messages to us may bear, and the workers they name.
pub(super) struct Indexes {
    owners: HashMap<u32, PeerId>,
    /// Peers per worker that have been assigned to it.
    load: Vec<u32>,
}

impl Indexes {
    pub(super) fn new(workers: usize) -> Indexes {
        Indexes { owners: HashMap::new(), load: vec![0; workers] }
    }

    pub(super) fn owner(&self, index: u32) -> Option<PeerId> {
        self.owners.get(&index).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.owners.len()
    }

    /// A fresh index of the peer's worker: random, so that nobody can guess it and none comes
    /// back while an old message may bear it.
    fn allocate(&mut self, entry: &mut PeerEntry, rng: &mut dyn CryptoRng) -> u32 {
        let worker = *entry.worker.get_or_insert_with(|| {
            let least = (0..self.load.len()).min_by_key(|&worker| self.load[worker]);
            let least = least.expect("there is a worker");
            self.load[least] += 1;
            least
        });
        loop {
            let index = rng.next_u32() & !0xff | worker as u32;
            if let std::collections::hash_map::Entry::Vacant(slot) = self.owners.entry(index) {
                slot.insert(entry.shared.id);
                return index;
            }
        }
    }

    fn free(&mut self, index: u32, out: &mut Vec<Output>) {
        let was_there = self.owners.remove(&index).is_some();
        debug_assert!(was_there, "an index is freed once");
        out.push(command(index, Command::Forget { index }));
    }

    /// A peer without sessions may come back at another worker.
    fn release_worker(&mut self, entry: &mut PeerEntry) {
        if let Some(worker) = entry.worker.take() {
            self.load[worker] -= 1;
        }
    }
}

/// A command for the worker that `index` names.
fn command(index: u32, command: Command) -> Output {
    Output::Command { worker: (index & 0xff) as usize, command }
}

impl Core {
    pub(super) fn allocate_index(&mut self, entry: &mut PeerEntry) -> u32 {
        self.indexes.allocate(entry, &mut *self.rng)
    }

    /// An index that was never announced to a worker is no index after all.
    pub(super) fn return_index(&mut self, index: u32) {
        self.indexes.owners.remove(&index);
    }

    /// A worker lets the answer to our handshake pass from now on.
    pub(super) fn expect(&self, index: u32, out: &mut Vec<Output>) {
        out.push(command(index, Command::Expect { index }));
    }

    /// The handshake that we began is void: another one has taken its place.
    pub(super) fn abandon_handshake(&mut self, entry: &mut PeerEntry, out: &mut Vec<Output>) {
        if let Some(initiated) = entry.handshake.take() {
            self.indexes.free(initiated.local_index, out);
        }
    }

    /// The initiator's session is current at once. A `next` one that was not confirmed becomes
    /// the previous if it is fresh: the peer may be using it by now. (The kernel module does so
    /// at any age, and drops the session that the peer really uses, with the packets that are
    /// on their way: an old `next` is what remains when handshakes crossed.)
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

    /// The responder's session waits for its confirmation: the response may never arrive, and
    /// what arrives here may be an initiation replayed before its original (§5.4.6).
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

    /// A message arrived on the `next` session: the peer has it, so it becomes current.
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
        flush_staged(entry, out);
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

    /// Hands the receiving half to its worker, which takes the index over from the handshake.
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

impl PeerEntry {
    /// Both ends have the session (timers.c: `wg_timers_handshake_complete`).
    pub(super) fn complete_handshake(&mut self, now: Now) {
        self.timers.retransmit_at = None;
        self.began_last_minute = false;
        self.last_handshake = now.wall;
    }
}

/// Has the workers send what waits for this peer.
pub(super) fn flush_staged(entry: &PeerEntry, out: &mut Vec<Output>) {
    for worker in workers_staging(&entry.shared) {
        let peer = Arc::clone(&entry.shared);
        out.push(Output::Command { worker, command: Command::Flush { peer } });
    }
}
