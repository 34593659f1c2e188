//! Cases of packets, their expected fates, and the comparison of the relay modes.

use std::fmt::Write as _;
use std::net::IpAddr;

use wg_bounce_dataplane::ip;

use crate::harness::{
    IcmpError, MTU, Observed, RelayMode, Testbed, TestbedOptions, forwarded, has_right_checksum,
    hex, reassemble, trim,
};

/// The mode that is compared with `kernel`.
pub const UNDER_TEST: RelayMode = RelayMode::Direct;

/// The modes in which a test runs.
pub fn modes() -> impl Iterator<Item = RelayMode> {
    let other = (UNDER_TEST != RelayMode::Kernel).then_some(UNDER_TEST);
    [RelayMode::Kernel].into_iter().chain(other)
}

/// One packet and its expected result.
pub struct Case {
    /// A description of the packet.
    pub name: String,
    /// The packet that alice sends.
    pub packet: Vec<u8>,
    /// The expected result with the kernel as the relay.
    pub expect: Expect,
    /// The expected result with `--relay direct`, if different.
    pub direct: Option<Expect>,
    /// The path it takes in `direct` mode.
    pub path: Path,
}

/// The path of a packet in `direct` mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Through the worker only: no frame crosses the TUN.
    Worker,
    /// Into the kernel.
    Kernel,
    /// Either of them, for packets that are dropped in any case.
    Either,
}

/// The expected result of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Bob receives it as a router forwards it.
    Forwarded,
    /// Bob receives one packet with the same payload; the router may fill in the options.
    Rewritten,
    /// Bob receives it in fragments.
    Fragments,
    /// Alice receives it as a router forwards it.
    Returned,
    /// Alice receives an ICMP error.
    Error(IcmpExpected),
    /// Alice receives an echo reply from the hub.
    Reply,
    /// Neither alice nor bob receives anything.
    Silence,
    /// It leaves in clear text through the other interface.
    Elsewhere,
}

/// An expected ICMP error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IcmpExpected {
    /// Type, code, and the second word.
    pub what: (u8, u8, u32),
    /// Its source address.
    pub source: IpAddr,
    /// Whether it quotes the packet as forwarded instead of as sent.
    pub quotes_forwarded: bool,
}

/// Sends all `cases` through a hub that relays in the kernel and through one in the mode under
/// test. Panics with all differences.
pub fn compare(setting: impl Fn(RelayMode) -> TestbedOptions, cases: &[Case]) {
    let mut reference = Testbed::new(&setting(RelayMode::Kernel));
    let mut tested = Testbed::new(&setting(UNDER_TEST));
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
            result = Err(format!("{seen:?}, but with the kernel {by_kernel:?}"));
        }
        if let (true, Ok(())) = (is_direct, &result) {
            result = judge_path(&seen, case.path);
        }
        if let Err(fault) = result {
            let name = format!("{}, {UNDER_TEST:?}", case.name);
            let _ = writeln!(faults, "{name}: {fault}\n  sent {}", hex(packet));
        }
    }
    assert!(faults.is_empty(), "{} cases:\n{faults}", cases.len());
}

/// Compares the observed with the expected result.
pub fn judge(seen: &Observed, sent: &[u8], expect: &Expect) -> Result<(), String> {
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

/// Checks the path of a packet by the frames that crossed the TUN.
pub fn judge_path(seen: &Observed, path: Path) -> Result<(), String> {
    let is_right = match path {
        Path::Worker => (seen.entered, seen.left) == (0, 0),
        Path::Kernel => seen.entered > 0,
        Path::Either => true,
    };
    let text = || format!("{} frames entered, {} left, not {path:?}", seen.entered, seen.left);
    if is_right { Ok(()) } else { Err(text()) }
}

pub fn trimmed(plaintexts: &[Vec<u8>]) -> Vec<Vec<u8>> {
    plaintexts.iter().cloned().map(trim).collect()
}

/// Same length, addresses, protocol and payload, and a valid checksum.
pub fn is_rewritten(arrived: &[u8], sent: &[u8]) -> bool {
    let expected = forwarded(sent);
    let (Some(a), Some(b)) = (ip::parse(arrived), ip::parse(&expected)) else { return false };
    a == b && arrived[a.header_len..] == expected[b.header_len..] && has_right_checksum(arrived)
}

pub fn is_error(answer: &[u8], sent: &[u8], expected: &IcmpExpected) -> bool {
    let Some(error) = IcmpError::read(answer) else { return false };
    let sent_ip = ip::parse(sent).expect("alice sent an IP packet");
    // Errors quote as much as fits (RFC 1812 §4.3.2.3, RFC 4443 §2.4 c).
    let quoted_max = if sent_ip.source.is_ipv4() { 576 - 28 } else { 1280 - 48 };
    let quoted =
        if expected.quotes_forwarded { forwarded(sent) } else { sent[..sent_ip.len].to_vec() };
    (error.kind, error.code, error.word) == expected.what
        && error.source == expected.source
        && error.destination == sent_ip.source
        && error.quoted == quoted[..quoted.len().min(quoted_max)]
}

pub fn is_reply(answer: &[u8], sent: &[u8]) -> bool {
    let (Some(reply), Some(request)) = (ip::parse(answer), ip::parse(sent)) else { return false };
    let kind = if request.source.is_ipv4() { 0 } else { 129 };
    (reply.source, reply.destination) == (request.destination, request.source)
        && answer[reply.header_len] == kind
        && answer[reply.header_len + 4..] == sent[request.header_len + 4..request.len]
}

/// The hub's IPv4 addresses, inside and outside.
pub const HUB: [[u8; 4]; 2] = [[10, 77, 0, 1], [192, 0, 2, 1]];

/// The hub's IPv6 address, fd77::1.
const HUB_V6: [u8; 16] = [0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// The part that must not differ between modes: everything except the IPv4 identification and the
/// IPv6 flow label in packets from the hub itself, which their sender chooses.
pub fn comparable(seen: &Observed) -> (Vec<Vec<u8>>, Vec<Vec<u8>>, u64) {
    let alice = trimmed(&seen.alice).into_iter().map(|mut packet| {
        if packet[0] >> 4 == 4 && HUB.contains(&[packet[12], packet[13], packet[14], packet[15]]) {
            packet[4..6].fill(0);
            packet[10..12].fill(0);
        } else if packet[0] >> 4 == 6 && packet[8..24] == HUB_V6 {
            packet[1..4].fill(0);
        }
        packet
    });
    (alice.collect(), trimmed(&seen.bob), seen.elsewhere)
}
