//! Conditions on protocols and ports.

use wg_bounce_dataplane::ip::{ICMP, TCP, UDP};
use wg_bounce_dataplane::pairs::{Packets, Pairs, between};
use wg_bounce_dataplane::transport::Transport;

use super::*;

const GRE: u8 = 47;
const ALICE: u8 = 2;
const BOB: u8 = 3;

fn protocol(number: u8) -> Step {
    let (layer, value, mask) = (Layer::Protocol, vec![number], vec![0xff]);
    Step::If(Condition::Header { layer, offset: 0, value, mask, is_equal: true })
}

/// The port at an offset: of the source (0) or of the destination (2).
fn port(offset: usize, number: u16) -> Step {
    let (layer, value, mask) = (Layer::Transport, number.to_be_bytes().to_vec(), vec![0xff; 2]);
    Step::If(Condition::Header { layer, offset, value, mask, is_equal: true })
}

fn icmp_type(number: u8) -> Step {
    let (layer, value, mask) = (Layer::Transport, vec![number], vec![0xff]);
    Step::If(Condition::Header { layer, offset: 0, value, mask, is_equal: true })
}

fn from_to(from: u8, to: u8) -> [Step; 2] {
    [header(12, &[10, 7, 0, from], 32), header(16, &[10, 7, 0, to], 32)].map(Step::If)
}

/// Judges rules of a chain at a hook, whose policy is to accept.
fn judged(hook: Hook, rules: &[&[Step]]) -> Vec<std::sync::Arc<Pairs>> {
    let (interface, addresses) = (interface("wg0"), peers());
    let host_first = PerFamily { v4: true, v6: true };
    let untracked = PerFamily::default();
    let facts = Facts { interface: &interface, addresses: Some(&addresses), host_first, untracked };
    let chains = chains(&[rules]);
    let base = Base { chains: &chains, number: 0, hook, translates: true, accepts: true };
    judge(&base, &facts, Family::V4, &mut Needs::default()).pairs
}

fn pair(from: u8, to: u8) -> Packets {
    let [from, to] = [from, to].map(|host| [10, 7, 0, host].into());
    Packets::from_to(from, to)
}

/// Whether a conversation of alice and bob is left to the kernel.
fn by_kernel(all: &[std::sync::Arc<Pairs>], protocol: u16, from: u16, to: u16) -> bool {
    let transport = Transport { protocol, source_port: from, destination_port: to };
    between(all, &pair(ALICE, BOB).with(transport)).most.all
}

#[test]
fn a_drop_of_one_port_is_about_this_port_in_both_directions() {
    for rule in [
        &[protocol(TCP), port(2, 25), DROP][..],
        &[port(2, 25), protocol(TCP), DROP],
        &[&from_to(ALICE, BOB)[..], &[protocol(TCP), port(2, 25), DROP]].concat(),
    ] {
        let all = judged(FORWARD, &[rule]);
        let [tcp, udp] = [TCP, UDP].map(u16::from);
        assert!(by_kernel(&all, tcp, 4000, 25), "{rule:?}");
        assert!(!by_kernel(&all, tcp, 4000, 26) && !by_kernel(&all, udp, 4000, 25));
        assert!(!by_kernel(&all, u16::from(ICMP), 0, 0) && !by_kernel(&all, GRE.into(), 0, 0));
        // Answers of bob come from there.
        let answers = Transport { protocol: tcp, source_port: 25, destination_port: 4000 };
        assert!(between(&all, &pair(BOB, ALICE).with(answers)).most.all);
        let spread = between(&all, &pair(ALICE, BOB));
        assert!(spread.depends() && spread.most.without_header, "{spread:?}");
    }
    let all = judged(FORWARD, &[&[&from_to(ALICE, BOB)[..], &[port(2, 25), DROP]].concat()]);
    assert_eq!(between(&all, &pair(ALICE, 4)), wg_bounce_dataplane::pairs::Spread::NONE);
}

/// A port without a protocol may be that of a protocol whose ports are not known.
#[test]
fn other_protocols_may_have_any_port() {
    let all = judged(FORWARD, &[&[port(0, 25), DROP]]);
    assert!(by_kernel(&all, GRE.into(), 0, 0));
    assert!(by_kernel(&all, TCP.into(), 25, 4000) && !by_kernel(&all, TCP.into(), 4000, 26));
    assert!(!by_kernel(&all, UDP.into(), 26, 4000));
}

/// ICMP errors belong to the conversation that they quote: they are told from other messages.
#[test]
fn echo_requests_are_told_from_errors() {
    let all = judged(FORWARD, &[&[protocol(ICMP), icmp_type(8), DROP]]);
    assert!(by_kernel(&all, ICMP.into(), 0, 0) && !by_kernel(&all, TCP.into(), 1, 2));
    assert!(!by_kernel(&all, Transport::ICMP_ERROR, 0, 0));
    // Errors by the kernel need the connection that they are about.
    for rule in [&[protocol(ICMP), icmp_type(3), DROP][..], &[protocol(ICMP), DROP]] {
        let all = judged(FORWARD, &[rule]);
        assert!(by_kernel(&all, ICMP.into(), 0, 0) && by_kernel(&all, TCP.into(), 1, 2));
    }
}

/// A rule may accept answers by the state of the connection: the kernel must see both directions.
#[test]
fn answers_by_state_need_the_kernel() {
    let established = &[unknown(), ACCEPT][..];
    let web = &[protocol(TCP), port(2, 443), ACCEPT][..];
    let both = &[protocol(TCP), port(0, 443), ACCEPT][..];
    let errors = &[protocol(ICMP), ACCEPT][..];
    let all = judged(FORWARD, &[established, web, &[DROP]]);
    assert!(by_kernel(&all, TCP.into(), 4000, 443));
    let all = judged(FORWARD, &[established, web, both, errors, &[DROP]]);
    assert!(!by_kernel(&all, TCP.into(), 4000, 443) && by_kernel(&all, TCP.into(), 4000, 80));
}

/// Without fragments and the like, a packet's protocol is the same for all conditions.
#[test]
fn fragments_are_left_out_wherever_a_rule_asks() {
    let of_header = Condition::Header {
        layer: Layer::Network,
        offset: 9,
        value: vec![TCP],
        mask: vec![0xff],
        is_equal: true,
    };
    let all = judged(FORWARD, &[&[Step::If(of_header), ACCEPT], &[protocol(TCP), DROP]]);
    let spread = between(&all, &pair(ALICE, BOB));
    assert!(!spread.most.all && spread.least.without_header && !spread.depends(), "{spread:?}");
}

#[test]
fn answers_from_a_translated_service_are_by_the_kernel() {
    let bob = u128::from(u32::from_be_bytes([10, 7, 0, BOB]));
    let to = NewAddress::Within(Family::V4, bob, bob);
    let translate = |port| Step::Translate("DNAT".into(), to, port);
    let [tcp, udp] = [TCP, UDP].map(u16::from);
    let local = || Step::If(Condition::ToHost { is_equal: true });
    let service = [local(), protocol(TCP), port(2, 8080), translate(NewPort::Within(80, 80))];
    let hijack = [unknown(), protocol(UDP), port(2, 53), translate(NewPort::Same)];
    let all = judged(PREROUTING, &[&service, &hijack]);
    for (protocol, from, to, expected) in [
        (tcp, 4000, 80, true),
        (tcp, 4000, 8080, false),
        (tcp, 4000, 53, false),
        (udp, 4000, 53, true),
        (udp, 4000, 80, false),
        (u16::from(ICMP), 0, 0, false),
    ] {
        assert_eq!(by_kernel(&all, protocol, from, to), expected, "{protocol} {to}");
    }
    let web = Transport { protocol: tcp, source_port: 4000, destination_port: 80 };
    assert!(!between(&all, &pair(ALICE, 4).with(web)).most.all);
    // One for the other IP version does nothing, and the next rule follows.
    let of_v6 = NewAddress::Within(Family::V6, 3, 3);
    let of_v6 = Step::Translate("nat".into(), of_v6, NewPort::Within(80, 80));
    let all = judged(PREROUTING, &[&[protocol(TCP), port(2, 8080), of_v6], &service[1..]]);
    assert!(by_kernel(&all, tcp, 4000, 80));
    // The port of a source may become any.
    let masked = [protocol(UDP), port(2, 53), translate(NewPort::Same)];
    let all = judged(POSTROUTING, &[&masked]);
    assert!(by_kernel(&all, udp, 4000, 99) && !by_kernel(&all, tcp, 4000, 53));
}
