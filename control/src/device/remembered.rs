//! Endpoints of peers before this daemon was started.

use std::collections::HashMap;
use std::net::SocketAddr;

use wg_bounce_sys::Endpoint;
use wg_bounce_sys::clock::Millis;

use super::io::Reachable;
use super::peer_entry::PeerEntry;
use crate::limits::STATE_AGE_MAX;

/// Endpoints by public key, each with the time at which it expires.
#[derive(Default)]
pub(super) struct Remembered(HashMap<[u8; 32], (SocketAddr, Millis)>);

impl Remembered {
    /// These peers, from `now` on.
    pub(super) fn new(peers: impl Iterator<Item = Reachable>, now: Millis) -> Remembered {
        let until = |age: Millis| now + STATE_AGE_MAX - age.min(STATE_AGE_MAX);
        Remembered(peers.map(|peer| (peer.public_key, (peer.endpoint, until(peer.age)))).collect())
    }

    /// Has a peer without a session asked for a handshake: at the remembered endpoint, unless its
    /// configuration names one. `PeerEntry::kick` must follow.
    pub(super) fn recall(&self, entry: &mut PeerEntry, now: Millis) {
        let Some(&(remote, until)) = self.0.get(&entry.shared.public_key) else { return };
        if now > until || entry.can_send(now) {
            return;
        }
        if entry.shared.endpoint().is_none() {
            entry.shared.set_endpoint(Endpoint { remote, source: None });
        }
        entry.timers.kick_keepalive = true;
    }

    /// Forgets a peer that was removed.
    pub(super) fn forget(&mut self, public_key: &[u8; 32]) {
        self.0.remove(public_key);
    }

    /// Those that have not expired.
    pub(super) fn valid(&self, now: Millis) -> impl Iterator<Item = Reachable> {
        let valid = self.0.iter().filter(move |(_, (_, until))| now <= *until);
        valid.map(move |(&public_key, &(endpoint, until))| {
            let age = STATE_AGE_MAX - until.since(now).min(STATE_AGE_MAX);
            Reachable { public_key, endpoint, age }
        })
    }

    /// Frees the memory once all have expired.
    pub(super) fn sweep(&mut self, now: Millis) {
        if !self.0.is_empty() && self.valid(now).next().is_none() {
            self.0 = HashMap::new();
        }
    }
}
