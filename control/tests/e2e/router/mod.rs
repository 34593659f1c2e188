//! Router behaviour: the result of one packet from alice, with the kernel and with the worker as
//! the relay. Both must be what a router has to do, and must not differ.

mod alone;
mod answers;
mod attacks;
mod cases;
mod judge;
mod sources;
mod traffic;

use crate::harness::{Backend, DefaultRoute, TestbedOptions};
use alone::{
    answers_are_those_of_a_kernel, hostile_packets_change_nothing, trains_for_the_hub_and_for_peers,
};
use answers::errors_come_from_the_hubs_own_address;
use attacks::{
    a_scan_takes_bounded_memory, forged_and_replayed_messages_are_dropped,
    icmp_errors_are_rate_limited, mutated_packets_fare_as_with_the_kernel,
    spoofed_sources_are_dropped,
};
use judge::compare;
use traffic::{
    ecn_marks_are_merged, forwarding_can_be_switched_off, identifications_are_kept, order_is_kept,
    packets_without_a_session_are_staged, padding_is_not_forwarded, unpadded_trains_are_forwarded,
};

fn plain_packets(backend: Backend) {
    compare(|relay| TestbedOptions::new(backend, relay), &cases::plain());
}

fn hop_limits(backend: Backend) {
    compare(|relay| TestbedOptions::new(backend, relay), &cases::hop_limits());
}

fn sizes(backend: Backend) {
    compare(|relay| TestbedOptions::new(backend, relay), &cases::sizes());
}

fn options(backend: Backend) {
    compare(|relay| TestbedOptions::new(backend, relay), &cases::options());
}

fn malformed_packets(backend: Backend) {
    compare(|relay| TestbedOptions::new(backend, relay), &cases::malformed());
}

fn destinations(backend: Backend) {
    compare(|relay| TestbedOptions::new(backend, relay), &cases::destinations());
}

/// Alice may use any source address except bob's.
fn unusual_sources(backend: Backend) {
    let alice = "10.77.0.2/32,fd77::2/128,0.0.0.0/0,::/0";
    let default_route = DefaultRoute::Tunnel;
    let setting =
        |relay| TestbedOptions { alice, default_route, ..TestbedOptions::new(backend, relay) };
    compare(setting, &sources::sources());
}

/// Bob has all addresses except alice's.
fn unusual_destinations(backend: Backend) {
    let bob = "10.77.0.3/32,fd77::3/128,0.0.0.0/0,::/0";
    let default_route = DefaultRoute::Tunnel;
    let setting =
        |relay| TestbedOptions { bob, default_route, ..TestbedOptions::new(backend, relay) };
    compare(setting, &sources::destinations());
}

/// The kernel's routes to some of bob's addresses lead out of another interface.
fn routes_out_of_the_tunnel(backend: Backend) {
    let bob = "10.77.0.3/32,10.99.0.0/16,fd77::3/128,fd99::99/128";
    let default_route = DefaultRoute::Elsewhere;
    let setting =
        |relay| TestbedOptions { bob, default_route, ..TestbedOptions::new(backend, relay) };
    compare(setting, &sources::routed_elsewhere());
}

on_both_backends!(
    plain_packets,
    hop_limits,
    sizes,
    options,
    malformed_packets,
    destinations,
    unusual_sources,
    unusual_destinations,
    routes_out_of_the_tunnel,
    errors_come_from_the_hubs_own_address,
    unpadded_trains_are_forwarded,
    identifications_are_kept,
    padding_is_not_forwarded,
    order_is_kept,
    ecn_marks_are_merged,
    packets_without_a_session_are_staged,
    forwarding_can_be_switched_off,
    forged_and_replayed_messages_are_dropped,
    spoofed_sources_are_dropped,
    mutated_packets_fare_as_with_the_kernel,
    icmp_errors_are_rate_limited,
    a_scan_takes_bounded_memory,
    answers_are_those_of_a_kernel,
    hostile_packets_change_nothing,
    trains_for_the_hub_and_for_peers,
);
