//! The receive path: from UDP trains to IP packets for the TUN or for another peer.
//!
//! 1. [`ReceivePath::sort`]: each datagram by its kind. Handshake messages with a valid mac1 go to
//!    control, data of another worker's session to that worker ([`handoff`]), our own data is
//!    noted.
//! 2. [`ReceivePath::open`]: all data messages of the turn as one batch.
//! 3. [`ReceivePath::accept`]: an authentic message passes the replay window; then it may move the
//!    peer's endpoint, confirm a session, and count. Unless it is a keepalive,
//!    [`Router::verdict`] decides where its packet goes; the hub itself may answer it
//!    ([`own_host`]).
//! 4. [`prepare_relay`]: a packet for another peer stays where it lies, to be sealed again.
//! 5. [`TunWriter`]: packets of one flow are coalesced into super-packets, one write each.
//!
//! An unauthenticated message changes no state but a counter.

mod greylist;
mod handoff;
mod tun_writer;

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrayvec::ArrayVec;
use wg_bounce_aead::{Aead, BATCH, Open};
use wg_bounce_sys::memory::Buffer;
use wg_bounce_sys::message::PAYLOAD_AT;
use wg_bounce_sys::{Endpoint, Family, OuterHeader, Train};

use crate::channels::HandshakeLane;
use crate::counters::DropReason;
use crate::icmp::IcmpError;
use crate::icmp_errors::IcmpErrors;
use crate::index_table::IndexTable;
use crate::ip::{self, Packet};
use crate::ip_forward;
use crate::limits::{DRR_QUEUES, MESSAGES_PER_TURN_MAX, RECEIVE_SEGMENTS_MAX};
use crate::nesting::{self, Nested, outer_header};
use crate::offload::CoalescerOptions;
use crate::own_host::{self, LocalAnswer};
use crate::peer::{Peer, flag};
use crate::receive_session::ReceiveSession;
use crate::router::{Relayed, Router, Verdict};
use crate::segments::datagrams;
use crate::send::{InPlace, Sender};
use crate::sizes::Sizes;
use crate::turn::Turn;
use crate::wire::{self, DATA_HEADER_LEN, DATA_OVERHEAD, Kind, TAG_LEN, padded_len};
use greylist::Greylist;
use handoff::{hand_off, sort_answer, sort_initiation};
use tun_writer::TunWriter;

/// One data message of the turn.
struct Message {
    /// The index of its train in the turn.
    train: u32,
    /// Offset in the train's buffer (bytes).
    offset: u32,
    /// Length, header and tag included (bytes).
    length: u32,
    receiver: u32,
    counter: u64,
    is_authentic: bool,
}

impl Message {
    /// The range of its plaintext in the train's buffer, padding included (bytes).
    fn plaintext(&self) -> Range<usize> {
        let (offset, length) = (self.offset as usize, self.length as usize);
        offset + DATA_HEADER_LEN..offset + length - TAG_LEN
    }

    /// Its plaintext in one of the turn's trains.
    fn plaintext_in<'a>(&self, trains: &'a [Train]) -> &'a [u8] {
        &trains[self.train as usize].buffer[self.plaintext()]
    }

    /// As [`Message::plaintext_in`], to change it.
    fn plaintext_mut<'a>(&self, trains: &'a mut [Train]) -> &'a mut [u8] {
        &mut trains[self.train as usize].buffer[self.plaintext()]
    }
}

/// The receive path of one worker.
pub struct ReceivePath {
    /// The receiver indexes that belong to this worker.
    pub indexes: IndexTable,
    /// Decides where packets go.
    pub router: Router,
    /// Answers packets that go nowhere.
    pub errors: IcmpErrors,
    /// Packets for one other peer, collected from a run of messages.
    relayed: Vec<InPlace>,
    messages: Vec<Message>,
    aead: Aead,
    tun: TunWriter,
    greylist: Greylist,
}

/// The sums over consecutive messages of one session and train.
#[derive(Default)]
struct Run {
    /// UDP payload of accepted messages (bytes).
    bytes: u64,
    messages: u64,
    data: u64,
}

impl ReceivePath {
    /// Allocates all its memory here, of these `sizes`. `seed` is random: it keys tables.
    ///
    /// # Errors
    /// ENOMEM: out of memory or address space.
    pub fn new(
        aead: Aead,
        options: CoalescerOptions,
        seed: u64,
        sizes: &Sizes,
    ) -> io::Result<ReceivePath> {
        Ok(ReceivePath {
            aead,
            indexes: IndexTable::default(),
            router: Router::new(seed, sizes.flows),
            errors: IcmpErrors::default(),
            relayed: Vec::with_capacity(RECEIVE_SEGMENTS_MAX),
            messages: Vec::with_capacity(MESSAGES_PER_TURN_MAX),
            tun: TunWriter::new(options, seed),
            greylist: Greylist::new(sizes.greylist, seed)?,
        })
    }

    /// The receive queue of a train, by the kind of its first datagram: one of those for sessions,
    /// or queue 0, which handshakes and all unknown traffic share.
    pub fn queue_of(&self, first: Option<Kind>) -> usize {
        match first {
            Some(Kind::Data(header)) if self.indexes.get(header.receiver).is_some() => {
                // Indexes are random but for their low byte.
                1 + (header.receiver >> 8) as usize % (DRR_QUEUES - 1)
            }
            _ => 0,
        }
    }

    /// Takes all trains of a turn through the stages. `first_kinds` has the kind of each train's
    /// first datagram, as it was classified on arrival.
    ///
    /// # Errors
    /// EBADFD: the TUN device was deleted.
    pub fn run(
        &mut self,
        first_kinds: &[Option<Kind>],
        sender: &mut Sender,
        turn: &mut Turn<'_>,
    ) -> io::Result<()> {
        if turn.trains.is_empty() {
            return Ok(());
        }
        let trains = std::mem::take(&mut turn.trains);
        self.sort(trains, first_kinds, turn);
        self.open(trains);
        turn.trains = trains;
        self.accept(sender, turn)?;
        self.tun.write(turn)
    }

    /// Ends a turn.
    pub fn end_turn(&mut self) {
        self.router.end_turn();
    }

    fn sort(&mut self, trains: &[Train], first_kinds: &[Option<Kind>], turn: &mut Turn<'_>) {
        self.messages.clear();
        for (index, (train, first_kind)) in trains.iter().zip(first_kinds).enumerate() {
            let all = datagrams(train.length, train.segment_size);
            turn.counters.received_trains.add(1);
            turn.counters.received_datagrams.add(all.len() as u64);
            if train.length == 0 || all.excess() > 0 {
                turn.counters.received_datagrams.add(1);
                turn.counters.dropped(DropReason::Malformed, 1);
            }
            if !turn.snapshot.is_up {
                turn.counters.dropped(DropReason::InterfaceDown, all.len() as u64);
                continue;
            }
            for range in all {
                let datagram = &train.buffer[PAYLOAD_AT + range.start..PAYLOAD_AT + range.end];
                let kind = if range.start == 0 { *first_kind } else { wire::classify(datagram) };
                match kind {
                    None => turn.counters.dropped(DropReason::Malformed, 1),
                    Some(Kind::Data(header)) => {
                        let message = Message {
                            train: index as u32,
                            offset: (PAYLOAD_AT + range.start) as u32,
                            length: range.len() as u32,
                            receiver: header.receiver,
                            counter: header.counter,
                            is_authentic: false,
                        };
                        self.sort_data(message, train, datagram, turn);
                    }
                    Some(Kind::Initiation) => {
                        sort_initiation(&mut self.greylist, train, datagram, turn);
                    }
                    Some(Kind::Response(index)) => {
                        let is_pending = self.indexes.is_pending(index);
                        let lane = HandshakeLane::Responses;
                        sort_answer(lane, is_pending, index, train, datagram, turn);
                    }
                    Some(Kind::CookieReply(index)) => {
                        let is_pending = self.indexes.is_cookie_pending(index);
                        let lane = HandshakeLane::CookieReplies;
                        sort_answer(lane, is_pending, index, train, datagram, turn);
                    }
                }
            }
        }
    }

    fn sort_data(&mut self, message: Message, train: &Train, datagram: &[u8], turn: &mut Turn<'_>) {
        match self.indexes.get(message.receiver) {
            Some(session) if session.info.is_within_age(turn.now) => self.messages.push(message),
            Some(session) => turn.dropped(&session.peer, DropReason::ExpiredSession, 1),
            None => hand_off(message.receiver, train, datagram, turn),
        }
    }

    fn open(&mut self, trains: &mut [Train]) {
        let mut batch: ArrayVec<Open<'_>, BATCH> = ArrayVec::new();
        let mut done = 0;
        let mut next = 0;
        for (index, train) in trains.iter_mut().enumerate() {
            let mut rest: &mut [u8] = &mut train.buffer;
            let mut rest_offset = 0;
            while let Some(message) = self.messages.get(next) {
                if message.train != index as u32 {
                    break;
                }
                let (offset, length) = (message.offset as usize, message.length as usize);
                let (bytes, tail) = rest[offset - rest_offset..].split_at_mut(length);
                (rest, rest_offset) = (tail, offset + length);
                let session = self.indexes.get(message.receiver).expect("found by `sort_data`");
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

    fn accept(&mut self, sender: &mut Sender, turn: &mut Turn<'_>) -> io::Result<()> {
        self.router.begin_turn();
        let mut next = 0;
        while next < self.messages.len() {
            let (train, receiver) = (self.messages[next].train, self.messages[next].receiver);
            let end = next
                + self.messages[next..]
                    .iter()
                    .take_while(|m| m.train == train && m.receiver == receiver)
                    .count();
            if !self.tun.has_room(end - next) {
                self.tun.write(turn)?;
            }
            self.accept_run(next..end, receiver, sender, turn)?;
            next = end;
        }
        Ok(())
    }

    /// Accepts consecutive messages of one session and train.
    fn accept_run(
        &mut self,
        messages: Range<usize>,
        receiver: u32,
        sender: &mut Sender,
        turn: &mut Turn<'_>,
    ) -> io::Result<()> {
        let ReceivePath { indexes, router, errors, relayed, tun, .. } = self;
        let session = indexes.get_mut(receiver).expect("found by `sort_data`");
        let mut run = Run::default();
        let is_alone = turn.snapshot.relay.is_alone();
        let mut relay_to: Option<Arc<Peer>> = None;
        let train = &turn.trains[self.messages[messages.start].train as usize];
        let (from, is_handed_over) = (train.from, matches!(train.buffer, Buffer::Heap(_)));
        for message in &self.messages[messages] {
            let Some((packet, verdict)) = accept_message(message, session, &mut run, router, turn)
            else {
                continue;
            };
            match verdict {
                Verdict::Deliver if is_alone => {
                    // The calls of `relay` must come in the order of the messages.
                    if let Some(known) = relay_to.take() {
                        sender.relay(&known, relayed, turn)?;
                        relayed.clear();
                    }
                    answer(message, &packet, &session.peer, (errors, router), sender, turn)?;
                }
                Verdict::Deliver => tun.push(message.train, message.plaintext(), turn),
                Verdict::Drop(reason) => turn.dropped(&session.peer, reason, 1),
                Verdict::Relay(Relayed { to, mtu }) => {
                    if relay_to.as_ref().is_none_or(|known| !Arc::ptr_eq(known, to))
                        && let Some(known) = relay_to.replace(Arc::clone(to))
                    {
                        sender.relay(&known, relayed, turn)?;
                        relayed.clear();
                    }
                    match prepare_relay(message, &packet, mtu, turn) {
                        Ok(place) => relayed.push(place),
                        Err(nested) => turn.dropped_in_circle(to, &nested, nesting::TOO_DEEP, 1),
                    }
                }
                Verdict::Refuse(error) => {
                    let icmp = (&mut *errors, &mut *router);
                    refuse(message, &packet, error, &session.peer, icmp, sender, turn)?;
                }
            }
        }
        if let Some(peer) = relay_to {
            sender.relay(&peer, relayed, turn)?;
            relayed.clear();
        }
        if is_handed_over {
            session.peer.counters.handed_off.add(run.messages);
        }
        finish_run(&run, session, from, turn);
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
/// drivers/net/wireguard/receive.c). Returns its packet and the router's verdict; none for a
/// keepalive, and for a message that was dropped and counted here.
fn accept_message<'router>(
    message: &Message,
    session: &mut ReceiveSession,
    run: &mut Run,
    router: &'router mut Router,
    turn: &mut Turn<'_>,
) -> Option<(Packet, Verdict<'router>)> {
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
    let verdict = router.verdict(plaintext, &packet, &session.peer, turn.snapshot);
    if !matches!(verdict, Verdict::Drop(DropReason::SourceNotAllowed)) {
        run.bytes += u64::from(message.length);
    }
    Some((packet, verdict))
}

/// Answers a packet of `peer` for the hub itself.
fn answer(
    message: &Message,
    packet: &Packet,
    peer: &Arc<Peer>,
    icmp: (&mut IcmpErrors, &mut Router),
    sender: &mut Sender,
    turn: &mut Turn<'_>,
) -> io::Result<()> {
    match own_host::answer(message.plaintext_mut(turn.trains), packet) {
        LocalAnswer::Reply => {
            let mtu = turn.snapshot.forwarding_mtu(Family::of(packet.source));
            let header = outer_header(message.plaintext_in(turn.trains), None);
            let reply = in_place(message, packet, mtu, header, turn);
            sender.relay(peer, &[reply], turn)
        }
        LocalAnswer::Error(error) => refuse(message, packet, error, peer, icmp, sender, turn),
        LocalAnswer::Silence => {
            turn.dropped(peer, DropReason::NotForwarded, 1);
            Ok(())
        }
    }
}

/// Drops a packet of `peer`, and answers with an error within the rate limit.
fn refuse(
    message: &Message,
    packet: &Packet,
    error: IcmpError,
    peer: &Arc<Peer>,
    (errors, router): (&mut IcmpErrors, &mut Router),
    sender: &mut Sender,
    turn: &mut Turn<'_>,
) -> io::Result<()> {
    turn.dropped(peer, DropReason::IcmpAnswered, 1);
    let packet = (message.plaintext_in(turn.trains), packet);
    match errors.prepare(error, packet, peer.id, router, turn) {
        Some(length) => errors.send(length, peer, sender, turn),
        None => Ok(()),
    }
}

/// Forwards a packet as a router does, and turns its message into one that can be sealed where it
/// lies. `mtu` is that of its route (bytes). Fails with the message that the packet carries, if
/// that is in a circle.
fn prepare_relay(
    message: &Message,
    packet: &Packet,
    mtu: usize,
    turn: &mut Turn<'_>,
) -> Result<InPlace, Nested> {
    let plaintext = message.plaintext_mut(turn.trains);
    ip_forward::decrement_ttl(plaintext);
    let nested = Nested::read(plaintext, packet);
    if let Some(nested) = nested.filter(Nested::is_too_deep) {
        return Err(nested);
    }
    let header = outer_header(plaintext, nested.as_ref());
    Ok(in_place(message, packet, mtu, header, turn))
}

/// A message to be sealed where it lies. It must not grow, because the next message of the train
/// begins behind its tag.
fn in_place(
    message: &Message,
    packet: &Packet,
    mtu: usize,
    header: OuterHeader,
    turn: &mut Turn<'_>,
) -> InPlace {
    let plaintext = message.plaintext_mut(turn.trains);
    let length = padded_len(packet.len, mtu).min(plaintext.len());
    // The sender's padding must not reach the receiver.
    plaintext[packet.len..length].fill(0);
    InPlace {
        train: message.train,
        offset: message.offset,
        length: (length + DATA_OVERHEAD) as u32,
        header,
    }
}

/// Applies to the peer what its authentic messages change, once for all messages of a run that
/// came `from` one endpoint.
fn finish_run(run: &Run, session: &mut ReceiveSession, from: Endpoint, turn: &mut Turn<'_>) {
    if run.messages == 0 {
        return;
    }
    let peer = Arc::clone(&session.peer);
    if peer.set_endpoint(from) && peer.note_roamed(turn.now) {
        turn.raise(&peer, flag::ROAMED);
    }
    if !session.is_confirmed {
        session.is_confirmed = true;
        peer.confirmed_index.store(session.info.local_index, Ordering::Relaxed);
        turn.raise(&peer, flag::CONFIRMED);
    }
    if session.info.wants_last_minute_rekey(turn.now) {
        turn.raise(&peer, flag::WANTS_LAST_MINUTE_HANDSHAKE);
    }
    if run.data < run.messages {
        turn.counters.received_keepalives.add(run.messages - run.data);
    }
    let counters = &peer.counters;
    counters.received_bytes.add(run.bytes);
    counters.received_datagrams.add(run.messages);
    counters.received_trains.add(1);
    if peer.note_received(turn.now, run.data > 0) {
        turn.channels.notice(peer.id);
    }
}
