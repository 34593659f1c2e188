//! The way in: from UDP trains to IP packets on the TUN, or to another peer.
//!
//! 1. [`ReceivePath::sort`]: each datagram by what it claims to be. Handshake messages with a right
//!    mac1 go to control, data of another worker's session to that worker, our own data is noted.
//! 2. [`ReceivePath::open`]: all data messages of the turn as one batch.
//! 3. [`ReceivePath::accept`]: what is authentic passes the replay window; then it may move the
//!    peer's endpoint, confirm a session, and count. If it is no keepalive, [`Router::course`]
//!    says where its packet goes.
//! 4. [`ReceivePath::relay`]: packets for another peer are left where they lie, to be sealed again.
//! 5. [`ReceivePath::deliver`]: packets of one flow become super-packets, one write each.
//!
//! Nothing that is not authentic changes any state but a counter.

mod handoff;

use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrayvec::ArrayVec;
use wg_bounce_aead::{Aead, BATCH, Open};
use wg_bounce_sys::Endpoint;
use wg_bounce_sys::memory::Buffer;
use wg_bounce_sys::message::PAYLOAD_AT;
use wg_bounce_sys::{Delivery, Errno, Train};

use crate::counters::DropReason;
use crate::drr::QUEUES;
use crate::index_table::IndexTable;
use crate::ip::{self, Packet};
use crate::ip_forward;
use crate::limits::RECEIVE_SEGMENTS_MAX;
use crate::offload::{Coalescer, CoalescerOptions, VNET_HEADER_LEN};
use crate::peer::{Peer, flag};
use crate::recycle::recycle;
use crate::router::{Router, Verdict};
use crate::segments::datagrams;
use crate::send::Sender;
use crate::send::batch::InPlace;
use crate::session::ReceiveSession;
use crate::turn::Turn;
use crate::wire::{self, DATA_HEADER_LEN, DATA_OVERHEAD, Kind, TAG_LEN, padded_len};
use handoff::{hand_off, queue_handshake, sort_answer};

/// Packets coalesced before they are written.
const COALESCE_MAX: usize = 4096;

/// One data message of the turn, by where it lies.
struct Message {
    train: u32,
    /// Where it begins in its train's buffer (bytes).
    at: u32,
    /// Its length (bytes).
    length: u32,
    receiver: u32,
    counter: u64,
    is_authentic: bool,
}

impl Message {
    /// Where its plaintext lies in its train's buffer, padding included (bytes).
    fn plaintext(&self) -> Range<usize> {
        let (at, length) = (self.at as usize, self.length as usize);
        at + DATA_HEADER_LEN..at + length - TAG_LEN
    }
}

/// Where a decrypted IP packet lies.
#[derive(Clone, Copy)]
struct Place {
    train: u32,
    at: u32,
}

/// The way in of one worker.
pub struct ReceivePath {
    /// The indexes that belong to this worker.
    pub sessions: IndexTable,
    /// Says where packets go.
    pub router: Router,
    /// Packets for one other peer: what a run of messages has brought so far.
    relayed: Vec<InPlace>,
    messages: Vec<Message>,
    aead: Aead,
    coalescer: Coalescer<Place>,
    options: CoalescerOptions,
    seed: u64,
    frames: Vec<Delivery>,
    pieces: Vec<IoSlice<'static>>,
    outcomes: Vec<Errno>,
}

/// What consecutive messages of one session and train add up to.
#[derive(Default)]
struct Run {
    /// Bytes of messages that were accepted (UDP payload).
    bytes: u64,
    messages: u64,
    data: u64,
}

impl ReceivePath {
    /// Takes all its memory here. `seed` is random: it keys the table of flows.
    pub fn new(aead: Aead, options: CoalescerOptions, seed: u64, messages: usize) -> ReceivePath {
        ReceivePath {
            aead,
            sessions: IndexTable::default(),
            router: Router::new(seed),
            relayed: Vec::with_capacity(RECEIVE_SEGMENTS_MAX),
            messages: Vec::with_capacity(messages),
            coalescer: Coalescer::new(COALESCE_MAX, options, seed),
            options,
            seed,
            frames: Vec::with_capacity(COALESCE_MAX),
            pieces: Vec::with_capacity(2 * COALESCE_MAX),
            outcomes: Vec::with_capacity(COALESCE_MAX),
        }
    }

    /// Which queue of the backlog a train belongs to: that of the session that its first datagram
    /// names. What names none of ours (handshakes, the rest of the world) shares one.
    pub fn queue_of(&self, train: &Train) -> usize {
        let first = datagrams(train.length, train.segment).next().unwrap_or_default();
        match wire::classify(&train.buffer[PAYLOAD_AT + first.start..PAYLOAD_AT + first.end]) {
            Some(Kind::Data(header)) if self.sessions.get(header.receiver).is_some() => {
                // Indexes are random but for their low byte.
                1 + (header.receiver >> 8) as usize % (QUEUES - 1)
            }
            _ => 0,
        }
    }

    /// Takes all trains of a turn through its stages.
    ///
    /// # Errors
    /// EBADFD: the TUN device was deleted.
    pub fn run(&mut self, dispatch: &mut Sender, turn: &mut Turn<'_>) -> io::Result<()> {
        if turn.trains.is_empty() {
            return Ok(());
        }
        let trains = std::mem::take(&mut turn.trains);
        self.sort(trains, turn);
        self.open(trains);
        turn.trains = trains;
        self.accept(dispatch, turn)?;
        self.deliver(turn)
    }

    fn sort(&mut self, trains: &[Train], turn: &mut Turn<'_>) {
        self.messages.clear();
        for (number, train) in trains.iter().enumerate() {
            let all = datagrams(train.length, train.segment);
            turn.counters.received_trains.add(1);
            turn.counters.received_datagrams.add(all.len() as u64);
            if train.length == 0 || all.excess() > 0 {
                turn.counters.dropped(DropReason::Malformed, 1);
            }
            if !turn.snapshot.is_up {
                turn.counters.dropped(DropReason::InterfaceDown, all.len() as u64);
                continue;
            }
            for range in all {
                let (at, length) = (PAYLOAD_AT + range.start, range.len());
                let datagram = &train.buffer[at..at + length];
                match wire::classify(datagram) {
                    None => turn.counters.dropped(DropReason::Malformed, 1),
                    Some(Kind::Data(header)) => {
                        let message = Message {
                            train: number as u32,
                            at: at as u32,
                            length: length as u32,
                            receiver: header.receiver,
                            counter: header.counter,
                            is_authentic: false,
                        };
                        self.sort_data(message, train, datagram, turn);
                    }
                    Some(Kind::Initiation) => queue_handshake(datagram, train, true, turn),
                    Some(Kind::Response(index)) => {
                        let is_awaited = self.sessions.is_expected(index);
                        sort_answer(is_awaited, index, train, datagram, turn);
                    }
                    Some(Kind::CookieReply(index)) => {
                        let is_awaited = self.sessions.is_cookie_expected(index);
                        sort_answer(is_awaited, index, train, datagram, turn);
                    }
                }
            }
        }
    }

    fn sort_data(&mut self, message: Message, train: &Train, datagram: &[u8], turn: &mut Turn<'_>) {
        match self.sessions.get(message.receiver) {
            Some(session) if session.is_alive(turn.now) => self.messages.push(message),
            Some(session) => turn.dropped(&session.peer, DropReason::ExpiredSession, 1),
            None => hand_off(message.receiver, train, datagram, turn),
        }
    }

    fn open(&mut self, trains: &mut [Train]) {
        let mut batch: ArrayVec<Open<'_>, BATCH> = ArrayVec::new();
        let mut done = 0;
        let mut next = 0;
        for (number, train) in trains.iter_mut().enumerate() {
            let mut rest: &mut [u8] = &mut train.buffer;
            let mut rest_at = 0;
            while let Some(message) = self.messages.get(next) {
                if message.train != number as u32 {
                    break;
                }
                let (at, length) = (message.at as usize, message.length as usize);
                let (bytes, tail) = rest[at - rest_at..].split_at_mut(length);
                (rest, rest_at) = (tail, at + length);
                let session = self.sessions.get(message.receiver).expect("sorted with it");
                let counter = message.counter;
                batch.push(Open { key: &session.key, counter, message: bytes, authentic: false });
                next += 1;
                if batch.is_full() {
                    open_batch(self.aead, &mut batch, &mut self.messages[done..next]);
                    done = next;
                }
            }
        }
        open_batch(self.aead, &mut batch, &mut self.messages[done..next]);
    }

    fn accept(&mut self, dispatch: &mut Sender, turn: &mut Turn<'_>) -> io::Result<()> {
        self.router.begin_turn();
        let mut next = 0;
        while next < self.messages.len() {
            let (train, receiver) = (self.messages[next].train, self.messages[next].receiver);
            let end = next
                + self.messages[next..]
                    .iter()
                    .take_while(|m| m.train == train && m.receiver == receiver)
                    .count();
            if self.coalescer.len() + (end - next) > COALESCE_MAX {
                self.deliver(turn)?;
            }
            self.accept_run(next..end, receiver, dispatch, turn)?;
            next = end;
        }
        Ok(())
    }

    /// Takes consecutive messages of one session and train.
    fn accept_run(
        &mut self,
        messages: Range<usize>,
        receiver: u32,
        dispatch: &mut Sender,
        turn: &mut Turn<'_>,
    ) -> io::Result<()> {
        let ReceivePath { sessions, router, relayed, coalescer, .. } = self;
        let session = sessions.get_mut(receiver).expect("sorted with it");
        let mut run = Run::default();
        let mut relay_to: Option<Arc<Peer>> = None;
        let train = &turn.trains[self.messages[messages.start].train as usize];
        let (from, is_handed_over) = (train.from, matches!(train.buffer, Buffer::Heap(_)));
        for message in &self.messages[messages] {
            let Some((packet, course)) = accept_message(message, session, &mut run, router, turn)
            else {
                continue;
            };
            match course {
                Verdict::Deliver => deliver(message, coalescer, turn),
                Verdict::Drop(reason) => turn.dropped(&session.peer, reason, 1),
                Verdict::Relay => {
                    let peer = router.receiver();
                    if relay_to.as_ref().is_none_or(|known| !Arc::ptr_eq(known, peer))
                        && let Some(known) = relay_to.replace(Arc::clone(peer))
                    {
                        dispatch.relay(&known, relayed, turn)?;
                        relayed.clear();
                    }
                    relayed.push(prepare_relay(message, &packet, turn));
                }
            }
        }
        if let Some(peer) = relay_to {
            dispatch.relay(&peer, relayed, turn)?;
            relayed.clear();
        }
        if is_handed_over {
            session.peer.counters.handed_off.add(run.messages);
        }
        finish_run(&run, session, from, turn);
        Ok(())
    }

    fn deliver(&mut self, turn: &mut Turn<'_>) -> io::Result<()> {
        if self.coalescer.is_empty() {
            return Ok(());
        }
        self.frames.clear();
        for group in self.coalescer.groups() {
            let first = group.first();
            let at = first.handle.at as usize;
            let buffer = &mut turn.trains[first.handle.train as usize].buffer;
            let packet = &mut buffer[at..at + first.len];
            // Before its headers become those of the group: they then claim more than one packet.
            let queue = ip::flow_hash(packet) as usize % turn.post.neighbours.len();
            let header = group.finish(packet);
            // The virtio header takes the place of the data message's.
            buffer[at - VNET_HEADER_LEN..at].copy_from_slice(&header.to_bytes());
            self.frames.push(Delivery { queue, pieces: 0..0 });
        }
        let mut pieces = recycle(std::mem::take(&mut self.pieces));
        for (group, frame) in self.coalescer.groups().zip(&mut self.frames) {
            let begin = pieces.len();
            for (number, member) in group.members().enumerate() {
                let at = member.handle.at as usize;
                let buffer = &turn.trains[member.handle.train as usize].buffer;
                let from = if number == 0 { at - VNET_HEADER_LEN } else { at + member.payload_at };
                pieces.push(IoSlice::new(&buffer[from..at + member.len]));
            }
            frame.pieces = begin..pieces.len();
        }
        let result = turn.io.write(&self.frames, &pieces, &mut self.outcomes);
        self.pieces = recycle(pieces);
        result?;
        self.settle(turn)?;
        self.coalescer.clear();
        Ok(())
    }

    /// Counts what was written, and gives up coalescing where the kernel refuses it.
    fn settle(&mut self, turn: &mut Turn<'_>) -> io::Result<()> {
        let mut is_refused = false;
        for (group, &outcome) in self.coalescer.groups().zip(&self.outcomes) {
            match outcome {
                0 => {
                    turn.counters.tun_frames_written.add(1);
                    turn.counters.tun_packets_written.add(group.count() as u64);
                }
                // The link went down meanwhile.
                libc::EIO => {
                    turn.counters.dropped(DropReason::InterfaceDown, group.count() as u64);
                }
                libc::EBADFD => return Err(io::Error::from_raw_os_error(outcome)),
                _ => {
                    turn.counters.dropped(DropReason::TunRefused, group.count() as u64);
                    is_refused |= group.count() > 1 && outcome == libc::EINVAL;
                }
            }
        }
        if is_refused && (self.options.tcp || self.options.udp) {
            log::warn!("the TUN refuses super-packets: packets are written one by one from now on");
            self.options = CoalescerOptions { tcp: false, udp: false };
            self.coalescer = Coalescer::new(COALESCE_MAX, self.options, self.seed);
        }
        Ok(())
    }
}

fn open_batch(aead: Aead, batch: &mut ArrayVec<Open<'_>, BATCH>, messages: &mut [Message]) {
    aead.open(batch);
    for (opened, message) in batch.iter().zip(messages) {
        message.is_authentic = opened.authentic;
    }
    batch.clear();
}

/// Judges one message after the AEAD (§5.4.6; `wg_packet_consume_data_done` in
/// drivers/net/wireguard/receive.c). Says what its packet is and where that goes; nothing if it
/// has none that may go anywhere.
fn accept_message(
    message: &Message,
    session: &mut ReceiveSession,
    run: &mut Run,
    router: &mut Router,
    turn: &mut Turn<'_>,
) -> Option<(Packet, Verdict)> {
    if !message.is_authentic {
        turn.dropped(&session.peer, DropReason::NotAuthentic, 1);
        return None;
    }
    if !session.window.accept(message.counter) {
        turn.dropped(&session.peer, DropReason::Replayed, 1);
        return None;
    }
    run.messages += 1;
    if message.length as usize == DATA_OVERHEAD {
        run.bytes += DATA_OVERHEAD as u64;
        return None;
    }
    run.data += 1;
    let train = &mut turn.trains[message.train as usize];
    let plaintext = &mut train.buffer[message.plaintext()];
    let Some(packet) = ip::parse(plaintext) else {
        turn.dropped(&session.peer, DropReason::NotIp, 1);
        return None;
    };
    ip::apply_outer_ecn(plaintext, train.traffic_class);
    let course = router.course(plaintext, &packet, &session.peer, turn.snapshot);
    if course != Verdict::Drop(DropReason::SourceNotAllowed) {
        run.bytes += u64::from(message.length);
    }
    Some((packet, course))
}

fn deliver(message: &Message, coalescer: &mut Coalescer<Place>, turn: &mut Turn<'_>) {
    let range = message.plaintext();
    let place = Place { train: message.train, at: range.start as u32 };
    let plaintext = &turn.trains[message.train as usize].buffer[range];
    coalescer.push(place, plaintext).expect("room was made before this run");
}

/// Makes a packet one that was forwarded, and its message one that can be sealed where it lies:
/// not longer than it came, for the next message of the train begins behind its tag.
fn prepare_relay(message: &Message, packet: &Packet, turn: &mut Turn<'_>) -> InPlace {
    let plaintext = &mut turn.trains[message.train as usize].buffer[message.plaintext()];
    ip_forward::take_hop(plaintext);
    let length = padded_len(packet.len, turn.snapshot.mtu).min(plaintext.len());
    // What the sender padded with is nobody else's business.
    plaintext[packet.len..length].fill(0);
    InPlace {
        train: message.train,
        at: message.at,
        length: (length + DATA_OVERHEAD) as u32,
        ecn: ip::outer_ecn(plaintext),
    }
}

/// What authentic messages change of their peer, once for all messages of a run that came `from`
/// one place.
fn finish_run(run: &Run, session: &mut ReceiveSession, from: Endpoint, turn: &mut Turn<'_>) {
    if run.messages == 0 {
        return;
    }
    let peer = Arc::clone(&session.peer);
    peer.set_endpoint(from);
    if !session.is_confirmed {
        session.is_confirmed = true;
        peer.confirmed_index.store(session.info.local_index, Ordering::Relaxed);
        turn.raise(&peer, flag::CONFIRMED);
    }
    if session.wants_last_minute_rekey(turn.now) {
        turn.raise(&peer, flag::WANTS_LAST_MINUTE_HANDSHAKE);
    }
    let counters = &peer.counters;
    counters.received_bytes.add(run.bytes);
    counters.received_datagrams.add(run.messages);
    counters.received_trains.add(1);
    if peer.note_received(turn.now, run.data > 0) {
        turn.post.notice(peer.id);
    }
}
