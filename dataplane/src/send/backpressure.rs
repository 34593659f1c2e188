//! Back-pressure: sealed trains that found their socket full wait here, in order, in one queue for
//! each peer.
//!
//! While trains of a peer wait, nothing more is sealed for it: its packets are staged, so that few
//! nonces are in flight. When a socket has room again, the peers' trains leave in turn. A peer that
//! sends little does not wait for those that filled the socket: its trains may exceed SO_SNDBUF
//! slightly ([`send_over_limit`]).

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::sync::Arc;

use wg_bounce_sys::clock::Millis;
use wg_bounce_sys::socket::send_over_limit;
use wg_bounce_sys::{Endpoint, Errno, Family, OuterHeader, Outgoing, PerFamily};

use super::completion::{Refused, SentStats, Target, note_sent};
use crate::counters::DropReason;
use crate::limits::{
    HELD_BYTES_MAX, HELD_BYTES_PER_PEER_MAX, OVER_LIMIT_BYTES_MAX, OVER_LIMIT_INTERVAL,
    OVER_LIMIT_PEERS_MAX, REPLAY_WINDOW, RESUME_BYTES_MAX, RESUME_PEERS_MAX,
};
use crate::peer::{Peer, PeerId};
use crate::session::SendSession;
use crate::turn::Turn;

/// A sealed train that waits.
pub struct HeldTrain {
    /// The counter of its first message.
    pub first_counter: u64,
    /// The messages, one after the other.
    pub bytes: Box<[u8]>,
    /// The outer IP header.
    pub header: OuterHeader,
    /// Bytes of every message but the last; zero: one message alone.
    pub segment_size: usize,
    /// The number of messages.
    pub messages: u32,
    /// Not only keepalives.
    pub has_data: bool,
}

/// All waiting trains of one worker.
pub struct TxBacklog {
    queues: HashMap<PeerId, Queue>,
    /// The peers in the order in which they send next.
    order: VecDeque<PeerId>,
    /// Bytes of all trains.
    bytes: usize,
    /// SO_SNDBUF of the sockets (bytes).
    socket_buffer: usize,
    over_limit: OverLimit,
}

struct Queue {
    peer: Arc<Peer>,
    /// Each train with the session that its nonces belong to: it is dropped when that has ended.
    trains: VecDeque<(Arc<SendSession>, HeldTrain)>,
    bytes: usize,
}

impl TxBacklog {
    /// An empty backlog of sockets whose SO_SNDBUF is `socket_buffer` bytes.
    pub fn new(socket_buffer: usize) -> TxBacklog {
        TxBacklog {
            queues: HashMap::new(),
            order: VecDeque::new(),
            bytes: 0,
            socket_buffer,
            over_limit: OverLimit::default(),
        }
    }

    /// Whether trains of `peer` wait.
    pub fn holds(&self, peer: PeerId) -> bool {
        !self.queues.is_empty() && self.queues.contains_key(&peer)
    }

    /// Bytes of all waiting trains.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The families whose sockets the waiting trains need.
    pub fn families(&self) -> PerFamily<bool> {
        let mut waits = PerFamily::default();
        for queue in self.queues.values() {
            // A peer without an endpoint counts for IPv6: its trains are dropped on the next
            // resume.
            let family = queue.peer.endpoint().map_or(Family::V6, |to| to.family());
            *waits.of_mut(family) = true;
        }
        waits
    }

    /// Appends a train that found its socket full to its peer's queue. Returns false if the train
    /// could be sent over the socket's limit instead. A train that exceeds the backlog's own
    /// bounds is dropped and counted.
    pub(super) fn push(
        &mut self,
        target: &Target,
        train: HeldTrain,
        to: &Endpoint,
        turn: &mut Turn<'_>,
    ) -> bool {
        let (peer, length) = (&target.peer, train.bytes.len());
        if !self.holds(peer.id)
            && self.over_limit.try_spend(peer.id, length, turn.now)
            && self.send_over_limit(&train, to, turn).is_ok()
        {
            let sent = SentStats::train(train.messages, length);
            note_sent(target, sent, train.has_data, turn);
            return false;
        }
        let queue = self.queues.entry(peer.id).or_insert_with(|| {
            self.order.push_back(peer.id);
            Queue { peer: Arc::clone(peer), trains: VecDeque::new(), bytes: 0 }
        });
        let is_too_much =
            queue.bytes + length > HELD_BYTES_PER_PEER_MAX || self.bytes + length > HELD_BYTES_MAX;
        if is_too_much {
            turn.dropped(peer, DropReason::SocketFull, train.messages.into());
        } else {
            turn.counters.held_trains.add(1);
            queue.bytes += length;
            self.bytes += length;
            queue.trains.push_back((Arc::clone(&target.session), train));
        }
        true
    }

    /// Sends waiting trains, one of each peer in turn, until a socket is full again. Returns the
    /// peers that have no trains left.
    ///
    /// # Errors
    /// Only those of a broken invariant: a refused send is held or counted, not returned.
    pub(super) fn resume(&mut self, turn: &mut Turn<'_>) -> io::Result<Vec<Arc<Peer>>> {
        let mut done = Vec::new();
        self.drop_dead(turn, &mut done);
        let mut outcomes: Vec<Errno> = Vec::new();
        // The sockets found full in this call.
        let mut is_full = PerFamily::default();
        let mut sent_bytes = 0;
        while sent_bytes < RESUME_BYTES_MAX {
            let waiting = self.next_peers(&is_full);
            if waiting.is_empty() {
                break;
            }
            let (outgoing, pieces) = self.first_trains(&waiting);
            turn.io.send(&outgoing, &pieces, &mut outcomes)?;
            for ((peer, train), &outcome) in waiting.into_iter().zip(outgoing).zip(&outcomes) {
                if outcome == libc::EAGAIN {
                    *is_full.of_mut(train.to.family()) = true;
                } else {
                    sent_bytes += self.complete_first(peer, &train, outcome, turn);
                }
            }
            self.release_empty(&mut done);
        }
        Ok(done)
    }

    /// Some peers that send next and whose sockets are not full.
    fn next_peers(&self, is_full: &PerFamily<bool>) -> Vec<PeerId> {
        let can_send = |peer: &PeerId| {
            let endpoint = self.queues[peer].peer.endpoint();
            endpoint.is_some_and(|to| !is_full.of(to.family()))
        };
        self.order.iter().copied().filter(can_send).take(RESUME_PEERS_MAX).collect()
    }

    /// Drops all trains of a peer; returns the number of messages in them.
    pub(super) fn discard(&mut self, peer: PeerId) -> u64 {
        let Some(queue) = self.queues.remove(&peer) else { return 0 };
        self.order.retain(|other| *other != peer);
        self.bytes -= queue.bytes;
        queue.trains.iter().map(|(_, train)| u64::from(train.messages)).sum()
    }

    fn send_over_limit(
        &self,
        train: &HeldTrain,
        to: &Endpoint,
        turn: &Turn<'_>,
    ) -> Result<(), Errno> {
        let socket = turn.io.socket_for(to).ok_or(libc::EAFNOSUPPORT)?;
        let pieces = [IoSlice::new(&train.bytes)];
        let HeldTrain { header, segment_size, .. } = *train;
        send_over_limit(socket, self.socket_buffer, to, header, segment_size, &pieces)
    }

    /// Drops trains that may no longer be sent, and releases peers that have none left.
    fn drop_dead(&mut self, turn: &Turn<'_>, done: &mut Vec<Arc<Peer>>) {
        let TxBacklog { queues, order, bytes, .. } = self;
        for id in &*order {
            let queue = queues.get_mut(id).expect("every scheduled peer has a queue");
            // Without a session the peer was removed, or all keys were forgotten.
            let is_reachable = queue.peer.path().is_some() && queue.peer.session().is_some();
            queue.trains.retain(|(session, train)| {
                // Other workers may have sent so much meanwhile that the peer would take these
                // messages for replays.
                let is_late = session.sent() > train.first_counter.saturating_add(REPLAY_WINDOW);
                let may_leave =
                    is_reachable && !is_late && turn.snapshot.is_up && session.is_alive(turn.now);
                if !may_leave {
                    turn.dropped(&queue.peer, DropReason::ExpiredSession, train.messages.into());
                    queue.bytes -= train.bytes.len();
                    *bytes -= train.bytes.len();
                }
                may_leave
            });
        }
        self.release_empty(done);
    }

    /// Moves peers that have no trains left to `done`.
    fn release_empty(&mut self, done: &mut Vec<Arc<Peer>>) {
        let TxBacklog { queues, order, .. } = self;
        order.retain(|id| {
            let is_done = queues.get(id).is_none_or(|queue| queue.trains.is_empty());
            if is_done && let Some(queue) = queues.remove(id) {
                done.push(queue.peer);
            }
            !is_done
        });
    }

    fn first_trains(&self, peers: &[PeerId]) -> (Vec<Outgoing>, Vec<IoSlice<'_>>) {
        let (mut outgoing, mut pieces) = (Vec::new(), Vec::new());
        for (index, peer) in peers.iter().enumerate() {
            let queue = &self.queues[peer];
            let (_, train) = queue.trains.front().expect("peers without trains are released");
            let path = queue.peer.path();
            let path = path.as_ref().expect("peers without an endpoint are released");
            outgoing.push(Outgoing {
                to: path.destination(),
                header: train.header,
                segment_size: train.segment_size,
                pieces: index..index + 1,
                group: index as u32,
            });
            pieces.push(IoSlice::new(&train.bytes));
        }
        (outgoing, pieces)
    }

    /// Removes the first train of a peer, which left or was refused for good, and moves the peer
    /// behind the others. Returns the train's length (bytes).
    fn complete_first(
        &mut self,
        id: PeerId,
        outgoing: &Outgoing,
        outcome: Errno,
        turn: &mut Turn<'_>,
    ) -> usize {
        if let Some(position) = self.order.iter().position(|other| *other == id) {
            self.order.remove(position);
            self.order.push_back(id);
        }
        let queue = self.queues.get_mut(&id).expect("a train of this queue was just sent");
        let (session, train) = queue.trains.pop_front().expect("it was just sent");
        let length = train.bytes.len();
        queue.bytes -= length;
        self.bytes -= length;
        let peer = &queue.peer;
        let path = peer.path();
        let Some(path) = path.as_ref() else { return length };
        let HeldTrain { ref bytes, header, segment_size, messages, has_data, .. } = train;
        let sent = if outcome == 0 {
            SentStats::train(messages, length)
        } else {
            let slices: &[&[u8]] = &[bytes];
            let (to, errno) = (outgoing.to, outcome);
            let refused = Refused { to, header, segment_size, messages, slices, errno };
            refused.retry_plainer(peer, path, turn)
        };
        let target = Target { peer: Arc::clone(peer), session, path: Arc::clone(path) };
        note_sent(&target, sent, has_data, turn);
        length
    }
}

/// Bytes that each peer has recently sent beyond SO_SNDBUF.
#[derive(Default)]
struct OverLimit {
    since: Millis,
    peers: HashMap<PeerId, usize>,
}

impl OverLimit {
    /// Whether a peer may send `length` more bytes; if so, they are accounted for.
    fn try_spend(&mut self, peer: PeerId, length: usize, now: Millis) -> bool {
        if now.since(self.since) >= OVER_LIMIT_INTERVAL {
            self.since = now;
            self.peers.clear();
        }
        if self.peers.len() >= OVER_LIMIT_PEERS_MAX && !self.peers.contains_key(&peer) {
            return false;
        }
        let spent = self.peers.entry(peer).or_default();
        let may_send = *spent + length <= OVER_LIMIT_BYTES_MAX;
        *spent = if may_send { *spent + length } else { OVER_LIMIT_BYTES_MAX };
        may_send
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_sends_little_may_exceed_the_limit_slightly() {
        let mut over_limit = OverLimit::default();
        let (thin, heavy) = (PeerId(1), PeerId(2));
        let now = Millis(1000);
        assert!(!over_limit.try_spend(heavy, OVER_LIMIT_BYTES_MAX + 1, now), "too much at once");
        assert!(!over_limit.try_spend(heavy, 1, now), "it has used up its share");
        for _ in 0..10 {
            assert!(over_limit.try_spend(thin, OVER_LIMIT_BYTES_MAX / 10, now));
        }
        assert!(!over_limit.try_spend(thin, OVER_LIMIT_BYTES_MAX / 10, now));
        assert!(over_limit.try_spend(thin, 1, now + OVER_LIMIT_INTERVAL), "a new interval");
    }
}
