//! A router's duties: what comes of one packet from alice with the kernel as the relay, and with
//! the worker as the relay. Both must be what a router owes it, and both the same.

mod attacks;
mod cases;
mod sources;
mod traffic;

use std::fmt::Write as _;
use std::net::IpAddr;

use wg_bounce_dataplane::ip;

use crate::harness::{
    Backend, DefaultRoute, IcmpError, MTU, Players, RelayMode, Seen, Setting, forwarded,
    has_right_checksum, hex, reassemble, trim,
};

/// The mode that is compared with the kernel's relaying.
pub const UNDER_TEST: RelayMode = RelayMode::Direct;

/// The modes that a test runs in.
fn modes() -> impl Iterator<Item = RelayMode> {
    let other = (UNDER_TEST != RelayMode::Kernel).then_some(UNDER_TEST);
    [RelayMode::Kernel].into_iter().chain(other)
}

/// One packet, and what is to come of it.
pub struct Case {
    /// What is special about the packet.
    pub name: String,
    /// What alice sends.
    pub packet: Vec<u8>,
    /// What comes of it with the kernel as the relay.
    pub expect: Expect,
    /// What comes of it with `--relay direct`, where it is something else.
    pub direct: Option<Expect>,
    /// Where it goes in `direct` mode.
    pub way: Way,
}

/// The way of a packet in `direct` mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Through the worker alone: no frame passes the TUN.
    Worker,
    /// Into the kernel.
    Kernel,
    /// Whichever the worker likes: for what is dropped in any case.
    Either,
}

/// What is to come of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Bob receives it, changed only as a router changes it.
    Forwarded,
    /// Bob receives one packet with the same payload; the options are the router's to fill in.
    Rewritten,
    /// Bob receives it in fragments.
    Fragments,
    /// Alice gets it back, changed only as a router changes it.
    Returned,
    /// Alice hears an ICMP error.
    Error(IcmpExpected),
    /// Alice hears an echo reply of the hub.
    Reply,
    /// Nobody hears anything.
    Silence,
    /// It leaves in clear text by the other interface.
    Elsewhere,
}

/// An ICMP error to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IcmpExpected {
    /// Type, code, and the second word.
    pub what: (u8, u8, u32),
    /// Whose it is.
    pub source: IpAddr,
    /// Whether it quotes the packet as it was sent, or as it was forwarded.
    pub quotes_forwarded: bool,
}

/// Sends all of `cases` through a hub that relays by the kernel and through one of the mode under
/// test. Panics with all differences.
fn compare(setting: impl Fn(RelayMode) -> Setting, cases: &[Case]) {
    let mut reference = Players::new(&setting(RelayMode::Kernel));
    let mut tested = Players::new(&setting(UNDER_TEST));
    let mut faults = String::new();
    for case in cases {
        let packet = &case.packet;
        let by_kernel = reference.observe(packet);
        if let Err(fault) = judge(&by_kernel, packet, &case.expect) {
            let _ = writeln!(faults, "{}, kernel: {fault}\n  sent {}", case.name, hex(packet));
        }
        let seen = tested.observe(packet);
        let is_direct = UNDER_TEST == RelayMode::Direct;
        let expect = case.direct.as_ref().filter(|_| is_direct).unwrap_or(&case.expect);
        let mut result = judge(&seen, packet, expect);
        if *expect == case.expect && comparable(&seen) != comparable(&by_kernel) {
            result = Err(format!("{seen:?}, but by the kernel {by_kernel:?}"));
        }
        if let (true, Ok(())) = (is_direct, &result) {
            result = judge_way(&seen, case.way);
        }
        if let Err(fault) = result {
            let name = format!("{}, {UNDER_TEST:?}", case.name);
            let _ = writeln!(faults, "{name}: {fault}\n  sent {}", hex(packet));
        }
    }
    assert!(faults.is_empty(), "{} cases:\n{faults}", cases.len());
}

/// Compares what was seen with what was to come.
fn judge(seen: &Seen, sent: &[u8], expect: &Expect) -> Result<(), String> {
    let (alice, bob) = (trimmed(&seen.alice), trimmed(&seen.bob));
    let is_elsewhere = *expect == Expect::Elsewhere;
    let is_right = seen.elsewhere == u64::from(is_elsewhere)
        && match expect {
            Expect::Forwarded => alice.is_empty() && bob == [forwarded(sent)],
            Expect::Returned => bob.is_empty() && alice == [forwarded(sent)],
            Expect::Rewritten => alice.is_empty() && bob.len() == 1 && is_rewritten(&bob[0], sent),
            Expect::Fragments => {
                alice.is_empty() && bob.len() > 1 && reassemble(&bob, MTU) == forwarded(sent)
            }
            Expect::Error(error) => {
                bob.is_empty() && alice.len() == 1 && is_error(&alice[0], sent, error)
            }
            Expect::Reply => bob.is_empty() && alice.len() == 1 && is_reply(&alice[0], sent),
            Expect::Silence | Expect::Elsewhere => alice.is_empty() && bob.is_empty(),
        };
    let text = || format!("not {expect:x?} but {seen:?}");
    if is_right { Ok(()) } else { Err(text()) }
}

/// Checks by the frames that crossed the TUN which way a packet has taken.
fn judge_way(seen: &Seen, way: Way) -> Result<(), String> {
    let is_right = match way {
        Way::Worker => (seen.entered, seen.left) == (0, 0),
        Way::Kernel => seen.entered > 0,
        Way::Either => true,
    };
    let text = || format!("{} frames entered, {} left, not {way:?}", seen.entered, seen.left);
    if is_right { Ok(()) } else { Err(text()) }
}

fn trimmed(plaintexts: &[Vec<u8>]) -> Vec<Vec<u8>> {
    plaintexts.iter().cloned().map(trim).collect()
}

/// Same length, addresses, protocol and payload, and a right checksum.
fn is_rewritten(arrived: &[u8], sent: &[u8]) -> bool {
    let expected = forwarded(sent);
    let (Some(a), Some(b)) = (ip::parse(arrived), ip::parse(&expected)) else { return false };
    a == b && arrived[a.header_len..] == expected[b.header_len..] && has_right_checksum(arrived)
}

fn is_error(answer: &[u8], sent: &[u8], expected: &IcmpExpected) -> bool {
    let Some(error) = IcmpError::read(answer) else { return false };
    let sent_ip = ip::parse(sent).expect("an answer to an IP packet");
    // RFC 1812 §4.3.2.3 and RFC 4443 §2.4 c: as much as fits.
    let room = if sent_ip.source.is_ipv4() { 576 - 28 } else { 1280 - 48 };
    let quoted =
        if expected.quotes_forwarded { forwarded(sent) } else { sent[..sent_ip.len].to_vec() };
    (error.kind, error.code, error.word) == expected.what
        && error.source == expected.source
        && error.destination == sent_ip.source
        && error.quoted == quoted[..quoted.len().min(room)]
}

fn is_reply(answer: &[u8], sent: &[u8]) -> bool {
    let (Some(reply), Some(request)) = (ip::parse(answer), ip::parse(sent)) else { return false };
    let kind = if request.source.is_ipv4() { 0 } else { 129 };
    (reply.source, reply.destination) == (request.destination, request.source)
        && answer[reply.header_len] == kind
        && answer[reply.header_len + 4..] == sent[request.header_len + 4..request.len]
}

/// The hub's IPv4 addresses, inside and outside.
const HUB: [[u8; 4]; 2] = [[10, 77, 0, 1], [192, 0, 2, 1]];

/// What must be the same in all modes: every byte but the IPv4 identification of what the hub
/// itself sends, which is the kernel's to choose.
fn comparable(seen: &Seen) -> (Vec<Vec<u8>>, Vec<Vec<u8>>, u64) {
    let alice = trimmed(&seen.alice).into_iter().map(|mut packet| {
        if packet[0] >> 4 == 4 && HUB.contains(&[packet[12], packet[13], packet[14], packet[15]]) {
            packet[4..6].fill(0);
            packet[10..12].fill(0);
        }
        packet
    });
    (alice.collect(), trimmed(&seen.bob), seen.elsewhere)
}

fn plain_packets(backend: Backend) {
    compare(|relay| Setting::new(backend, relay), &cases::plain());
}

fn hop_limits(backend: Backend) {
    compare(|relay| Setting::new(backend, relay), &cases::hop_limits());
}

fn sizes(backend: Backend) {
    compare(|relay| Setting::new(backend, relay), &cases::sizes());
}

fn options(backend: Backend) {
    compare(|relay| Setting::new(backend, relay), &cases::options());
}

fn broken_packets(backend: Backend) {
    compare(|relay| Setting::new(backend, relay), &cases::broken());
}

fn destinations(backend: Backend) {
    compare(|relay| Setting::new(backend, relay), &cases::destinations());
}

/// Alice may use any source address but bob's.
fn odd_sources(backend: Backend) {
    let alice = "10.77.0.2/32,fd77::2/128,0.0.0.0/0,::/0";
    let default_route = DefaultRoute::Tunnel;
    let setting = |relay| Setting { alice, default_route, ..Setting::new(backend, relay) };
    compare(setting, &sources::sources());
}

/// Bob has all addresses but alice's.
fn odd_destinations(backend: Backend) {
    let bob = "10.77.0.3/32,fd77::3/128,0.0.0.0/0,::/0";
    let default_route = DefaultRoute::Tunnel;
    let setting = |relay| Setting { bob, default_route, ..Setting::new(backend, relay) };
    compare(setting, &sources::destinations());
}

/// The kernel's routes to some of bob's addresses lead elsewhere.
fn routes_that_lead_astray(backend: Backend) {
    let bob = "10.77.0.3/32,10.99.0.0/16,fd77::3/128,fd99::99/128";
    let default_route = DefaultRoute::Elsewhere;
    let setting = |relay| Setting { bob, default_route, ..Setting::new(backend, relay) };
    compare(setting, &sources::astray());
}

use attacks::{
    flood_of_last_hops, forged_replayed_reordered, mutations, scan_of_all_destinations,
    spoofed_sources,
};
use traffic::{
    congestion_marks, forwarding_switches, no_session_yet, order_is_kept, padded_trains,
    unpadded_trains,
};

on_both_backends!(
    plain_packets,
    hop_limits,
    sizes,
    options,
    broken_packets,
    destinations,
    odd_sources,
    odd_destinations,
    routes_that_lead_astray,
    unpadded_trains,
    padded_trains,
    order_is_kept,
    congestion_marks,
    no_session_yet,
    forwarding_switches,
    forged_replayed_reordered,
    spoofed_sources,
    mutations,
    flood_of_last_hops,
    scan_of_all_destinations,
);
