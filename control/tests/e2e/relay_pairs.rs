//! `--relay auto` under rules about some of the peers' addresses: packets between these pass the
//! kernel, in both directions, and all others are relayed directly.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use crate::harness::Way::{self, Direct, Dropped, Kernel};
use crate::harness::{
    Backend, Draft, RelayMode, Testbed, TestbedOptions, becomes, eventually, seconds,
};
use crate::relay_auto::{BOTH, LATE, V6_ONLY, connected, direct, expect, said};
use crate::relay_direct::expect_log_within;

/// Addresses of alice and bob.
const ALICE: [&str; 2] = ["10.77.0.2", "10.77.2.9"];
const BOB: [&str; 3] = ["10.77.0.3", "10.88.0.1", "10.88.5.5"];

/// The ways from each address of alice to each of bob.
type Ways = [[Way; 3]; 2];

const ALL_DIRECT: Ways = [[Direct; 3]; 2];

fn ways(testbed: &mut Testbed) -> Ways {
    ALICE.map(|from| {
        BOB.map(|to| {
            let packet = Draft::udp(from, to, 100).build();
            testbed.observe(&packet).way()
        })
    })
}

/// Waits until packets take these ways.
#[track_caller]
fn expect_ways(testbed: &mut Testbed, what: &str, expected: Ways) {
    becomes(LATE, what, &expected, || ways(testbed));
}

fn run(testbed: &Testbed, line: &str) {
    testbed.hub.namespace.run(line);
}

const SOME: &str = "IPv4 direct, but some packets by the kernel (";

/// Rules of iptables, without the program, the ways that packets take, and the reason in the log.
/// The last rule is removed first.
const RULES: [(&str, &[&str], Ways, &str); 7] = [
    (
        "a drop between two addresses",
        &["FORWARD -s 10.77.0.2 -d 10.77.0.3 -j DROP"],
        [[Dropped, Direct, Direct], [Direct; 3]],
        "may drop packets between peers",
    ),
    (
        "a drop of the other direction",
        &["FORWARD -s 10.77.0.3 -d 10.77.0.2 -j DROP"],
        [[Kernel, Direct, Direct], [Direct; 3]],
        "may drop packets between peers",
    ),
    (
        "a drop of one port",
        &["FORWARD -d 10.88.0.0/24 -p udp -m udp --dport 9 -j DROP"],
        [[Direct, Dropped, Direct]; 2],
        "may drop packets between peers",
    ),
    (
        "a source address of its own for some",
        &["POSTROUTING -t nat -s 10.77.2.0/24 -d 10.88.0.0/16 -j SNAT --to-source 10.77.0.1"],
        [[Direct; 3], [Direct, Kernel, Kernel]],
        "may apply",
    ),
    (
        "a service at a peer",
        &["PREROUTING -t nat -d 10.96.0.1 -p udp -m udp --dport 9 -j DNAT --to 10.77.0.3"],
        [[Kernel, Direct, Direct]; 2],
        "may translate to a peer's address",
    ),
    (
        "an exception from a drop, in both directions",
        &[
            "FORWARD -s 10.77.0.2 -d 10.88.0.0/16 -j ACCEPT",
            "FORWARD -s 10.88.0.0/16 -d 10.77.0.2 -j ACCEPT",
            "FORWARD -j DROP",
        ],
        [[Dropped, Direct, Direct], [Dropped; 3]],
        "may drop packets between peers",
    ),
    (
        "an exception in one direction",
        &["FORWARD -s 10.77.0.2 -d 10.88.0.0/16 -j ACCEPT", "FORWARD -d 10.77.2.0/24 -j DROP"],
        [[Direct; 3], [Kernel; 3]],
        "may drop packets between peers",
    ),
];

/// All fragments of a ping take one way, and an ICMP error that of the pair that it quotes.
fn fragments_and_errors_take_the_way_of_their_pair(testbed: &mut Testbed, ways: Ways) {
    let by_kernel = |way: Way| u64::from(way != Direct);
    // The last pair has the way of its addresses in all rules.
    let (from, to, way) = (ALICE[0], BOB[2], ways[0][2]);
    for (offset, more) in [(0, 0x2000), (8, 0)] {
        let upper = [[8, 0, 0, 0, 0, 0, 0, 0]; 8].concat();
        let part = Draft::other(from, to, 1, &upper).fragment(more | offset);
        let seen = testbed.observe(&part.build());
        assert_eq!(seen.entered, 1, "{offset}: {seen:?}");
    }
    for (quoted, quoted_way) in [([BOB[2], ALICE[1]], ways[1][2]), ([BOB[0], from], ways[0][0])] {
        let offending = Draft::udp(quoted[0], quoted[1], 60).ports(9, 7001).build();
        let error = [&[3, 1, 0, 0, 0, 0, 0, 0], &offending[..]].concat();
        let seen = testbed.observe(&Draft::other(from, to, 1, &error).build());
        let expected = by_kernel(way).max(by_kernel(quoted_way));
        assert_eq!(seen.entered, expected, "{quoted:?}: {seen:?}");
    }
}

fn rules_about_two_addresses_concern_these(backend: Backend) {
    let mut testbed = Testbed::new(&TestbedOptions::new(backend, RelayMode::Auto));
    for program in ["iptables-nft", "iptables-legacy"] {
        for (name, rules, expected, reason) in RULES {
            let what = format!("{program}: {name}");
            rules.iter().for_each(|rule| run(&testbed, &format!("{program} -A {rule}")));
            expect_ways(&mut testbed, &what, expected);
            expect_log_within(seconds(2), &testbed, SOME);
            expect_log_within(seconds(2), &testbed, reason);
            fragments_and_errors_take_the_way_of_their_pair(&mut testbed, expected);
            // Without tracked connections nothing has to settle.
            run(&testbed, "conntrack -F");
            rules.iter().rev().for_each(|rule| run(&testbed, &format!("{program} -D {rule}")));
            expect_ways(&mut testbed, &what, ALL_DIRECT);
        }
    }
}

/// Elements that come and go change the way of their addresses only.
fn elements_concern_their_addresses(backend: Backend) {
    let mut testbed = Testbed::new(&TestbedOptions::new(backend, RelayMode::Auto));
    let table = "table ip t {\nset blocked { type ipv4_addr; flags interval, timeout; \
                 elements = { 10.9.9.9, 10.88.0.1 timeout 1h } }\n\
                 chain f { type filter hook forward priority 0; ip daddr @blocked drop; }\n}\n";
    testbed.hub.namespace.run_with("nft -f -", table);
    expect_ways(&mut testbed, "one is blocked", [[Direct, Dropped, Direct]; 2]);
    run(&testbed, "nft add element ip t blocked { 10.88.5.0/24 }");
    expect_ways(&mut testbed, "two are", [[Direct, Dropped, Dropped]; 2]);
    run(&testbed, "nft delete element ip t blocked { 10.88.0.1 }");
    expect_ways(&mut testbed, "the other one is", [[Direct, Direct, Dropped]; 2]);
    run(&testbed, "nft flush set ip t blocked");
    expect_ways(&mut testbed, "none is", ALL_DIRECT);
}

/// Connections that the kernel tracks stay with it for some seconds, and only these.
fn pairs_settle_on_their_own(backend: Backend) {
    let mut testbed = Testbed::new(&TestbedOptions::new(backend, RelayMode::Auto));
    let rule = "FORWARD -s 10.77.0.2 -d 10.77.0.3 -m conntrack --ctstate INVALID -j DROP";
    run(&testbed, &format!("iptables-nft -A {rule}"));
    let by_rule = [[Kernel, Direct, Direct], [Direct; 3]];
    expect_ways(&mut testbed, "one pair is tracked", by_rule);
    run(&testbed, &format!("iptables-nft -D {rule}"));
    // Another rule, so that the removal of the first one has been noticed.
    run(&testbed, "iptables-nft -A FORWARD -s 10.77.2.9 -j DROP");
    expect_ways(&mut testbed, "it waits", [by_rule[0], [Dropped; 3]]);
    expect_log_within(seconds(1), &testbed, "removed less than 3 s ago");
    let mut last = ALL_DIRECT;
    eventually(seconds(5), "the pause ends", || {
        last = ways(&mut testbed);
        last[0] == [Direct; 3]
    });
    assert_eq!(last[1], [Dropped; 3]);
}

/// The kernel goes on translating a connection after the rule is gone: its packets stay with it
/// until it ends.
fn translated_connections_outlive_their_rule(backend: Backend) {
    let relay = connected(backend, "auto");
    let (hub, alice, bob) = (&relay.hub.namespace, &relay.alice.namespace, &relay.bob.namespace);
    // Without any rule that needs them, the kernel forgets connections at once.
    hub.run("iptables-nft -t nat -A POSTROUTING -o eth0 -j MASQUERADE");
    let rule = "PREROUTING -d 10.77.0.1 -p tcp -m tcp --dport 8080 -j DNAT --to 10.77.0.3:80";
    hub.run(&format!("iptables-nft -t nat -A {rule}"));
    eventually(LATE, "its port is by the kernel", || said(&relay).contains("may translate"));
    let listener = bob.enter(|| TcpListener::bind("10.77.0.3:80").expect("a free port"));
    let mut client = alice.enter(|| TcpStream::connect("10.77.0.1:8080").expect("a connection"));
    let (mut server, _) = listener.accept().expect("a client");
    let mut ask = || {
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(seconds(2))).expect("not zero");
        }
        let mut answer = [0; 8];
        client.write_all(b"question").expect("connected");
        server.read_exact(&mut answer).expect("the question arrives");
        server.write_all(b"response").expect("connected");
        client.read_exact(&mut answer).expect("the response arrives");
        // The acknowledgement comes some milliseconds later.
        eventually(seconds(2), "all is acknowledged", || {
            bob.run("ss -Htn sport = :80").split_whitespace().nth(2) == Some("0")
        });
    };
    ask();
    hub.run(&format!("iptables-nft -t nat -D {rule}"));
    // The pause after a rule keeps the pair with the kernel until the connections are read.
    const PAUSE: &str = "removed less than 3 s ago";
    eventually(LATE, "the rule is gone", || said(&relay).contains(PAUSE));
    ask();
    eventually(seconds(5), "the pause ends, the connection does not", || {
        let said = said(&relay);
        said.contains("translated (NAT)") && !said.contains(PAUSE)
    });
    assert_eq!(relay.hub.log().matches("relay: IPv4 and IPv6 direct").count(), 1, "at the start");
    ask();
    expect(&relay, V6_ONLY, "translated (NAT)");
    ask();
    drop((client, server));
    hub.run("conntrack -F");
    eventually(seconds(5), "the connection ends", || direct(&said(&relay)) == BOTH);
    expect(&relay, BOTH, "");
}

on_both_backends!(
    rules_about_two_addresses_concern_these,
    elements_concern_their_addresses,
    pairs_settle_on_their_own,
    translated_connections_outlive_their_rule,
);
