//! Traffic from alice to bob through the hub: nothing is lost, nothing is reordered.

use crate::harness::{
    ALICE, BOB, Backend, Family, HUB, Iperf, IperfServer, Options, Relay, RelayMode, ping,
    tcp_reorders,
};

/// A window (bytes) that fits into every queue on the path, so that losses and reordering are the
/// daemons' fault.
const SMALL_WINDOW: &str = "160K";

/// Largest share of retransmitted TCP segments with a small window: a tail loss probe may fire on a
/// busy machine.
const RETRANSMITTED_SHARE_MAX: f64 = 0.03;

/// The same without a limit on the window, where TCP fills some queue until it drops.
const RETRANSMITTED_SHARE_MAX_UNLIMITED: f64 = 0.25;

/// Most reorderings detected by TCP in a run: one when a flow switches from staged packets to the
/// established session, and a few caused by the kernel's receive steering.
const REORDERS_MAX: u64 = 10;

fn options(backend: Backend, outer: Family, mtu: u32) -> Options {
    let link_mtu = if mtu > 1420 { 65_535 } else { 1500 };
    Options { outer, mtu, link_mtu, ..Options::new(backend) }
}

fn direct(backend: Backend, outer: Family) -> Options {
    Options { relay: RelayMode::Direct, ..options(backend, outer, 1420) }
}

fn flood_ping(options: &Options) {
    let (relay, mtu) = (Relay::connected(options), options.mtu);
    for family in Family::BOTH {
        for size in [16, 56, mtu - 48] {
            let target = BOB.inner(family);
            let counts = ping(&relay.alice.namespace, target, &format!("-f -c 1000 -s {size}"));
            assert_eq!(counts, (1000, 1000), "{family:?}, {size} bytes");
        }
        let counts = ping(&relay.hub.namespace, ALICE.inner(family), "-f -c 1000");
        assert_eq!(counts, (1000, 1000), "from the hub itself, {family:?}");
    }
}

fn flood_ping_outer_v4(backend: Backend) {
    flood_ping(&options(backend, Family::V4, 1420));
}

fn flood_ping_direct(backend: Backend) {
    for outer in Family::BOTH {
        flood_ping(&direct(backend, outer));
    }
}

fn flood_ping_outer_v6(backend: Backend) {
    flood_ping(&options(backend, Family::V6, 1420));
}

fn flood_ping_large_mtu_v4(backend: Backend) {
    flood_ping(&options(backend, Family::V4, 34_736));
}

fn flood_ping_large_mtu_v6(backend: Backend) {
    flood_ping(&options(backend, Family::V6, 34_736));
}

/// Packets sent before the handshake are staged; none is lost.
fn first_packets_are_staged(backend: Backend) {
    let relay = Relay::new(&Options::new(backend));
    for family in Family::BOTH {
        let counts = ping(&relay.bob.namespace, HUB.inner(family), "-c 5 -i 0.05");
        assert_eq!(counts, (5, 5), "from bob to the hub, {family:?}");
        let counts = ping(&relay.alice.namespace, BOB.inner(family), "-c 5 -i 0.05");
        assert_eq!(counts, (5, 5), "from alice to bob, {family:?}");
    }
}

fn tcp(options: &Options) {
    let (relay, mtu) = (Relay::connected(options), options.mtu);
    let _server = IperfServer::start(&relay.lab, &relay.bob.namespace);
    let mut reordered = Vec::new();
    let reorders = || {
        [&relay.alice, &relay.bob].map(|daemon| tcp_reorders(&daemon.namespace)).iter().sum::<u64>()
    };
    for family in Family::BOTH {
        for (options, share_max) in [
            (format!("--window {SMALL_WINDOW}"), RETRANSMITTED_SHARE_MAX),
            (format!("--window {SMALL_WINDOW} --reverse"), RETRANSMITTED_SHARE_MAX),
            (format!("--window {SMALL_WINDOW} --parallel 4"), RETRANSMITTED_SHARE_MAX),
            ("--bidir".to_owned(), RETRANSMITTED_SHARE_MAX_UNLIMITED),
        ] {
            let options = format!("--time 1 {options}");
            let before = reorders();
            let run = Iperf::run(&relay.alice.namespace, BOB.inner(family), &options);
            let rate = run.bytes_per_second();
            assert!(rate > 2e6, "{rate} bytes/s {family:?} {options}");
            let share = run.retransmitted_share(f64::from(mtu));
            assert!(share < share_max, "{share} retransmitted {family:?} {options}");
            let count = reorders() - before;
            if count > REORDERS_MAX {
                reordered.push((family, options, count));
            }
        }
    }
    assert!(reordered.is_empty(), "TCP was reordered: {reordered:#?}");
}

fn tcp_outer_v4(backend: Backend) {
    tcp(&options(backend, Family::V4, 1420));
}

fn tcp_direct(backend: Backend) {
    tcp(&direct(backend, Family::V4));
}

fn tcp_outer_v6(backend: Backend) {
    tcp(&options(backend, Family::V6, 1420));
}

fn tcp_large_mtu_v4(backend: Backend) {
    tcp(&options(backend, Family::V4, 34_736));
}

fn tcp_large_mtu_v6(backend: Backend) {
    tcp(&options(backend, Family::V6, 34_736));
}

/// UDP at a rate that no queue has to drop, with sizes that are not multiples of 16.
fn udp(options: &Options) {
    let relay = Relay::connected(options);
    let _server = IperfServer::start(&relay.lab, &relay.bob.namespace);
    for family in Family::BOTH {
        for options in ["20M --length 1203", "20M --length 1203 --reverse", "2M --length 61"] {
            let options = format!("--udp --time 2 --bitrate {options}");
            let run = Iperf::run(&relay.alice.namespace, BOB.inner(family), &options);
            assert!(run.bytes_per_second() > 2e5, "{family:?} {options}: {run:?}");
            assert!(run.lost_percent() < 0.5, "{family:?} {options}: {run:?}");
        }
    }
}

fn udp_outer_v4(backend: Backend) {
    udp(&options(backend, Family::V4, 1420));
}

fn udp_outer_v6(backend: Backend) {
    udp(&options(backend, Family::V6, 1420));
}

fn udp_direct(backend: Backend) {
    udp(&direct(backend, Family::V6));
}

/// A datagram larger than the MTU crosses in fragments and is reassembled.
fn fragments_cross(backend: Backend) {
    for options in [options(backend, Family::V4, 1420), direct(backend, Family::V4)] {
        let relay = Relay::connected(&options);
        for family in Family::BOTH {
            let counts = ping(&relay.alice.namespace, BOB.inner(family), "-c 20 -i 0.05 -s 9000");
            assert_eq!(counts, (20, 20), "{family:?}");
        }
    }
}

on_both_backends!(
    flood_ping_outer_v4,
    flood_ping_outer_v6,
    flood_ping_large_mtu_v4,
    flood_ping_large_mtu_v6,
    flood_ping_direct,
    first_packets_are_staged,
    tcp_outer_v4,
    tcp_outer_v6,
    tcp_large_mtu_v4,
    tcp_large_mtu_v6,
    tcp_direct,
    udp_outer_v4,
    udp_outer_v6,
    udp_direct,
    fragments_cross,
);
