//! `--relay auto`: the relay mode under every condition that this kernel can produce. The hub's log
//! shows the mode it announces, the packets that cross its TUN the mode it uses. (An nftables
//! counter would itself be a reason to leave relaying to the kernel.)

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::harness::{
    ALICE, BOB, Backend, Family, HUB, Lab, Namespace, Options, Program, Relay, eventually,
    holds_for, ping, ping_until_answered, seconds, within,
};

/// Longest time until a change takes effect.
pub const LATE: Duration = Duration::from_secs(1);

/// Whether the worker relays IPv4 and IPv6.
pub type Direct = [bool; 2];
pub const BOTH: Direct = [true, true];
pub const NONE: Direct = [false, false];
pub const V4_ONLY: Direct = [true, false];
pub const V6_ONLY: Direct = [false, true];

/// A connected relay with `--relay MODE` at the hub.
pub fn connected(backend: Backend, mode: &'static str) -> Relay {
    let mut options = Options::new(backend);
    options.environment.push(("WG_BOUNCE_RELAY", mode));
    Relay::connected(&options)
}

/// The last log line of the hub about relaying.
pub fn said(relay: &Relay) -> String {
    let log = relay.hub.log();
    let last = log.lines().rev().find_map(|line| line.split_once(" relay: IPv4"));
    last.map(|(_, text)| format!("IPv4{text}")).unwrap_or_default()
}

/// The mode announced by such a line. "Some pairs" are all pairs here: alice and bob have one
/// address each.
pub fn direct(said: &str) -> Direct {
    let is_said = |text: &str| said.contains(text) && !said.contains(&format!("{text}, but"));
    let both = is_said("IPv4 and IPv6 direct");
    [both || is_said("IPv4 direct"), both || is_said("IPv6 direct")]
}

/// Waits until the hub announces this mode with this reason, and checks that packets take that
/// path.
#[track_caller]
pub fn expect(relay: &Relay, expected: Direct, reason: &str) {
    let says_so = || {
        let said = said(relay);
        direct(&said) == expected && said.contains(reason)
    };
    eventually(LATE, &format!("{expected:?}, {reason:?}; last: {}", said(relay)), says_so);
    for (family, is_direct) in Family::BOTH.into_iter().zip(expected) {
        let crossed = || crossed(relay, &relay.hub.namespace, family);
        if is_direct {
            // A change that leaves relaying direct is not announced, and may take a moment.
            eventually(LATE, &format!("{family:?} is relayed"), || crossed() == 0);
        } else {
            assert_eq!(crossed(), 6, "{family:?}, {reason:?}");
        }
    }
}

/// Sends three pings from alice to bob; returns how many of the six packets reach the kernel
/// through the hub's interface, which is in `namespace`.
#[track_caller]
fn crossed(relay: &Relay, namespace: &Namespace, family: Family) -> u64 {
    let before = received(relay, namespace);
    let counts = ping(&relay.alice.namespace, BOB.inner(family), "-c 3 -i 0.02 -W 2");
    assert_eq!(counts, (3, 3), "pings arrive in every mode: {}", said(relay));
    received(relay, namespace) - before
}

/// Packets received by the kernel on the hub's interface.
pub fn received(relay: &Relay, namespace: &Namespace) -> u64 {
    let path = format!("/sys/class/net/{}/statistics/rx_packets", relay.hub.interface);
    namespace.run(&format!("cat {path}")).trim().parse().expect("a number")
}

/// Checks that after the command `add` the worker relays only the families in `expected`, for this
/// reason, and both again after `remove`. IF stands for the hub's interface.
#[track_caller]
fn holds(relay: &Relay, add: &str, remove: &str, expected: Direct, reason: &str) {
    let run = |line: &str| relay.hub.namespace.run(&line.replace("IF", &relay.hub.interface));
    run(add);
    expect(relay, expected, reason);
    // Without tracked connections nothing has to settle.
    run("conntrack -F");
    run(remove);
    expect(relay, BOTH, "");
}

/// As [`holds`], for an nftables table named t.
#[track_caller]
fn table_holds(relay: &Relay, family: &str, content: &str, expected: Direct, reason: &str) {
    let text = format!("table {family} t {{\n{content}\n}}\n");
    relay.hub.namespace.run_with("nft -f -", &text.replace("IF", &relay.hub.interface));
    expect(relay, expected, reason);
    relay.hub.namespace.run(&format!("nft delete table {family} t"));
    expect(relay, BOTH, "");
}

fn nftables_rules_are_respected(backend: Backend) {
    let relay = connected(backend, "auto");
    expect(&relay, BOTH, "");
    for (family, expected) in [("ip", V6_ONLY), ("ip6", V4_ONLY), ("inet", NONE)] {
        for hook in ["prerouting", "forward", "postrouting"] {
            let chain = format!("chain c {{\ntype filter hook {hook} priority 0;\ncounter\n}}");
            let reason = format!("chain c of table {family} t, rule handle");
            table_holds(&relay, family, &chain, expected, &reason);
        }
    }
    for (family, hook) in [("netdev", "ingress"), ("netdev", "egress"), ("inet", "ingress")] {
        let chain =
            format!("chain c {{\ntype filter hook {hook} device IF priority 0;\ncounter\n}}");
        let reason = format!("chain c of table {family} t, rule handle");
        table_holds(&relay, family, &chain, NONE, &reason);
    }
    // Other hooks, other devices and chains without rules do not matter.
    let unrelated = "chain i {\ntype filter hook input priority 0; policy accept;\ncounter\n}\n\
        chain o {\ntype filter hook output priority 0;\ncounter\n}\n\
        chain e {\ntype filter hook forward priority 0; policy accept;\n}\n\
        chain n {\ncounter\n}";
    table_holds(&relay, "inet", unrelated, BOTH, "");
    let elsewhere = "chain c {\ntype filter hook ingress device lo priority 0;\ncounter\n}";
    table_holds(&relay, "netdev", elsewhere, BOTH, "");
}

/// Rules are added to and removed from an existing chain.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn rules_are_added_and_removed() {
    let relay = connected(Backend::Mmsg, "auto");
    let hub = &relay.hub.namespace;
    hub.run_with(
        "nft -f -",
        "table inet t {\nchain c {\ntype filter hook forward priority 0;\n}\n}",
    );
    expect(&relay, BOTH, "");
    let (add, remove) = ("nft add rule inet t c counter", "nft flush chain inet t c");
    holds(&relay, add, remove, NONE, "counts packets");
    // With a drop policy no ping passes, so `expect` cannot be used.
    hub.run_with("nft -f -", "add chain inet t c { policy drop; }");
    eventually(LATE, "the policy counts", || said(&relay).contains("default policy is not ACCEPT"));
    for family in Family::BOTH {
        let counts = ping(&relay.alice.namespace, BOB.inner(family), "-c 2 -i 0.02 -W 1");
        assert_eq!(counts, (2, 0), "{family:?}");
    }
    hub.run_with("nft -f -", "add chain inet t c { policy accept; }");
    expect(&relay, BOTH, "");
}

/// A drop rule is added and removed under traffic.
fn rules_take_effect_under_traffic(backend: Backend) {
    let relay = connected(backend, "auto");
    expect(&relay, BOTH, "");
    let arrived = || relay.bob.transfer_with(&relay.hub.key).0;
    let line = format!("ping -n -q -i 0.01 {}", BOB.inner(Family::V4));
    let _traffic = relay.alice.namespace.spawn(&relay.lab, &line);
    let flows = |limit, what: &str| {
        let before = arrived();
        eventually(limit, what, || arrived() > before + 2000);
    };
    flows(seconds(5), "packets arrive");
    for _ in 0..3 {
        relay.hub.namespace.run_with(
            "nft -f -",
            "table ip t {\nchain c {\ntype filter hook forward priority 0;\ndrop\n}\n}",
        );
        eventually(LATE, "it is said", || direct(&said(&relay)) == V6_ONLY);
        // Packets in flight have arrived by now.
        std::thread::sleep(Duration::from_millis(100));
        let before = arrived();
        holds_for(seconds(1), "nothing passes", || arrived() < before + 200);
        relay.hub.namespace.run("nft delete table ip t");
        flows(seconds(2), "packets arrive again");
        eventually(LATE, "it is said", || direct(&said(&relay)) == BOTH);
    }
}

fn iptables_rules_are_respected(backend: Backend) {
    let relay = connected(backend, "auto");
    expect(&relay, BOTH, "");
    for (program, expected) in [("iptables-nft", V6_ONLY), ("ip6tables-nft", V4_ONLY)] {
        let line = |verb| format!("{program} {verb} FORWARD -i IF -o IF");
        let reason = "chain FORWARD of table ip";
        holds(&relay, &line("-A"), &line("-D"), expected, reason);
        let line = |verb| format!("{program} -t nat {verb} POSTROUTING -o IF -j MASQUERADE");
        holds(&relay, &line("-A"), &line("-D"), expected, "chain POSTROUTING");
    }
    for (program, expected) in [("iptables-legacy", V6_ONLY), ("ip6tables-legacy", V4_ONLY)] {
        for (table, chain) in
            [("filter", "FORWARD"), ("mangle", "PREROUTING"), ("nat", "POSTROUTING")]
        {
            let line =
                |verb| format!("{program} -t {table} {verb} {chain} -m comment --comment all");
            let reason = format!("{program}: chain {chain} of table {table}, rule 1: counts");
            holds(&relay, &line("-A"), &line("-D"), expected, &reason);
        }
        // INPUT does not matter, nor does a user chain without a jump to it.
        let hub = &relay.hub.namespace;
        hub.run(&format!("{program} -A INPUT -p tcp --dport 9 -j DROP"));
        hub.run(&format!("{program} -N OWN"));
        hub.run(&format!("{program} -A OWN -j DROP"));
        expect(&relay, BOTH, "");
        hub.run(&format!("{program} -P FORWARD DROP"));
        let chain = "chain FORWARD of table filter";
        let reason = format!("{program}: {chain}: default policy is not ACCEPT");
        eventually(LATE, &reason, || said(&relay).contains(&reason));
        hub.run(&format!("{program} -P FORWARD ACCEPT"));
        expect(&relay, BOTH, "");
    }
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn traffic_control_is_respected() {
    let relay = connected(Backend::Uring, "auto");
    expect(&relay, BOTH, "");
    let hub = &relay.hub.namespace;
    let shaped = "tc qdisc add dev IF root tbf rate 1gbit burst 100k latency 10ms";
    holds(&relay, shaped, "tc qdisc del dev IF root", NONE, "tc: qdisc tbf");
    let queues = "tc qdisc replace dev IF root handle 1: mq";
    holds(&relay, queues, "tc qdisc del dev IF root", NONE, "tc: qdisc mq");
    hub.run(&format!("tc qdisc add dev {} clsact", relay.hub.interface));
    expect(&relay, BOTH, "");
    for hook in ["ingress", "egress"] {
        let reason = format!("filter at {hook} of the interface");
        let remove = format!("tc filter del dev IF {hook}");
        let u32_filter = format!("tc filter add dev IF {hook} u32 match u32 0 0");
        holds(&relay, &u32_filter, &remove, NONE, &format!("u32 {reason}"));
        // The bytecode is one argument with spaces, so `run` cannot pass it.
        let mut command = hub.command("tc");
        command.args(["filter", "add", "dev", &relay.hub.interface, hook]);
        command.args(["bpf", "bytecode", "1,6 0 0 0"]);
        assert!(command.status().expect("tc runs").success());
        expect(&relay, NONE, &format!("bpf {reason}"));
        hub.run(&remove.replace("IF", &relay.hub.interface));
        expect(&relay, BOTH, "");
    }
    // A qdisc on another device does not matter.
    hub.run("tc qdisc add dev alice root tbf rate 1gbit burst 100k latency 10ms");
    expect(&relay, BOTH, "");
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn captures_see_every_packet() {
    let relay = connected(Backend::Uring, "auto");
    expect(&relay, BOTH, "");
    for options in ["-i IF", "-p -i IF", "-i any"] {
        let line = format!("tcpdump --immediate-mode -l -n {options}");
        let line = line.replace("IF", &relay.hub.interface);
        let capture = relay.hub.namespace.spawn(&relay.lab, &line);
        eventually(seconds(5), "tcpdump listens", || capture.output().contains("listening on"));
        expect(&relay, NONE, "captures");
        // The capture sees every packet from now on.
        let seen = || capture.output().matches("echo request").count();
        let before = seen();
        let counts = ping(&relay.alice.namespace, BOB.inner(Family::V4), "-c 3 -i 0.02");
        assert_eq!(counts, (3, 3));
        eventually(seconds(2), "they are captured", || seen() >= before + 3);
        drop(capture);
        expect(&relay, BOTH, "");
    }
    // A capture on another device does not matter.
    let capture = relay.hub.namespace.spawn(&relay.lab, "tcpdump -n -i alice -w /dev/null");
    eventually(seconds(5), "tcpdump listens", || capture.output().contains("listening on"));
    holds_for(LATE, "direct", || direct(&said(&relay)) == BOTH);
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn policies_and_ip_rules_are_respected() {
    let relay = connected(Backend::Mmsg, "auto");
    expect(&relay, BOTH, "");
    let policy = "src 10.9.0.0/24 dst 10.8.0.0/24 dir";
    for direction in ["fwd", "out"] {
        let line = |verb| format!("ip xfrm policy {verb} {policy} {direction}");
        holds(&relay, &line("add"), &line("delete"), NONE, "IPsec policies: 1 ");
    }
    for (family, selector, expected) in
        [("-4", "sport 22", V6_ONLY), ("-6", "ipproto tcp", V4_ONLY), ("-4", "dport 1-9", V6_ONLY)]
    {
        let line = |verb| format!("ip {family} rule {verb} {selector} table main priority 77");
        holds(&relay, &line("add"), &line("del"), expected, "ip rule 77 ");
    }
    // Rules on addresses and marks are covered by route queries.
    relay.hub.namespace.run("ip rule add from 10.77.0.9 fwmark 7 table 99 priority 78");
    expect(&relay, BOTH, "");
    let policy = "sysctl -qw net.ipv4.fib_multipath_hash_policy";
    holds(&relay, &format!("{policy}=1"), &format!("{policy}=0"), V6_ONLY, "multipath");
}

/// Without forwarding, packets are left to the kernel, which drops them.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn nothing_is_relayed_while_forwarding_is_off() {
    let relay = connected(Backend::Uring, "auto");
    expect(&relay, BOTH, "");
    let hub = &relay.hub.namespace;
    for (family, setting, expected) in [
        (Family::V4, "net.ipv4.ip_forward", V6_ONLY),
        (Family::V6, "net.ipv6.conf.all.forwarding", V4_ONLY),
    ] {
        hub.sysctl(&format!("{setting}=0"));
        eventually(LATE, "it is noticed", || {
            let said = said(&relay);
            direct(&said) == expected && said.contains("forwarding is off")
        });
        let counts = ping(&relay.alice.namespace, BOB.inner(family), "-c 2 -i 0.02 -W 1");
        assert_eq!(counts, (2, 0), "{family:?}");
        hub.sysctl(&format!("{setting}=1"));
        expect(&relay, BOTH, "");
    }
}

/// The interface is moved to a namespace with other rules and renamed there.
fn moving_the_interface_changes_the_rules(backend: Backend) {
    let mut relay = connected(backend, "auto");
    expect(&relay, BOTH, "");
    let (hub, interface) = (&relay.hub.namespace, &relay.hub.interface);
    let inside = relay.lab.namespace("inside");
    inside.sysctl("net.ipv4.ip_forward=1");
    inside.run_with(
        "nft -f -",
        "table ip6 t {\nchain c {\ntype filter hook forward priority 0;\ncounter\n}\n}",
    );
    hub.run(&format!("ip link set {interface} netns {}", inside.name()));
    eventually(LATE, "the new namespace counts", || {
        direct(&said(&relay)) == V4_ONLY && said(&relay).contains("chain c of table ip6 t, rule")
    });
    inside.run(&format!("ip address add {}/24 dev {interface}", HUB.inner(Family::V4)));
    inside.run(&format!("ip link set {interface} up"));
    // The hub dropped its sessions when the link went down.
    for peer in [ALICE, BOB] {
        ping_until_answered(&inside, peer.inner(Family::V4));
    }
    assert_eq!(crossed(&relay, &inside, Family::V4), 0);
    // The old namespace no longer matters.
    let table = "table inet t {\nchain c {\ntype filter hook forward priority 0;\ncounter\n}\n}";
    hub.run_with("nft -f -", table);
    holds_for(LATE, "nothing changes", || direct(&said(&relay)) == V4_ONLY);
    assert_eq!(crossed(&relay, &inside, Family::V4), 0);
    // The new namespace does, also after a rename.
    inside.run(&format!("ip link set {interface} name other"));
    inside.sysctl("net.ipv4.conf.other.forwarding=0");
    eventually(LATE, "the new name counts", || said(&relay).contains("conf.other.forwarding"));
    inside.sysctl("net.ipv4.conf.other.forwarding=1");
    eventually(LATE, "it is direct again", || direct(&said(&relay)) == V4_ONLY);
    // Traffic does not keep the namespace alive, either.
    let line = format!("ping -n -q -i 0.01 {}", BOB.inner(Family::V4));
    let _traffic = relay.alice.namespace.spawn(&relay.lab, &line);
    inside.delete();
    assert!(within(seconds(3), || relay.hub.has_ended()), "{}", relay.hub.log());
    assert_eq!(relay.hub.exit_code(), Some(0));
}

/// A route out of another interface takes effect at once, even while a large table is being loaded,
/// and only for its own destination.
fn route_changes_take_effect_at_once(backend: Backend) {
    const OTHER_ROUTES: u32 = 100_000;
    let relay = connected(backend, "auto");
    expect(&relay, BOTH, "");
    let hub = &relay.hub.namespace;
    let table: String = (0..OTHER_ROUTES)
        .map(|number| {
            format!("route add {}/32 dev lo\n", Ipv4Addr::from_bits(0x1400_0000 + number))
        })
        .collect();
    let batch = relay.lab.file("routes");
    std::fs::write(&batch, table).expect("the lab's directory is writable");
    let mut burst = hub.spawn(&relay.lab, &format!("ip -batch {}", batch.display()));
    for round in 0..3 {
        for (family, route) in
            [(Family::V4, "10.77.0.3/32 dev mallory"), (Family::V6, "fd77::3/128 dev mallory")]
        {
            hub.run(&format!("ip route add {route}"));
            eventually(LATE, &format!("{family:?}, round {round}: bob is elsewhere"), || {
                let before = received(&relay, hub);
                let counts = ping(&relay.alice.namespace, BOB.inner(family), "-c 1 -W 0.1");
                counts == (1, 0) && received(&relay, hub) > before
            });
            hub.run(&format!("ip route del {route}"));
            expect(&relay, BOTH, "");
        }
        if round == 1 {
            eventually(seconds(60), "the burst is over", || burst.has_ended());
        }
    }
}

/// A daemon that lacks a capability leaves relaying to the kernel and logs the capability.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_missing_capability_leaves_relaying_to_the_kernel() {
    let lab = Lab::new();
    let namespace = lab.namespace("alone");
    namespace.sysctl("net.ipv4.ip_forward=1");
    let line = format!(
        "setpriv --bounding-set=-all,+net_admin --inh-caps=-all -- {} -f {}",
        Program::under_test().display(),
        lab.interface("alone")
    );
    let daemon = namespace.spawn(&lab, &line);
    eventually(seconds(10), "it says what it lacks", || {
        let log = daemon.output();
        log.contains("relay: IPv4 by the kernel (cannot read netfilter BPF programs")
            && log.contains("(requires CAP_SYS_ADMIN)")
    });
}

/// `--relay direct` bypasses the firewall, logs that once, and stops when forwarding is off.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn direct_bypasses_the_firewall_and_logs_it() {
    let relay = connected(Backend::Uring, "direct");
    expect(&relay, BOTH, "");
    let table = "table inet t {\nchain c {\ntype filter hook forward priority 0;\ndrop\n}\n}";
    relay.hub.namespace.run_with("nft -f -", table);
    let bypassed = || relay.hub.log().matches("packets between peers bypass: nftables").count();
    eventually(LATE, "it is said", || bypassed() == 1);
    expect(&relay, BOTH, "");
    relay.hub.namespace.run("nft delete table inet t");
    relay.hub.namespace.sysctl("net.ipv4.ip_forward=0");
    eventually(LATE, "IPv4 is the kernel's", || direct(&said(&relay)) == V6_ONLY);
    let counts = ping(&relay.alice.namespace, BOB.inner(Family::V4), "-c 2 -i 0.02 -W 1");
    assert_eq!(counts, (2, 0));
    assert_eq!(bypassed(), 1);
}

/// `--relay kernel` does not start the watching thread.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn kernel_mode_does_not_watch_rules() {
    let relay = connected(Backend::Uring, "kernel");
    expect(&relay, NONE, "--relay kernel");
    let threads = std::fs::read_dir(format!("/proc/{}/task", relay.hub.pid())).expect("it runs");
    let names = threads.map(|thread| {
        let path = thread.expect("a thread").path().join("comm");
        std::fs::read_to_string(path).unwrap_or_default()
    });
    assert!(names.into_iter().all(|name| name.trim() != "relay-policy"));
}

/// The log names the reason and the option that overrides it; the counters report the mode.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn the_reason_is_logged_and_reported() {
    let relay = connected(Backend::Uring, "auto");
    expect(&relay, BOTH, "");
    let line = "iptables-legacy -A FORWARD -s 10.77.0.0/24";
    relay.hub.namespace.run(line);
    expect(&relay, V6_ONLY, "--relay direct (WG_BOUNCE_RELAY=direct)");
    relay.hub.counter("rx_packets");
    let log = relay.hub.log();
    let report = log.lines().rev().find(|line| line.contains(" relay: ")).expect("it reports");
    for word in ["by the kernel (iptables-legacy: chain FORWARD", "IPv6 direct", "changes=1"] {
        assert!(report.contains(word), "no {word}: {report}");
    }
    assert!(ALICE.inner(Family::V4).starts_with("10.77."), "the rule lets alice pass");
}

on_both_backends!(
    nftables_rules_are_respected,
    route_changes_take_effect_at_once,
    rules_take_effect_under_traffic,
    iptables_rules_are_respected,
    moving_the_interface_changes_the_rules
);
