//! One batch of messages for peers: numbered, sealed together, regrouped per destination, sent.
//!
//! 1. [`SendBatch::push`] writes a plaintext behind its header into the transmit buffer;
//!    [`SendBatch::push_in_place`] takes plaintexts that lie where they arrived, in a train of the
//!    turn.
//! 2. [`SendBatch::flush`] seals all of them as one batch, in place,
//! 3. splits the messages of each destination, in order, into trains,
//! 4. sends them, and
//! 5. processes the outcomes: a refused train is retried in a plainer form
//!    ([`super::completion`]), one that found its socket full is held ([`super::backpressure`]).

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::atomic::Ordering;

use arrayvec::ArrayVec;
use wg_bounce_aead::{Aead, BATCH, Seal};
use wg_bounce_sys::clock::Millis;
use wg_bounce_sys::{Errno, Family, NOT_TRIED, OuterHeader, Outgoing, PerFamily, Train};

use super::backpressure::{HeldTrain, TxBacklog};
use super::completion::{OneTrain, SentStats, Slices, Target, note_sent};
use crate::hash::IndexHasher;
use crate::limits::{BATCH_MESSAGES_MAX, NONCES_IN_FLIGHT_MAX, SEND_BYTES_MAX, TX_BUFFER_LEN};
use crate::recycle::recycle;
use crate::segments::TrainBuilder;
use crate::session::{Nonces, SendSession};
use crate::turn::Turn;
use crate::wire::{self, DATA_HEADER_LEN, DATA_OVERHEAD, DataHeader, Kind, write_data_header};

/// A plaintext between header and tag, in the buffer where its message arrived.
#[derive(Clone, Copy, Debug)]
pub struct InPlace {
    /// The index of its train in the turn.
    pub train: u32,
    /// Offset of its message in the train's buffer (bytes).
    pub offset: u32,
    /// Length of the message, header and tag included; at most what arrived (bytes).
    pub length: u32,
    /// The outer IP header to send it with.
    pub header: OuterHeader,
}

impl InPlace {
    /// Length of the plaintext, padding included (bytes).
    pub fn plaintext_len(&self) -> u64 {
        u64::from(self.length) - DATA_OVERHEAD as u64
    }
}

/// One message of the batch.
struct Message {
    /// The buffer that holds it: the index of a train of the turn, or [`IN_TX_BUFFER`].
    buffer: u32,
    /// Offset in that buffer (bytes).
    offset: u32,
    /// Length, header and tag included (bytes).
    length: u32,
    counter: u64,
    destination: u32,
    /// The destination's next message, or [`NONE`].
    next: u32,
    header: OuterHeader,
    is_data: bool,
}

const NONE: u32 = u32::MAX;
/// In place of a train's index: the transmit buffer.
const IN_TX_BUFFER: u32 = u32::MAX;

/// Contiguous bytes of one buffer.
struct Span {
    buffer: u32,
    range: Range<usize>,
}

impl Span {
    fn slice<'a>(&self, tx_buffer: &'a [u8], trains: &'a [Train]) -> &'a [u8] {
        let buffer = match self.buffer {
            IN_TX_BUFFER => tx_buffer,
            index => &trains[index as usize].buffer,
        };
        &buffer[self.range.clone()]
    }
}

/// All messages of the batch for one session (one peer, unless it has just rekeyed).
struct Destination {
    target: Target,
    first: u32,
    last: u32,
    count: u32,
}

/// The destination of a train, and how many messages the train carries.
#[derive(Clone, Copy)]
struct TrainInfo {
    destination: u32,
    messages: u32,
    has_data: bool,
}

/// The batch of one worker.
pub struct SendBatch {
    tx_buffer: Box<[u8]>,
    tx_used: usize,
    messages: Vec<Message>,
    destinations: Vec<Destination>,
    /// Destinations by the identity of their session, see [`identity`].
    lookup: HashMap<usize, u32, BuildHasherDefault<IndexHasher>>,
    /// Messages that one session may have in the batch: this worker's share of the nonces in
    /// flight.
    per_session_max: u32,
    aead: Aead,
    use_gso: bool,
    /// Bytes of a train at most, by family.
    train_max: PerFamily<usize>,
    outgoing: Vec<Outgoing>,
    /// One for each of `outgoing`.
    trains: Vec<TrainInfo>,
    /// The pieces of all trains; adjacent messages share one.
    spans: Vec<Span>,
    pieces: Vec<IoSlice<'static>>,
    outcomes: Vec<Errno>,
}

/// The identity of a session while a destination holds it. Its index would not do, because
/// control may reuse that: a nonce must never meet the key of another session.
fn identity(session: &SendSession) -> usize {
    std::ptr::from_ref(session).addr()
}

impl SendBatch {
    /// An empty batch. Allocates all its memory here; `workers` share the nonces in flight.
    pub fn new(workers: usize, aead: Aead, use_gso: bool) -> SendBatch {
        SendBatch {
            tx_buffer: vec![0; TX_BUFFER_LEN].into(),
            tx_used: 0,
            messages: Vec::with_capacity(BATCH_MESSAGES_MAX),
            destinations: Vec::with_capacity(BATCH_MESSAGES_MAX),
            lookup: HashMap::with_capacity_and_hasher(BATCH_MESSAGES_MAX, Default::default()),
            per_session_max: (NONCES_IN_FLIGHT_MAX / workers as u64).max(1) as u32,
            aead,
            use_gso,
            train_max: PerFamily { v4: SEND_BYTES_MAX, v6: SEND_BYTES_MAX },
            outgoing: Vec::with_capacity(BATCH_MESSAGES_MAX),
            trains: Vec::with_capacity(BATCH_MESSAGES_MAX),
            spans: Vec::with_capacity(BATCH_MESSAGES_MAX),
            pieces: Vec::with_capacity(BATCH_MESSAGES_MAX),
            outcomes: Vec::with_capacity(BATCH_MESSAGES_MAX),
        }
    }

    /// The number of messages, each of at most `length` plaintext bytes (padding included), that
    /// may be pushed for this session before the next flush.
    pub fn capacity_for(&self, session: &SendSession, length: usize) -> usize {
        let waiting = match self.lookup.get(&identity(session)) {
            Some(&index) => self.destinations[index as usize].count,
            None => 0,
        };
        let nonces = self.per_session_max.saturating_sub(waiting) as usize;
        let by_bytes = (self.tx_buffer.len() - self.tx_used) / (length + DATA_OVERHEAD);
        nonces.min(by_bytes).min(BATCH_MESSAGES_MAX - self.messages.len())
    }

    /// Appends one message of `length` plaintext bytes, padding included. `fill` must write every
    /// one of them, because the buffer holds what was sent before. The caller has checked
    /// [`SendBatch::capacity_for`] and reserved `counter` from the session of `target`.
    pub fn push(
        &mut self,
        target: &Target,
        header: OuterHeader,
        counter: u64,
        length: usize,
        fill: impl FnOnce(&mut [u8]),
    ) {
        let offset = self.tx_used;
        let end = offset + DATA_OVERHEAD + length;
        let message = &mut self.tx_buffer[offset..end];
        let receiver = target.session.info.remote_index;
        write_data_header(message, DataHeader { receiver, counter });
        fill(&mut message[DATA_HEADER_LEN..DATA_HEADER_LEN + length]);
        self.tx_used = end;
        let destination = self.destination(target);
        let length = (end - offset) as u32;
        let message = InPlace { train: IN_TX_BUFFER, offset: offset as u32, length, header };
        self.append(destination, message, counter);
    }

    /// Sets the length of trains to a family (bytes; one message is always sent).
    pub fn set_train_max(&mut self, family: Family, bytes: usize) {
        *self.train_max.of_mut(family) = bytes;
    }

    /// Messages of one session that an empty batch takes.
    pub fn per_session_max(&self) -> usize {
        self.per_session_max as usize
    }

    /// The number of messages in trains that may be pushed for this session before the next flush.
    pub fn capacity_in_place(&self, session: &SendSession) -> usize {
        self.capacity_for(session, 0)
    }

    /// Appends messages that lie in trains of the turn, in ascending order of their offsets within
    /// one flush, and writes their headers. The caller has checked
    /// [`SendBatch::capacity_in_place`] and reserved `nonces`, one for each, from the session of
    /// `target`.
    pub fn push_in_place(
        &mut self,
        target: &Target,
        messages: &[InPlace],
        nonces: Nonces,
        trains: &mut [Train],
    ) {
        let destination = self.destination(target);
        let receiver = target.session.info.remote_index;
        for (place, counter) in messages.iter().zip(nonces) {
            let message = &mut trains[place.train as usize].buffer[place.offset as usize..];
            write_data_header(message, DataHeader { receiver, counter });
            self.append(destination, *place, counter);
        }
    }

    /// Seals, regroups and sends everything that was pushed; holds in `backlog` what finds its
    /// socket full.
    ///
    /// # Errors
    /// Only those of a broken invariant: a refused send is held or counted, not returned.
    pub fn flush(&mut self, backlog: &mut TxBacklog, turn: &mut Turn<'_>) -> io::Result<()> {
        if self.messages.is_empty() {
            return Ok(());
        }
        self.seal_tx_buffer();
        self.seal_in_place(turn.trains);
        self.regroup(turn.now, turn.snapshot.mtu + DATA_OVERHEAD);
        let mut pieces = recycle(std::mem::take(&mut self.pieces));
        let slices = self.spans.iter().map(|span| span.slice(&self.tx_buffer, turn.trains));
        pieces.extend(slices.map(IoSlice::new));
        let result = turn.io.send(&self.outgoing, &pieces, &mut self.outcomes);
        self.pieces = recycle(pieces);
        result?;
        self.process_outcomes(backlog, turn);
        self.tx_used = 0;
        self.messages.clear();
        self.destinations.clear();
        self.lookup.clear();
        Ok(())
    }

    fn destination(&mut self, target: &Target) -> u32 {
        let destinations = &mut self.destinations;
        *self.lookup.entry(identity(&target.session)).or_insert_with(|| {
            let target = target.clone();
            destinations.push(Destination { target, first: NONE, last: NONE, count: 0 });
            destinations.len() as u32 - 1
        })
    }

    fn append(&mut self, destination: u32, place: InPlace, counter: u64) {
        let InPlace { train: buffer, offset, length, header } = place;
        let is_data = length as usize > DATA_OVERHEAD;
        let index = self.messages.len() as u32;
        self.messages.push(Message {
            buffer,
            offset,
            length,
            counter,
            destination,
            next: NONE,
            header,
            is_data,
        });
        let destination = &mut self.destinations[destination as usize];
        match destination.last {
            NONE => destination.first = index,
            last => self.messages[last as usize].next = index,
        }
        destination.last = index;
        destination.count += 1;
    }

    fn seal_tx_buffer(&mut self) {
        let mut batch: ArrayVec<Seal<'_>, BATCH> = ArrayVec::new();
        let mut rest: &mut [u8] = &mut self.tx_buffer[..self.tx_used];
        for message in self.messages.iter().filter(|message| message.buffer == IN_TX_BUFFER) {
            let (bytes, tail) = rest.split_at_mut(message.length as usize);
            rest = tail;
            push_seal(self.aead, &mut batch, message, &self.destinations, bytes);
        }
        self.aead.seal(&mut batch);
    }

    fn seal_in_place(&mut self, trains: &mut [Train]) {
        let mut batch: ArrayVec<Seal<'_>, BATCH> = ArrayVec::new();
        let mut messages =
            self.messages.iter().filter(|message| message.buffer != IN_TX_BUFFER).peekable();
        for (index, train) in trains.iter_mut().enumerate() {
            let mut rest: &mut [u8] = &mut train.buffer;
            let mut rest_offset = 0;
            while let Some(message) = messages.next_if(|message| message.buffer == index as u32) {
                let (offset, length) = (message.offset as usize, message.length as usize);
                let (bytes, tail) = rest[offset - rest_offset..].split_at_mut(length);
                (rest, rest_offset) = (tail, offset + length);
                push_seal(self.aead, &mut batch, message, &self.destinations, bytes);
            }
        }
        self.aead.seal(&mut batch);
        // A message that is not sealed here would leave in clear text.
        assert!(messages.next().is_none(), "messages are pushed in the order of their offsets");
    }

    /// Splits the messages of each destination into trains. A message beyond `length_max` (bytes)
    /// leaves by itself: the kernel fragments its datagram, but would refuse such a train.
    fn regroup(&mut self, now: Millis, length_max: usize) {
        self.outgoing.clear();
        self.trains.clear();
        self.spans.clear();
        for (index, destination) in self.destinations.iter().enumerate() {
            let path = &destination.target.path;
            let use_gso = self.use_gso && path.gso_refused_until.load(Ordering::Relaxed) <= now.0;
            let to = path.destination();
            let max = *self.train_max.of(path.endpoint.family());
            let mut builder = TrainBuilder::new(max);
            let mut train_header = OuterHeader::default();
            let mut next = destination.first;
            while let Some(message) = self.messages.get(next as usize) {
                next = message.next;
                let (offset, length) = (message.offset as usize, message.length as usize);
                let may_follow = use_gso
                    && builder.count > 0
                    && builder.segment_size.max(length) <= length_max
                    && message.header == train_header;
                if !(may_follow && builder.push(length)) {
                    builder = TrainBuilder::new(max);
                    train_header = message.header;
                    let _first = builder.push(length);
                    let begin = self.spans.len();
                    self.outgoing.push(Outgoing {
                        to,
                        header: message.header,
                        segment_size: 0,
                        pieces: begin..begin,
                        group: index as u32,
                    });
                    let destination = index as u32;
                    self.trains.push(TrainInfo { destination, messages: 0, has_data: false });
                }
                let outgoing = self.outgoing.last_mut().expect("a train was begun");
                let train = self.trains.last_mut().expect("a train was begun");
                train.messages += 1;
                train.has_data |= message.is_data;
                if train.messages > 1 {
                    outgoing.segment_size = builder.segment_size;
                }
                match self.spans[outgoing.pieces.clone()].last_mut() {
                    Some(last) if last.buffer == message.buffer && last.range.end == offset => {
                        last.range.end = offset + length;
                    }
                    _ => {
                        let range = offset..offset + length;
                        self.spans.push(Span { buffer: message.buffer, range });
                        outgoing.pieces.end += 1;
                    }
                }
            }
        }
    }

    /// Processes the outcomes of a send. A train that was not tried, because one of its
    /// destination before it was refused, is sent by itself: if each is refused, as without a
    /// route, trying all that follow together would take quadratic time.
    fn process_outcomes(&self, backlog: &mut TxBacklog, turn: &mut Turn<'_>) {
        // The destination whose trains are held: what follows in its group is held as well.
        let mut full = None;
        for (index, &train) in self.trains.iter().enumerate() {
            let Target { peer, path, .. } = self.target_of(train);
            let sent = match self.outcomes[index] {
                0 => Some(SentStats::train(train.messages, self.bytes_of(index))),
                libc::EAGAIN => None,
                NOT_TRIED if full == Some(train.destination) => None,
                // EINTR: of a ring; the other calls are made again at once.
                NOT_TRIED | libc::EINTR => {
                    self.alone(index, turn, |one| one.send(peer, path, turn))
                }
                errno => self.alone(index, turn, |one| one.retry_plainer(errno, peer, path, turn)),
            };
            match sent {
                Some(sent) => note_sent(self.target_of(train), sent, train.has_data, turn),
                None => {
                    self.hold(index, backlog, turn);
                    full = Some(train.destination);
                }
            }
        }
    }

    /// Holds a train that found its socket full.
    fn hold(&self, index: usize, backlog: &mut TxBacklog, turn: &Turn<'_>) {
        let Outgoing { header, segment_size, .. } = self.outgoing[index];
        let train = self.trains[index];
        let bytes: Box<[u8]> = self.slices_of(index, turn).concat().into();
        let first_counter = match wire::classify(&bytes) {
            Some(Kind::Data(header)) => header.counter,
            _ => unreachable!("only data is sealed"),
        };
        let held = HeldTrain {
            first_counter,
            bytes,
            header,
            segment_size,
            messages: train.messages,
            has_data: train.has_data,
        };
        backlog.push(self.target_of(train), held, turn);
    }

    /// Sends a train outside the batch.
    fn alone<T>(&self, index: usize, turn: &Turn<'_>, send: impl FnOnce(&OneTrain<'_>) -> T) -> T {
        let Outgoing { to, header, segment_size, .. } = self.outgoing[index];
        let messages = self.trains[index].messages;
        let slices = &self.slices_of(index, turn);
        send(&OneTrain { to, header, segment_size, messages, slices })
    }

    fn target_of(&self, train: TrainInfo) -> &Target {
        &self.destinations[train.destination as usize].target
    }

    fn slices_of<'a>(&'a self, index: usize, turn: &'a Turn<'_>) -> Slices<'a> {
        let spans = &self.spans[self.outgoing[index].pieces.clone()];
        spans.iter().map(|span| span.slice(&self.tx_buffer, turn.trains)).collect()
    }

    fn bytes_of(&self, index: usize) -> usize {
        let spans = &self.spans[self.outgoing[index].pieces.clone()];
        spans.iter().map(|span| span.range.len()).sum()
    }
}

/// Adds a message to the AEAD's batch, and seals that when it is full.
fn push_seal<'a>(
    aead: Aead,
    batch: &mut ArrayVec<Seal<'a>, BATCH>,
    message: &Message,
    destinations: &'a [Destination],
    bytes: &'a mut [u8],
) {
    let session = &destinations[message.destination as usize].target.session;
    batch.push(Seal { key: &session.key, counter: message.counter, message: bytes });
    if batch.is_full() {
        aead.seal(batch);
        batch.clear();
    }
}
