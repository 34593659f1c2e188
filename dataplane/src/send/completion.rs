//! How sends ended: what left is accounted for, what was refused is tried in a plainer form.

use std::io::IoSlice;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

use arrayvec::ArrayVec;
use wg_bounce_sys::Endpoint;
use wg_bounce_sys::clock::Millis;
use wg_bounce_sys::socket::{may_be_source, send_one};
use wg_bounce_sys::{Errno, NOT_TRIED, Outgoing};

use super::backpressure::HeldTrain;
use super::batch::{SendBatch, Way};
use crate::counters::DropReason;
use crate::limits::SEND_SEGMENTS_MAX;
use crate::peer::{Path, Peer, flag};
use crate::turn::Turn;
use crate::wire::{self, Kind};

/// After a refusal, trains to that destination are sent one datagram at a time for so long.
const GSO_REFUSED_FOR: Millis = Millis::from_secs(60);

/// The pieces of one train, one after the other.
pub(super) type Slices<'a> = ArrayVec<&'a [u8], SEND_SEGMENTS_MAX>;

/// What has left for a peer.
#[derive(Clone, Copy, Default)]
pub(super) struct SentStats {
    pub trains: u64,
    pub messages: u64,
    /// UDP payload.
    pub bytes: u64,
}

impl SentStats {
    /// One train, whole.
    pub(super) fn train(messages: u32, bytes: usize) -> SentStats {
        SentStats { trains: 1, messages: messages.into(), bytes: bytes as u64 }
    }
}

impl SendBatch {
    /// Goes through the outcomes of a send. Leaves in `outgoing` what is to be sent yet: what was
    /// not tried because something before it was refused that has been dealt with here.
    pub(super) fn settle(&mut self, turn: &mut Turn<'_>) {
        let mut kept = 0;
        // The destination whose sends are held: what follows in its group is held, too.
        let mut full = None;
        for number in 0..self.outgoing.len() {
            let load = self.loads[number];
            match self.outcomes[number] {
                0 => {
                    self.note(number, SentStats::train(load.messages, self.bytes_of(number)), turn)
                }
                NOT_TRIED if full != Some(load.destination) => {
                    self.outgoing.swap(kept, number);
                    self.loads.swap(kept, number);
                    kept += 1;
                }
                NOT_TRIED | libc::EAGAIN => {
                    if self.hold(number, turn) {
                        full = Some(load.destination);
                    }
                }
                errno => {
                    let left = self.resend(number, errno, turn);
                    self.note(number, left, turn);
                }
            }
        }
        self.outgoing.truncate(kept);
        self.loads.truncate(kept);
    }

    fn note(&self, number: usize, left: SentStats, turn: &mut Turn<'_>) {
        let load = self.loads[number];
        note_sent(&self.destinations[load.destination as usize].way, left, load.has_data, turn);
    }

    /// Holds a train that found its socket full; false if it left all the same.
    fn hold(&mut self, number: usize, turn: &mut Turn<'_>) -> bool {
        let Outgoing { to, traffic_class, segment, .. } = self.outgoing[number];
        let load = self.loads[number];
        let way = &self.destinations[load.destination as usize].way;
        let bytes: Box<[u8]> = self.slices_of(number, turn).concat().into();
        let first_counter = match wire::classify(&bytes) {
            Some(Kind::Data(header)) => header.counter,
            _ => unreachable!("only data is sealed"),
        };
        let train = HeldTrain {
            first_counter,
            bytes,
            traffic_class,
            segment,
            messages: load.messages,
            has_data: load.has_data,
        };
        self.held.push(way, train, &to, turn)
    }

    fn resend(&self, number: usize, errno: Errno, turn: &mut Turn<'_>) -> SentStats {
        let Outgoing { to, traffic_class, segment, .. } = self.outgoing[number];
        let load = self.loads[number];
        let Way { peer, path, .. } = &self.destinations[load.destination as usize].way;
        let slices = self.slices_of(number, turn);
        let messages = load.messages;
        let refused = Refused { to, traffic_class, segment, messages, slices: &slices, errno };
        refused.send_plainer(peer, path, turn)
    }

    fn slices_of<'a>(&'a self, number: usize, turn: &'a Turn<'_>) -> Slices<'a> {
        let stretches = &self.stretches[self.outgoing[number].pieces.clone()];
        stretches.iter().map(|stretch| stretch.slice(&self.room, turn.trains)).collect()
    }

    fn bytes_of(&self, number: usize) -> usize {
        let stretches = &self.stretches[self.outgoing[number].pieces.clone()];
        stretches.iter().map(|stretch| stretch.range.len()).sum()
    }
}

/// What a send changes of its peer: nothing if nothing has left. `has_data`: not only keepalives.
pub(super) fn note_sent(way: &Way, left: SentStats, has_data: bool, turn: &mut Turn<'_>) {
    let Way { peer, session, path } = way;
    if left.messages == 0 {
        return;
    }
    turn.recent.note(&path.endpoint.remote);
    turn.counters.sent_trains.add(left.trains);
    turn.counters.sent_datagrams.add(left.messages);
    peer.counters.sent_trains.add(left.trains);
    peer.counters.sent_datagrams.add(left.messages);
    peer.counters.sent_bytes.add(left.bytes);
    if peer.note_sent(turn.now, has_data) {
        turn.post.notice(peer.id);
    }
    if session.wants_rekey(turn.now) {
        turn.raise(peer, flag::WANTS_HANDSHAKE);
    }
}

/// A train, or a single datagram, that the network refused.
pub(super) struct Refused<'a> {
    pub to: Endpoint,
    pub traffic_class: u8,
    pub segment: usize,
    pub messages: u32,
    pub slices: &'a [&'a [u8]],
    pub errno: Errno,
}

impl Refused<'_> {
    /// Tries again: without our source address if that has vanished, then one datagram at a time.
    /// Returns what left; the rest is counted.
    pub(super) fn send_plainer(&self, peer: &Peer, path: &Path, turn: &Turn<'_>) -> SentStats {
        let Refused { to, traffic_class, segment, messages, slices, mut errno } = *self;
        let Some(socket) = turn.io.socket_for(&to).map(AsRawFd::as_raw_fd) else {
            turn.dropped(peer, DropReason::SendRefused, messages.into());
            return SentStats::default();
        };
        let anywhere = Endpoint { source: None, ..to };
        if may_be_source(errno) && to.source.is_some() {
            let pieces: ArrayVec<IoSlice<'_>, SEND_SEGMENTS_MAX> =
                slices.iter().map(|slice| IoSlice::new(slice)).collect();
            match send_one(socket, &anywhere, traffic_class, segment, &pieces) {
                Ok(()) => {
                    peer.forget_source(to);
                    return SentStats::train(
                        messages,
                        slices.iter().map(|slice| slice.len()).sum(),
                    );
                }
                Err(other) => errno = other,
            }
        }
        let is_gso_refused = matches!(errno, libc::EMSGSIZE | libc::EIO | libc::EINVAL);
        if segment == 0 || !is_gso_refused {
            turn.dropped(peer, refusal(errno), messages.into());
            return SentStats::default();
        }
        if path.gso_refused_until.load(Ordering::Relaxed) <= turn.now.0 {
            path.gso_refused_until.store((turn.now + GSO_REFUSED_FOR).0, Ordering::Relaxed);
            turn.counters.gso_demotions.add(1);
            peer.counters.gso_demotions.add(1);
        }
        self.send_singly(peer, turn)
    }

    fn send_singly(&self, peer: &Peer, turn: &Turn<'_>) -> SentStats {
        let mut left = SentStats::default();
        let Some(socket) = turn.io.socket_for(&self.to).map(AsRawFd::as_raw_fd) else {
            return left;
        };
        let anywhere = Endpoint { source: None, ..self.to };
        let mut target = self.to;
        for message in self.slices.iter().flat_map(|slice| slice.chunks(self.segment)) {
            let piece = [IoSlice::new(message)];
            let mut result = send_one(socket, &target, self.traffic_class, 0, &piece);
            // The source address may have vanished, too.
            if result.is_err_and(may_be_source) && target.source.is_some() {
                result = send_one(socket, &anywhere, self.traffic_class, 0, &piece);
                if result.is_ok() {
                    peer.forget_source(self.to);
                    target = anywhere;
                }
            }
            match result {
                Ok(()) => {
                    left.trains += 1;
                    left.messages += 1;
                    left.bytes += message.len() as u64;
                }
                Err(errno) => turn.dropped(peer, refusal(errno), 1),
            }
        }
        left
    }
}

fn refusal(errno: Errno) -> DropReason {
    match errno {
        libc::EAGAIN | libc::ENOBUFS => DropReason::SocketFull,
        _ => DropReason::SendRefused,
    }
}
