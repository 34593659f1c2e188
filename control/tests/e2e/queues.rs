//! A hub behind a slow uplink that one peer overloads: delay and loss of everybody's packets.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{
    Backend, Draft, FakePeer, Namespace, RelayMode, Testbed, TestbedOptions, seconds,
};

on_both_backends!(an_overloading_flow_delays_no_other);

/// Bytes of each packet of the overloading flow.
const FLOOD_LEN: usize = 1200;
/// Packets that it sends at once: trains, as a fast sender makes them.
const FLOOD_BURST: usize = 32;
/// Time between two probes of each peer.
const PROBE_INTERVAL: Duration = Duration::from_millis(10);
/// The UDP port that probes go to. They come from a fixed one, so that their flow does not share a
/// queue with the load (1 in 64 does).
const PROBE_PORT: u16 = 7;

/// The queue at the hub's uplink, as arguments of `tc qdisc add dev DEVICE`.
pub struct Uplink {
    /// Its rate (bits per second).
    pub rate: u64,
    /// The overloading flow's rate (bits per second of inner packets).
    pub load: u64,
    /// The child of the shaping qdisc.
    pub child: &'static str,
}

/// The delays of probes from the hub to one peer, and how many are missing.
pub struct Delays {
    sorted: Vec<Duration>,
    /// Probes that never arrived.
    pub lost: usize,
}

impl Delays {
    /// The delay that this share of the probes does not exceed.
    pub fn quantile(&self, share: f64) -> Duration {
        let last = self.sorted.len() - 1;
        self.sorted[((last as f64 * share).round() as usize).min(last)]
    }
}

impl fmt::Display for Delays {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |share| self.quantile(share).as_secs_f64() * 1e3;
        let (half, most, all) = (ms(0.5), ms(0.95), ms(1.0));
        let (count, lost) = (self.sorted.len() + self.lost, self.lost);
        write!(out, "median {half:.1} ms, 95 % {most:.1} ms, max {all:.1} ms, {lost}/{count} lost")
    }
}

/// Results of one run.
pub struct Overload {
    /// Without load, to the peer that will be overloaded.
    pub idle: Delays,
    /// To the peer that the load goes to.
    pub victim: Delays,
    /// To another peer.
    pub bystander: Delays,
    /// The rate at which the load was sent (bits per second of inner packets).
    pub sent: f64,
    /// The rate at which it arrived.
    pub arrived: f64,
    /// Packets of the load that the hub dropped.
    pub dropped: u64,
}

/// Runs probes for a second without load, and then for `duration` with load. None if the kernel
/// lacks the qdisc.
#[expect(clippy::disallowed_methods, reason = "a test measures time")]
pub fn overload(
    backend: Backend,
    relay: RelayMode,
    environment: &[(&'static str, &'static str)],
    uplink: &Uplink,
    duration: Duration,
) -> Option<Overload> {
    let mut setting = TestbedOptions::new(backend, relay);
    setting.environment = environment.to_vec();
    let mut testbed = Testbed::new(&setting);
    testbed.dave.connect();
    let Uplink { rate, child, .. } = uplink;
    // The shaper's own burst is short, and its limit is far beyond that of its child.
    let burst = (rate / 8 / 500).max(20_000);
    let shaper = format!("root handle 1: tbf rate {rate} burst {burst} limit 1gb");
    testbed.hub.namespace.run(&format!("tc qdisc add dev outside {shaper}"));
    let child = format!("tc qdisc add dev outside parent 1:1 {child}");
    if !testbed.hub.namespace.attempt(&child).is_ok() {
        return None;
    }
    let Testbed { hub, alice, bob, dave, .. } = &mut testbed;
    let start = Instant::now();
    let mut phase = |load: u64, duration: Duration| {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let is_over = &is_over;
            let victim = scope.spawn(|| Arrivals::collect(bob, start, is_over));
            let bystander = scope.spawn(|| Arrivals::collect(dave, start, is_over));
            let flood = scope.spawn(|| flood(alice, load, is_over));
            let sent = probe(&hub.namespace, start, duration);
            is_over.store(true, Ordering::Relaxed);
            let (victim, bystander) = (join(victim), join(bystander));
            (victim.delays(sent), bystander.delays(sent), victim.floods, join(flood))
        })
    };
    let (idle, ..) = phase(0, seconds(1));
    let before = hub.counter("drop_socket_full") + hub.counter("drop_congestion");
    let (victim, bystander, arrived, sent) = phase(uplink.load, duration);
    let dropped = hub.counter("drop_socket_full") + hub.counter("drop_congestion") - before;
    let [waited, time, late] =
        ["queued_packets", "queued_milliseconds", "drop_congestion"].map(|name| hub.counter(name));
    assert!(late == 0 || waited > 0 && time > 0, "{waited} packets waited {time} ms");
    let rate = |packets: usize| (packets * FLOOD_LEN * 8) as f64 / duration.as_secs_f64();
    let (sent, arrived) = (rate(sent), rate(arrived));
    Some(Overload { idle, victim, bystander, sent, arrived, dropped })
}

fn join<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Sends bursts from alice to bob at `load` bits per second until the end; returns the packets.
#[expect(clippy::disallowed_methods, reason = "a test measures time")]
fn flood(alice: &mut FakePeer, load: u64, is_over: &AtomicBool) -> usize {
    let packet = Draft::udp("10.77.0.2", "10.77.0.3", FLOOD_LEN - 28).build();
    let burst = vec![packet; FLOOD_BURST];
    let (start, mut sent) = (Instant::now(), 0);
    while !is_over.load(Ordering::Relaxed) {
        let due = start.elapsed().as_secs_f64() * load as f64 / 8.0;
        if (sent * FLOOD_LEN) as f64 <= due && load > 0 {
            alice.send_train(&burst);
            sent += FLOOD_BURST;
        } else {
            std::thread::sleep(Duration::from_micros(500));
        }
    }
    sent
}

/// Sends a numbered probe to bob and to dave at each interval; returns their number.
fn probe(namespace: &Namespace, start: Instant, duration: Duration) -> usize {
    let socket = namespace.udp_socket("10.77.0.1:7002");
    let end = start.elapsed() + duration;
    let mut sent = 0u32;
    while start.elapsed() < end {
        let mut payload = sent.to_be_bytes().to_vec();
        payload.extend((start.elapsed().as_nanos() as u64).to_be_bytes());
        for to in ["10.77.0.3", "10.77.0.5"] {
            socket.send_to(&payload, (to, PROBE_PORT)).expect("the tunnel accepts it");
        }
        sent += 1;
        std::thread::sleep(PROBE_INTERVAL);
    }
    sent as usize
}

/// Everything that one peer received.
#[derive(Default)]
struct Arrivals {
    numbers: BTreeSet<u32>,
    delays: Vec<Duration>,
    floods: usize,
}

impl Arrivals {
    /// Receives until the end and as long as something keeps arriving.
    fn collect(peer: &mut FakePeer, start: Instant, is_over: &AtomicBool) -> Arrivals {
        let mut arrivals = Arrivals::default();
        loop {
            let was_over = is_over.load(Ordering::Relaxed);
            match peer.receive_within(Duration::from_millis(if was_over { 1000 } else { 100 })) {
                Some(packet) if !was_over || is_probe(&packet) => arrivals.note(&packet, start),
                Some(_) => {}
                None if was_over => return arrivals,
                None => {}
            }
        }
    }

    fn note(&mut self, packet: &[u8], start: Instant) {
        if !is_probe(packet) {
            self.floods += 1;
            return;
        }
        let number = u32::from_be_bytes(packet[28..32].try_into().expect("four bytes"));
        let sent = u64::from_be_bytes(packet[32..40].try_into().expect("eight bytes"));
        self.numbers.insert(number);
        self.delays.push(start.elapsed().saturating_sub(Duration::from_nanos(sent)));
    }

    fn delays(&self, sent: usize) -> Delays {
        assert!(!self.delays.is_empty(), "not one probe arrived");
        let mut sorted = self.delays.clone();
        sorted.sort_unstable();
        Delays { sorted, lost: sent - self.numbers.len() }
    }
}

fn is_probe(packet: &[u8]) -> bool {
    packet[9] == 17 && packet[22..24] == PROBE_PORT.to_be_bytes()
}

/// Three times the uplink's rate to one peer. The median and the share leave room for a busy
/// machine; `stress::queues` prints all figures.
fn an_overloading_flow_delays_no_other(backend: Backend) {
    let uplink = Uplink { rate: 20_000_000, load: 60_000_000, child: "pfifo limit 1000" };
    let found = overload(backend, RelayMode::Direct, &[], &uplink, seconds(2)).expect("pfifo");
    println!("idle: {}\nvictim: {}\nbystander: {}", found.idle, found.victim, found.bystander);
    assert!(found.dropped > 0, "the hub itself drops what is too much");
    assert!(found.victim.quantile(0.9) < Duration::from_millis(150), "victim: {}", found.victim);
    let bystander = &found.bystander;
    assert!(bystander.quantile(0.9) < Duration::from_millis(60), "bystander: {bystander}");
    assert_eq!((found.victim.lost, found.bystander.lost), (0, 0), "only the flood loses packets");
    assert!(found.arrived > 0.8 * uplink.rate as f64, "{} bit/s arrived", found.arrived);
}
