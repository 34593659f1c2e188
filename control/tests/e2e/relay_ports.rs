//! `--relay auto` under rules about protocols and ports: the conversations that these concern pass
//! the kernel, in both directions, and all others are relayed directly.

use crate::harness::Way::{self, Direct, Dropped, Kernel};
use crate::harness::{Backend, Draft, RelayMode, Testbed, TestbedOptions, becomes, seconds};
use crate::relay_auto::LATE;
use crate::relay_direct::expect_log_within;

/// Packets from alice to bob.
#[derive(Clone, Copy, Debug)]
enum Sent {
    Udp(u16, u16),
    Tcp(u16, u16),
    Echo,
    /// An ICMP error about a UDP datagram of bob, from this port to that one.
    Error(u16, u16),
    /// The second half of one.
    Fragment,
}
use Sent::{Echo, Error, Fragment, Tcp, Udp};

const SENT: [Sent; 10] = [
    Tcp(4000, 25),
    Tcp(25, 4000),
    Tcp(4000, 80),
    Udp(4000, 53),
    Udp(53, 4000),
    Udp(4000, 80),
    Echo,
    Error(53, 4000),
    Error(80, 4000),
    Fragment,
];

/// The ways of all that is sent.
type Ways = [Way; SENT.len()];

const ALL_DIRECT: Ways = [Direct; SENT.len()];

fn packet(sent: Sent, is_v6: bool) -> Vec<u8> {
    let [from, to] = if is_v6 { ["fd77::2", "fd77::3"] } else { ["10.77.0.2", "10.77.0.3"] };
    match sent {
        Udp(source, destination) => Draft::udp(from, to, 60).ports(source, destination),
        Tcp(source, destination) => Draft::tcp(from, to, 1, 60).ports(source, destination),
        Echo => Draft::echo(from, to, 1, 60),
        Error(source, destination) => {
            let quoted = Draft::udp(to, from, 60).ports(source, destination).build();
            let (kind, protocol) = if is_v6 { (1, 58) } else { (3, 1) };
            let error = [&[kind, 1, 0, 0, 0, 0, 0, 0], &quoted[..]].concat();
            Draft::other(from, to, protocol, &error)
        }
        Fragment if is_v6 => Draft::udp(from, to, 64).extension(44, &[17, 0, 0, 8, 0, 0, 0, 1]),
        Fragment => Draft::udp(from, to, 64).fragment(8),
    }
    .build()
}

fn ways(testbed: &mut Testbed, is_v6: bool) -> Ways {
    SENT.map(|sent| {
        match testbed.observe(&packet(sent, is_v6)).way() {
            // With connection tracking, the kernel waits for the first half.
            Dropped if matches!(sent, Fragment) => Kernel,
            way => way,
        }
    })
}

#[track_caller]
fn expect_ways(testbed: &mut Testbed, what: &str, is_v6: bool, expected: Ways) {
    becomes(LATE, what, &expected, || ways(testbed, is_v6));
}

/// Rules of iptables for IPv4, without the program, and the ways of what is sent.
const RULES: [(&str, &str, Ways); 7] = [
    (
        "a drop of mail",
        "FORWARD -p tcp -m tcp --dport 25 -j DROP",
        [Dropped, Kernel, Direct, Direct, Direct, Direct, Direct, Direct, Direct, Kernel],
    ),
    (
        "all ports but a few",
        "FORWARD -p tcp -m multiport ! --dports 20:25,4000 -j DROP",
        [Direct, Direct, Dropped, Direct, Direct, Direct, Direct, Direct, Direct, Kernel],
    ),
    (
        "a log of names that are asked for",
        "FORWARD -p udp -m udp --dport 53 -j LOG",
        [Direct, Direct, Direct, Kernel, Kernel, Direct, Direct, Kernel, Direct, Kernel],
    ),
    (
        "a resolver for all",
        "PREROUTING -t nat -i IF -p udp -m udp --dport 53 -j REDIRECT --to-ports 5353",
        [Direct, Direct, Direct, Dropped, Kernel, Direct, Direct, Kernel, Direct, Kernel],
    ),
    (
        "a service at a peer",
        "PREROUTING -t nat -d HUB -p tcp -m tcp --dport 8080 -j DNAT --to BOB:80",
        [Direct, Direct, Kernel, Direct, Direct, Direct, Direct, Direct, Direct, Kernel],
    ),
    (
        "few pings",
        "FORWARD -p icmp -m icmp --icmp-type echo-request -m limit --limit 1/s -j ACCEPT",
        [Direct, Direct, Direct, Direct, Direct, Direct, Kernel, Direct, Direct, Kernel],
    ),
    (
        "no errors",
        "FORWARD -p icmp -m icmp --icmp-type destination-unreachable -j DROP",
        [Kernel, Kernel, Kernel, Kernel, Kernel, Kernel, Kernel, Dropped, Dropped, Kernel],
    ),
];

/// The rule for IPv6.
fn of_v6(rule: &str) -> String {
    rule.replace("-p icmp -m icmp --icmp-type", "-p icmpv6 -m icmp6 --icmpv6-type")
        .replace("HUB", "fd77::1")
        .replace("BOB", "[fd77::3]")
}

fn rules_about_ports_concern_their_conversations(backend: Backend) {
    let mut testbed = Testbed::new(&TestbedOptions::new(backend, RelayMode::Auto));
    let interface = testbed.hub.interface.clone();
    for (program, is_v6) in [
        ("iptables-nft", false),
        ("ip6tables-nft", true),
        ("iptables-legacy", false),
        ("ip6tables-legacy", true),
    ] {
        for (name, rule, expected) in RULES {
            let rule = if is_v6 { of_v6(rule) } else { rule.to_owned() };
            let rule = rule.replace("HUB", "10.77.0.1").replace("BOB", "10.77.0.3");
            let rule = rule.replace("IF", &interface);
            testbed.hub.namespace.run(&format!("{program} -A {rule}"));
            expect_ways(&mut testbed, &format!("{program}: {name}"), is_v6, expected);
            expect_log_within(seconds(2), &testbed, "by the kernel (");
            testbed.hub.namespace.run("conntrack -F");
            testbed.hub.namespace.run(&format!("{program} -D {rule}"));
            expect_ways(&mut testbed, &format!("{program}: {name}, removed"), is_v6, ALL_DIRECT);
        }
    }
}

/// Rules of nft(8) for both IP versions, and the ways of what is sent.
const NFT_RULES: [(&str, Ways); 4] = [
    (
        "meta l4proto { tcp, udp } th dport 53 drop",
        [Direct, Direct, Direct, Dropped, Kernel, Direct, Direct, Kernel, Direct, Kernel],
    ),
    (
        "tcp dport vmap { 20-25 : drop, 80 : accept, 443 : drop }",
        [Dropped, Kernel, Direct, Direct, Direct, Direct, Direct, Direct, Direct, Kernel],
    ),
    (
        "meta l4proto . th dport { tcp . 25, udp . 53 } drop",
        [Dropped, Kernel, Direct, Dropped, Kernel, Direct, Direct, Kernel, Direct, Kernel],
    ),
    (
        "udp sport != 53 udp dport >= 53 udp dport < 80 log",
        [Direct, Direct, Direct, Kernel, Kernel, Direct, Direct, Kernel, Direct, Kernel],
    ),
];

fn rules_of_nft_concern_their_conversations(backend: Backend) {
    let mut testbed = Testbed::new(&TestbedOptions::new(backend, RelayMode::Auto));
    for (rule, expected) in NFT_RULES {
        let base = "type filter hook forward priority 0;";
        let table = format!("table inet t {{\nchain f {{\n{base}\n{rule}\n}}\n}}\n");
        testbed.hub.namespace.run_with("nft -f -", &table);
        for is_v6 in [false, true] {
            expect_ways(&mut testbed, rule, is_v6, expected);
        }
        testbed.hub.namespace.run("conntrack -F");
        testbed.hub.namespace.run("nft delete table inet t");
        expect_ways(&mut testbed, rule, false, ALL_DIRECT);
    }
}

on_both_backends!(
    rules_about_ports_concern_their_conversations,
    rules_of_nft_concern_their_conversations,
);
