//! Storms of handshakes: many peers behind one address, and what established peers notice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::unistd::gettid;

use crate::harness::{
    Arena, Backend, Crowd, Draft, FakePeer, Forgery, Origin, SOURCES, Storm, arena_hub, seconds,
    spoofed,
};

/// Peers behind one address.
const BEHIND_NAT: usize = 1000;
/// Peers of a storm.
const STORM: usize = 10_000;
/// Forged initiations per second that put the hub under load.
const LOAD: u64 = 60_000;

/// Time for a storm.
const PATIENCE: Duration = Duration::from_secs(20);
/// Packets per second of the conversation.
const CONVERSATION_RATE: u32 = 5000;
/// Time of the conversation without a storm, and the least with one.
const CONVERSATION_TIME: Duration = Duration::from_secs(2);

/// A thousand peers behind one NAT have sessions after ten seconds, also under load of forged
/// initiations.
fn a_thousand_peers_behind_one_address(backend: Backend) {
    let [near, far] = arena_hub();
    let mut crowd = Some(Crowd::new(BEHIND_NAT, Origin::OneAddress, near));
    let Some(arena) = Arena::new(backend, &mut crowd) else { return };
    let mut crowd = crowd.expect("made above");
    crowd.prepare();
    let idle = crowd.storm(seconds(10));
    println!("{}, one address: {idle}", backend.name());
    assert_eq!(idle.missing, 0, "{idle}");
    assert_eq!(idle.cookies, 0, "{idle}");

    crowd.prepare();
    let make = Forgery::GoodMac1.maker(&arena.hub.key, None);
    let flood = spoofed(&arena.mallory, far, LOAD, SOURCES, make);
    std::thread::sleep(seconds(2));
    let loaded = crowd.storm(seconds(10));
    println!("{}, one address, with {LOAD} forged initiations/s: {loaded}", backend.name());
    assert_eq!(loaded.missing, 0, "{loaded}");
    drop(flood);
}

/// Delays of a conversation.
struct Delays {
    sorted: Vec<Duration>,
    sent: usize,
}

impl Delays {
    fn at(&self, share: f64) -> Duration {
        self.sorted[((self.sorted.len() - 1) as f64 * share) as usize]
    }

    fn arrived(&self) -> f64 {
        self.sorted.len() as f64 / self.sent as f64
    }

    fn text(&self) -> String {
        let [half, most, all] = [0.5, 0.99, 1.0].map(|share| self.at(share));
        format!(
            "{} of {} packets, p50 {half:.2?}, p99 {most:.2?}, max {all:.2?}",
            self.sorted.len(),
            self.sent
        )
    }
}

/// Sends [`CONVERSATION_RATE`] packets per second from alice to bob, until `is_over` and for at
/// least [`CONVERSATION_TIME`].
#[expect(clippy::disallowed_methods, reason = "a test measures time")]
fn converse(alice: &mut FakePeer, bob: &mut FakePeer, is_over: &AtomicBool) -> Delays {
    let (start, is_sent) = (Instant::now(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            prefer_this_thread();
            let mut delays = Vec::new();
            loop {
                let was_sent = is_sent.load(Ordering::Relaxed);
                match bob.receive_within(Duration::from_millis(200)) {
                    Some(packet) => {
                        let sent = packet[28..36].try_into().expect("eight bytes");
                        let sent = Duration::from_nanos(u64::from_be_bytes(sent));
                        delays.push(start.elapsed() - sent);
                    }
                    None if was_sent => return delays,
                    None => {}
                }
            }
        });
        let sender = scope.spawn(|| {
            prefer_this_thread();
            let mut packet = Draft::udp("172.16.0.2", "172.16.0.3", 100).build();
            let mut sent = 0;
            let pause = Duration::from_secs(1) / CONVERSATION_RATE;
            while start.elapsed() < CONVERSATION_TIME
                || !is_over.load(Ordering::Relaxed) && start.elapsed() < PATIENCE
            {
                let due = start + pause * sent;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let nanos = start.elapsed().as_nanos() as u64;
                packet[28..36].copy_from_slice(&nanos.to_be_bytes());
                alice.send(&packet);
                sent += 1;
            }
            is_sent.store(true, Ordering::Relaxed);
            sent as usize
        });
        let sent = sender.join().expect("no panic");
        let mut sorted = receiver.join().expect("no panic");
        sorted.sort_unstable();
        Delays { sorted, sent }
    })
}

/// Runs this thread before all others on its core, so that only the hub adds delays.
fn prefer_this_thread() {
    let tid = gettid().to_string();
    let status = std::process::Command::new("chrt").args(["-f", "-p", "10", &tid]).status();
    assert!(status.expect("util-linux is installed").success(), "root may");
}

/// Established peers on the same core keep their rate and their delays while ten thousand others
/// shake hands.
fn established_peers_in_a_storm(backend: Backend) {
    let [near, _] = arena_hub();
    let mut crowd = Some(Crowd::new(STORM, Origin::OwnAddresses, near));
    let Some(mut arena) = Arena::new(backend, &mut crowd) else { return };
    let mut crowd = crowd.expect("made above");

    let (calm, storm, found) = conversation_in_a_storm(&mut arena, &mut crowd);
    let name = backend.name();
    println!("{name}: conversation: {}\n  in a storm:   {}\n  {found}", calm.text(), storm.text());

    let alone = arena.blast(seconds(1));
    crowd.prepare();
    let (shared, found) = std::thread::scope(|scope| {
        let crowd = scope.spawn(|| crowd.storm(PATIENCE));
        let shared = arena.blast(seconds(1));
        (shared, crowd.join().expect("no panic"))
    });
    println!("{name}: blast: {alone}\n  in a storm: {shared}\n  {found}");

    assert_eq!(found.missing, 0, "{found}");
    assert!(storm.arrived() > 0.7, "{}", storm.text());
    // Before Linux 6.12, control may keep a core that it has for a slice of the scheduler
    // (`base_slice_ns`, kernel/sched/fair.c).
    let bound = (3 * calm.at(0.99)).max(Duration::from_millis(3));
    assert!(storm.at(0.99) <= bound, "more than {bound:?}: {}", storm.text());
    assert!(shared.rate > 0.7 * alone.rate, "{shared}; without a storm {alone}");
}

fn conversation_in_a_storm(arena: &mut Arena, crowd: &mut Crowd) -> (Delays, Delays, Storm) {
    let is_over = AtomicBool::new(true);
    let Arena { alice, bob, .. } = arena;
    let calm = converse(alice, bob, &is_over);
    crowd.prepare();
    is_over.store(false, Ordering::Relaxed);
    std::thread::scope(|scope| {
        let storm = scope.spawn(|| {
            let found = crowd.storm(PATIENCE);
            is_over.store(true, Ordering::Relaxed);
            found
        });
        let busy = converse(alice, bob, &is_over);
        (calm, busy, storm.join().expect("no panic"))
    })
}

on_both_backends!(a_thousand_peers_behind_one_address, established_peers_in_a_storm);
