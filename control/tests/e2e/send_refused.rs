//! Sends that the kernel refuses, as by a firewall or without a route.

use std::net::SocketAddr;
use std::time::Duration;

use crate::harness::{
    ALICE, Backend, Counter, Daemon, Family, Options, Relay, eventually, seconds, send_segments,
};

/// Packets of one super-packet of the application, and bytes of each.
const SEGMENTS: usize = 64;
const SEGMENT_LEN: usize = 64;
/// Super-packets in each measurement.
const TRAINS: usize = 600;

/// A refused packet takes no more of the CPU than a few that leave, however many of one batch are
/// refused. Without segmentation offload each packet is a send of its own.
fn refused_packets_cost_little(backend: Backend) {
    let options = Options { environment: vec![("WG_BOUNCE_GSO", "off")], ..Options::new(backend) };
    let relay = Relay::connected(&options);
    let hub = &relay.hub;
    let accepted = cost_of_packets(hub, "sent_datagrams");
    let blocked = Counter::acting(&hub.namespace, "output", "udp sport 51820", "drop");
    let refused = cost_of_packets(hub, "drop_send_refused");
    assert!(blocked.packets() > 0);
    println!("{accepted:?} for a packet that leaves, {refused:?} for one that is refused");
    assert!(refused < 3 * accepted, "{refused:?} for each, against {accepted:?}");
}

/// Sends packets to alice from the hub; returns the daemon's CPU time for each that is `counted`.
fn cost_of_packets(hub: &Daemon, counted: &str) -> Duration {
    let socket = hub.namespace.udp_socket("0.0.0.0:0");
    let target: SocketAddr =
        format!("{}:9", ALICE.inner(Family::V4)).parse().expect("an address and a port");
    let (packets, time) = (hub.counter(counted), hub.cpu_time());
    for _ in 0..TRAINS {
        let payload = [0; SEGMENTS * SEGMENT_LEN];
        // An error of an earlier packet does not matter.
        let _ = send_segments(&socket, target, &payload, SEGMENT_LEN as u16);
        std::thread::sleep(Duration::from_micros(200));
    }
    let mut done = 0;
    eventually(seconds(5), "the packets are handled", || {
        done = hub.counter(counted) - packets;
        done > (TRAINS * SEGMENTS / 2) as u64
    });
    (hub.cpu_time() - time) / done as u32
}

on_both_backends!(refused_packets_cost_little);
