//! `--relay auto` under real firewalls: rules that concern other interfaces, or that accept, leave
//! the worker to relay directly; a rule that may do something to packets between peers is named.

use crate::harness::{BOB, Backend, Counter, Family, Iperf, IperfServer, Relay, eventually, ping};
use crate::relay_auto::{
    BOTH, Direct, LATE, NONE, V4_ONLY, V6_ONLY, connected, direct, expect, said,
};

/// Rules of iptables that a hub has, without the program. IF stands for the hub's interface, NET
/// for the network of the peers, PEER for one of them, DOCKER for a network of containers, POD for
/// one of them, HOST for another address, ICMP for pings.
const HARMLESS: [(&str, &[&str]); 13] = [
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
    (
        "accepted ranges",
        &[
            "-P FORWARD DROP",
            "-A FORWARD -s NET -d NET -m comment --comment peers -j ACCEPT",
            "-A FORWARD -j DROP",
        ],
    ),
    ("an install script's", &["-t nat -A POSTROUTING -s NET ! -d NET -j MASQUERADE"]),
    (
        "Docker's",
        &[
            "-P FORWARD DROP",
            "-N DOCKER-USER",
            "-N DOCKER-FORWARD",
            "-N DOCKER",
            "-A FORWARD -j DOCKER-USER",
            "-A FORWARD -j DOCKER-FORWARD",
            "-A DOCKER-USER -i IF -o IF -j ACCEPT",
            "-A DOCKER-FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-A DOCKER-FORWARD -o docker0 -j DOCKER",
            "-A DOCKER-FORWARD -i docker0 -j ACCEPT",
            "-A DOCKER -d POD ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT",
            "-A DOCKER ! -i docker0 -o docker0 -j DROP",
            "-t nat -N DOCKER",
            "-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
            "-t nat -A POSTROUTING -s DOCKER ! -o docker0 -j MASQUERADE",
            "-t nat -A POSTROUTING -s POD -d POD -p tcp -m tcp --dport 80 -j MASQUERADE",
            "-t nat -A DOCKER -i docker0 -j RETURN",
            "-t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination POD",
            "-t raw -A PREROUTING -d POD ! -i docker0 -j DROP",
        ],
    ),
    (
        "libvirt's",
        &[
            "-N LIBVIRT_FWI",
            "-A FORWARD -j LIBVIRT_FWI",
            "-A LIBVIRT_FWI -d DOCKER -o virbr0 -m conntrack --ctstate RELATED -j ACCEPT",
            "-A LIBVIRT_FWI -o virbr0 -j REJECT",
            "-t nat -A POSTROUTING -s DOCKER ! -d DOCKER -p tcp -j MASQUERADE",
            "-t nat -A POSTROUTING -s DOCKER ! -d DOCKER -j MASQUERADE",
            "-t mangle -A POSTROUTING -o virbr0 -p udp -m udp --dport 68 -j MARK --set-mark 1",
        ],
    ),
    (
        "Tailscale's",
        &[
            "-N ts-forward",
            "-A FORWARD -j ts-forward",
            "-A ts-forward -i tailscale0 -j MARK --set-xmark 0x40000/0xff0000",
            "-A ts-forward -m mark --mark 0x40000/0xff0000 -j ACCEPT",
            "-A ts-forward -s DOCKER -o tailscale0 -j DROP",
            "-A ts-forward -o tailscale0 -j ACCEPT",
            "-t nat -A POSTROUTING -m mark --mark 0x40000/0xff0000 -j MASQUERADE",
        ],
    ),
    (
        "kube-proxy's",
        &[
            "-N KUBE-FORWARD",
            "-A FORWARD -j KUBE-FORWARD",
            "-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT",
            "-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-t nat -N KUBE-SVC",
            "-t nat -N KUBE-POSTROUTING",
            "-t nat -A PREROUTING -d HOST -p tcp -m tcp --dport 443 -j KUBE-SVC",
            "-t nat -A KUBE-SVC -j MARK --set-xmark 0x4000/0x4000",
            "-t nat -A KUBE-SVC -m statistic --mode random --probability 0.5 -j DNAT --to POD",
            "-t nat -A KUBE-SVC -m recent --name one --set -j DNAT --to-destination POD",
            "-t nat -A POSTROUTING -j KUBE-POSTROUTING",
            "-t nat -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
            "-t nat -A KUBE-POSTROUTING -j MASQUERADE",
        ],
    ),
    (
        "ufw's, with `route allow in on wg0 out on wg0`",
        &[
            "-P FORWARD DROP",
            "-N ufw-before-forward",
            "-N ufw-user-forward",
            "-N ufw-track-forward",
            "-A FORWARD -j ufw-before-forward",
            "-A FORWARD -j ufw-track-forward",
            "-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-A ufw-before-forward -p ICMP -j ACCEPT",
            "-A ufw-before-forward -p udp -m udp --sport 67 --dport 68 -j ACCEPT",
            "-A ufw-before-forward -p tcp -m multiport --dports 80,443 -j ACCEPT",
            "-A ufw-before-forward -j ufw-user-forward",
            "-A ufw-user-forward -i IF -o IF -j ACCEPT",
            "-A ufw-track-forward -p tcp -m conntrack --ctstate NEW -j ACCEPT",
            "-A FORWARD -m limit --limit 3/min --limit-burst 10 -j LOG",
        ],
    ),
];

/// Rules that let pings pass and may do something to other packets, with what the log says of them
/// for nftables and for legacy tables.
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
        &["-t nat -A PREROUTING -d HOST -p udp -m udp --dport 53 -j DNAT --to-destination PEER"],
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
    let names = [" IF ", " NET ", " PEER ", " DOCKER ", " POD ", " HOST ", " ICMP "];
    let interface = relay.hub.interface.as_str();
    let meanings = match family {
        Family::V4 => [
            "10.77.0.0/24",
            "10.77.0.3",
            "172.17.0.0/16",
            "172.17.0.2",
            "10.96.0.1",
            "icmp -m icmp --icmp-type echo-request",
        ],
        Family::V6 => [
            "fd77::/64",
            "fd77::3",
            "fd17::/64",
            "fd17::2",
            "fd96::1",
            "icmpv6 -m icmp6 --icmpv6-type echo-request",
        ],
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
    for (program, expected) in PROGRAMS {
        for (name, rules) in HARMLESS {
            println!("{program}: {name}");
            // A rule that the daemon has seen go, so that it has seen the others come.
            let last = ["-t mangle -A FORWARD -i IF"];
            let judge = || with_rules(&relay, program, &last, || expect(&relay, expected, ""));
            with_rules(&relay, program, rules, || {
                judge();
                expect(&relay, BOTH, "");
            });
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
             chain own { tcp dport 25 log; }",
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
             chain f { type filter hook forward priority 0; ip daddr @blocked udp dport 9 drop; }",
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
            "chain f { type filter hook forward priority 0; udp dport 9 ip saddr . ip daddr vmap \
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
            NONE,
            "may apply notrack",
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
