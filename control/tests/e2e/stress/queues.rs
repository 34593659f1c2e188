//! Delays behind an overloaded uplink, at rates from DSL to Gigabit Ethernet, and with fq_codel
//! there for comparison: `sudo scripts/stress 10 queues` prints them.

use std::time::Duration;

use crate::harness::{
    BOB, Backend, Daemon, Family, Iperf, IperfServer, Options, Relay, RelayMode, counters_sum,
};
use crate::queues::{Overload, Uplink, overload};

on_both_backends!(
    twenty_megabit,
    twenty_megabit_by_the_kernel,
    one_gigabit,
    a_shallow_policer,
    where_datagrams_are_lost,
);

/// The queues behind the shaper.
const CHILDREN: [&str; 3] = ["pfifo limit 1000", "fq_codel", "sfq"];

fn run(backend: Backend, relay: RelayMode, rate: u64, child: &'static str) -> Option<Overload> {
    let uplink = Uplink { rate, load: 3 * rate, child };
    let Some(found) = overload(backend, relay, &[], &uplink, super::duration()) else {
        println!("{rate} bit/s, {child}: not in this kernel");
        return None;
    };
    println!(
        "{rate} bit/s, {child}, {}, relay {}: sent {:.3e}, arrived {:.3e} bit/s, {} dropped here\n\
         idle      {}\nvictim    {}\nbystander {}",
        backend.name(),
        relay.name(),
        found.sent,
        found.arrived,
        found.dropped,
        found.idle,
        found.victim,
        found.bystander
    );
    Some(found)
}

fn check_twenty_megabit(backend: Backend, relay: RelayMode) {
    for child in CHILDREN {
        let Some(found) = run(backend, relay, 20_000_000, child) else { continue };
        assert!(found.victim.quantile(0.95) < Duration::from_millis(150));
        assert!(found.bystander.quantile(0.95) < Duration::from_millis(60));
        assert_eq!((found.victim.lost, found.bystander.lost), (0, 0));
        assert!(found.arrived > 17e6);
    }
}

fn twenty_megabit(backend: Backend) {
    check_twenty_megabit(backend, RelayMode::Direct);
}

fn twenty_megabit_by_the_kernel(backend: Backend) {
    check_twenty_megabit(backend, RelayMode::Kernel);
}

/// The median: the rest is the scheduler's, as the load takes all CPUs.
fn one_gigabit(backend: Backend) {
    for child in CHILDREN {
        let Some(found) = run(backend, RelayMode::Direct, 1_000_000_000, child) else { continue };
        if found.dropped == 0 || found.arrived < 0.9e9 {
            println!("nothing shown: the CPU is the bottleneck, not the uplink");
            continue;
        }
        let bound = 2 * found.idle.quantile(0.5) + Duration::from_millis(5);
        assert!(found.victim.quantile(0.5) < Duration::from_millis(150));
        assert!(found.bystander.quantile(0.5) < bound, "more than {bound:?}");
    }
}

fn relay(backend: Backend, environment: &[(&'static str, &'static str)]) -> Relay {
    let environment = environment.to_vec();
    let relay = RelayMode::Direct;
    Relay::connected(&Options { relay, environment, ..Options::new(backend) })
}

/// A policer lets a burst of 16 kB pass and drops what is more: trains must not make TCP slower. On
/// a quiet machine both figures are to be within 10 %; a busy one makes TCP vary by more than that.
fn a_shallow_policer(backend: Backend) {
    let goodput = |gso| {
        let relay = relay(backend, &[("WG_BOUNCE_GSO", gso)]);
        let _server = IperfServer::start(&relay.lab, &relay.bob.namespace);
        let policer = "root tbf rate 100mbit burst 16kb limit 32kb";
        relay.hub.namespace.run(&format!("tc qdisc add dev bob {policer}"));
        let options = format!("--time {}", super::duration().as_secs());
        Iperf::run(&relay.alice.namespace, BOB.inner(Family::V4), &options).bytes_per_second() * 8.0
    };
    let (on, off) = (goodput("on"), goodput("off"));
    println!("{}: goodput {on:.3e} bit/s, with --gso off {off:.3e} bit/s", backend.name());
    assert!(on > 0.5 * off);
}

/// UDP at a high rate: where datagrams are lost. Not at the hub: the receiving application's buffer
/// and the sending peer's TUN queue are full while other processes have the CPUs.
fn where_datagrams_are_lost(backend: Backend) {
    for window in ["", "--window 8M"] {
        let relay = relay(backend, &[]);
        let _server = IperfServer::start(&relay.lab, &relay.bob.namespace);
        let daemons = [&relay.alice, &relay.hub, &relay.bob];
        let seconds = super::duration().as_secs();
        let options = format!("--udp --bitrate 500M --length 1372 --time {seconds} {window}");
        let run = Iperf::run(&relay.alice.namespace, BOB.inner(Family::V4), &options);
        let full = ["UdpRcvbufErrors"];
        let of_sockets = daemons.map(|daemon| counters_sum(&daemon.namespace, &full));
        let of_daemons = daemons.map(drops);
        println!(
            "{} {window}: lost {:.2} % ({} datagrams); receive buffers full (alice, hub, bob \
             with iperf3) {of_sockets:?}; daemons and devices {of_daemons:?}",
            backend.name(),
            run.lost_percent(),
            run.lost(),
        );
    }
}

/// Everything that a daemon's counters and its device have dropped.
fn drops(daemon: &Daemon) -> String {
    let names = ["drop_congestion", "drop_socket_full", "drop_tun_refused", "drop_hand_off_full"];
    let counters = names.map(|name| daemon.counter(name));
    let device = daemon.namespace.run(&format!("ip -s -o link show {}", daemon.interface));
    let device: Vec<_> = device.split_whitespace().collect();
    let at = |word: &str| device.iter().position(|other| *other == word).unwrap_or(0);
    let of_device = (device.get(at("RX:") + 11), device.get(at("TX:") + 11));
    format!("{counters:?} {of_device:?}")
}
