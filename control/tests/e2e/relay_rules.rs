//! `--relay auto` under real firewalls: rules that concern other interfaces, or that accept, leave
//! the worker to relay directly; a rule that may do something to packets between peers is named.

use crate::harness::{BOB, Backend, Family, Relay, eventually, ping};
use crate::relay_auto::{
    BOTH, Direct, LATE, NONE, V4_ONLY, V6_ONLY, connected, direct, expect, said,
};

/// Rules of iptables that a hub has, without the program. IF stands for the hub's interface, NET
/// for the network of the peers, PEER for one of them.
const HARMLESS: [(&str, &[&str]); 7] = [
    (
        "the documentation's",
        &[
            "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-A FORWARD -i IF -o IF -m conntrack --ctstate NEW -j ACCEPT",
            "-t nat -A POSTROUTING -s NET -o eth0 -j MASQUERADE",
        ],
    ),
    (
        "the documentation's PostUp, and wg-easy's",
        &[
            "-t nat -A POSTROUTING -s NET -o eth0 -j MASQUERADE",
            "-A INPUT -p udp -m udp --dport 51820 -j ACCEPT",
            "-A FORWARD -i IF -j ACCEPT",
            "-A FORWARD -o IF -j ACCEPT",
        ],
    ),
    (
        "linuxserver's",
        &[
            "-A FORWARD -i IF -j ACCEPT",
            "-A FORWARD -o IF -j ACCEPT",
            "-t nat -A POSTROUTING -o eth+ -j MASQUERADE",
        ],
    ),
    ("a policy of DROP, as Docker sets it", &["-P FORWARD DROP", "-A FORWARD -i IF -j ACCEPT"]),
    (
        "a service behind the hub",
        &[
            "-t nat -A PREROUTING -i eth0 -p tcp --dport 8080 -j DNAT --to-destination PEER",
            "-t mangle -A FORWARD -o eth0 -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1200",
            "-A FORWARD ! -i IF -j DROP",
        ],
    ),
    (
        "a chain of the user",
        &[
            "-N OWN",
            "-A OWN -i eth0 -j RETURN",
            "-A OWN -m mark --mark 7 -j ACCEPT",
            "-A OWN -j ACCEPT",
            "-A FORWARD -j OWN",
            "-A FORWARD -j DROP",
        ],
    ),
    ("accepted ranges", &["-A FORWARD -s NET -m comment --comment peers -j ACCEPT"]),
];

/// Rules that let pings pass and may do something to other packets, with what the log says of them
/// for nftables and for legacy tables.
const HARMFUL: [(&[&str], [&str; 2]); 6] = [
    (&["-t nat -A POSTROUTING -j MASQUERADE"], ["may apply", "may apply MASQUERADE"]),
    (&["-A FORWARD -m conntrack --ctstate INVALID -j DROP"], ["may drop", "rule 1: may drop"]),
    (&["-A FORWARD -i IF"], ["counts packets", "rule 1: counts packets"]),
    (
        &["-t mangle -A FORWARD -o IF -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1200"],
        ["", "rule 1: "],
    ),
    (
        &["-A FORWARD -i eth0 -j DROP", "-A FORWARD -s NET -m limit --limit 1000/s -j ACCEPT"],
        ["limit", "rule 2: match limit is not understood"],
    ),
    (&["-A FORWARD -i IF -j MARK --set-mark 7"], ["", "rule 1: "]),
];

/// Adds rules, judges, and takes them back.
fn with_rules(relay: &Relay, program: &str, rules: &[&str], judge: impl FnOnce()) {
    let family = if program.starts_with("ip6") { Family::V6 } else { Family::V4 };
    let (net, peer) = match family {
        Family::V4 => ("10.77.0.0/24", "10.77.0.3:80".to_owned()),
        Family::V6 => ("fd77::/64", "[fd77::3]:80".to_owned()),
    };
    let run = |rule: &str| {
        let rule = rule.replace("IF", &relay.hub.interface).replace("NET", net);
        relay.hub.namespace.run(&format!("{program} {}", rule.replace("PEER", &peer)));
    };
    rules.iter().for_each(|rule| run(rule));
    judge();
    for rule in rules.iter().rev() {
        let undone = rule
            .replace("-A ", "-D ")
            .replace("-P FORWARD DROP", "-P FORWARD ACCEPT")
            .replace("-N ", "-X ");
        run(&undone);
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
fn rules_that_do_not_concern_peers_leave_relaying_direct() {
    let relay = connected(Backend::Uring, "auto");
    expect(&relay, BOTH, "");
    for (program, _) in PROGRAMS {
        for (name, rules) in HARMLESS {
            println!("{program}: {name}");
            with_rules(&relay, program, rules, || expect(&relay, BOTH, ""));
        }
    }
    assert!(relay.hub.counter("relayed") > 0);
}

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
    let tables: [(&str, Direct, &str); 8] = [
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
             chain own { tcp dport 25 log; }",
            V4_ONLY,
            "chain own of table inet t, rule handle",
        ),
        (
            "set blocked { type ipv4_addr; elements = { 10.9.9.9 }; }\n\
             chain f { type filter hook forward priority 0; ip daddr @blocked drop; }",
            V6_ONLY,
            "set blocked is not understood",
        ),
        (
            "chain f { type filter hook forward priority 0; ct state vmap { invalid : drop }; }",
            NONE,
            "a verdict map is not understood",
        ),
        (
            "chain p { type filter hook prerouting priority -300; \
             iifname IF oifname != eth0 notrack; }",
            NONE,
            "may apply notrack",
        ),
        (
            "chain f { type filter hook forward priority 0; policy drop; \
             iifname { IF, lo } accept; }",
            NONE,
            "default policy is not ACCEPT",
        ),
    ];
    for (content, expected, reason) in tables {
        let content = content.replace("IF", &format!("\"{}\"", hub.interface));
        hub.namespace.run_with("nft -f -", &format!("table inet t {{\n{content}\n}}\n"));
        expect(&relay, expected, reason);
        hub.namespace.run("nft delete table inet t");
        expect(&relay, BOTH, "");
    }
}
