//! A flood of empty datagrams slows other traffic no more than one to a port that ignores it.

use crate::harness::{
    Backend, Family, Flood, HUB, Iperf, IperfServer, MALLORY, Options, Relay, endpoint,
};

/// A port of the hub whose socket is never read.
const SINK_PORT: u16 = 9;

/// Least throughput during a flood to the daemon, as a part of that during one to the sink.
const SHARE_MIN: f64 = 0.6;

fn empty_datagrams_slow_no_flow(backend: Backend) {
    let relay = Relay::connected(&Options::new(backend));
    let _server = IperfServer::start(&relay.lab, &relay.hub.namespace);
    let _sink = relay.hub.namespace.udp_socket(&format!("0.0.0.0:{SINK_PORT}"));
    let daemon = MALLORY.hub(Family::V4);
    let sink = endpoint(&daemon.ip().to_string(), SINK_PORT);
    // In turns, so that both meet the same load of the machine.
    let turn = (super::duration().as_secs() / 4).max(1);
    let mut bytes = [0.0, 0.0];
    for _ in 0..2 {
        for (target, sum) in [sink, daemon].into_iter().zip(&mut bytes) {
            let _flood = Flood::start(&relay.mallory, target, Vec::clear);
            let options = format!("--time {turn}");
            let flow = Iperf::run(&relay.alice.namespace, HUB.inner(Family::V4), &options);
            *sum += flow.bytes_per_second();
        }
    }
    let share = bytes[1] / bytes[0];
    println!("{backend:?}: {share:.2} of {:.0} Mbit/s", bytes[0] / 2.0 * 8e-6);
    assert!(share >= SHARE_MIN, "{share:.2} of the throughput");
}

on_both_backends!(empty_datagrams_slow_no_flow);
