//! Random rule sets, judged by the relay policy and by the kernel: conversations between peers end
//! the same way, whoever forwards them; where the policy relays all of them directly, all pass, and
//! nothing is translated.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::duration;
use crate::harness::{
    Backend, Daemon, Family, Relay, TCP_PORTS, Threads, UDP_PORTS, by_tcp, by_udp, eventually,
    noise, ping, seconds, serve,
};
use crate::relay_auto::{BOTH, connected, direct, expect, said};

/// Hosts of alice and of bob: each talks to the one in the same place.
const PAIRS: [[u8; 2]; 2] = [[2, 3], [12, 13]];

/// Time until every change has been noticed: legacy tables are polled every half second.
const SETTLED: Duration = Duration::from_millis(700);

/// Longest time until nothing waits any more: twice the pause after a change of rules.
const SETTLED_AGAIN: Duration = Duration::from_secs(6);

/// Rule sets after which the test fails unless both kinds of direct relaying have occurred.
const SETS_MAX: usize = 100;

/// Nobody listens there.
const CLOSED_PORT: u16 = 54;

const CONDITIONS: [&str; 40] = [
    "",
    "-i IF",
    "-o IF",
    "-i eth0",
    "-o eth0",
    "! -i IF",
    "! -o IF",
    "! -i eth0",
    "! -o eth0",
    "-i wb+",
    "-o e+",
    "-m mark --mark 7",
    "-m mark ! --mark 7",
    "-m mark --mark 0/7",
    "-m conntrack --ctstate RELATED,ESTABLISHED",
    "-s 10.77.0.0/24",
    "! -d 10.77.0.0/24",
    "-s 172.17.0.0/16",
    "! -s 172.17.0.0/16",
    "-d 10.77.0.3",
    "! -d 10.77.0.2/31",
    "-s 10.77.0.12",
    "-d 10.77.0.8/29",
    "! -s 10.77.0.13",
    "-s 10.77.0.2 -d 10.77.0.3",
    "-s 10.77.0.13 -d 10.77.0.12",
    "-m addrtype --dst-type LOCAL",
    "-m addrtype ! --dst-type LOCAL",
    "-p icmp -m icmp --icmp-type echo-request",
    "-p tcp -m multiport --dports 22,80",
    "-p udp -m udp --dport 53",
    "-p tcp -m tcp ! --sport 80",
    "-p udp -m udp --dport 53",
    "-p udp -m udp --sport 7",
    "-p tcp -m tcp --dport 1:79",
    "-p tcp -m multiport ! --sports 1:79,7777",
    "-p udp",
    "! -p tcp",
    "-p icmp",
    "-p icmp -m icmp ! --icmp-type echo-reply",
];
const TARGETS: [&str; 6] = ["-j ACCEPT", "-j ACCEPT", "-j DROP", "-j RETURN", "-j OWN", "-g OWN"];
/// Chains of other tables, the option that they do not have, and targets.
const OTHERS: [(&str, &str, &[&str]); 4] = [
    (
        "-t nat -A PREROUTING",
        "-o",
        &[
            "-j DNAT --to-destination 172.17.0.2",
            "-j DNAT --to-destination 10.77.0.3",
            "-p tcp -m tcp --dport 7 -j DNAT --to-destination 10.77.0.3:80",
            "-p udp -m udp --dport 7 -j DNAT --to-destination 10.77.0.3",
            "-p udp -m udp --dport 53 -j REDIRECT --to-ports 7",
            "-j REDIRECT",
            "-j ACCEPT",
            "-j RETURN",
        ],
    ),
    (
        "-t nat -A POSTROUTING",
        "-i",
        &["-j MASQUERADE", "-j SNAT --to-source 10.77.0.9", "-j ACCEPT", "-j RETURN"],
    ),
    (
        "-t mangle -A FORWARD",
        "none",
        &[
            "-j MARK --set-mark 7",
            "-p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1000",
            "-j ACCEPT",
            "-j DROP",
        ],
    ),
    ("-t raw -A PREROUTING", "-o", &["-j CT --notrack", "-j ACCEPT", "-j DROP"]),
];

const EXPRESSIONS: [&str; 41] = [
    "",
    "iifname IF",
    "oifname IF",
    "iifname != IF",
    "oifname != eth0",
    "iifname \"wb*\"",
    "iif lo",
    "meta mark 7",
    "meta mark and 7 == 0",
    "meta mark != 7",
    "ct state established,related",
    "ip saddr 10.77.0.0/24",
    "ip daddr != 10.77.0.0/24",
    "ip saddr 172.17.0.0/12",
    "ip saddr 10.77.0.2 ip daddr 10.77.0.3",
    "ip saddr 10.77.0.0/28 ip daddr 10.0.0.0/8",
    "ip saddr 10.77.0.12",
    "ip daddr 10.77.0.8/29",
    "ip saddr 10.77.0.13 ip daddr 10.77.0.12",
    "ip daddr != { 10.77.0.3, 10.77.0.13 }",
    "ip daddr 10.77.0.128-10.77.0.200",
    "fib daddr type local",
    "fib daddr type != local",
    "meta nfproto ipv6",
    "tcp dport { 22, 80 }",
    "th sport != 53",
    "udp dport 53",
    "udp sport < 53",
    "meta l4proto tcp",
    "meta l4proto != { tcp, icmp }",
    "tcp dport >= 80",
    "icmp type echo-request",
    "meta l4proto . th dport { tcp . 7, udp . 53 }",
    "ip daddr . tcp dport { 10.77.0.3 . 80, 10.77.0.12 . 7 }",
    "iifname { IF, lo }",
    "oifname != { eth0, lo }",
    "ip saddr { 10.77.0.2, 10.77.0.9 }",
    "ip daddr { 10.9.0.0/16, 10.77.0.0-10.77.0.99, 172.16.0.0/12 }",
    "ip saddr != { 10.9.0.0/16, 172.16.0.0/12 }",
    "ip saddr . ip daddr { 10.77.0.2 . 10.77.0.3, 10.77.0.3 . 10.77.0.2 }",
    "iifname . ip daddr { IF . 10.77.0.0/24, eth0 . 10.0.0.0/8 }",
];
const VERDICTS: [&str; 9] = [
    "accept",
    "accept",
    "drop",
    "return",
    "iifname vmap { IF : accept, eth0 : drop }",
    "oifname vmap { eth0 : accept, lo : drop }",
    "tcp dport vmap { 1-79 : drop, 80 : accept }",
    "ip saddr vmap { 10.77.0.0/25 : jump own, 172.16.0.0/12 : drop }",
    "jump own",
];

/// One random rule set.
struct Rules {
    /// The commands that add it; some are refused.
    lines: Vec<String>,
    /// The file of nft(8) that adds it; none if it is of iptables.
    file: String,
}

fn of_iptables(program: &str, pick: &mut impl FnMut(usize) -> usize) -> Rules {
    // Encrypted packets pass in any case.
    let outer = [
        "-t nat -A PREROUTING ! -i IF -j ACCEPT",
        "-t nat -A POSTROUTING ! -o IF -j ACCEPT",
        "-t raw -A PREROUTING ! -i IF -j ACCEPT",
        "-N OWN",
    ];
    let mut lines = outer.map(str::to_owned).to_vec();
    let conditions = |pick: &mut dyn FnMut(usize) -> usize, without: &str| {
        let [one, two] = [(); 2].map(|()| CONDITIONS[pick(CONDITIONS.len())]);
        // The same option twice is refused.
        let option = |text: &str| text.replace("! ", "").chars().take(2).collect::<String>();
        let two = if option(one) == option(two) { "" } else { two };
        let all = [one, two].map(|text| if option(text) == without { "" } else { text });
        all.join(" ")
    };
    for (chain, targets) in [("OWN", 4), ("FORWARD", TARGETS.len())] {
        for _ in 0..pick(4) {
            let target = TARGETS[pick(targets)];
            lines.push(format!("-A {chain} {} {target}", conditions(pick, "none")));
        }
    }
    for (chain, without, targets) in OTHERS {
        if pick(3) == 0 {
            let target = targets[pick(targets.len())];
            lines.push(format!("{chain} {} {target}", conditions(pick, without)));
        }
    }
    lines.push(format!("-P FORWARD {}", ["ACCEPT", "DROP"][pick(2)]));
    let lines = lines.iter().map(|line| format!("{program} {line}")).collect();
    Rules { lines, file: String::new() }
}

fn of_nft(pick: &mut impl FnMut(usize) -> usize) -> Rules {
    let mut rules = |count: usize, verdicts: &[&str]| {
        (0..pick(count))
            .map(|_| {
                let [one, two] = [(); 2].map(|()| EXPRESSIONS[pick(EXPRESSIONS.len())]);
                format!("{one} {two} {}\n", verdicts[pick(verdicts.len())])
            })
            .collect::<String>()
    };
    let (own, forward) = (rules(4, &VERDICTS[..7]), rules(5, &VERDICTS));
    let early = rules(
        2,
        &[
            "accept",
            "return",
            "dnat to 10.77.0.3",
            "dnat to 172.17.0.2",
            "udp dport 7 dnat to 10.77.0.3",
        ],
    );
    let late = rules(2, &["accept", "masquerade", "snat to 10.77.0.9"]);
    let policy = ["accept", "drop"][pick(2)];
    let base = |kind: &str, hook: &str, policy: &str| {
        format!("type {kind} hook {hook} priority 0; policy {policy};")
    };
    let file = format!(
        "table ip t {{\nchain own {{\n{own}}}\n\
         chain f {{\n{}\n{forward}}}\n\
         chain d {{\n{}\niifname != IF accept\n{early}}}\n\
         chain s {{\n{}\noifname != IF accept\n{late}}}\n}}\n",
        base("filter", "forward", policy),
        base("nat", "prerouting", "accept"),
        base("nat", "postrouting", "accept"),
    );
    Rules { lines: Vec::new(), file }
}

/// The text with the addresses and names of this IP version, made from that for IPv4.
fn of_family(text: &str, family: Family) -> String {
    const V6: [(&str, &str); 22] = [
        ("iptables", "ip6tables"),
        ("table ip ", "table ip6 "),
        ("ip saddr", "ip6 saddr"),
        ("ip daddr", "ip6 daddr"),
        ("nfproto ipv6", "nfproto ipv4"),
        ("-m icmp --icmp-type", "-m icmp6 --icmpv6-type"),
        ("-m icmp ! --icmp-type", "-m icmp6 ! --icmpv6-type"),
        ("-p icmp ", "-p icmpv6 "),
        ("{ tcp, icmp }", "{ tcp, ipv6-icmp }"),
        ("icmp type", "icmpv6 type"),
        ("--to-destination 10.77.0.3:80", "--to-destination [fd77::3]:80"),
        ("10.77.0.0-10.77.0.99", "fd77::-fd77::99"),
        ("10.77.0.128-10.77.0.200", "fd77::128-fd77::200"),
        ("10.77.0.0/28", "fd77::/124"),
        ("10.77.0.0/25", "fd77::/121"),
        ("10.77.0.0/24", "fd77::/64"),
        ("10.77.0.2/31", "fd77::2/127"),
        ("10.77.0.8/29", "fd77::10/124"),
        ("10.9.0.0/16", "fd09::/16"),
        ("10.0.0.0/8", "fd00::/8"),
        ("10.77.0.", "fd77::"),
        ("172.1", "fd17::1"),
    ];
    if family == Family::V4 {
        return text.to_owned();
    }
    let text = V6.into_iter().fold(text.to_owned(), |text, (v4, v6)| text.replace(v4, v6));
    // What is left of networks and addresses that begin with 172.1.
    let text = text.replace("fd17::16.0.0/", "fd17::/").replace("fd17::17.0.0/", "fd17::/");
    text.replace("fd17::17.0.2", "fd17::2")
}

fn address(host: u8, family: Family) -> String {
    of_family(&format!("10.77.0.{host}"), family)
}

/// Gives both peers their second addresses.
fn add_addresses(relay: &Relay) {
    for (index, daemon) in [&relay.alice, &relay.bob].into_iter().enumerate() {
        let Daemon { namespace, interface, .. } = daemon;
        let hosts = PAIRS.map(|pair| pair[index]);
        let [own, of_other] = [index, 1 - index].map(|at| PAIRS[1][at]);
        let mut allowed = Vec::new();
        for (family, option, length) in [(Family::V4, "", 32), (Family::V6, "-6 ", 128)] {
            allowed.extend(hosts.map(|host| format!("{}/{length}", address(host, family))));
            let (own, other) = (address(own, family), address(of_other, family));
            namespace.run(&format!("ip address add {own}/{length} dev {interface} nodad"));
            let route = format!("{other}/{length} dev {interface} src {own}");
            namespace.run(&format!("ip {option}route add {route}"));
        }
        let key = daemon.key.public();
        relay.hub.set(&format!("peer {key} allowed-ips {}", allowed.join(",")));
    }
}

/// Whole conversations in both directions, of every pair. Returns whom the servers saw, in order.
fn converse(relay: &Relay, family: Family, patience: Duration) -> Vec<String> {
    relay.hub.namespace.run("conntrack -F");
    let mut seen = Vec::new();
    for [of_alice, of_bob] in PAIRS.map(|pair| pair.map(|host| address(host, family))) {
        for (from, to) in [(&relay.alice.namespace, &of_bob), (&relay.bob.namespace, &of_alice)] {
            let wait = patience.as_secs_f64();
            let (sent, back) = ping(from, to, &format!("-c 2 -i 0.02 -W {wait}"));
            seen.push(format!("{to}: {back} of {sent}"));
            // In three fragments.
            let (sent, back) = ping(from, to, &format!("-c 1 -s 4000 -W {wait}"));
            seen.push(format!("{back} of {sent}"));
            let to = |port| SocketAddr::new(to.parse().expect("an address"), port);
            seen.extend(TCP_PORTS.map(|port| from.enter(|| by_tcp(to(port), patience))));
            seen.extend(UDP_PORTS.map(|port| from.enter(|| by_udp(to(port), patience))));
            seen.push(from.enter(|| by_udp(to(CLOSED_PORT), patience)));
        }
    }
    seen
}

/// A capture makes the policy hand everything to the kernel, so that one daemon shows both.
#[test]
#[ignore = "needs root: creates network namespaces"]
#[expect(clippy::disallowed_methods, reason = "the time of a test, not protocol time")]
fn conversations_end_the_same_way_whoever_forwards_them() {
    const PATIENCE: [Duration; 2] = [Duration::from_millis(250), Duration::from_millis(1500)];
    let relay = connected(Backend::Mmsg, "auto");
    let hub = &relay.hub.namespace;
    add_addresses(&relay);
    for peer in [&relay.alice.namespace, &relay.bob.namespace] {
        peer.sysctl("net.ipv4.icmp_ratelimit=0");
        peer.sysctl("net.ipv6.icmp.ratelimit=0");
    }
    let mut threads = Threads::default();
    for (family, pair) in Family::BOTH.into_iter().flat_map(|one| PAIRS.map(|pair| (one, pair))) {
        serve(&mut threads, &relay.alice.namespace, &address(pair[0], family));
        serve(&mut threads, &relay.bob.namespace, &address(pair[1], family));
    }
    expect(&relay, BOTH, "");
    let usual = Family::BOTH.map(|family| converse(&relay, family, PATIENCE[1]));
    let mut noise = noise();
    let mut pick = move |count: usize| (noise() % count as u64) as usize;
    let (start, mut sets, mut passing, mut partly) = (Instant::now(), 0, 0, 0);
    // A few random sets may all leave everything to the kernel.
    while sets < 6 || start.elapsed() < duration() || (passing.min(partly) == 0 && sets < SETS_MAX)
    {
        let family = Family::BOTH[sets / 3 % 2];
        let rules = match sets % 3 {
            0 => of_iptables("iptables-nft", &mut pick),
            1 => of_iptables("iptables-legacy", &mut pick),
            _ => of_nft(&mut pick),
        };
        let named = |text: &str| of_family(text, family).replace("IF", &relay.hub.interface);
        let added: Vec<&String> =
            rules.lines.iter().filter(|line| hub.attempt(&named(line)).is_ok()).collect();
        let is_file_added = hub.attempt_with("nft -f -", &named(&rules.file)).is_ok();
        std::thread::sleep(SETTLED);
        sets += 1;
        let (said_now, usual) = (said(&relay), &usual[usize::from(family == Family::V6)]);
        let (is_direct, is_partly) = (direct(&said_now) == BOTH, said_now.contains(", but some"));
        if is_direct || is_partly {
            passing += usize::from(is_direct);
            partly += usize::from(is_partly);
            let by_kernel = |patience| {
                let line = format!("tcpdump -n -w /dev/null -i {}", relay.hub.interface);
                let capture = hub.spawn(&relay.lab, &line);
                eventually(seconds(5), "the kernel forwards", || said(&relay).contains("capture"));
                let seen = converse(&relay, family, patience);
                drop(capture);
                eventually(seconds(5), &format!("it says again {said_now}"), || {
                    said(&relay) == said_now
                });
                seen
            };
            let both = |patience| (converse(&relay, family, patience), by_kernel(patience));
            // On a busy machine an answer may be late.
            let ends = PATIENCE.into_iter().map(both).find(|(one, other)| one == other);
            let (seen, _) = ends.unwrap_or_else(|| {
                let (one, other) = both(PATIENCE[1]);
                let text = format!("{family:?} {added:#?}\n{}", rules.file);
                panic!("directly: {one:?}\nby the kernel: {other:?}\n{said_now}\n{text}")
            });
            assert!(!is_direct || seen == *usual, "{seen:?} {family:?} {added:#?}\n{}", rules.file);
        }
        // Without tracked connections nothing has to settle. But TCP may end what was blocked.
        hub.run("conntrack -F");
        if is_file_added && !rules.file.is_empty() {
            hub.run(&named("nft delete table ip t "));
        }
        for program in ["iptables-nft", "iptables-legacy"].map(|name| of_family(name, family)) {
            hub.run(&format!("{program} -P FORWARD ACCEPT"));
            for table in ["filter", "nat", "mangle", "raw"] {
                hub.run(&format!("{program} -t {table} -F"));
            }
            hub.run(&format!("{program} -X"));
        }
        eventually(SETTLED_AGAIN, "it is direct again", || direct(&said(&relay)) == BOTH);
    }
    println!("{sets} rule sets: {passing} relayed directly, {partly} partly");
    assert!(passing > 0 && partly > 0);
}
