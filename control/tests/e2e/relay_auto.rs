//! `--relay auto`: who forwards from peer to peer, for every reason that this kernel can produce.
//! What the hub says is read from its log; what it does, from the packets that cross its TUN
//! (nothing else may count them: a counter would be a reason itself).

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::harness::{
    ALICE, BOB, Backend, Family, HUB, Lab, Namespace, Options, Program, Relay, eventually,
    holds_for, ping, ping_until_answered, seconds,
};

/// How long a change may take until it counts.
const LATE: Duration = Duration::from_secs(1);

/// Which families are relayed by the worker.
type Direct = [bool; 2];
const BOTH: Direct = [true, true];
const NONE: Direct = [false, false];
const V4_ONLY: Direct = [true, false];
const V6_ONLY: Direct = [false, true];

/// Alice, bob and a hub with `--relay MODE`, connected.
fn connected(backend: Backend, mode: &'static str) -> Relay {
    let mut options = Options::new(backend);
    options.environment.push(("WG_BOUNCE_RELAY", mode));
    Relay::connected(&options)
}

/// The last that the hub has said about relaying.
fn said(relay: &Relay) -> String {
    let log = relay.hub.log();
    let last = log.lines().rev().find_map(|line| line.split_once(" relay: IPv4"));
    last.map(|(_, text)| format!("IPv4{text}")).unwrap_or_default()
}

/// What that means.
fn direct(said: &str) -> Direct {
    let both = said.starts_with("IPv4 and IPv6 direct");
    [both || said.starts_with("IPv4 direct"), both || said.contains(", IPv6 direct")]
}

/// Waits until the hub says so, with this reason, and checks that packets go that way.
#[track_caller]
fn expect(relay: &Relay, expected: Direct, reason: &str) {
    let says_so = || {
        let said = said(relay);
        direct(&said) == expected && said.contains(reason)
    };
    eventually(LATE, &format!("{expected:?}, {reason:?}; last: {}", said(relay)), says_so);
    for (family, is_direct) in Family::BOTH.into_iter().zip(expected) {
        let crossed = crossed(relay, &relay.hub.namespace, family);
        assert_eq!(crossed, if is_direct { 0 } else { 6 }, "{family:?}, {reason:?}");
    }
}

/// How many of three pings from alice to bob, and of their answers, reach the kernel through the
/// hub's interface, which is in `namespace`.
#[track_caller]
fn crossed(relay: &Relay, namespace: &Namespace, family: Family) -> u64 {
    let before = received(relay, namespace);
    let counts = ping(&relay.alice.namespace, BOB.inner(family), "-c 3 -i 0.02 -W 2");
    assert_eq!(counts, (3, 3), "whoever forwards, they arrive: {}", said(relay));
    received(relay, namespace) - before
}

/// Packets that the kernel has got from the hub's interface.
fn received(relay: &Relay, namespace: &Namespace) -> u64 {
    let path = format!("/sys/class/net/{}/statistics/rx_packets", relay.hub.interface);
    namespace.run(&format!("cat {path}")).trim().parse().expect("a number")
}

/// While `add` is in force, only `expected` is relayed by the worker, for this reason; after
/// `remove` both families are again. IF stands for the hub's interface.
#[track_caller]
fn holds(relay: &Relay, add: &str, remove: &str, expected: Direct, reason: &str) {
    let run = |line: &str| relay.hub.namespace.run(&line.replace("IF", &relay.hub.interface));
    run(add);
    expect(relay, expected, reason);
    run(remove);
    expect(relay, BOTH, "");
}

/// As [`holds`], for a table of nftables named t.
#[track_caller]
fn table_holds(relay: &Relay, family: &str, content: &str, expected: Direct, reason: &str) {
    let text = format!("table {family} t {{\n{content}\n}}\n");
    relay.hub.namespace.run_with("nft -f -", &text.replace("IF", &relay.hub.interface));
    expect(relay, expected, reason);
    relay.hub.namespace.run(&format!("nft delete table {family} t"));
    expect(relay, BOTH, "");
}

fn rules_of_nftables(backend: Backend) {
    let relay = connected(backend, "auto");
    expect(&relay, BOTH, "");
    for (family, expected) in [("ip", V6_ONLY), ("ip6", V4_ONLY), ("inet", NONE)] {
        for hook in ["prerouting", "forward", "postrouting"] {
            let chain = format!("chain c {{\ntype filter hook {hook} priority 0;\ncounter\n}}");
            let reason = format!("chain c of table {family} t, hook {hook}: has rules");
            table_holds(&relay, family, &chain, expected, &reason);
        }
    }
    for (family, hook) in [("netdev", "ingress"), ("netdev", "egress"), ("inet", "ingress")] {
        let chain =
            format!("chain c {{\ntype filter hook {hook} device IF priority 0;\ncounter\n}}");
        let reason = format!("chain c of table {family} t, hook {hook}: has rules");
        table_holds(&relay, family, &chain, NONE, &reason);
    }
    // What is not on the way does not count: other hooks, other devices, chains without rules.
    let beside = "chain i {\ntype filter hook input priority 0; policy accept;\ncounter\n}\n\
        chain o {\ntype filter hook output priority 0;\ncounter\n}\n\
        chain e {\ntype filter hook forward priority 0; policy accept;\n}\n\
        chain n {\ncounter\n}";
    table_holds(&relay, "inet", beside, BOTH, "");
    let elsewhere = "chain c {\ntype filter hook ingress device lo priority 0;\ncounter\n}";
    table_holds(&relay, "netdev", elsewhere, BOTH, "");
}

/// Rules that come and go in a chain that stays.
#[test]
fn rules_come_and_go() {
    let relay = connected(Backend::Mmsg, "auto");
    let hub = &relay.hub.namespace;
    hub.run_with(
        "nft -f -",
        "table inet t {\nchain c {\ntype filter hook forward priority 0;\n}\n}",
    );
    expect(&relay, BOTH, "");
    holds(&relay, "nft add rule inet t c counter", "nft flush chain inet t c", NONE, "has rules");
    // By a policy nothing passes: a ping cannot tell who forwards.
    hub.run_with("nft -f -", "add chain inet t c { policy drop; }");
    eventually(LATE, "the policy counts", || said(&relay).contains("default policy is not ACCEPT"));
    for family in Family::BOTH {
        let counts = ping(&relay.alice.namespace, BOB.inner(family), "-c 2 -i 0.02 -W 1");
        assert_eq!(counts, (2, 0), "{family:?}");
    }
    hub.run_with("nft -f -", "add chain inet t c { policy accept; }");
    expect(&relay, BOTH, "");
}

/// A rule that drops, added while packets flow, and taken away again.
fn takes_effect_while_traffic_runs(backend: Backend) {
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
        // What was under way has arrived when the next ping would have.
        std::thread::sleep(Duration::from_millis(100));
        let before = arrived();
        holds_for(seconds(1), "nothing passes", || arrived() < before + 200);
        relay.hub.namespace.run("nft delete table ip t");
        flows(seconds(2), "packets arrive again");
        eventually(LATE, "it is said", || direct(&said(&relay)) == BOTH);
    }
}

fn iptables(backend: Backend) {
    let relay = connected(backend, "auto");
    expect(&relay, BOTH, "");
    // What the usual example of a relay does when it comes up and goes down.
    for (program, expected) in [("iptables-nft", V6_ONLY), ("ip6tables-nft", V4_ONLY)] {
        let line = |verb| format!("{program} {verb} FORWARD -i IF -o IF -j ACCEPT");
        let reason = "chain FORWARD of table ip";
        holds(&relay, &line("-A"), &line("-D"), expected, reason);
        let line = |verb| format!("{program} -t nat {verb} POSTROUTING -o lo -j MASQUERADE");
        holds(&relay, &line("-A"), &line("-D"), expected, "chain POSTROUTING");
    }
    for (program, expected) in [("iptables-legacy", V6_ONLY), ("ip6tables-legacy", V4_ONLY)] {
        for (table, chain) in
            [("filter", "FORWARD"), ("mangle", "PREROUTING"), ("nat", "POSTROUTING")]
        {
            let line = |verb| format!("{program} -t {table} {verb} {chain} -p tcp");
            let reason = format!("{program}: chain {chain} of table {table}: has rules");
            holds(&relay, &line("-A"), &line("-D"), expected, &reason);
        }
        // Input is not on the way. A chain of one's own is only if it is jumped to.
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
fn traffic_control() {
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
        // A program is one word: it cannot go through `run`.
        let mut command = hub.command("tc");
        command.args(["filter", "add", "dev", &relay.hub.interface, hook]);
        command.args(["bpf", "bytecode", "1,6 0 0 0"]);
        assert!(command.status().expect("tc runs").success());
        expect(&relay, NONE, &format!("bpf {reason}"));
        hub.run(&remove.replace("IF", &relay.hub.interface));
        expect(&relay, BOTH, "");
    }
    // On another device it is nobody's business here.
    hub.run("tc qdisc add dev alice root tbf rate 1gbit burst 100k latency 10ms");
    expect(&relay, BOTH, "");
}

#[test]
fn captures() {
    let relay = connected(Backend::Uring, "auto");
    expect(&relay, BOTH, "");
    for options in ["-i IF", "-p -i IF", "-i any"] {
        let line = format!("tcpdump --immediate-mode -l -n {options}");
        let line = line.replace("IF", &relay.hub.interface);
        let capture = relay.hub.namespace.spawn(&relay.lab, &line);
        eventually(seconds(5), "tcpdump listens", || capture.output().contains("listening on"));
        expect(&relay, NONE, "captures");
        // It misses nothing of what passes from now on.
        let seen = || capture.output().matches("echo request").count();
        let before = seen();
        let counts = ping(&relay.alice.namespace, BOB.inner(Family::V4), "-c 3 -i 0.02");
        assert_eq!(counts, (3, 3));
        eventually(seconds(2), "they are captured", || seen() >= before + 3);
        drop(capture);
        expect(&relay, BOTH, "");
    }
    // A capture on another device sees nothing of it either way.
    let capture = relay.hub.namespace.spawn(&relay.lab, "tcpdump -n -i alice -w /dev/null");
    eventually(seconds(5), "tcpdump listens", || capture.output().contains("listening on"));
    holds_for(LATE, "direct", || direct(&said(&relay)) == BOTH);
}

#[test]
fn settings_rules_and_policies() {
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
    // What addresses and marks decide, a question answers.
    relay.hub.namespace.run("ip rule add from 10.77.0.9 fwmark 7 table 99 priority 78");
    expect(&relay, BOTH, "");
    let policy = "sysctl -qw net.ipv4.fib_multipath_hash_policy";
    holds(&relay, &format!("{policy}=1"), &format!("{policy}=0"), V6_ONLY, "multipath");
}

/// A kernel that does not forward is asked all the same: it is its to refuse.
#[test]
fn forwarding_is_off() {
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

/// The interface is moved to a namespace with another name and other rules, and renamed there.
fn moved(backend: Backend) {
    let relay = connected(backend, "auto");
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
        direct(&said(&relay)) == V4_ONLY && said(&relay).contains("hook forward: has rules")
    });
    inside.run(&format!("ip address add {}/24 dev {interface}", HUB.inner(Family::V4)));
    inside.run(&format!("ip link set {interface} up"));
    // The hub forgot its sessions when the link went down, and makes new ones.
    for peer in [ALICE, BOB] {
        ping_until_answered(&inside, peer.inner(Family::V4));
    }
    assert_eq!(crossed(&relay, &inside, Family::V4), 0);
    // The old one does not count any more.
    let table = "table inet t {\nchain c {\ntype filter hook forward priority 0;\ncounter\n}\n}";
    hub.run_with("nft -f -", table);
    holds_for(LATE, "nothing changes", || direct(&said(&relay)) == V4_ONLY);
    assert_eq!(crossed(&relay, &inside, Family::V4), 0);
    // The new one does, also under another name.
    inside.run(&format!("ip link set {interface} name other"));
    inside.sysctl("net.ipv4.conf.other.forwarding=0");
    eventually(LATE, "the new name counts", || said(&relay).contains("conf.other.forwarding"));
    inside.sysctl("net.ipv4.conf.other.forwarding=1");
    eventually(LATE, "it is direct again", || direct(&said(&relay)) == V4_ONLY);
}

/// A route that leads elsewhere counts at once, also while a whole table of others comes in, and
/// for the one destination only.
fn routes_are_asked_for_anew(backend: Backend) {
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

/// What the daemon may not see leaves it to the kernel, and it says what it lacks.
#[test]
fn blindness_is_a_reason() {
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

/// `--relay direct` passes over all that, says so once, and stops where forwarding is off.
#[test]
fn direct_bypasses_and_says_so() {
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

/// `--relay kernel` watches nothing.
#[test]
fn kernel_has_no_watch() {
    let relay = connected(Backend::Uring, "kernel");
    expect(&relay, NONE, "--relay kernel");
    let threads = std::fs::read_dir(format!("/proc/{}/task", relay.hub.pid())).expect("it runs");
    let names = threads.map(|thread| {
        let path = thread.expect("a thread").path().join("comm");
        std::fs::read_to_string(path).unwrap_or_default()
    });
    assert!(names.into_iter().all(|name| name.trim() != "relay-policy"));
}

/// The advice names what holds it, and the way out; the counters say how it is.
#[test]
fn it_is_said_how_it_is() {
    let relay = connected(Backend::Uring, "auto");
    expect(&relay, BOTH, "");
    let line = "iptables-legacy -A FORWARD -s 10.77.0.0/24 -j ACCEPT";
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
    rules_of_nftables,
    routes_are_asked_for_anew,
    takes_effect_while_traffic_runs,
    iptables,
    moved
);
