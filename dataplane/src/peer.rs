//! The state of a peer that all threads share: endpoint, sending session, counters, and the marks
//! that the packet path leaves for the timers.
//!
//! Lock-free: every field is an atomic or is swapped whole. Workers write marks with the coarse
//! time of their turn; control evaluates them when a deadline computed from them comes, so that an
//! idle peer costs nothing (§6; drivers/net/wireguard/timers.c).

use std::sync::Arc;

use wg_bounce_sys::Endpoint;
use wg_bounce_sys::clock::Millis;

use crate::counters::PeerCounters;
use crate::limits::{LOOP_LOG_AFTER, ROAMING_NOTICE_INTERVAL};
use crate::path::Path;
use crate::session::SendSession;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use crate::sync::{ArcSwapOption, Guard};

/// The number of a configured peer. A number is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u32);

/// Flags that a worker raises for control. They are coalesced: a flood of packets queues one notice
/// per peer.
pub mod flag {
    /// The session is missing, dead or old: a handshake is due (§6.2, §6.3).
    pub const WANTS_HANDSHAKE: u32 = 1 << 0;
    /// A handshake is due because the session that we receive with nears its end (§6.2: the
    /// initiator, once per session; the kernel's `sent_lastminute_handshake`).
    pub const WANTS_LAST_MINUTE_HANDSHAKE: u32 = 1 << 1;
    /// The first authentic message arrived on the session [`super::Peer::confirmed_index`].
    pub const CONFIRMED: u32 = 1 << 2;
    /// Traffic began on a peer that control does not watch.
    pub const TRAFFIC_SEEN: u32 = 1 << 3;
    /// The peer has roamed.
    pub const ROAMED: u32 = 1 << 4;
}

/// The part of a peer that workers and control share.
pub struct Peer {
    /// The peer's number.
    pub id: PeerId,
    /// The peer's static public key.
    pub public_key: [u8; 32],
    path: ArcSwapOption<Path>,
    session: ArcSwapOption<SendSession>,
    /// Its traffic and drops.
    pub counters: PeerCounters,
    /// Staged packets, over all workers.
    pub staged: AtomicU32,
    /// The workers (one bit each) that hold staged packets.
    pub staged_by: AtomicU64,
    /// Index of the newest session on which an authentic message has arrived.
    pub confirmed_index: AtomicU32,
    /// Our index in the last handshake message to the peer, plus one; zero: none was sent.
    handshake_index: AtomicU64,
    /// Time of the last message to the peer that looped; zero if none (milliseconds).
    looped_at: AtomicU64,
    /// Time at which control was last told of another endpoint; zero if never (milliseconds).
    roamed_at: AtomicU64,
    /// [`flag`]s raised and not yet taken.
    flags: AtomicU32,
    /// Nonzero while control has a deadline for this peer and looks at the marks by itself.
    watched: AtomicU32,
    /// Time of the first data sent since anything was received; zero if none (milliseconds).
    unanswered_since: AtomicU64,
    /// Time of the first data received since anything was sent; zero if none (milliseconds).
    owed_since: AtomicU64,
    last_data_received: AtomicU64,
    last_sent: AtomicU64,
    last_received: AtomicU64,
}

/// One reading of a peer's marks; zero means never or none (milliseconds of the boot clock).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Time of the first data sent that nothing has answered yet.
    pub unanswered_since: Millis,
    /// Time of the first data received that nothing sent has acknowledged yet.
    pub owed_since: Millis,
    /// Time of the last data received (not a keepalive).
    pub last_data_received: Millis,
    /// Time of the last authenticated message sent.
    pub last_sent: Millis,
    /// Time of the last authentic message received.
    pub last_received: Millis,
}

impl Peer {
    /// A peer without endpoint, session or traffic.
    pub fn new(id: PeerId, public_key: [u8; 32]) -> Peer {
        Peer {
            id,
            public_key,
            path: ArcSwapOption::empty(),
            session: ArcSwapOption::empty(),
            counters: PeerCounters::default(),
            staged: AtomicU32::new(0),
            staged_by: AtomicU64::new(0),
            confirmed_index: AtomicU32::new(0),
            handshake_index: AtomicU64::new(0),
            looped_at: AtomicU64::new(0),
            roamed_at: AtomicU64::new(0),
            flags: AtomicU32::new(0),
            watched: AtomicU32::new(0),
            unanswered_since: AtomicU64::new(0),
            owed_since: AtomicU64::new(0),
            last_data_received: AtomicU64::new(0),
            last_sent: AtomicU64::new(0),
            last_received: AtomicU64::new(0),
        }
    }

    /// The path to the peer; hold the guard only briefly.
    pub fn path(&self) -> Guard<Option<Arc<Path>>> {
        self.path.load()
    }

    /// The peer's endpoint, if known.
    pub fn endpoint(&self) -> Option<Endpoint> {
        self.path.load().as_ref().map(|path| path.endpoint)
    }

    /// Publishes the peer's endpoint; only for configuration and authentic messages (§6.6). Does
    /// nothing, and allocates nothing, if the endpoint is unchanged. Of two threads that publish at
    /// once, either may be the last. Returns whether the peer had another address or port before.
    pub fn set_endpoint(&self, endpoint: Endpoint) -> bool {
        let before = self.endpoint();
        if before == Some(endpoint) {
            return false;
        }
        self.path.store(Some(Arc::new(Path::new(endpoint))));
        before.is_some_and(|before| before.remote != endpoint.remote)
    }

    /// Records that the peer has roamed. Returns true if control must be told: once a second.
    #[must_use]
    pub fn note_roamed(&self, now: Millis) -> bool {
        let before = Millis(self.roamed_at.load(Ordering::Relaxed));
        let is_due = before == Millis::ZERO || now.since(before) >= ROAMING_NOTICE_INTERVAL;
        if is_due {
            self.roamed_at.store(now.0, Ordering::Relaxed);
        }
        is_due
    }

    /// Forgets our source address, which has vanished, unless the endpoint has changed since: one
    /// that another thread learns meanwhile is never overwritten.
    pub fn forget_source(&self, known: Endpoint) {
        if known.source.is_none() {
            return;
        }
        self.path.rcu(|path| match path {
            Some(path) if path.endpoint == known => {
                Some(Arc::new(Path::new(Endpoint { source: None, ..known })))
            }
            other => other.clone(),
        });
    }

    /// Makes a removed peer unreachable for good: nothing is sent or staged for it.
    pub fn forget_path(&self) {
        self.path.store(None);
    }

    /// The session to send with; hold the guard only briefly.
    pub fn session(&self) -> Guard<Option<Arc<SendSession>>> {
        self.session.load()
    }

    /// Publishes the session to send with; returns the old one, which only control may drop. With
    /// none, the old one ends: what workers have sealed with it and still hold does not leave, also
    /// if the next session comes at once.
    #[must_use = "control keeps the old session until no worker refers to it"]
    pub fn set_session(&self, session: Option<Arc<SendSession>>) -> Option<Arc<SendSession>> {
        let is_withdrawn = session.is_none();
        let old = self.session.swap(session);
        if is_withdrawn && let Some(old) = &old {
            old.end();
        }
        old
    }

    /// Our index in the last handshake message that was sent to the peer.
    pub fn handshake_index(&self) -> Option<u32> {
        self.handshake_index.load(Ordering::Relaxed).checked_sub(1).map(|index| index as u32)
    }

    /// Sets the index that [`Peer::handshake_index`] returns. Only control calls this.
    pub fn set_handshake_index(&self, index: u32) {
        self.handshake_index.store(u64::from(index) + 1, Ordering::Relaxed);
    }

    /// Records a message to the peer that looped. Returns true if the loop must be logged.
    #[must_use]
    pub fn note_loop(&self, now: Millis) -> bool {
        let before = Millis(self.looped_at.swap(now.0, Ordering::Relaxed));
        before == Millis::ZERO || now.since(before) >= LOOP_LOG_AFTER
    }

    /// Records an authenticated message that left (`is_data`: not a keepalive, not a handshake
    /// message). Returns true if the caller must queue a notice for control.
    #[must_use]
    pub fn note_sent(&self, now: Millis, is_data: bool) -> bool {
        self.last_sent.store(now.0, Ordering::Relaxed);
        store_if_changed(&self.owed_since, 0);
        if is_data && self.unanswered_since.load(Ordering::Relaxed) == 0 {
            self.unanswered_since.store(now.0, Ordering::Relaxed);
        }
        self.note_traffic()
    }

    /// Records an authentic message that arrived. Returns true if the caller must queue a notice
    /// for control.
    #[must_use]
    pub fn note_received(&self, now: Millis, is_data: bool) -> bool {
        self.last_received.store(now.0, Ordering::Relaxed);
        store_if_changed(&self.unanswered_since, 0);
        if is_data {
            self.last_data_received.store(now.0, Ordering::Relaxed);
            if self.owed_since.load(Ordering::Relaxed) == 0 {
                self.owed_since.store(now.0, Ordering::Relaxed);
            }
        }
        self.note_traffic()
    }

    /// Raises a [`flag`]. Returns true if the caller must queue a notice for control.
    #[must_use]
    pub fn raise(&self, flag: u32) -> bool {
        // Pairs with the fence of `take_flags`: whoever takes a flag that is already raised then
        // sees what was written before (confirmed_index, staged_by, marks).
        fence(Ordering::SeqCst);
        if self.flags.load(Ordering::Relaxed) & flag == flag {
            return false;
        }
        self.flags.fetch_or(flag, Ordering::AcqRel) == 0
    }

    /// Takes all raised flags. Only control calls this.
    pub fn take_flags(&self) -> u32 {
        let flags = self.flags.swap(0, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        flags
    }

    /// Whether flags are raised and not yet taken. Only control calls this.
    pub fn has_flags(&self) -> bool {
        self.flags.load(Ordering::Relaxed) != 0
    }

    /// Reads the marks. Only control calls this.
    pub fn marks(&self) -> Marks {
        let read = |mark: &AtomicU64| Millis(mark.load(Ordering::Relaxed));
        Marks {
            unanswered_since: read(&self.unanswered_since),
            owed_since: read(&self.owed_since),
            last_data_received: read(&self.last_data_received),
            last_sent: read(&self.last_sent),
            last_received: read(&self.last_received),
        }
    }

    /// Restarts the wait for an answer: a handshake was started because of it. Only control calls
    /// this.
    pub fn clear_unanswered(&self) {
        self.unanswered_since.store(0, Ordering::Relaxed);
    }

    /// Data came after the keepalive became due: the next one is owed from `since`. Only control
    /// calls this.
    pub fn owe_keepalive(&self, since: Millis) {
        self.owed_since.store(since.0, Ordering::Relaxed);
    }

    /// Forgets all traffic, as after the link went down. Only control calls this.
    pub fn clear_marks(&self) {
        for mark in [&self.unanswered_since, &self.owed_since, &self.last_data_received] {
            mark.store(0, Ordering::Relaxed);
        }
        self.last_sent.store(0, Ordering::Relaxed);
        self.last_received.store(0, Ordering::Relaxed);
        self.flags.store(0, Ordering::Relaxed);
    }

    /// Sets whether control has a deadline for this peer. After setting it to false, read the marks
    /// once more: traffic in between raised no flag. Only control calls this.
    pub fn set_watched(&self, watched: bool) {
        self.watched.store(u32::from(watched), Ordering::Relaxed);
        // Pairs with the fence of `note_traffic`.
        fence(Ordering::SeqCst);
    }

    fn note_traffic(&self) -> bool {
        // Pairs with the fence of `set_watched`: either this load sees "unwatched", or control's
        // second look at the marks sees what was stored before it.
        fence(Ordering::SeqCst);
        self.watched.load(Ordering::Relaxed) == 0 && self.raise(flag::TRAFFIC_SEEN)
    }
}

fn store_if_changed(mark: &AtomicU64, value: u64) {
    if mark.load(Ordering::Relaxed) != value {
        mark.store(value, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One thread forgets the source of an endpoint, while another learns the next endpoint: that
    /// one stays, whichever thread is first.
    #[test]
    fn forgetting_a_source_never_undoes_roaming() {
        const ROUNDS: u32 = 200_000;
        // Spins, so that both threads go on at the same moment.
        let wait_for = |number: &AtomicU32, round| {
            let mut tries = 0;
            while number.load(Ordering::Acquire) != round {
                tries += 1;
                if tries % 1000 == 0 {
                    std::thread::yield_now();
                }
            }
        };
        let source = Some("192.0.2.1".parse().expect("an address"));
        let [old, new] = ["192.0.2.2:7", "192.0.2.3:7"]
            .map(|text| Endpoint { remote: text.parse().expect("an address"), source });
        let peer = Peer::new(PeerId(1), [1; 32]);
        let (began, ended) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=ROUNDS {
                    wait_for(&began, round);
                    peer.set_endpoint(new);
                    ended.store(round, Ordering::Release);
                }
            });
            let mut undone = 0;
            for round in 1..=ROUNDS {
                peer.set_endpoint(old);
                began.store(round, Ordering::Release);
                peer.forget_source(old);
                wait_for(&ended, round);
                undone += u32::from(peer.endpoint() != Some(new));
            }
            assert_eq!(undone, 0, "of {ROUNDS}");
        });
    }

    /// The second of two confirmations in quick succession finds the first one's flag raised.
    #[test]
    fn taking_a_raised_flag_shows_earlier_writes() {
        const ROUNDS: u32 = 20_000;
        let peer = Peer::new(PeerId(1), [1; 32]);
        let seen = AtomicU32::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while seen.load(Ordering::Relaxed) < 2 * ROUNDS {
                    if peer.take_flags() & flag::CONFIRMED != 0 {
                        let confirmed = peer.confirmed_index.load(Ordering::Relaxed);
                        seen.store(confirmed, Ordering::Release);
                    }
                }
            });
            for round in 1..=ROUNDS {
                for index in [2 * round - 1, 2 * round] {
                    peer.confirmed_index.store(index, Ordering::Relaxed);
                    let _is_first = peer.raise(flag::CONFIRMED);
                }
                // Seen, or a raised flag will make it seen; if neither, it would be lost forever.
                let mut tries = 0;
                while seen.load(Ordering::Acquire) != 2 * round {
                    std::thread::yield_now();
                    tries += 1;
                    if tries == 1_000_000 {
                        seen.store(u32::MAX, Ordering::Relaxed); // ends the other thread
                        panic!("round {round} was never seen");
                    }
                }
            }
        });
    }
}
