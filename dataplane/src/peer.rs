//! What all threads share of a peer: endpoint, sending session, counters, and the marks that the
//! packet path leaves for the timers.
//!
//! Every field is an atomic or is swapped whole; nobody waits for anybody. Workers write marks
//! with the coarse time of their turn; control evaluates them when a deadline computed from them
//! comes, so that an idle peer costs nothing (§6; drivers/net/wireguard/timers.c).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use arc_swap::{ArcSwapOption, Guard};
use wg_bounce_sys::Endpoint;
use wg_bounce_sys::clock::Millis;

use crate::counters::PeerCounters;
use crate::session::SendSession;

/// Names a peer for as long as it is configured; a number is never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u32);

/// A published endpoint with what was learnt about the way there.
#[derive(Debug)]
pub struct Path {
    /// Where the peer is.
    pub endpoint: Endpoint,
    /// Until then trains to this destination are sent one datagram at a time (milliseconds;
    /// zero: never refused).
    pub gso_refused_until: AtomicU64,
}

/// Flags that a worker raises for control; coalesced, so that no flood of packets queues more
/// than one notice per peer.
pub mod flag {
    /// A session is missing, dead or old: a handshake is wanted (§6.2, §6.3).
    pub const WANTS_HANDSHAKE: u32 = 1 << 0;
    /// As before, because the session that we receive with nears its end (§6.2: the initiator,
    /// once per session).
    pub const WANTS_LAST_MINUTE_HANDSHAKE: u32 = 1 << 1;
    /// The first authentic message arrived on the session [`super::Peer::confirmed_index`].
    pub const CONFIRMED: u32 = 1 << 2;
    /// Traffic began on a peer that control does not watch.
    pub const TRAFFIC_SEEN: u32 = 1 << 3;
}

/// The part of a peer that workers and control share.
pub struct Peer {
    /// The peer's number.
    pub id: PeerId,
    /// The peer's static public key.
    pub public_key: [u8; 32],
    path: ArcSwapOption<Path>,
    session: ArcSwapOption<SendSession>,
    /// What came from it, and went to it.
    pub counters: PeerCounters,
    /// Packets that wait for a session, over all workers.
    pub staged: AtomicU32,
    /// The workers (bit by bit) that hold such packets.
    pub staged_by: AtomicU64,
    /// Index of the newest session on which an authentic message has arrived.
    pub confirmed_index: AtomicU32,
    /// [`flag`]s raised and not yet taken.
    flags: AtomicU32,
    /// Nonzero while control has a deadline for this peer and looks at the marks by itself.
    watched: AtomicU32,
    /// First data sent since anything was received; zero if none (milliseconds).
    unanswered_since: AtomicU64,
    /// First data received since anything was sent; zero if none (milliseconds).
    owed_since: AtomicU64,
    last_data_received: AtomicU64,
    last_sent: AtomicU64,
    last_received: AtomicU64,
}

/// One reading of a peer's marks; zero means never or none (milliseconds of the boot clock).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// When the first data left that nothing has answered yet.
    pub unanswered_since: Millis,
    /// When the first data came that nothing sent has acknowledged yet.
    pub owed_since: Millis,
    /// When data (no keepalive) last arrived.
    pub last_data_received: Millis,
    /// When an authenticated message was last sent.
    pub last_sent: Millis,
    /// When an authentic message last arrived.
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
            flags: AtomicU32::new(0),
            watched: AtomicU32::new(0),
            unanswered_since: AtomicU64::new(0),
            owed_since: AtomicU64::new(0),
            last_data_received: AtomicU64::new(0),
            last_sent: AtomicU64::new(0),
            last_received: AtomicU64::new(0),
        }
    }

    /// The way to the peer, for a short use.
    pub fn path(&self) -> Guard<Option<Arc<Path>>> {
        self.path.load()
    }

    /// Where the peer is, if known.
    pub fn endpoint(&self) -> Option<Endpoint> {
        self.path.load().as_ref().map(|path| path.endpoint)
    }

    /// Publishes where the peer is; only for configuration and authentic messages (§6.6).
    /// Nothing happens, and nothing is allocated, when that is known already.
    pub fn set_endpoint(&self, endpoint: Endpoint) {
        if self.endpoint() != Some(endpoint) {
            let path = Path { endpoint, gso_refused_until: AtomicU64::new(0) };
            self.path.store(Some(Arc::new(path)));
        }
    }

    /// Forgets our source address (it vanished), unless the endpoint has moved on since.
    pub fn forget_source(&self, known: Endpoint) {
        if self.endpoint() == Some(known) {
            self.set_endpoint(Endpoint { source: None, ..known });
        }
    }

    /// The session to send with, for a short use.
    pub fn session(&self) -> Guard<Option<Arc<SendSession>>> {
        self.session.load()
    }

    /// Publishes the session to send with; returns the old one, to be dropped by control alone.
    #[must_use = "control keeps the old session until no worker refers to it"]
    pub fn set_session(&self, session: Option<Arc<SendSession>>) -> Option<Arc<SendSession>> {
        self.session.swap(session)
    }

    /// Notes an authenticated message that left (`is_data`: not a keepalive, not a handshake
    /// message). True: queue a notice for control.
    #[must_use]
    pub fn note_sent(&self, now: Millis, is_data: bool) -> bool {
        self.last_sent.store(now.0, Ordering::Relaxed);
        store_if_changed(&self.owed_since, 0);
        if is_data && self.unanswered_since.load(Ordering::Relaxed) == 0 {
            self.unanswered_since.store(now.0, Ordering::Relaxed);
        }
        self.stir()
    }

    /// Notes an authentic message that arrived. True: queue a notice for control.
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
        self.stir()
    }

    /// Raises a [`flag`]. True: nobody has queued a notice yet, the caller must.
    #[must_use]
    pub fn raise(&self, flag: u32) -> bool {
        // Pairs with the fence of `take_flags`: a flag that is found standing will be taken by
        // somebody who then sees what was written before (confirmed_index, staged_by, marks).
        fence(Ordering::SeqCst);
        if self.flags.load(Ordering::Relaxed) & flag == flag {
            return false;
        }
        self.flags.fetch_or(flag, Ordering::AcqRel) == 0
    }

    /// Takes all raised flags. Control's.
    pub fn take_flags(&self) -> u32 {
        let flags = self.flags.swap(0, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        flags
    }

    /// Whether flags stand that nobody has taken. Control's.
    pub fn has_flags(&self) -> bool {
        self.flags.load(Ordering::Relaxed) != 0
    }

    /// Reads the marks. Control's.
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

    /// Begins the wait for an answer anew: a handshake was started because of it. Control's.
    pub fn clear_unanswered(&self) {
        self.unanswered_since.store(0, Ordering::Relaxed);
    }

    /// Data came after the keepalive became due: the next one is owed from `since`. Control's.
    pub fn owe_keepalive(&self, since: Millis) {
        self.owed_since.store(since.0, Ordering::Relaxed);
    }

    /// Forgets all traffic, as when the link went down. Control's.
    pub fn clear_marks(&self) {
        for mark in [&self.unanswered_since, &self.owed_since, &self.last_data_received] {
            mark.store(0, Ordering::Relaxed);
        }
        self.last_sent.store(0, Ordering::Relaxed);
        self.last_received.store(0, Ordering::Relaxed);
        self.flags.store(0, Ordering::Relaxed);
    }

    /// Says whether control has a deadline for this peer. After saying no, read the marks once
    /// more: traffic in between raised no flag. Control's.
    pub fn set_watched(&self, watched: bool) {
        self.watched.store(u32::from(watched), Ordering::Relaxed);
        // Pairs with the fence of `stir`.
        fence(Ordering::SeqCst);
    }

    fn stir(&self) -> bool {
        // Pairs with the fence of `set_watched`: either this load sees "unwatched", or control's
        // second look at the marks sees what was stored before it. The fence is needed only
        // when the peer is unwatched in truth, which the common path finds out by a plain load.
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

    /// The second of two confirmations in quick succession finds the flag of the first standing.
    #[test]
    fn a_standing_flag_is_taken_with_what_was_written_before() {
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
                // Seen, or a flag stands that will make it seen; neither would be for good.
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
