//! True floods: forged messages of each kind from forged addresses, as many as the machine can
//! send, on a hub that has a core of its own.

use std::time::{Duration, Instant};

use crate::harness::{
    Arena, Backend, Crowd, Flood, Forgery, Origin, SOURCES, arena_hub, counters_sum, noise,
    seconds, spoofed,
};

/// Forged messages per second.
const RATE: u64 = 100_000;
/// Addresses of a flood that repeats them.
const FEW_SOURCES: u64 = 64;
/// New peers that shake hands during a flood.
const NEWCOMERS: usize = 20;
/// Time for which throughput is measured, and before that until queues are as full as they get.
const BLAST_TIME: Duration = Duration::from_secs(2);
const FILLING_TIME: Duration = Duration::from_secs(3);
/// Time until the queues of a busy core have emptied.
const CALM: Duration = Duration::from_secs(2);
/// Time for the newcomers: two attempts.
const PATIENCE: Duration = Duration::from_secs(10);
/// Growth of memory at most (KiB), once the hub has seen a flood.
const GROWTH_KIB_MAX: u64 = 16 * 1024;

/// A kind of forged message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// With a valid mac1.
    Initiation,
    /// The same, from a few addresses that come again and again.
    InitiationsAgain,
    Response,
    CookieReply,
    DataOfUnknownIndex,
    /// For a session that exists, with a wrong tag.
    DataOfKnownIndex,
    /// Of no type.
    Garbage,
}

fn start(kind: Kind, arena: &Arena, port: u16) -> Flood {
    let forgery = match kind {
        Kind::Initiation | Kind::InitiationsAgain => Forgery::GoodMac1,
        Kind::Response => Forgery::Response,
        Kind::CookieReply => Forgery::CookieReply,
        Kind::DataOfUnknownIndex | Kind::DataOfKnownIndex | Kind::Garbage => Forgery::Data,
    };
    let mut make = forgery.maker(&arena.hub.key, Some(0));
    let known = arena.alice.remote_index();
    let mut noise = noise();
    let [_, mut target] = arena_hub();
    target.set_port(port);
    let sources = if kind == Kind::InitiationsAgain { FEW_SOURCES } else { SOURCES };
    spoofed(&arena.mallory, target, RATE, sources, move |message| {
        make(message);
        match kind {
            Kind::DataOfKnownIndex => {
                message.resize(128, 0);
                message[4..8].copy_from_slice(&known.to_le_bytes());
                // A counter that is within the window, or will be.
                message[8..16].copy_from_slice(&(noise() % 1_000_000).to_le_bytes());
            }
            Kind::DataOfUnknownIndex => message.resize(128, 0),
            Kind::Garbage => message[0] = 5 + (noise() % 250) as u8,
            _ => {}
        }
    })
}

/// The throughput of an established session is compared with its throughput during the same flood
/// at a socket that no process reads: the kernel does as much there before it drops each datagram.
#[expect(clippy::disallowed_methods, reason = "a test measures time")]
fn survives(backend: Backend, kind: Kind) {
    let [near, _] = arena_hub();
    let mut crowd = Some(Crowd::new(NEWCOMERS, Origin::OwnAddresses, near));
    let Some(mut arena) = Arena::new(backend, &mut crowd) else { return };
    let mut crowd = crowd.expect("made above");
    let name = backend.name();
    let alone = arena.blast(BLAST_TIME);

    let sink = arena.hub.namespace.udp_socket("203.0.113.1:9");
    let flood = start(kind, &arena, 9);
    arena.blast(FILLING_TIME);
    let elsewhere = arena.blast(BLAST_TIME);
    drop(flood);
    drop(sink);

    let flood = start(kind, &arena, 51820);
    arena.blast(FILLING_TIME);
    let warm = arena.hub.resident_kib();
    let hub = arena.hub.namespace.clone();
    let errors = || counters_sum(&hub, &["UdpRcvbufErrors"]);
    let (began, sent, before) = (Instant::now(), flood.sent(), arena.traffic_of_mallory());
    let full = errors();
    let during = arena.blast(BLAST_TIME);
    let full = errors() - full;
    // With a core that has time for the flood, and with one that established peers keep busy.
    std::thread::sleep(CALM);
    crowd.prepare();
    let newcomers = crowd.storm(PATIENCE);
    crowd.prepare();
    arena.blast(seconds(1));
    let crowded = std::thread::scope(|scope| {
        let crowd = scope.spawn(|| crowd.storm(PATIENCE));
        while !crowd.is_finished() {
            arena.blast(seconds(1));
        }
        crowd.join().expect("no panic")
    });
    let rate = (flood.sent() - sent) as f64 / began.elapsed().as_secs_f64();
    let after = arena.traffic_of_mallory();
    let grown = arena.hub.resident_kib().saturating_sub(warm);
    drop(flood);

    let [(received, received_bytes), (answers, answer_bytes)] =
        [0, 1].map(|way| (after[way].0 - before[way].0, after[way].1 - before[way].1));
    println!(
        "{name}, {kind:?}: {rate:.0}/s sent, {received} received, {answers} answered \
         ({answer_bytes} bytes for {received_bytes}), buffers full {full}, {grown} KiB more\n  \
         alone:     {alone}\n  elsewhere: {elsewhere}\n  here:      {during} ({:.0} %)\n  \
         newcomers: {newcomers}\n  busy core: {crowded}",
        100.0 * during.rate / elsewhere.rate,
    );
    if matches!(kind, Kind::Initiation | Kind::InitiationsAgain) {
        assert!(answers > 100, "cookies come");
        assert!(answer_bytes <= received_bytes);
    } else {
        // Neighbour discovery is not an answer.
        assert!(answers < 20, "{kind:?} was answered");
    }
    assert!(grown < GROWTH_KIB_MAX, "memory grew by {grown} KiB");
    assert!(newcomers.missing == 0, "{newcomers}");
    assert!(crowded.missing == 0, "{crowded}");
    // Senders that return cost the helpers a DH, for which they have a tenth of the core.
    let least = if kind == Kind::InitiationsAgain { 0.6 } else { 0.8 };
    assert!(during.rate > least * elsewhere.rate, "{during}; elsewhere {elsewhere}");
}

fn initiations(backend: Backend) {
    survives(backend, Kind::Initiation);
}

fn initiations_from_few_addresses(backend: Backend) {
    survives(backend, Kind::InitiationsAgain);
}

fn responses(backend: Backend) {
    survives(backend, Kind::Response);
}

fn cookie_replies(backend: Backend) {
    survives(backend, Kind::CookieReply);
}

fn data_of_an_unknown_index(backend: Backend) {
    survives(backend, Kind::DataOfUnknownIndex);
}

fn data_of_a_known_index(backend: Backend) {
    survives(backend, Kind::DataOfKnownIndex);
}

fn garbage(backend: Backend) {
    survives(backend, Kind::Garbage);
}

on_both_backends!(
    initiations,
    initiations_from_few_addresses,
    responses,
    cookie_replies,
    data_of_an_unknown_index,
    data_of_a_known_index,
    garbage,
);
