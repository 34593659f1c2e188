//! `--relay auto` under rules that may do something to packets between peers: they are named. Rules
//! of nft(8), and clamps of the MSS.

use std::net::Ipv4Addr;

use crate::harness::{BOB, Backend, Counter, Family, Iperf, IperfServer, Relay, eventually, ping};
use crate::relay_auto::{
    BOTH, Direct, LATE, NONE, V4_ONLY, V6_ONLY, connected, direct, expect, said,
};

/// Rules that let pings pass and may do something to other packets, with what the log says of them
/// for nftables and for legacy tables. Without the program; IF stands for the hub's interface, NET
/// for the network of the peers, PEER for one of them, HOST for another address.
const HARMFUL: [(&[&str], [&str; 2]); 7] = [
    (&["-t nat -A POSTROUTING -j MASQUERADE"], ["may apply", "may apply MASQUERADE"]),
    (&["-A FORWARD -m conntrack --ctstate INVALID -j DROP"], ["may drop", "rule 1: may drop"]),
    (&["-A FORWARD -i IF"], ["counts packets", "rule 1: counts packets"]),
    (
        &["-A FORWARD -i eth0 -j DROP", "-A FORWARD -s NET -m limit --limit 1000/s -j ACCEPT"],
        ["limit", "rule 2: match limit is not understood"],
    ),
    (&["-A FORWARD -i IF -j MARK --set-mark 7"], ["", "rule 1: "]),
    // Only the answers are between peers.
    (
        &["-t nat -A PREROUTING -d HOST -j DNAT --to-destination PEER"],
        ["may translate to a peer's address", "DNAT may translate to a peer's address"],
    ),
    (
        &["-t nat -A POSTROUTING -s HOST -j SNAT --to-source PEER"],
        ["may translate to a peer's address", "SNAT may translate to a peer's address"],
    ),
];

/// Adds rules, judges, and takes them back.
fn with_rules(relay: &Relay, program: &str, rules: &[&str], judge: impl FnOnce()) {
    let family = if program.starts_with("ip6") { Family::V6 } else { Family::V4 };
    let names = [" IF ", " NET ", " PEER ", " HOST "];
    let interface = relay.hub.interface.as_str();
    let meanings = match family {
        Family::V4 => ["10.77.0.0/24", "10.77.0.3", "10.96.0.1"],
        Family::V6 => ["fd77::/64", "fd77::3", "fd96::1"],
    };
    let run = |rule: &str| {
        let mut rule = format!("{rule} ");
        for (name, meaning) in names.into_iter().zip([interface].into_iter().chain(meanings)) {
            rule = rule.replace(name, &format!(" {meaning} "));
        }
        relay.hub.namespace.run(&format!("{program} {rule}"));
    };
    rules.iter().for_each(|rule| run(rule));
    judge();
    // Without tracked connections nothing has to settle.
    relay.hub.namespace.run("conntrack -F");
    for rule in rules.iter().rev() {
        run(&rule.replace("-A ", "-D "));
    }
}

const PROGRAMS: [(&str, Direct); 4] = [
    ("iptables-nft", V6_ONLY),
    ("ip6tables-nft", V4_ONLY),
    ("iptables-legacy", V6_ONLY),
    ("ip6tables-legacy", V4_ONLY),
];

#[test]
#[ignore = "needs root: creates network namespaces"]
fn rules_that_may_concern_peers_are_named() {
    let relay = connected(Backend::Mmsg, "auto");
    expect(&relay, BOTH, "");
    for (program, expected) in PROGRAMS {
        for (rules, [of_nftables, of_legacy]) in HARMFUL {
            let is_legacy = program.ends_with("legacy");
            let said = if is_legacy { of_legacy } else { of_nftables };
            with_rules(&relay, program, rules, || expect(&relay, expected, said));
            expect(&relay, BOTH, "");
        }
        // Nothing passes, so that `expect` cannot be used.
        let rules = ["-A FORWARD -i IF -o IF -j DROP"];
        with_rules(&relay, program, &rules, || {
            eventually(LATE, "it is named", || {
                direct(&said(&relay)) == expected && said(&relay).contains("may drop packets")
            });
            let family = if expected == V6_ONLY { Family::V4 } else { Family::V6 };
            let counts = ping(&relay.alice.namespace, BOB.inner(family), "-c 2 -i 0.02 -W 1");
            assert_eq!(counts, (2, 0), "{program}");
        });
        expect(&relay, BOTH, "");
    }
}

/// Rules as nft(8) writes them.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn rules_of_nft_are_followed() {
    let relay = connected(Backend::Uring, "auto");
    let hub = &relay.hub;
    expect(&relay, BOTH, "");
    let tables: [(&str, Direct, &str); 13] = [
        (
            "chain f { type filter hook forward priority 0; policy drop; \
             ct state established,related accept; iifname IF oifname IF counter accept; }",
            BOTH,
            "",
        ),
        (
            "chain n { type nat hook postrouting priority 100; \
             ip saddr 10.77.0.0/24 oifname != IF masquerade; }",
            BOTH,
            "",
        ),
        (
            "chain f { type filter hook forward priority 0; policy drop; iif IF goto own; }\n\
             chain own { oif lo drop; ip saddr 10.99.0.0/16 accept; accept; }",
            BOTH,
            "",
        ),
        (
            "chain f { type filter hook forward priority 0; \
             meta nfproto ipv6 iifname IF jump own; }\n\
             chain own { log; }",
            V4_ONLY,
            "chain own of table inet t, rule handle",
        ),
        (
            "set blocked { type ipv4_addr; flags interval, timeout; timeout 1h; \
             elements = { 10.9.9.9, 10.76.0.0/16, 10.78.0.0-10.79.9.9 }; }\n\
             chain f { type filter hook forward priority 0; ip daddr @blocked drop; }",
            BOTH,
            "",
        ),
        (
            "set blocked { type ipv4_addr; flags timeout; elements = { 10.77.0.2 timeout 1h }; }\n\
             chain f { type filter hook forward priority 0; ip daddr @blocked ct mark 7 drop; }",
            V6_ONLY,
            "may drop packets",
        ),
        (
            "set seen { type ipv4_addr; flags dynamic; }\n\
             chain f { type filter hook forward priority 0; ip daddr @seen drop; }",
            V6_ONLY,
            "set seen is not understood",
        ),
        (
            "chain f { type filter hook forward priority 0; ct state vmap { invalid : drop }; }",
            NONE,
            "may drop packets",
        ),
        (
            "chain f { type filter hook forward priority 0; policy drop; \
             ct state vmap { established : accept, related : accept }; \
             iifname . oifname vmap { eth0 . IF : drop, IF . IF : jump own, lo . lo : drop }; }\n\
             chain own { ip saddr . ip daddr { 10.77.0.0/24 . 10.0.0.0/8 } accept; \
             ip6 saddr { fd77::/64, fd78::1 } ip6 daddr != fd79::/16 accept; }",
            BOTH,
            "",
        ),
        // The first element that was added wins, where ranges overlap.
        (
            "chain f { type filter hook forward priority 0; ct mark 7 ip saddr . ip daddr vmap \
             { 10.77.0.2 . 10.77.0.3 : drop, 10.77.0.0/24 . 10.77.0.0/24 : accept }; }",
            V6_ONLY,
            "may drop packets",
        ),
        (
            "map services { type ipv4_addr : ipv4_addr; elements = { 10.96.0.1 : 172.17.0.2 }; }\n\
             chain p { type nat hook prerouting priority -100; ip daddr 172.20.0.0/16 \
             tcp dport 80 dnat to 172.17.0.3; fib daddr type local tcp dport 8080 \
             dnat ip to 172.17.0.2; }",
            BOTH,
            "",
        ),
        (
            "chain p { type filter hook prerouting priority -300; \
             iifname IF oifname != eth0 notrack; }",
            BOTH,
            "",
        ),
        (
            "chain f { type filter hook forward priority 0; policy drop; \
             iifname { IF, lo } accept; }",
            BOTH,
            "",
        ),
    ];
    for (content, expected, reason) in tables {
        println!("{content}");
        let content = content.replace("IF", &format!("\"{}\"", hub.interface));
        hub.namespace.run_with("nft -f -", &format!("table inet t {{\n{content}\n}}\n"));
        expect(&relay, expected, reason);
        hub.namespace.run("conntrack -F");
        hub.namespace.run("nft delete table inet t");
        expect(&relay, BOTH, "");
    }
}

/// A blocklist: reading it takes some tens of milliseconds.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn sets_of_many_addresses_are_read() {
    let relay = connected(Backend::Mmsg, "auto");
    let hub = &relay.hub.namespace;
    let address = |number: u32| Ipv4Addr::from_bits(0x0b00_0001 + 2 * number);
    let elements: Vec<_> = (0..30_000).map(|number| address(number).to_string()).collect();
    let table = format!(
        "table ip t {{\nset blocked {{ type ipv4_addr; elements = {{ {} }}; }}\n\
         chain f {{ type filter hook forward priority 0; \
         ip saddr @blocked ct mark 7 drop; ip daddr @blocked ct mark 7 drop; }}\n}}\n",
        elements.join(", ")
    );
    hub.run_with("nft -f -", &table);
    expect(&relay, BOTH, "");
    hub.run("nft add element ip t blocked { 10.77.0.2 }");
    expect(&relay, V6_ONLY, "may drop packets");
    hub.run("conntrack -F");
    hub.run("nft delete element ip t blocked { 10.77.0.2 }");
    expect(&relay, BOTH, "");
}

/// Packets may fill a set by a rule that has nothing to do with the one that looks into it, and
/// without any event. The set need not be declared as dynamic.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn sets_that_packets_fill_are_not_understood() {
    let relay = connected(Backend::Uring, "auto");
    let hub = &relay.hub.namespace;
    hub.run_with("nft -f -", "table inet t {\nset seen { type ipv4_addr; }\n}\n");
    let looks = "table inet t {\nchain f { type filter hook forward priority 0; \
                 ip saddr @seen drop; }\n}\n";
    hub.run_with("nft -f -", looks);
    expect(&relay, BOTH, "");
    let fills = "table inet t {\nchain i { type filter hook input priority 0; \
                 tcp dport 23 add @seen { ip saddr }; }\n}\n";
    hub.run_with("nft -f -", fills);
    expect(&relay, V6_ONLY, "set seen is not understood");
}

/// Clamps of the MSS: segments with SYN pass the kernel, which sets it, and nothing else does.
fn the_kernel_clamps_the_mss(backend: Backend) {
    let relay = connected(backend, "auto");
    let (hub, alice, bob) = (&relay.hub, &relay.alice.namespace, &relay.bob.namespace);
    expect(&relay, BOTH, "");
    let _server = IperfServer::start(&relay.lab, bob);
    let syn = "tcp flags syn / syn,ack tcp option maxseg size 1000";
    let at_bob = Counter::new(bob, "input", syn);
    let answer = syn.replace("syn / syn,ack", "& (syn | ack) == syn | ack");
    let at_alice = Counter::new(alice, "input", &answer);
    let by_nft = "table inet t {\nchain f { type filter hook forward priority 0; \
                  tcp flags syn tcp option maxseg size set 1000 counter; }\n}\n";
    let of_iptables =
        "-t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1000";
    let judge = |expected: &str| {
        eventually(LATE, expected, || said(&relay).starts_with(expected));
        let before = (at_bob.packets(), at_alice.packets(), hub.counter("relayed"));
        let frames = hub.counter("tun_frames_written");
        let flow = Iperf::run(alice, BOB.inner(Family::V4), "--time 1");
        assert!(flow.bytes_per_second() > 1e6, "{flow:?}");
        // iperf3 has two connections.
        assert_eq!((at_bob.packets(), at_alice.packets()), (before.0 + 2, before.1 + 2));
        assert!(hub.counter("relayed") > before.2 + 1000, "{}", hub.log());
        assert!(hub.counter("tun_frames_written") < frames + 10, "only segments with SYN");
    };
    let v4 = "IPv4 direct (TCP SYN by the kernel, which sets the MSS), IPv6 direct";
    for program in ["iptables-nft", "iptables-legacy"] {
        with_rules(&relay, program, &[of_iptables], || judge(v4));
        expect(&relay, BOTH, "");
    }
    hub.namespace.run_with("nft -f -", by_nft);
    judge("IPv4 and IPv6 direct (TCP SYN by the kernel, which sets the MSS)");
    hub.namespace.run("nft delete table inet t");
    // What is not for segments with SYN only is not understood as a clamp.
    hub.namespace.run_with("nft -f -", &by_nft.replace("tcp flags syn ", ""));
    expect(&relay, NONE, "may apply tcp option maxseg");
}

on_both_backends!(the_kernel_clamps_the_mss);
