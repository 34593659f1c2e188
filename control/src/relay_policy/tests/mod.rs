//! Every reason, with a fake kernel.

mod connections;
mod fake;
mod fuzz;
mod incremental;
mod netfilter;
mod sets;

use crate::relay_policy::reading::Known;
use std::io;

use wg_bounce_dataplane::snapshot::DirectRelay;
use wg_bounce_sys::Family;

use super::decision::PolicyDecision;
use super::mode::Mode;
use super::reason::Reason;
use super::routing::mtu_v6;
use super::source::Source;
use crate::netlink::message::Message;
use crate::netlink::message::Protocol::{self, Route, Xfrm};
use crate::netlink::message::build::{attribute, message, text};
use crate::netlink::parse::malformed;
use fake::{FakeKernel, WG0};

/// Whether each IP version is relayed directly, and the decision in words.
#[track_caller]
fn judge(kernel: &mut FakeKernel) -> ([bool; 2], String) {
    let findings: Vec<_> = Source::ALL
        .into_iter()
        .flat_map(|source| source.read(kernel, &fake::at(), Known::default()).findings)
        .collect();
    let decision = PolicyDecision::new(Mode::Auto, findings.iter(), [].iter());
    let is_direct =
        Family::BOTH.map(|family| decision.relaying(family) == DirectRelay::IfRoutedBack);
    (is_direct, decision.to_string())
}

/// With this one change to a kernel that gives no reason against it, only the given IP versions are
/// relayed directly, and the reason is named.
#[track_caller]
fn expect(change: impl FnOnce(&mut FakeKernel), expected: [bool; 2], reason: &str) {
    let mut kernel = FakeKernel::quiet();
    change(&mut kernel);
    let (is_direct, said) = judge(&mut kernel);
    assert_eq!(is_direct, expected, "{said}");
    assert!(said.contains(reason), "missing {reason:?}: {said}");
}

const DIRECT: [bool; 2] = [true; 2];
const KERNEL: [bool; 2] = [false; 2];
const V4_ONLY: [bool; 2] = [true, false];
const V6_ONLY: [bool; 2] = [false, true];

#[test]
fn without_a_reason_relaying_is_direct() {
    expect(|_| {}, DIRECT, "IPv4 and IPv6 direct");
}

#[test]
fn a_kernel_without_a_subsystem_gives_no_reason() {
    let mut kernel = FakeKernel::quiet();
    for question in [0xa04, 0xa17] {
        kernel.refuse(Protocol::Netfilter, question, io::ErrorKind::InvalidInput);
    }
    for question in [0x25, 0x28] {
        kernel.refuse(Xfrm, question, io::ErrorKind::Unsupported);
    }
    assert_eq!(judge(&mut kernel).0, DIRECT);
}

#[test]
fn an_unreadable_source_is_a_reason() {
    for source in Source::ALL {
        let mut kernel = FakeKernel::quiet();
        kernel.failure = Some(|| io::ErrorKind::PermissionDenied.into());
        let findings = source.read(&mut kernel, &fake::at(), Known::default()).findings;
        let [finding] = &findings[..] else { panic!("{source:?}: {findings:?}") };
        let Reason::Unreadable { capability, .. } = &finding.reason else { panic!("{finding:?}") };
        let is_settings = matches!(source, Source::Settings(_));
        assert_eq!(
            finding.reason.is_of_router(),
            is_settings,
            "direct relay, too, requires forwarding to be on"
        );
        let is_root_s = matches!(source, Source::Nftables | Source::NetfilterPrograms);
        assert!(!is_root_s || capability.is_some(), "{finding:?}");
        kernel.failure = Some(malformed);
        assert_eq!(
            source.read(&mut kernel, &fake::at(), Known::default()).findings.len(),
            1,
            "{source:?}"
        );
    }
}

/// Byte for byte as the kernel expects them: header, then attributes.
#[test]
fn requests_are_well_formed() {
    let mut kernel = FakeKernel::quiet();
    kernel.push(Route, 38, traffic(36, WG0, 0x8001_0000, "fq_codel", &[]));
    judge(&mut kernel);
    let with_index = |length: usize| {
        let mut header = vec![0; length];
        header[4..8].copy_from_slice(&WG0.to_ne_bytes());
        header
    };
    let rules = |family| [vec![family], vec![0; 11]].concat();
    let qdiscs = [vec![0; 20], attribute(10, &[])].concat();
    let mut filters = with_index(20);
    filters[12..16].copy_from_slice(&0x8001_0000u32.to_ne_bytes());
    let expected = [
        (Route, 34, rules(2)),
        (Route, 34, rules(10)),
        (Protocol::Netfilter, 0xa10, vec![0; 4]),
        (Protocol::Netfilter, 0xa04, vec![0; 4]),
        (Protocol::Netfilter, 0xa17, vec![0; 4]),
        (Protocol::Netfilter, 0xa10, vec![0; 4]),
        (Route, 18, with_index(16)),
        (Route, 38, qdiscs),
        (Route, 46, filters),
        (Xfrm, 0x25, vec![0; 4]),
        (Xfrm, 0x28, vec![0; 4]),
    ];
    assert_eq!(kernel.requests, expected);
}

/// Replies truncated at every length.
#[test]
fn broken_replies_never_panic() {
    let whole = FakeKernel::quiet();
    for (question, answer) in &whole.answers {
        let Ok(messages) = answer else { continue };
        for (number, message) in messages.iter().enumerate() {
            for length in 0..message.payload.len() {
                let mut kernel = FakeKernel::quiet();
                let mut messages = messages.clone();
                messages[number].payload.truncate(length);
                kernel.answers.insert(*question, Ok(messages));
                judge(&mut kernel);
            }
        }
    }
}

#[test]
fn forwarding_is_a_setting_of_each_family() {
    expect(|kernel| kernel.set("ipv4/conf/wg0/forwarding", "0"), V6_ONLY, "ip_forward");
    expect(|kernel| kernel.unset("ipv4/conf/wg0/forwarding"), V6_ONLY, "ip_forward");
    let all = "ipv6/conf/all/forwarding";
    expect(|kernel| kernel.set(all, "0"), V4_ONLY, "net.ipv6.conf.all.forwarding");
    let forced = |kernel: &mut FakeKernel| {
        kernel.set(all, "0");
        kernel.set("ipv6/conf/wg0/force_forwarding", "1");
    };
    expect(forced, DIRECT, "");
    expect(|kernel| kernel.set("ipv6/conf/wg0/disable_ipv6", "1"), V4_ONLY, "disable_ipv6");
    // As with an MTU below 1280, which removes IPv6 from the interface.
    expect(|kernel| kernel.unset("ipv6/conf/wg0/disable_ipv6"), V4_ONLY, "disable_ipv6");
    expect(|kernel| kernel.set("ipv4/conf/wg0/forwarding", "yes"), V6_ONLY, "cannot read");
}

#[test]
fn ipv6_may_have_an_mtu_of_its_own() {
    let mut kernel = FakeKernel::quiet();
    assert_eq!(mtu_v6(&mut kernel, &fake::at()), None);
    kernel.set("ipv6/conf/wg0/mtu", "1300");
    assert_eq!(mtu_v6(&mut kernel, &fake::at()), Some(1300));
    kernel.failure = Some(malformed);
    assert_eq!(mtu_v6(&mut kernel, &fake::at()), Some(1280), "what every link can carry");
}

#[test]
fn next_hops_by_port_are_not_covered() {
    let path = "ipv4/fib_multipath_hash_policy";
    expect(|kernel| kernel.set(path, "1"), V6_ONLY, "fib_multipath_hash_policy is not 0");
}

fn rule(attributes: &[Vec<u8>]) -> Message {
    let mut header = [0; 12];
    header[0] = 2;
    message(32, &header, attributes)
}

#[test]
fn rules_may_match_on_what_a_route_query_names() {
    let number = |kind, value: u32| attribute(kind, &value.to_ne_bytes());
    let answered = [number(6, 100), number(10, 7), number(16, 7), text(3, "wg0"), number(15, 9)];
    let add = |attributes: Vec<Vec<u8>>| {
        move |kernel: &mut FakeKernel| kernel.push(Route, 34, rule(&attributes))
    };
    expect(add(answered.to_vec()), DIRECT, "");
    for (kind, name) in
        [(20, "uidrange"), (22, "ipproto"), (23, "sport"), (24, "dport"), (77, "unknown")]
    {
        let attributes = [answered.to_vec(), vec![attribute(kind, &[0; 4])]].concat();
        let mut kernel = FakeKernel::quiet();
        add(attributes)(&mut kernel);
        let (_, said) = judge(&mut kernel);
        assert!(said.contains("ip rule 100 ") && said.contains(name), "{said}");
    }
}

#[test]
fn a_family_that_the_kernel_lacks_has_no_rules() {
    let no_such_family = |kernel: &mut FakeKernel| {
        kernel.failing_family = Some(10);
        kernel.unset("ipv6/conf/wg0/disable_ipv6");
    };
    expect(no_such_family, V4_ONLY, "IPv6 by the kernel (forwarding is off");
}

fn policies(counts: [u32; 6]) -> Message {
    let bytes: Vec<u8> = counts.into_iter().flat_map(u32::to_ne_bytes).collect();
    message(0x24, &[0; 4], &[attribute(1, &bytes)])
}

#[test]
fn ipsec_policies_count_for_output_and_forwarding() {
    let with = |counts| {
        move |kernel: &mut FakeKernel| {
            kernel.answers.insert((Xfrm, 0x25), Ok(vec![policies(counts)]));
        }
    };
    expect(with([3, 0, 0, 9, 9, 9]), DIRECT, "");
    expect(with([0, 1, 0, 0, 0, 0]), KERNEL, "IPsec policies: 1 ");
    expect(with([0, 0, 2, 0, 0, 0]), KERNEL, "IPsec policies: 2 ");
    for default in [[0, 1, 0], [0, 0, 1]] {
        let blocked = vec![message(0x27, &default, &[])];
        expect(
            |kernel| {
                kernel.answers.insert((Xfrm, 0x28), Ok(blocked));
            },
            KERNEL,
            "the default IPsec policy is to block",
        );
    }
    // Before 5.15.
    expect(|kernel| kernel.refuse(Xfrm, 0x28, io::ErrorKind::InvalidInput), DIRECT, "");
}

#[test]
fn the_link_tells_of_xdp_masters_and_promiscuity() {
    let as_it_is = |flags, xdp, promiscuity, more: Vec<Vec<u8>>| {
        move |kernel: &mut FakeKernel| {
            let answer = vec![fake::link(flags, xdp, promiscuity, &more)];
            kernel.answers.insert((Route, 18), Ok(answer));
        }
    };
    expect(as_it_is(1, 0, 0, Vec::new()), DIRECT, "");
    expect(as_it_is(1, 2, 0, Vec::new()), KERNEL, "XDP");
    expect(as_it_is(1, 0, 1, Vec::new()), KERNEL, "promiscuous");
    expect(as_it_is(0x101, 0, 0, Vec::new()), KERNEL, "promiscuous");
    let vrf = vec![attribute(10, &9u32.to_ne_bytes())];
    expect(as_it_is(1, 0, 0, vrf), KERNEL, "enslaved to interface 9");
}

/// A queueing discipline or filter: `struct tcmsg`, kind, and more.
fn traffic(kind: u16, interface: u32, handle: u32, name: &str, more: &[Vec<u8>]) -> Message {
    let mut header = vec![0; 4];
    header.extend(interface.to_ne_bytes());
    header.extend(handle.to_ne_bytes());
    header.extend([0; 8]);
    message(kind, &header, &[vec![text(1, name)], more.to_vec()].concat())
}

#[test]
fn queueing_disciplines_that_shape_count() {
    let qdisc = |interface, handle, name: &'static str, more: Vec<Vec<u8>>| {
        move |kernel: &mut FakeKernel| {
            kernel.push(Route, 38, traffic(36, interface, handle, name, &more));
        }
    };
    let chosen = 0x8001_0000;
    expect(qdisc(WG0, 0, "mq", Vec::new()), DIRECT, "");
    expect(qdisc(WG0, chosen, "mq", Vec::new()), KERNEL, "qdisc mq");
    expect(qdisc(WG0, chosen, "fq_codel", Vec::new()), DIRECT, "");
    // net.core.default_qdisc may be any discipline that works without options.
    expect(qdisc(WG0, 0, "cake", Vec::new()), DIRECT, "");
    expect(qdisc(WG0, chosen, "cake", Vec::new()), KERNEL, "qdisc cake");
    expect(qdisc(WG0, chosen, "tbf", Vec::new()), KERNEL, "qdisc tbf");
    expect(qdisc(WG0 + 1, chosen, "tbf", Vec::new()), DIRECT, "");
    let rate = |rate: u32| vec![attribute(2, &attribute(7, &rate.to_ne_bytes()))];
    expect(qdisc(WG0, chosen, "fq", rate(u32::MAX)), DIRECT, "");
    expect(qdisc(WG0, 0, "fq", rate(125_000)), KERNEL, "qdisc fq");
    expect(qdisc(WG0, 0, "fq", Vec::new()), KERNEL, "cannot read tc");
}

#[test]
fn filters_count_at_their_parents() {
    let clsact = |kernel: &mut FakeKernel| {
        kernel.push(Route, 38, traffic(36, WG0, 0xffff_0000, "clsact", &[]));
    };
    expect(clsact, DIRECT, "");
    for (parent, hook) in [(0xffff_fff2u32, "ingress"), (0xffff_fff3, "egress")] {
        let with_filter = |kernel: &mut FakeKernel| {
            clsact(kernel);
            kernel.filters.insert(parent, vec![traffic(44, WG0, 0, "bpf", &[])]);
        };
        expect(with_filter, KERNEL, &format!("bpf filter at {hook}"));
    }
    let at_qdisc = |kernel: &mut FakeKernel| {
        kernel.push(Route, 38, traffic(36, WG0, 0x8001_0000, "fq_codel", &[]));
        kernel.filters.insert(0x8001_0000, vec![traffic(44, WG0, 0, "u32", &[])]);
    };
    expect(at_qdisc, KERNEL, "u32 filter at qdisc 8001:");
    let block = vec![attribute(13, &1u32.to_ne_bytes())];
    let shared = |kernel: &mut FakeKernel| {
        kernel.push(Route, 38, traffic(36, WG0, 0xffff_0000, "clsact", &block));
    };
    expect(shared, KERNEL, "shared filter");
}

#[test]
fn programs_at_the_tcx_hooks_count() {
    expect(|kernel| kernel.tcx = [1, 0], KERNEL, "TCX program is attached at ingress");
    expect(|kernel| kernel.tcx = [0, 2], KERNEL, "TCX program is attached at egress");
}

#[test]
fn packet_sockets_count_if_they_receive_packets_of_the_interface() {
    let heading = "sk RefCnt Type Proto  Iface R Rmem   User   Inode\n";
    let with = |line: &'static str| {
        move |kernel: &mut FakeKernel| kernel.list("packet", &format!("{heading}{line}\n"))
    };
    expect(with("0 3 3 0003 7 1 0 0 4242"), KERNEL, "inode 4242");
    expect(with("0 3 3 0003 0 1 0 0 4242"), KERNEL, "inode 4242");
    expect(with("0 3 2 0800 0 1 0 0 4242"), V6_ONLY, "inode 4242");
    expect(with("0 3 2 86dd 7 1 0 0 4242"), V4_ONLY, "inode 4242");
    // Another interface; LLDP on all interfaces; a socket that does not receive yet.
    expect(with("0 3 3 0003 8 1 0 0 4242"), DIRECT, "");
    expect(with("0 3 3 88cc 0 1 0 0 4242"), DIRECT, "");
    expect(with("0 3 3 0003 0 0 0 0 4242"), DIRECT, "");
    expect(with("0 3 3 0003 zero 1 0 0 4242"), KERNEL, "cannot read packet sockets");
    expect(with("0 3 3 0003"), KERNEL, "cannot read packet sockets");
}
