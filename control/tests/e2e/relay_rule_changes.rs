//! `--relay auto` while rules, elements of sets or allowed IPs change, and packets that the rules
//! would drop by themselves.

use std::time::Duration;

use crate::harness::{
    BOB, Backend, Draft, Family, Iperf, IperfServer, RelayMode, Testbed, TestbedOptions,
    eventually, ping, seconds, slow_reads,
};
use crate::relay_auto::{BOTH, LATE, NONE, connected, direct, expect, said};
use crate::relay_direct::expect_log_within;

/// An element that is added to a set takes effect as a rule does, and so does its removal.
fn elements_take_effect(backend: Backend) {
    let relay = connected(backend, "auto");
    let hub = &relay.hub.namespace;
    let table = "table ip t {\nset blocked { type ipv4_addr; elements = { 10.9.9.9 }; }\n\
                 chain f { type filter hook forward priority 0; ip saddr @blocked drop; }\n}\n";
    hub.run_with("nft -f -", table);
    expect(&relay, BOTH, "");
    for _ in 0..3 {
        hub.run_with("nft -f -", "add element ip t blocked { 10.77.0.3 }");
        eventually(LATE, "it is named", || said(&relay).contains("may drop packets"));
        let counts = ping(&relay.alice.namespace, BOB.inner(Family::V4), "-c 2 -i 0.02 -W 1");
        assert_eq!(counts, (2, 0));
        hub.run_with("nft -f -", "delete element ip t blocked { 10.77.0.3 }");
        expect(&relay, BOTH, "");
    }
}

/// Changes among more rules than are read at once take effect as others do: in a chain, by an
/// element of a set that an unchanged chain looks up, by a chain that gets another name.
fn changes_among_many_rules_take_effect(backend: Backend) {
    let relay = connected(backend, "auto");
    let hub = &relay.hub.namespace;
    let others = |chain: u32| {
        let rule = |one: u32| {
            let address = std::net::Ipv4Addr::from(0x0b00_0000 + 100 * chain + one);
            format!("ip saddr {address} drop\n")
        };
        let rules: String = (0..100).map(rule).collect();
        format!("chain c{chain} {{\n{rules}}}\n")
    };
    let chains: String = (0..320).map(others).collect();
    let jumps: String =
        (0..320).map(|one| format!("ip daddr 10.77.0.0/24 jump c{one}\n")).collect();
    let table = format!(
        "table ip t {{\nset blocked {{ type ipv4_addr; }}\n{chains}\
         chain looks {{\nip saddr @blocked drop\n}}\n\
         chain f {{\ntype filter hook forward priority 0;\n{jumps}jump looks\n}}\n}}\n"
    );
    hub.run_with("nft -f -", &table);
    expect(&relay, BOTH, "");
    let ends = |changes: &str, back: &str| {
        hub.run_with("nft -f -", changes);
        eventually(LATE, "it is named", || said(&relay).contains("may drop packets"));
        let counts = ping(&relay.alice.namespace, BOB.inner(Family::V4), "-c 2 -i 0.02 -W 1");
        assert_eq!(counts, (2, 0), "{changes}");
        hub.run_with("nft -f -", back);
        expect(&relay, BOTH, "");
    };
    let drop = "ip saddr 10.77.0.2 drop";
    ends(&format!("add rule ip t c7 {drop}"), "flush chain ip t c7");
    ends("add element ip t blocked { 10.77.0.2 }", "flush set ip t blocked");
    hub.run("nft rename chain ip t c8 another");
    ends(&format!("add rule ip t another {drop}"), "flush chain ip t another");
    let added = format!("add chain ip t c8\nadd rule ip t c8 {drop}\nadd rule ip t looks goto c8");
    ends(&added, "flush chain ip t looks\ndelete chain ip t c8");
}

/// Rules that are larger than the kernel's first datagram of a list, alone in a chain.
fn large_rules_are_read(backend: Backend) {
    let relay = connected(backend, "auto");
    let large: String = (0..50).map(|host| format!("ip saddr != 10.9.9.{host} ")).collect();
    let table = format!(
        "table ip t {{\nchain large {{\n{large} drop\n}}\n\
         chain f {{\ntype filter hook forward priority 0;\njump large\n}}\n}}\n"
    );
    relay.hub.namespace.run_with("nft -f -", &table);
    eventually(LATE, "it is named", || said(&relay).contains("chain large of table ip t"));
}

/// Connections that the kernel tracks stay with it while a firewall is reloaded: what it does not
/// see for a moment would be INVALID to it, and dropped.
fn a_reloaded_firewall_loses_no_connection(backend: Backend) {
    let relay = connected(backend, "auto");
    let hub = &relay.hub.namespace;
    // Keeps the hooks of connection tracking registered.
    let nat = "chain n { type nat hook postrouting priority 100; oifname eth0 masquerade; }";
    let firewall = "chain f { type filter hook forward priority 0; ct state invalid drop; }";
    let add = |name: &str, chain: &str| {
        hub.run_with("nft -f -", &format!("table inet {name} {{\n{chain}\n}}\n"));
    };
    add("nat", nat);
    add("firewall", firewall);
    expect(&relay, NONE, "may drop packets between peers");
    let _server = IperfServer::start(&relay.lab, &relay.bob.namespace);
    let (relayed, bob) = (relay.hub.counter("relayed"), BOB.inner(Family::V4));
    let options = "--time 4 --interval 0.5";
    let flow = Iperf::spawn(&relay.lab, &relay.alice.namespace, bob, options);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(500));
        hub.run("nft delete table inet firewall");
        std::thread::sleep(Duration::from_millis(300));
        add("firewall", firewall);
    }
    let flow = Iperf::finish(flow);
    assert!(flow.longest_pause() < seconds(1), "{flow:?}: {}", said(&relay));
    assert_eq!(relay.hub.counter("relayed"), relayed, "packets that the kernel did not see");

    hub.run("nft delete table inet firewall");
    expect(&relay, NONE, "removed less than 3 s ago");
    eventually(seconds(5), "the pause ends", || direct(&said(&relay)) == BOTH);
    expect(&relay, BOTH, "");
}

#[track_caller]
fn expect_said(testbed: &Testbed, text: &str) {
    expect_log_within(seconds(5), testbed, text);
}

/// A rule that names addresses of no peer does not matter until a peer gets one of them: from that
/// moment on, its packets meet the rule, even if the daemon is slow to read the rules again.
fn rules_by_address_follow_the_allowed_ips(backend: Backend) {
    let wrapper = slow_reads("/proc/thread-self/net/ip_tables_names", "delay_enter=200ms");
    let options = TestbedOptions { wrapper, ..TestbedOptions::new(backend, RelayMode::Auto) };
    let mut testbed = Testbed::new(&options);
    let table = "table ip t { chain f { type filter hook forward priority 0; \
                 ip saddr 10.99.0.0/16 drop\n}\n}\n";
    let key = testbed.alice.key.public();
    let allow = |testbed: &Testbed, more: &str| {
        testbed.hub.set(&format!("peer {key} allowed-ips 10.77.0.2/32{more}"));
    };
    testbed.hub.namespace.run_with("nft -f -", table);
    allow(&testbed, ",10.99.0.1/32");
    let by_the_kernel =
        "IPv4 direct, but some packets by the kernel (nftables: chain f of table ip t, rule handle";
    expect_said(&testbed, by_the_kernel);
    for _ in 0..4 {
        allow(&testbed, "");
        expect_said(&testbed, "IPv4 and IPv6 direct");
        let good = Draft::udp("10.77.0.2", "10.77.0.3", 100).build();
        let seen = testbed.observe(&good);
        assert_eq!((seen.entered, seen.bob.len()), (0, 1), "{seen:?}");
        allow(&testbed, ",10.99.0.1/32");
        let seen = testbed.observe(&Draft::udp("10.99.0.1", "10.77.0.3", 100).build());
        assert_eq!((seen.entered, seen.bob.len()), (1, 0), "{seen:?}");
        expect_said(&testbed, by_the_kernel);
    }
}

/// A match of x_tables drops what ends within the transport header. The kernel gets such packets,
/// and fragments, while rules have such a match.
fn packets_without_a_whole_header_meet_the_rules(backend: Backend) {
    let mut testbed = Testbed::new(&TestbedOptions::new(backend, RelayMode::Auto));
    for program in ["iptables-legacy", "iptables-nft"] {
        let run = |testbed: &Testbed, verb: &str, rule: &str| {
            testbed.hub.namespace.run(&format!("{program} -{verb} FORWARD {rule}"));
        };
        let by_port = "-p udp -m multiport --dports 25,26 -j ACCEPT";
        run(&testbed, "A", by_port);
        run(&testbed, "A", "-m limit --limit 1000/s -j ACCEPT");
        expect_said(&testbed, "limit is not understood");
        run(&testbed, "D", "-m limit --limit 1000/s -j ACCEPT");
        expect_said(&testbed, "IPv4 and IPv6 direct");
        let (alice, bob) = ("10.77.0.2", "10.77.0.3");
        let upper = |protocol, length| Draft::other(alice, bob, protocol, &vec![1; length]);
        let first = Draft::udp(alice, bob, 60).fragment(0x2000);
        let rest = Draft::other(alice, bob, 17, &[1; 40]).fragment(5);
        for (packet, expected) in [
            (Draft::udp(alice, bob, 60), (0, 1)),
            (Draft::echo(alice, bob, 1, 60), (0, 1)),
            (upper(47, 20), (0, 1)),
            // Too short for ports: dropped by the match.
            (upper(17, 3), (1, 0)),
            (upper(17, 7), (1, 1)),
            (upper(6, 12), (1, 1)),
            (upper(1, 4), (1, 1)),
            (first, (1, 1)),
            (rest, (1, 1)),
        ] {
            let seen = testbed.observe(&packet.build());
            assert_eq!((seen.entered, seen.bob.len()), expected, "{program}: {seen:?}");
        }
        run(&testbed, "D", by_port);
    }
}

on_both_backends!(
    elements_take_effect,
    changes_among_many_rules_take_effect,
    large_rules_are_read,
    a_reloaded_firewall_loses_no_connection,
    rules_by_address_follow_the_allowed_ips,
    packets_without_a_whole_header_meet_the_rules,
);
