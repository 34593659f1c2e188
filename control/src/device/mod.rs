//! The device: a pure reducer. Handshake messages, notices, deadlines, link state and
//! configuration go in; commands for the workers, messages to send and tables to publish come out.
//!
//! Time, wall clock and randomness are arguments. The outputs must be executed in order: a session
//! is installed at its worker before the peer can be led to use it.
//!
//! From the leaves up:
//! - `io`, `counters`: inputs, outputs and counters.
//! - `allowed_ips`, `peer_entry`: everything known about one peer.
//! - `indexes`: receiver indexes and the workers that they name.
//! - `remembered`: where peers could be reached before the start.
//! - `spread`: the pace of handshakes that a change begins.
//! - `state`: the state of the device.
//! - `staged`: commands about staged packets.
//! - `sessions`: previous, current and next session (noise.c).
//! - `timing`: due timers and our own handshakes (timers.c, send.c).
//! - `pending_response`: the computations for a response, which another thread may do.
//! - `initiations`: from an initiation to the session.
//! - `handshakes`: messages from peers (receive.c).
//! - `config`: the changes of a UAPI `set` (netlink.c).

mod allowed_ips;
mod config;
mod counters;
mod handshakes;
mod indexes;
mod initiations;
mod io;
mod peer_entry;
mod pending_response;
mod remembered;
mod sessions;
mod spread;
mod staged;
mod state;
mod timing;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use ipnet::IpNet;
use rand_core::CryptoRng;
use wg_bounce_dataplane::peer::{Peer, PeerId};
use wg_bounce_dataplane::routes::Routes;
use wg_bounce_sys::clock::Millis;
use wg_bounce_uapi::types::{PeerState, SecretKey};

use crate::limits::TIMERS_PER_CALL_MAX;
use crate::noise::Dh;
use crate::rate_limit::RateLimiter;
use crate::timer_queue::TimerQueue;
use indexes::Indexes;
use peer_entry::StaticStatic;
use remembered::Remembered;
use spread::Spread;
use staged::discard_staged;
use state::{Core, Transaction};

pub use crate::timers::Timings;
pub use counters::Counters;
pub use handshakes::Standing;
pub use io::{Input, LogEvent, Now, Output, Reachable, Settings};
pub use pending_response::PendingResponse;
pub use state::Device;

impl Device {
    /// A device that is down, without a private key or peers.
    ///
    /// # Panics
    /// If the number of workers is zero, or larger than an index can name.
    pub fn new(settings: Settings, rng: Box<dyn CryptoRng + Send>) -> Device {
        let workers = 1..=wg_bounce_dataplane::limits::WORKERS_MAX;
        assert!(workers.contains(&settings.workers), "the low byte of an index names a worker");
        Device {
            peers: BTreeMap::new(),
            by_key: HashMap::new(),
            next_id: 0,
            routes: Routes::default(),
            allowed_ips_inserted: 0,
            allowed_ips_version: 0,
            transaction: Transaction::default(),
            unprepared: VecDeque::new(),
            remembered: Remembered::default(),
            lingering: VecDeque::new(),
            core: Core {
                settings,
                rng,
                own: None,
                is_up: false,
                indexes: Indexes::new(settings.workers),
                queue: TimerQueue::default(),
                removed_timestamps: HashMap::new(),
                warned_of_clock: None,
                logged_unknown: None,
                limiter: RateLimiter::default(),
                counters: Counters::default(),
            },
        }
    }

    /// Handles an input, and appends the resulting outputs to `out`.
    pub fn handle(&mut self, input: Input<'_>, now: Now, out: &mut Vec<Output>) {
        match input {
            Input::Handshake { message, under_load } => {
                self.handle_message(message, under_load, now, out);
            }
            Input::Computed(pending) => self.continue_response(pending, now, out),
            Input::Peer(id) => {
                if let Some(entry) = self.peers.get_mut(&id) {
                    self.core.update_peer(entry, now, out);
                }
            }
            Input::Deadline => self.handle_deadline(now, out),
            Input::Link { up } => self.handle_link(up, now, out),
        }
    }

    /// Time at which [`Input::Deadline`] is due; none while everything is idle. May be in the past
    /// even after a `Deadline`, since one call does a bounded amount of work.
    pub fn next_deadline(&self) -> Option<Millis> {
        let lingering = self.lingering.front().map(|&(until, _)| until);
        let deadlines = [self.core.queue.next(), self.core.limiter.sweep_at(), lingering];
        deadlines.into_iter().flatten().min()
    }

    /// Remembers where peers could be reached before this start. They are asked for a handshake as
    /// soon as they are configured and the interface is up.
    pub fn remember(&mut self, peers: impl Iterator<Item = Reachable>, now: Millis) {
        self.remembered = Remembered::new(peers, now);
    }

    /// The peers with a session, and those that had one before this start, where they can be
    /// reached.
    pub fn reachable(&self, now: Millis) -> Vec<Reachable> {
        let alive = self.peers.values().filter(|entry| entry.can_send(now));
        let alive = alive.filter_map(|entry| {
            let endpoint = entry.shared.endpoint()?.remote;
            let public_key = entry.shared.public_key;
            Some(Reachable { public_key, endpoint, age: Millis::ZERO })
        });
        let has_session =
            |key: &[u8; 32]| self.by_key.get(key).is_some_and(|id| self.peers[id].can_send(now));
        let before = self.remembered.valid(now).filter(|peer| !has_session(&peer.public_key));
        alive.chain(before).collect()
    }

    /// Computes the static–static DH of at most `count` peers ahead of their first handshake;
    /// returns whether there are more.
    pub fn prepare(&mut self, count: usize) -> bool {
        let Some(own) = &self.core.own else { return false };
        let mut left = count;
        while left != 0 {
            let Some(id) = self.unprepared.pop_front() else {
                self.unprepared = VecDeque::new();
                return false;
            };
            // Some were removed meanwhile, or have shaken hands.
            let Some(entry) = self.peers.get_mut(&id) else { continue };
            if matches!(entry.static_static, StaticStatic::Unknown) {
                let _known = entry.static_static.get(&own.identity, &entry.shared.public_key);
                left -= 1;
            }
        }
        !self.unprepared.is_empty()
    }

    /// The age at which a session ends.
    pub fn session_lifetime(&self) -> Millis {
        self.core.settings.timings.lifetime.reject_after
    }

    /// Allowed IPs of all peers.
    pub fn routes(&self) -> Routes<Arc<Peer>> {
        self.routes.clone()
    }

    /// A number that changes with every change of the allowed IPs of all peers together.
    pub fn allowed_ips_version(&self) -> u64 {
        self.allowed_ips_version
    }

    /// The allowed IPs of all peers.
    pub fn allowed_ips(&self) -> impl Iterator<Item = IpNet> {
        self.peers.values().flat_map(|peer| peer.allowed_ips.prefixes())
    }

    /// The public key of the peer that owns an address.
    pub fn owner_of(&self, address: IpAddr) -> Option<&[u8; 32]> {
        let owner = self.routes.lookup(address)?.id;
        self.peers.get(&owner).map(|peer| &peer.shared.public_key)
    }

    /// The key of mac1 in messages to us; none without a private key.
    pub fn mac1_key(&self) -> Option<[u8; 32]> {
        self.core.own.as_ref().map(|own| own.checker.mac1_key())
    }

    /// Whether the interface is up, according to the last [`Input::Link`].
    pub fn is_up(&self) -> bool {
        self.core.is_up
    }

    /// Our private key (clamped).
    pub fn private_key(&self) -> Option<SecretKey> {
        self.core.own.as_ref().map(|own| own.identity.private())
    }

    /// The public key, if there is a private key.
    pub fn public_key(&self) -> Option<&[u8; 32]> {
        self.core.own.as_ref().map(|own| own.identity.public())
    }

    /// The state of all peers as reported by `get`, in the order in which they were added.
    pub fn peer_states(&self) -> Vec<PeerState> {
        self.peer_states_after(None).map(|(_, state)| state).collect()
    }

    /// The state of each peer that follows `after`, in the order of configuration.
    pub fn peer_states_after(
        &self,
        after: Option<PeerId>,
    ) -> impl Iterator<Item = (PeerId, PeerState)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.peers.range((start, Bound::Unbounded)).map(|(id, entry)| (*id, entry.state()))
    }

    /// The part of each peer that is shared with the workers.
    pub fn peers(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.peers.values().map(|entry| &entry.shared)
    }

    /// The number of peers.
    pub fn peers_len(&self) -> usize {
        self.peers.len()
    }

    /// The implementation of X25519 in use.
    pub fn dh(&self) -> Dh {
        self.core.settings.dh
    }

    /// The counters of handshakes.
    pub fn counters(&self) -> Counters {
        self.core.counters
    }

    /// Sizes of everything that grows: indexes, deadlines, rate limiter entries.
    pub fn sizes(&self) -> (usize, usize, usize) {
        (self.core.indexes.len(), self.core.queue.len(), self.core.limiter.len())
    }

    fn handle_deadline(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.core.limiter.sweep_at().is_some_and(|at| at <= now.monotonic) {
            self.core.limiter.sweep(now.monotonic);
        }
        while let Some((until, _)) = self.lingering.front() {
            if *until > now.monotonic {
                break;
            }
            if let Some((_, peer)) = self.lingering.pop_front() {
                // Packets that still wait for a full socket must not be staged after this.
                peer.forget_path();
                discard_staged(&peer, out);
            }
        }
        for _ in 0..TIMERS_PER_CALL_MAX {
            let Some(id) = self.core.queue.due(now.monotonic) else { break };
            let entry = self.peers.get_mut(&id).expect("a removed peer has no deadline");
            self.core.update_peer(entry, now, out);
        }
    }

    /// Up: starts pending handshakes and keepalives. Down: ends all sessions, and drops staged
    /// packets (device.c, `wg_open` and `wg_stop`).
    fn handle_link(&mut self, up: bool, now: Now, out: &mut Vec<Output>) {
        if up == self.core.is_up {
            if !up {
                // It was up for too short a time to be noticed, or has no sockets.
                self.peers.values().for_each(|entry| discard_staged(&entry.shared, out));
            }
            return;
        }
        self.core.is_up = up;
        out.push(Output::Publish);
        let mut spread = Spread::new(now.monotonic);
        for entry in self.peers.values_mut() {
            entry.shared.clear_marks();
            if up {
                self.remembered.recall(entry, now.monotonic);
                entry.kick(true, &mut spread);
            } else {
                discard_staged(&entry.shared, out);
                self.core.reset_peer(entry, out);
            }
            self.core.schedule(entry);
        }
    }
}
