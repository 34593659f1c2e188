//! Fuzz targets: datagrams, and frames of the TUN, through a whole worker.

use std::cell::RefCell;
use std::io::IoSlice;
use std::os::fd::AsRawFd;

use blake2::Blake2sMac;
use blake2::digest::consts::U16;
use blake2::digest::{KeyInit, Mac};
use wg_bounce_aead::{Aead, Key, Seal};
use wg_bounce_fuzz::Target;
use wg_bounce_sys::message::PAYLOAD_AT;
use wg_bounce_sys::socket::send_one;
use wg_bounce_sys::{Endpoint, OuterHeader};

use super::input::{self, Kind, Record};
use super::{MAC1_KEY, Testbed, index_of, key_of};
use crate::channels::HandOff;
use crate::counters::{DropReason, imbalance};
use crate::offload::Cut;
use crate::snapshot::DirectRelay;
use crate::wire::{
    self, DATA_HEADER_LEN, DATA_OVERHEAD, DataHeader, INITIATION_LEN, MAC_LEN, RESPONSE_LEN,
};

/// Datagrams of one send, and its bytes, at most.
const TRAIN_MAX: usize = 64;
const TRAIN_BYTES_MAX: usize = 65_000;

thread_local! {
    static TESTBED: RefCell<Testbed> = RefCell::new(Testbed::new());
}

#[test]
fn datagrams() {
    Target {
        test: concat!(module_path!(), "::datagrams"),
        corpus: &[concat!(env!("CARGO_MANIFEST_DIR"), "/src/worker/tests/corpus/datagrams")],
        words: &[
            &[4, 0, 0, 0, 0, 1, 0, 0],
            &[4, 0, 0, 0, 1, 9, 0, 0],
            &[2, 0, 0, 0, 0, 9, 0, 0],
            &[3, 0, 0, 0, 0, 9, 0, 0],
            &[0x45, 0, 0, 28],
            &[10, 9, 0, 2, 10, 9, 3, 1],
            &[10, 9, 0, 2, 10, 9, 4, 1],
            &[7, 0, 0],
            &[1, 20, 0],
            &[33, 28, 0],
        ],
        check: |data| TESTBED.with_borrow_mut(|testbed| check_datagrams(testbed, data)),
    }
    .run();
}

#[test]
fn frames() {
    Target {
        test: concat!(module_path!(), "::frames"),
        corpus: &[concat!(env!("CARGO_MANIFEST_DIR"), "/src/worker/tests/corpus/frames")],
        words: &[
            &[1, 1, 54, 0, 100, 0, 34, 0, 16, 0],
            &[1, 4, 54, 0, 100, 0, 54, 0, 16, 0],
            &[1, 5, 42, 0, 100, 0, 34, 0, 6, 0],
            &[0x45, 0, 0, 40],
            &[10, 9, 0, 1, 10, 9, 0, 2],
            &[10, 9, 0, 1, 10, 9, 5, 2],
        ],
        check: |data| TESTBED.with_borrow_mut(|testbed| check_frames(testbed, data)),
    }
    .run();
}

/// Counts of what an input has sent.
#[derive(Default)]
struct Sent {
    /// Datagrams that the kernel passes to the worker, and those that were handed over.
    datagrams: u64,
    /// Messages that are authentic.
    authentic: u64,
    /// Those of them without a packet.
    keepalives: u64,
    counters: [u64; 2],
}

/// A train to be sent.
#[derive(Default)]
struct Train {
    datagrams: Vec<Vec<u8>>,
    socket: usize,
    traffic_class: u8,
}

fn check_datagrams(testbed: &mut Testbed, data: &[u8]) {
    let (setting, records) = input::read(data);
    testbed.reset(&setting);
    let endpoints: Vec<_> = testbed.peers.iter().map(|peer| peer.endpoint()).collect();
    let (mut sent, mut train) = (Sent::default(), Train::default());
    for record in records {
        if record.kind() == Kind::Turn {
            send_train(testbed, &mut train, &mut sent);
            testbed.run(sent.datagrams);
            continue;
        }
        let datagram = datagram(&record, &mut sent);
        if record.kind() == Kind::HandedOver {
            hand_over(testbed, &record, datagram, &mut sent);
            continue;
        }
        let fits = record.continues()
            && train.socket == record.socket()
            && train.datagrams.len() < TRAIN_MAX
            && train.datagrams.first().is_some_and(|first| first.len() >= datagram.len())
            && train.datagrams.last().is_some_and(|last| last.len() == train.datagrams[0].len())
            && train.datagrams.iter().map(Vec::len).sum::<usize>() + datagram.len()
                <= TRAIN_BYTES_MAX;
        if !fits {
            send_train(testbed, &mut train, &mut sent);
            train.socket = record.socket();
            train.traffic_class = record.traffic_class();
        }
        train.datagrams.push(datagram);
    }
    send_train(testbed, &mut train, &mut sent);
    testbed.run(sent.datagrams);

    let outcome = testbed.outcome();
    if sent.authentic == 0 || !setting.is_up || setting.is_expired {
        assert_eq!((outcome.frames, outcome.messages), (0, 0), "silence");
        for (peer, endpoint) in testbed.peers.iter().zip(endpoints) {
            assert_eq!(peer.endpoint(), endpoint, "only authentic messages move an endpoint");
            assert_eq!(peer.counters.received_bytes.read(), 0);
        }
        assert!(testbed.events.peers.is_empty(), "no notice");
    }
    if setting.mode == DirectRelay::Alone {
        assert_eq!(outcome.frames, 0, "there is nothing to write to");
    }
    check_balance(testbed, &sent);
}

/// Every datagram and packet was passed on, was dropped for a reason, or waits.
fn check_balance(testbed: &mut Testbed, sent: &Sent) {
    let events = &testbed.events;
    let lanes = [&events.initiations, &events.responses, &events.cookie_replies];
    let handshakes: usize = lanes.iter().map(|lane| lane.try_iter().count()).sum();
    let _notices = events.peers.try_iter().count();
    let handed_off = testbed.handed_off.try_iter().count();
    let counters = &testbed.worker.gauge.counters;
    assert_eq!(counters.handshake_messages.read(), handshakes as u64);
    assert_eq!(counters.handed_off.read(), handed_off as u64);
    assert_eq!(imbalance(counters.list()), 0, "{:?}", counters.list().collect::<Vec<_>>());
    assert_eq!(counters.waiting_packets.read(), testbed.staged());
    let received = testbed.peers.iter().map(|peer| peer.counters.received_datagrams.read());
    let accepted: u64 = received.sum();
    assert!(accepted <= sent.authentic, "nothing else is accepted");
    assert!(counters.received_keepalives.read() <= sent.keepalives);
    let ended = counters.tun_packets_written.read()
        + counters.relayed.read()
        + testbed.dropped_for(&[
            DropReason::NotIp,
            DropReason::SourceNotAllowed,
            DropReason::TunRefused,
            DropReason::NotPunted,
            DropReason::IcmpAnswered,
            DropReason::NotForwarded,
            DropReason::RoutingLoop,
            DropReason::NoEndpoint,
        ]);
    let packets = accepted - counters.received_keepalives.read();
    assert!(packets <= ended, "{packets} accepted packets, {ended} ended");
}

/// The datagram of a record.
fn datagram(record: &Record<'_>, sent: &mut Sent) -> Vec<u8> {
    let (peer, bytes) = (record.peer(), record.bytes);
    match record.kind() {
        Kind::Raw | Kind::Turn => bytes.to_vec(),
        Kind::Handshake => with_mac1(bytes.to_vec()),
        // The first byte says whether it is a datagram as it is.
        Kind::HandedOver if bytes.first().is_some_and(|first| first & 1 == 0) => {
            bytes[1..].to_vec()
        }
        Kind::HandedOver => seal(peer, bytes.get(1..).unwrap_or_default(), sent),
        Kind::Sealed => seal(peer, bytes, sent),
        Kind::Padded => {
            let mut padded = bytes.to_vec();
            padded.resize(bytes.len().next_multiple_of(16), 0xee);
            seal(peer, &padded, sent)
        }
        Kind::Replayed => {
            sent.counters[peer] = sent.counters[peer].saturating_sub(1);
            seal(peer, bytes, sent)
        }
        Kind::Forged => {
            let before = (sent.authentic, sent.keepalives);
            let mut message = seal(peer, bytes, sent);
            (sent.authentic, sent.keepalives) = before;
            let bit = bytes.first().map_or(0, |byte| usize::from(*byte)) * 31 % (8 * message.len());
            message[bit / 8] ^= 1 << (bit % 8);
            message
        }
    }
}

/// A message of a peer, under its next counter.
fn seal(peer: usize, plaintext: &[u8], sent: &mut Sent) -> Vec<u8> {
    let counter = sent.counters[peer];
    sent.counters[peer] += 1;
    sent.authentic += 1;
    sent.keepalives += u64::from(plaintext.is_empty());
    let mut message = vec![0; plaintext.len() + DATA_OVERHEAD];
    wire::write_data_header(&mut message, DataHeader { receiver: index_of(peer), counter });
    message[DATA_HEADER_LEN..][..plaintext.len()].copy_from_slice(plaintext);
    let key = Key::new(&key_of(peer as u32));
    Aead::best().seal(&mut [Seal { key: &key, counter, message: &mut message }]);
    message
}

fn with_mac1(mut message: Vec<u8>) -> Vec<u8> {
    if [INITIATION_LEN, RESPONSE_LEN].contains(&message.len()) {
        let macs_at = message.len() - 2 * MAC_LEN;
        let (covered, macs) = message.split_at_mut(macs_at);
        let mut mac = Blake2sMac::<U16>::new_from_slice(&MAC1_KEY).expect("32 bytes are a key");
        mac.update(covered);
        macs[..MAC_LEN].copy_from_slice(&mac.finalize().into_bytes());
    }
    message
}

/// Hands a datagram over, if another worker would.
fn hand_over(testbed: &mut Testbed, record: &Record<'_>, datagram: Vec<u8>, sent: &mut Sent) {
    if matches!(wire::classify(&datagram), None | Some(wire::Kind::Initiation)) {
        return;
    }
    let remote = testbed.sockets[record.socket()].local_addr().expect("bound");
    let buffer = [vec![0; PAYLOAD_AT], datagram].concat().into();
    let from = Endpoint { remote, source: None };
    let hand_off = HandOff { buffer, from, traffic_class: record.traffic_class() };
    sent.datagrams += u64::from(testbed.hand_offs.try_send(hand_off).is_ok());
}

/// Sends a train, and begins another.
fn send_train(testbed: &mut Testbed, train: &mut Train, sent: &mut Sent) {
    let Train { datagrams, socket, traffic_class } = std::mem::take(train);
    let Some(first) = datagrams.first() else { return };
    let size = if datagrams.len() > 1 { first.len() } else { 0 };
    let pieces: Vec<_> = datagrams.iter().map(|datagram| IoSlice::new(datagram)).collect();
    let to = Endpoint { remote: testbed.address(socket), source: None };
    let header = OuterHeader { traffic_class, hop_limit: 0 };
    if send_one(testbed.sockets[socket].as_raw_fd(), &to, header, size, &pieces).is_ok() {
        // The kernel drops what is too short, of a train by its first datagram.
        let arrives = |datagram: &&Vec<u8>| first.len() >= DATA_OVERHEAD && !datagram.is_empty();
        sent.datagrams += datagrams.iter().filter(arrives).count() as u64;
    }
}

fn check_frames(testbed: &mut Testbed, data: &[u8]) {
    let (mut setting, records) = input::read(data);
    if setting.mode == DirectRelay::Alone {
        setting.mode = DirectRelay::Never; // without a TUN there are no frames
    }
    testbed.reset(&setting);
    let mut packets = 0;
    for record in records {
        if record.kind() == Kind::Turn {
            testbed.run(0);
        } else if !record.bytes.is_empty() && testbed.write_frame(record.bytes) {
            packets += Cut::new(record.bytes).map_or(1, |cut| cut.segments() as u64);
        }
    }
    testbed.run(0);
    let outcome = testbed.outcome();
    let _notices = testbed.events.peers.try_iter().count();
    let counters = &testbed.worker.gauge.counters;
    assert_eq!(counters.tun_packets_read.read(), packets);
    assert_eq!(imbalance(counters.list()), 0, "{:?}", counters.list().collect::<Vec<_>>());
    assert!(outcome.frames as u64 <= packets, "at most one answer for each");
}
