//! The device: a pure reducer of handshake messages, notices, deadlines, link state and
//! configuration into commands for the workers, messages to send, and tables to publish.
//!
//! Time, wall clock and randomness are arguments. What comes out is to be executed strictly in
//! order: a session is installed at its worker before anything makes the peer use it.
//!
//! - `handshakes`: messages from peers (receive.c).
//! - `timing`: what is due, and our own handshakes (timers.c, send.c).
//! - `sessions`: previous, current and next (noise.c).
//! - `config`: the changes of a UAPI `set` (netlink.c).
//! - `entry`: all that is known of one peer.

mod config;
mod entry;
mod handshakes;
mod sessions;
mod timing;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrayvec::ArrayVec;
use rand_core::CryptoRng;
use wg_bounce_dataplane::messages::{Command, HandshakeMessage};
use wg_bounce_dataplane::peer::{Peer, PeerId};
use wg_bounce_dataplane::routes::Routes;
use wg_bounce_dataplane::session::SendSession;
use wg_bounce_dataplane::wire::HANDSHAKE_LEN_MAX;
use wg_bounce_sys::Endpoint;
use wg_bounce_sys::clock::Millis;
use wg_bounce_uapi::types::{PeerState, SecretKey};

use crate::cookie::Checker;
use crate::limits::TIMERS_PER_CALL_MAX;
use crate::noise::Identity;
use crate::rate_limit::RateLimiter;
use crate::tai64n::TimestampSource;
use crate::timer_queue::TimerQueue;
use config::Transaction;
use entry::PeerEntry;
use sessions::Indexes;

pub use crate::timers::Timings;

/// The time of an input.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Of the boot clock: what all timers use.
    pub monotonic: Millis,
    /// Since the Unix epoch; may jump. Only timestamps and `last_handshake` use it.
    pub wall: Duration,
}

/// What a device is made with.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Workers, at least one; the low byte of each index names one.
    pub workers: usize,
    /// The spans of the protocol.
    pub timings: Timings,
}

/// Something happened.
pub enum Input<'a> {
    /// An initiation, response or cookie reply arrived.
    Handshake {
        /// The message and where it came from.
        message: &'a HandshakeMessage,
        /// More messages wait than can be handled at once: senders must prove their address.
        under_load: bool,
    },
    /// A worker queued a notice about this peer.
    Peer(PeerId),
    /// [`Device::next_deadline`] has come.
    Deadline,
    /// The interface was set up or down.
    Link {
        /// Whether it is up now.
        up: bool,
    },
}

/// Something is to be done, in the order given.
pub enum Output {
    /// Give this to one worker.
    Command {
        /// The worker's number.
        worker: usize,
        /// The command.
        command: Command,
    },
    /// Publish (or withdraw) the session that a peer is sent to with. The one it replaces is to
    /// be dropped by control, when no worker refers to it any more.
    SetSession {
        /// The peer.
        peer: Arc<Peer>,
        /// The session; none withdraws it.
        session: Option<Arc<SendSession>>,
    },
    /// Send a handshake message.
    Send {
        /// Whose `tx_bytes` count it; none for a cookie reply.
        peer: Option<Arc<Peer>>,
        /// Where to.
        to: Endpoint,
        /// The datagram's payload.
        message: ArrayVec<u8, HANDSHAKE_LEN_MAX>,
    },
    /// Routes, mac1 key or link state changed: publish a snapshot.
    Publish,
}

/// What happened to handshakes so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Initiations sent.
    pub initiations_sent: u64,
    /// Responses sent.
    pub responses_sent: u64,
    /// Cookie replies sent.
    pub cookie_replies_sent: u64,
    /// Initiations and responses whose content was looked at, at the cost of a DH.
    pub messages_tried: u64,
    /// Sessions that we began and got a response for.
    pub sessions_initiated: u64,
    /// Sessions that a peer began and confirmed.
    pub sessions_confirmed: u64,
    /// Cookies received.
    pub cookies_received: u64,
    /// Handshakes given up.
    pub given_up: u64,
    /// Messages dropped: the link is down or there is no private key.
    pub drop_inactive: u64,
    /// Messages dropped: malformed, or mac1 is wrong.
    pub drop_bad_mac1: u64,
    /// Messages dropped: for an index that we do not have, or await nothing for.
    pub drop_unknown_index: u64,
    /// Messages dropped: more than their source may send under load.
    pub drop_rate_limited: u64,
    /// Messages dropped: not authentic, or from nobody we know.
    pub drop_not_authentic: u64,
    /// Initiations dropped: their timestamp is not new.
    pub drop_replayed: u64,
    /// Initiations dropped: too soon after the peer's last one.
    pub drop_too_soon: u64,
}

impl Counters {
    /// Every counter with its name.
    pub fn list(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("initiations_sent", self.initiations_sent),
            ("responses_sent", self.responses_sent),
            ("cookie_replies_sent", self.cookie_replies_sent),
            ("messages_tried", self.messages_tried),
            ("sessions_initiated", self.sessions_initiated),
            ("sessions_confirmed", self.sessions_confirmed),
            ("cookies_received", self.cookies_received),
            ("given_up", self.given_up),
            ("drop_inactive", self.drop_inactive),
            ("drop_bad_mac1", self.drop_bad_mac1),
            ("drop_unknown_index", self.drop_unknown_index),
            ("drop_rate_limited", self.drop_rate_limited),
            ("drop_not_authentic", self.drop_not_authentic),
            ("drop_replayed", self.drop_replayed),
            ("drop_too_soon", self.drop_too_soon),
        ]
        .into_iter()
    }
}

/// All protocol state of one interface.
pub struct Device {
    peers: BTreeMap<PeerId, PeerEntry>,
    by_key: HashMap<[u8; 32], PeerId>,
    next_id: u32,
    routes: Routes<Arc<Peer>>,
    /// Order in which allowed IPs were given; the answers to `get` keep it.
    allowed_ips_inserted: u64,
    transaction: Transaction,
    /// Removed peers for which a worker may still stage a packet, until when.
    lingering: VecDeque<(Millis, Arc<Peer>)>,
    core: Core,
}

/// What the state of one peer is changed with.
struct Core {
    settings: Settings,
    rng: Box<dyn CryptoRng + Send>,
    own: Option<Own>,
    is_up: bool,
    indexes: Indexes,
    queue: TimerQueue,
    timestamps: TimestampSource,
    limiter: RateLimiter,
    counters: Counters,
}

/// What follows from our private key.
struct Own {
    identity: Identity,
    checker: Checker,
}

impl Device {
    /// A device that is down, without private key and peers.
    ///
    /// # Panics
    /// If there is no worker, or more than an index can name.
    pub fn new(settings: Settings, rng: Box<dyn CryptoRng + Send>, _now: Now) -> Device {
        let workers = 1..=wg_bounce_dataplane::limits::WORKERS_MAX;
        assert!(workers.contains(&settings.workers), "the low byte of an index names a worker");
        Device {
            peers: BTreeMap::new(),
            by_key: HashMap::new(),
            next_id: 0,
            routes: Routes::default(),
            allowed_ips_inserted: 0,
            transaction: Transaction::default(),
            lingering: VecDeque::new(),
            core: Core {
                settings,
                rng,
                own: None,
                is_up: false,
                indexes: Indexes::new(settings.workers),
                queue: TimerQueue::default(),
                timestamps: TimestampSource::default(),
                limiter: RateLimiter::default(),
                counters: Counters::default(),
            },
        }
    }

    /// Takes in what happened; what is to be done is added to `out`.
    pub fn handle(&mut self, input: Input<'_>, now: Now, out: &mut Vec<Output>) {
        match input {
            Input::Handshake { message, under_load } => {
                self.handle_message(message, under_load, now, out);
            }
            Input::Peer(id) => {
                if let Some(entry) = self.peers.get_mut(&id) {
                    self.core.update_peer(entry, now, out);
                }
            }
            Input::Deadline => self.handle_deadline(now, out),
            Input::Link { up } => self.handle_link(up, now, out),
        }
    }

    /// When [`Input::Deadline`] is due; none while everything is idle. It may still lie in the
    /// past after a `Deadline` was handled: one call does a bounded amount of work.
    pub fn next_deadline(&self) -> Option<Millis> {
        let lingering = self.lingering.front().map(|&(until, _)| until);
        let deadlines = [self.core.queue.next(), self.core.limiter.sweep_at(), lingering];
        deadlines.into_iter().flatten().min()
    }

    /// Allowed IPs of all peers.
    pub fn routes(&self) -> Routes<Arc<Peer>> {
        self.routes.clone()
    }

    /// The key of mac1 in messages to us; none without a private key.
    pub fn mac1_key(&self) -> Option<[u8; 32]> {
        self.core.own.as_ref().map(|own| own.checker.mac1_key())
    }

    /// Whether the interface is up, as far as [`Input::Link`] has told.
    pub fn is_up(&self) -> bool {
        self.core.is_up
    }

    /// Our private key (clamped).
    pub fn private_key(&self) -> Option<SecretKey> {
        self.core.own.as_ref().map(|own| own.identity.private())
    }

    /// What `get` answers of all peers, in the order in which they were added.
    pub fn peer_states(&self) -> Vec<PeerState> {
        self.peers.values().map(PeerEntry::state).collect()
    }

    /// What workers share of each peer.
    pub fn peers(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.peers.values().map(|entry| &entry.shared)
    }

    /// The number of peers.
    pub fn peers_len(&self) -> usize {
        self.peers.len()
    }

    /// What happened so far.
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
                discard_staged(&peer, out);
            }
        }
        for _ in 0..TIMERS_PER_CALL_MAX {
            let Some(id) = self.core.queue.due(now.monotonic) else { break };
            let entry = self.peers.get_mut(&id).expect("a removed peer has no deadline");
            self.core.update_peer(entry, now, out);
        }
    }

    /// Up: what waited starts. Down: all sessions and all traffic are forgotten (device.c,
    /// `wg_open` and `wg_stop`).
    fn handle_link(&mut self, up: bool, now: Now, out: &mut Vec<Output>) {
        if up == self.core.is_up {
            return;
        }
        self.core.is_up = up;
        out.push(Output::Publish);
        for entry in self.peers.values_mut() {
            entry.shared.clear_marks();
            if up {
                entry.kick(true, now.monotonic);
            } else {
                discard_staged(&entry.shared, out);
                self.core.reset_peer(entry, out);
            }
            self.core.schedule(entry);
        }
    }
}

impl Core {
    /// Whether anything may be sent or taken.
    fn is_active(&self) -> bool {
        self.is_up && self.own.is_some()
    }
}

/// Drops the packets that wait for `peer`, wherever they do.
fn discard_staged(peer: &Arc<Peer>, out: &mut Vec<Output>) {
    for worker in workers_staging(peer) {
        out.push(Output::Command { worker, command: Command::Discard { peer: Arc::clone(peer) } });
    }
}

/// The workers that hold packets for `peer`.
fn workers_staging(peer: &Peer) -> impl Iterator<Item = usize> + use<> {
    let bits = peer.staged_by.load(Ordering::Relaxed);
    (0..u64::BITS as usize).filter(move |worker| bits >> worker & 1 != 0)
}
