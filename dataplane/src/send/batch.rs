//! Messages on their way out: numbered, sealed as one batch, regrouped per destination, sent.
//!
//! 1. [`SendBatch::push`] writes one plaintext behind its header into the room of the turn;
//!    [`SendBatch::push_placed`] takes one that lies where it arrived, in a train of the turn.
//! 2. [`SendBatch::flush`] seals all of them as one batch, in place,
//! 3. splits the messages of each destination, in their order, into trains,
//! 4. sends, and
//! 5. accounts for what left ([`settle`]); what was refused is tried again in a plainer form, what
//!    met a full socket is held ([`held`]), the rest is counted.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrayvec::ArrayVec;
use wg_bounce_aead::{Aead, BATCH, Seal};
use wg_bounce_sys::clock::Millis;
use wg_bounce_sys::{self, Errno, Outgoing};

use super::backpressure::TxBacklog;
use crate::counters::DropReason;
use crate::index_table::IndexHasher;
use crate::limits::NONCES_IN_FLIGHT_MAX;
use crate::peer::{Path, Peer};
use crate::recycle::recycle;
use crate::segments::Train;
use crate::session::{Nonces, SendSession};
use crate::turn::Turn;
use crate::wire::{DATA_HEADER_LEN, DATA_OVERHEAD, DataHeader, write_data_header};

/// Bytes of messages that wait for one flush: several super-packets.
const ROOM: usize = 1 << 20;
/// Messages that wait for one flush.
const MESSAGES_MAX: usize = 4096;
/// One message.
pub(super) struct Message {
    /// Which buffer it lies in: a train of the turn by its number, or [`IN_ROOM`].
    pub(super) place: u32,
    /// Where it begins in its buffer (bytes).
    pub(super) at: u32,
    /// Its length (bytes), header and tag included.
    pub(super) length: u32,
    pub(super) counter: u64,
    pub(super) destination: u32,
    /// The destination's next message.
    pub(super) next: u32,
    pub(super) ecn: u8,
    pub(super) is_data: bool,
}

const NONE: u32 = u32::MAX;
/// In place of a train's number: the room.
const IN_ROOM: u32 = u32::MAX;

/// A plaintext that lies between header and tag where its message arrived.
#[derive(Clone, Copy, Debug)]
pub struct InPlace {
    /// The number of its train in the turn.
    pub train: u32,
    /// Where its message begins in the train's buffer (bytes).
    pub at: u32,
    /// Length of the message (bytes), header and tag included; not more than arrived.
    pub length: u32,
    /// The outer ECN field that it leaves with.
    pub ecn: u8,
}

/// Bytes of one buffer that a train consists of.
pub(super) struct Span {
    pub(super) place: u32,
    pub(super) range: Range<usize>,
}

impl Span {
    pub(super) fn slice<'a>(&self, room: &'a [u8], trains: &'a [wg_bounce_sys::Train]) -> &'a [u8] {
        let buffer = match self.place {
            IN_ROOM => room,
            number => &trains[number as usize].buffer,
        };
        &buffer[self.range.clone()]
    }
}

/// All messages of the flush for one session: one peer, unless it rekeyed meanwhile.
pub(super) struct Destination {
    pub(super) way: Way,
    pub(super) first: u32,
    pub(super) last: u32,
    pub(super) count: u32,
}

/// Whose messages a send carries, and how many.
#[derive(Clone, Copy)]
pub(super) struct Load {
    pub(super) destination: u32,
    pub(super) messages: u32,
    pub(super) has_data: bool,
}

/// The way to a peer at this moment.
#[derive(Clone)]
pub struct Way {
    /// The peer.
    pub peer: Arc<Peer>,
    /// A session that is alive.
    pub session: Arc<SendSession>,
    /// Where to.
    pub path: Arc<Path>,
}

/// The sealing and sending side of one worker.
pub struct SendBatch {
    pub(super) room: Box<[u8]>,
    pub(super) used: usize,
    pub(super) messages: Vec<Message>,
    pub(super) destinations: Vec<Destination>,
    /// Destinations by their session, see [`identity`].
    pub(super) lookup: HashMap<usize, u32, BuildHasherDefault<IndexHasher>>,
    /// Messages that may wait for one session: this worker's share of the nonces in flight.
    pub(super) per_session_max: u32,
    pub(super) aead: Aead,
    pub(super) use_gso: bool,
    pub(super) outgoing: Vec<Outgoing>,
    pub(super) loads: Vec<Load>,
    /// What the trains consist of; what lies side by side is one stretch.
    pub(super) stretches: Vec<Span>,
    pub(super) pieces: Vec<IoSlice<'static>>,
    pub(super) outcomes: Vec<Errno>,
    pub(super) held: TxBacklog,
}

/// What tells sessions apart while a destination holds them: not their index, which control may
/// give again. A nonce must never meet the key of another session.
fn identity(session: &SendSession) -> usize {
    std::ptr::from_ref(session).addr()
}

impl SendBatch {
    /// Takes all its memory here; `workers` share the nonces that may be in flight. A socket has
    /// a buffer of `socket_buffer` bytes.
    pub fn new(workers: usize, aead: Aead, use_gso: bool, socket_buffer: usize) -> SendBatch {
        SendBatch {
            room: vec![0; ROOM].into(),
            used: 0,
            messages: Vec::with_capacity(MESSAGES_MAX),
            destinations: Vec::with_capacity(MESSAGES_MAX),
            lookup: HashMap::with_capacity_and_hasher(MESSAGES_MAX, Default::default()),
            per_session_max: (NONCES_IN_FLIGHT_MAX / workers as u64).max(1) as u32,
            aead,
            use_gso,
            outgoing: Vec::with_capacity(MESSAGES_MAX),
            loads: Vec::with_capacity(MESSAGES_MAX),
            stretches: Vec::with_capacity(MESSAGES_MAX),
            pieces: Vec::with_capacity(MESSAGES_MAX),
            outcomes: Vec::with_capacity(MESSAGES_MAX),
            held: TxBacklog::new(socket_buffer),
        }
    }

    /// How many messages of at most `length` plaintext bytes (padding included) may be pushed for
    /// this session before the next flush.
    pub fn room_for(&self, session: &SendSession, length: usize) -> usize {
        let waiting = match self.lookup.get(&identity(session)) {
            Some(&number) => self.destinations[number as usize].count,
            None => 0,
        };
        let nonces = self.per_session_max.saturating_sub(waiting) as usize;
        let bytes = (self.room.len() - self.used) / (length + DATA_OVERHEAD);
        nonces.min(bytes).min(MESSAGES_MAX - self.messages.len())
    }

    /// Appends one message of `length` plaintext bytes, padding included. `fill` must write every
    /// one of them: the room holds what was sent before. The caller has asked
    /// [`SendBatch::room_for`] and reserved `counter` from the session of `way`.
    pub fn push(
        &mut self,
        way: &Way,
        ecn: u8,
        counter: u64,
        length: usize,
        fill: impl FnOnce(&mut [u8]),
    ) {
        let at = self.used;
        let end = at + DATA_OVERHEAD + length;
        let message = &mut self.room[at..end];
        let receiver = way.session.info.remote_index;
        write_data_header(message, DataHeader { receiver, counter });
        fill(&mut message[DATA_HEADER_LEN..DATA_HEADER_LEN + length]);
        self.used = end;
        let destination = self.destination(way);
        let length = (end - at) as u32;
        let placed = InPlace { train: IN_ROOM, at: at as u32, length, ecn };
        self.append(destination, placed, counter);
    }

    /// How many messages that lie in trains may be pushed for this session before the next flush.
    pub fn room_for_placed(&self, session: &SendSession) -> usize {
        self.room_for(session, 0)
    }

    /// Appends messages that lie in trains of the turn, in ascending order of their places within
    /// one flush, and writes their headers. The caller has asked [`SendBatch::room_for_placed`]
    /// and reserved `nonces`, one for each, from the session of `way`.
    pub fn push_placed(
        &mut self,
        way: &Way,
        messages: &[InPlace],
        nonces: Nonces,
        trains: &mut [wg_bounce_sys::Train],
    ) {
        let destination = self.destination(way);
        let receiver = way.session.info.remote_index;
        for (placed, counter) in messages.iter().zip(nonces) {
            let message = &mut trains[placed.train as usize].buffer[placed.at as usize..];
            write_data_header(message, DataHeader { receiver, counter });
            self.append(destination, *placed, counter);
        }
    }

    /// Seals, regroups and sends everything that was pushed.
    ///
    /// # Errors
    /// Only those of a broken invariant: a refused send is held or counted, not returned.
    pub fn flush(&mut self, turn: &mut Turn<'_>) -> io::Result<()> {
        if self.messages.is_empty() {
            return Ok(());
        }
        self.seal_room();
        self.seal_placed(turn.trains);
        self.regroup(turn.now);
        // Once, unless something was refused and others of its destination wait behind it.
        while !self.outgoing.is_empty() {
            let mut pieces = recycle(std::mem::take(&mut self.pieces));
            let slices = self.stretches.iter().map(|one| one.slice(&self.room, turn.trains));
            pieces.extend(slices.map(IoSlice::new));
            let result = turn.io.send(&self.outgoing, &pieces, &mut self.outcomes);
            self.pieces = recycle(pieces);
            result?;
            self.settle(turn);
        }
        self.used = 0;
        self.messages.clear();
        self.destinations.clear();
        self.lookup.clear();
        Ok(())
    }

    /// Sealed trains that found their socket full.
    pub fn held(&self) -> &TxBacklog {
        &self.held
    }

    /// Sends what is held, as far as there is room. Says whose trains have all left.
    ///
    /// # Errors
    /// As for [`SendBatch::flush`].
    pub fn resume(&mut self, turn: &mut Turn<'_>) -> io::Result<Vec<Arc<Peer>>> {
        self.held.resume(turn)
    }

    /// Drops what is held for a peer that is no more.
    pub fn forget(&mut self, peer: &Peer, turn: &Turn<'_>) {
        turn.dropped(peer, DropReason::SocketFull, self.held.forget(peer.id));
    }

    fn destination(&mut self, way: &Way) -> u32 {
        let destinations = &mut self.destinations;
        *self.lookup.entry(identity(&way.session)).or_insert_with(|| {
            let way = way.clone();
            destinations.push(Destination { way, first: NONE, last: NONE, count: 0 });
            destinations.len() as u32 - 1
        })
    }

    fn append(&mut self, destination: u32, placed: InPlace, counter: u64) {
        let InPlace { train: place, at, length, ecn } = placed;
        let is_data = length as usize > DATA_OVERHEAD;
        let number = self.messages.len() as u32;
        let message = Message { place, at, length, counter, destination, next: NONE, ecn, is_data };
        self.messages.push(message);
        let destination = &mut self.destinations[destination as usize];
        match destination.last {
            NONE => destination.first = number,
            last => self.messages[last as usize].next = number,
        }
        destination.last = number;
        destination.count += 1;
    }

    fn seal_room(&mut self) {
        let mut batch: ArrayVec<Seal<'_>, BATCH> = ArrayVec::new();
        let mut rest: &mut [u8] = &mut self.room[..self.used];
        for message in self.messages.iter().filter(|message| message.place == IN_ROOM) {
            let (bytes, tail) = rest.split_at_mut(message.length as usize);
            rest = tail;
            push_seal(self.aead, &mut batch, message, &self.destinations, bytes);
        }
        self.aead.seal(&mut batch);
    }

    fn seal_placed(&mut self, trains: &mut [wg_bounce_sys::Train]) {
        let mut batch: ArrayVec<Seal<'_>, BATCH> = ArrayVec::new();
        let mut messages =
            self.messages.iter().filter(|message| message.place != IN_ROOM).peekable();
        for (number, train) in trains.iter_mut().enumerate() {
            let mut rest: &mut [u8] = &mut train.buffer;
            let mut rest_at = 0;
            while let Some(message) = messages.next_if(|message| message.place == number as u32) {
                let (at, length) = (message.at as usize, message.length as usize);
                let (bytes, tail) = rest[at - rest_at..].split_at_mut(length);
                (rest, rest_at) = (tail, at + length);
                push_seal(self.aead, &mut batch, message, &self.destinations, bytes);
            }
        }
        self.aead.seal(&mut batch);
        // What is not sealed here would leave as it is.
        assert!(messages.next().is_none(), "messages are pushed in the order of their places");
    }

    /// Splits the messages of each destination into trains.
    fn regroup(&mut self, now: Millis) {
        self.outgoing.clear();
        self.loads.clear();
        self.stretches.clear();
        for (number, destination) in self.destinations.iter().enumerate() {
            let path = &destination.way.path;
            let use_gso = self.use_gso && path.gso_refused_until.load(Ordering::Relaxed) <= now.0;
            let mut open = Train::default();
            let mut open_ecn = 0;
            let mut next = destination.first;
            while let Some(message) = self.messages.get(next as usize) {
                next = message.next;
                let (at, length) = (message.at as usize, message.length as usize);
                let may_follow = use_gso && open.count > 0 && message.ecn == open_ecn;
                if !(may_follow && open.push(length)) {
                    open = Train::default();
                    open_ecn = message.ecn;
                    let _is_first = open.push(length);
                    let begin = self.stretches.len();
                    self.outgoing.push(Outgoing {
                        to: path.endpoint,
                        traffic_class: message.ecn,
                        segment: 0,
                        pieces: begin..begin,
                        group: number as u32,
                    });
                    self.loads.push(Load {
                        destination: number as u32,
                        messages: 0,
                        has_data: false,
                    });
                }
                let outgoing = self.outgoing.last_mut().expect("a train was begun");
                let load = self.loads.last_mut().expect("a train was begun");
                load.messages += 1;
                load.has_data |= message.is_data;
                if load.messages > 1 {
                    outgoing.segment = open.segment;
                }
                match self.stretches[outgoing.pieces.clone()].last_mut() {
                    Some(last) if last.place == message.place && last.range.end == at => {
                        last.range.end = at + length;
                    }
                    _ => {
                        self.stretches.push(Span { place: message.place, range: at..at + length });
                        outgoing.pieces.end += 1;
                    }
                }
            }
        }
    }
}

/// Adds a message to the batch, and seals the batch when it is full.
fn push_seal<'a>(
    aead: Aead,
    batch: &mut ArrayVec<Seal<'a>, BATCH>,
    message: &Message,
    destinations: &'a [Destination],
    bytes: &'a mut [u8],
) {
    let session = &destinations[message.destination as usize].way.session;
    batch.push(Seal { key: &session.key, counter: message.counter, message: bytes });
    if batch.is_full() {
        aead.seal(batch);
        batch.clear();
    }
}
