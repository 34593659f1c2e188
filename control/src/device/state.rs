//! The protocol state of one interface.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use ipnet::IpNet;
use rand_core::{CryptoRng, Rng};
use wg_bounce_dataplane::peer::{Peer, PeerId};
use wg_bounce_dataplane::routes::Routes;
use wg_bounce_sys::clock::Millis;

use super::counters::Counters;
use super::indexes::Indexes;
use super::io::Settings;
use super::peer_entry::PeerEntry;
use super::remembered::Remembered;
use crate::cookie::Checker;
use crate::noise::{Identity, Secret};
use crate::rate_limit::RateLimiter;
use crate::tai64n::Timestamp;
use crate::timer_queue::TimerQueue;

/// All protocol state of one interface.
pub struct Device {
    /// Boxed, since the nodes of the tree are half empty.
    pub(super) peers: BTreeMap<PeerId, Box<PeerEntry>>,
    pub(super) by_key: HashMap<[u8; 32], PeerId>,
    pub(super) next_id: u32,
    pub(super) routes: Routes<Arc<Peer>>,
    /// Allowed IPs inserted so far: `get` lists those of a peer in the order of insertion.
    pub(super) allowed_ips_inserted: u64,
    /// See [`Device::allowed_ips_version`].
    pub(super) allowed_ips_version: u64,
    pub(super) transaction: Transaction,
    /// Peers whose static–static DH may be unknown, in the order in which it will be computed.
    pub(super) unprepared: VecDeque<PeerId>,
    pub(super) remembered: Remembered,
    /// Removed peers for which a worker may still stage a packet, with the end of that time.
    pub(super) lingering: VecDeque<(Millis, Arc<Peer>)>,
    pub(super) core: Core,
}

/// State shared by all peers. Kept apart from the peers, so that one peer and the core can be
/// borrowed together.
pub(super) struct Core {
    pub(super) settings: Settings,
    pub(super) rng: Box<dyn CryptoRng + Send>,
    pub(super) own: Option<Own>,
    pub(super) is_up: bool,
    pub(super) indexes: Indexes,
    pub(super) queue: TimerQueue,
    /// The greatest timestamp sent to each removed peer, by public key.
    pub(super) removed_timestamps: HashMap<[u8; 32], Timestamp>,
    /// Time of the last warning that the wall clock is behind.
    pub(super) warned_of_clock: Option<Millis>,
    /// Time of the last line about a key that no peer has.
    pub(super) logged_unknown: Option<Millis>,
    pub(super) limiter: RateLimiter,
    pub(super) counters: Counters,
}

/// Values derived from our private key.
pub(super) struct Own {
    /// Shared with the pending responses.
    pub(super) identity: Arc<Identity>,
    pub(super) checker: Checker,
}

/// Changes made so far by the current `set`.
#[derive(Default)]
pub(super) struct Transaction {
    /// The tables have changed.
    pub(super) publish: bool,
    /// There is a new private key.
    pub(super) has_new_key: bool,
    /// Peers to be removed at the end unless a later line names them (`replace_peers`).
    pub(super) doomed: BTreeSet<PeerId>,
    /// Changed peers, with what they had before.
    pub(super) touched: BTreeMap<PeerId, Before>,
    /// Peers already removed.
    pub(super) removed: Vec<Arc<Peer>>,
    /// Prefixes taken from one peer for another, with both peers: the first few.
    pub(super) moved: Vec<(IpNet, PeerId, PeerId)>,
    /// Their number.
    pub(super) moved_count: usize,
}

/// Settings of a peer before a `set` changed it.
#[derive(Clone, Copy)]
pub(super) struct Before {
    pub(super) had_keepalive: bool,
    pub(super) had_endpoint: bool,
}

impl Core {
    /// Whether anything may be sent or received: the interface is up and has a private key.
    pub(super) fn is_active(&self) -> bool {
        self.is_up && self.own.is_some()
    }

    /// 32 fresh random bytes.
    pub(super) fn random_secret(&mut self) -> Secret {
        let mut secret = Secret::default();
        self.rng.fill_bytes(&mut *secret);
        secret
    }

    /// A random delay, added to REKEY_TIMEOUT.
    pub(super) fn jitter(&mut self) -> Millis {
        let max = self.settings.timings.jitter_max.0.max(1);
        Millis(u64::from(self.rng.next_u32()) % max)
    }
}
