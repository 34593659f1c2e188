//! Back-pressure: sealed trains that found their socket full wait here, in order, for each peer
//! by itself.
//!
//! While trains of a peer wait, nothing more is sealed for it: its packets are staged, so that the
//! nonces in flight stay few. When the kernel says that there is room again, the peers' trains
//! leave in turn. A peer that sends little is not made to wait for those that have filled the
//! socket: its trains may exceed the socket's limit a little ([`send_over_limit`]).

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::sync::Arc;

use wg_bounce_sys::Endpoint;
use wg_bounce_sys::clock::Millis;
use wg_bounce_sys::socket::send_over_limit;
use wg_bounce_sys::{Errno, Outgoing};

use super::batch::Way;
use super::completion::{Refused, SentStats, note_sent};
use crate::counters::DropReason;
use crate::limits::{HELD_BYTES_MAX, HELD_BYTES_PER_PEER_MAX, REPLAY_WINDOW};
use crate::peer::{Peer, PeerId};
use crate::session::SendSession;
use crate::turn::Turn;

/// What one peer may send beyond the socket's limit (bytes) within [`EXCESS_INTERVAL`].
const EXCESS_BYTES_MAX: usize = 64 << 10;
const EXCESS_INTERVAL: Millis = Millis(100);
/// Peers that may do so within it.
const EXCESS_PEERS_MAX: usize = 1024;
/// Peers that are sent to with one call when there is room again.
const PEERS_AT_ONCE: usize = 64;
/// Bytes that are sent so in one turn: what arrives meanwhile must not wait for longer.
const RESUME_BYTES_MAX: usize = 1 << 20;

/// A sealed train that waits.
pub struct HeldTrain {
    /// The counter of its first datagram.
    pub first_counter: u64,
    /// The datagrams, one after the other.
    pub bytes: Box<[u8]>,
    /// The outer traffic class.
    pub traffic_class: u8,
    /// Bytes of every datagram but the last; zero: one datagram alone.
    pub segment: usize,
    /// How many datagrams.
    pub messages: u32,
    /// Not only keepalives.
    pub has_data: bool,
}

/// All trains of one worker that wait.
pub struct TxBacklog {
    queues: HashMap<PeerId, Queue>,
    /// The peers in the order of their turns.
    order: VecDeque<PeerId>,
    /// Bytes of all trains.
    bytes: usize,
    /// What the sockets hold when they are full (bytes).
    socket_buffer: usize,
    excess: Excess,
}

struct Queue {
    peer: Arc<Peer>,
    /// Each with the session whose nonces it bears: it is dropped when that has ended.
    trains: VecDeque<(Arc<SendSession>, HeldTrain)>,
    bytes: usize,
}

impl TxBacklog {
    /// Nothing held; the sockets have buffers of `socket_buffer` bytes.
    pub fn new(socket_buffer: usize) -> TxBacklog {
        TxBacklog {
            queues: HashMap::new(),
            order: VecDeque::new(),
            bytes: 0,
            socket_buffer,
            excess: Excess::default(),
        }
    }

    /// Whether trains of `peer` wait.
    pub fn holds(&self, peer: PeerId) -> bool {
        !self.queues.is_empty() && self.queues.contains_key(&peer)
    }

    /// Bytes of all trains that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether trains wait for room in the IPv4 socket, and in the IPv6 one.
    pub fn families(&self) -> (bool, bool) {
        self.queues.values().fold((false, false), |(v4, v6), queue| {
            let is_v4 = queue.peer.endpoint().is_some_and(|endpoint| endpoint.remote.is_ipv4());
            (v4 || is_v4, v6 || !is_v4)
        })
    }

    /// Takes a train that found its socket full, as the last of its peer's. False if it could be
    /// sent all the same; what finds no room here either is dropped and counted.
    pub(super) fn push(
        &mut self,
        way: &Way,
        train: HeldTrain,
        to: &Endpoint,
        turn: &mut Turn<'_>,
    ) -> bool {
        let (peer, length) = (&way.peer, train.bytes.len());
        if !self.holds(peer.id)
            && self.excess.take(peer.id, length, turn.now)
            && self.send_over_limit(&train, to, turn).is_ok()
        {
            note_sent(way, SentStats::train(train.messages, length), train.has_data, turn);
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
            queue.trains.push_back((Arc::clone(&way.session), train));
        }
        true
    }

    /// Sends what waits, one train of each peer after the other, until a socket is full again.
    /// Says whose trains have all left.
    pub(super) fn resume(&mut self, turn: &mut Turn<'_>) -> io::Result<Vec<Arc<Peer>>> {
        let mut done = Vec::new();
        self.drop_dead(turn, &mut done);
        let mut outcomes: Vec<Errno> = Vec::new();
        // Whether the IPv4 socket, and the IPv6 one, was found full in this call.
        let mut is_full = (false, false);
        let mut sent_bytes = 0;
        while sent_bytes < RESUME_BYTES_MAX {
            let waiting = self.next_peers(is_full);
            if waiting.is_empty() {
                break;
            }
            let (outgoing, pieces) = self.first_trains(&waiting);
            turn.io.send(&outgoing, &pieces, &mut outcomes)?;
            for ((peer, out), &outcome) in waiting.into_iter().zip(outgoing).zip(&outcomes) {
                if outcome == libc::EAGAIN {
                    let is_v4 = out.to.remote.is_ipv4();
                    is_full = (is_full.0 || is_v4, is_full.1 || !is_v4);
                } else {
                    sent_bytes += self.settle(peer, &out, outcome, turn);
                }
            }
            self.let_go(&mut done);
        }
        Ok(done)
    }

    /// Some peers whose turn it is, and whose sockets are not full.
    fn next_peers(&self, is_full: (bool, bool)) -> Vec<PeerId> {
        let has_room = |peer: &PeerId| {
            let endpoint = self.queues[peer].peer.endpoint();
            endpoint.is_some_and(|to| !if to.remote.is_ipv4() { is_full.0 } else { is_full.1 })
        };
        self.order.iter().copied().filter(has_room).take(PEERS_AT_ONCE).collect()
    }

    /// Drops all trains of a peer; returns how many messages those were.
    pub(super) fn forget(&mut self, peer: PeerId) -> u64 {
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
        let HeldTrain { traffic_class, segment, .. } = *train;
        send_over_limit(socket, self.socket_buffer, to, traffic_class, segment, &pieces)
    }

    /// Lets go of trains that may not be sent any more, and of peers that have none left.
    fn drop_dead(&mut self, turn: &Turn<'_>, done: &mut Vec<Arc<Peer>>) {
        let TxBacklog { queues, order, bytes, .. } = self;
        for id in &*order {
            let queue = queues.get_mut(id).expect("who has a turn has a queue");
            // Without a session the peer was removed, or all keys were forgotten.
            let is_reachable = queue.peer.path().is_some() && queue.peer.session().is_some();
            queue.trains.retain(|(session, train)| {
                // Others may have sent so much meanwhile that the peer takes these for replays.
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
        self.let_go(done);
    }

    /// Lets go of peers that have no trains left.
    fn let_go(&mut self, done: &mut Vec<Arc<Peer>>) {
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
        let trains = peers.iter().map(|peer| {
            let queue = &self.queues[peer];
            let (_, train) = queue.trains.front().expect("empty queues are gone");
            let endpoint = queue.peer.endpoint().expect("those without are gone");
            (endpoint, train)
        });
        let (mut outgoing, mut pieces) = (Vec::new(), Vec::new());
        for (number, (to, train)) in trains.enumerate() {
            let HeldTrain { traffic_class, segment, .. } = *train;
            let group = number as u32;
            let place = number..number + 1;
            outgoing.push(Outgoing { to, traffic_class, segment, pieces: place, group });
            pieces.push(IoSlice::new(&train.bytes));
        }
        (outgoing, pieces)
    }

    /// Takes the first train of a peer off its queue, and puts the peer behind the others: the
    /// train left, or was refused for good. Returns its length (bytes).
    fn settle(&mut self, id: PeerId, out: &Outgoing, outcome: Errno, turn: &mut Turn<'_>) -> usize {
        if let Some(place) = self.order.iter().position(|other| *other == id) {
            self.order.remove(place);
            self.order.push_back(id);
        }
        let queue = self.queues.get_mut(&id).expect("it was just sent from");
        let (session, train) = queue.trains.pop_front().expect("it was just sent");
        let length = train.bytes.len();
        queue.bytes -= length;
        self.bytes -= length;
        let peer = &queue.peer;
        let path = peer.path();
        let Some(path) = path.as_ref() else { return length };
        let HeldTrain { ref bytes, traffic_class, segment, messages, has_data, .. } = train;
        let left = if outcome == 0 {
            SentStats::train(messages, length)
        } else {
            let slices: &[&[u8]] = &[bytes];
            let to = out.to;
            let refused = Refused { to, traffic_class, segment, messages, slices, errno: outcome };
            refused.send_plainer(peer, path, turn)
        };
        let way = Way { peer: Arc::clone(peer), session, path: Arc::clone(path) };
        note_sent(&way, left, has_data, turn);
        length
    }
}

/// Who has sent how much beyond the socket's limit lately.
#[derive(Default)]
struct Excess {
    since: Millis,
    peers: HashMap<PeerId, usize>,
}

impl Excess {
    /// Whether a peer may send `length` bytes more.
    fn take(&mut self, peer: PeerId, length: usize, now: Millis) -> bool {
        if now.since(self.since) >= EXCESS_INTERVAL {
            self.since = now;
            self.peers.clear();
        }
        if self.peers.len() >= EXCESS_PEERS_MAX && !self.peers.contains_key(&peer) {
            return false;
        }
        let taken = self.peers.entry(peer).or_default();
        let may = *taken + length <= EXCESS_BYTES_MAX;
        *taken = if may { *taken + length } else { EXCESS_BYTES_MAX };
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sends_little_may_exceed_the_limit_a_little() {
        let mut excess = Excess::default();
        let (thin, heavy) = (PeerId(1), PeerId(2));
        let now = Millis(1000);
        assert!(!excess.take(heavy, EXCESS_BYTES_MAX + 1, now), "too much at once");
        assert!(!excess.take(heavy, 1, now), "it is known to be heavy");
        for _ in 0..10 {
            assert!(excess.take(thin, EXCESS_BYTES_MAX / 10, now));
        }
        assert!(!excess.take(thin, EXCESS_BYTES_MAX / 10, now));
        assert!(excess.take(thin, 1, now + EXCESS_INTERVAL), "a new interval");
    }
}
