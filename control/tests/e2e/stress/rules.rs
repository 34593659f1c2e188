//! Random rule sets, judged by the relay policy and by the kernel: where the policy relays
//! directly, the kernel lets conversations between peers pass, and translates nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::duration;
use crate::harness::{
    ALICE, BOB, Backend, Family, Namespace, Relay, Threads, eventually, noise, ping, seconds,
};
use crate::relay_auto::{BOTH, LATE, connected, direct, expect, said};

/// Time until every change has been noticed: legacy tables are polled every half second.
const SETTLED: Duration = Duration::from_millis(700);

const TCP_PORTS: [u16; 2] = [7, 80];
const UDP_PORTS: [u16; 2] = [7, 53];

const CONDITIONS: [&str; 27] = [
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
    "-m addrtype --dst-type LOCAL",
    "-m addrtype ! --dst-type LOCAL",
    "-p icmp -m icmp --icmp-type echo-request",
    "-p tcp -m multiport --dports 22,80",
    "-p udp -m udp --dport 53",
    "-p tcp -m tcp ! --sport 80",
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

const EXPRESSIONS: [&str; 29] = [
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
    "ip daddr 10.77.0.128-10.77.0.200",
    "fib daddr type local",
    "fib daddr type != local",
    "meta nfproto ipv6",
    "tcp dport { 22, 80 }",
    "th sport != 53",
    "iifname { IF, lo }",
    "oifname != { eth0, lo }",
    "ip saddr { 10.77.0.2, 10.77.0.9 }",
    "ip daddr { 10.9.0.0/16, 10.77.0.0-10.77.0.99, 172.16.0.0/12 }",
    "ip saddr != { 10.9.0.0/16, 172.16.0.0/12 }",
    "ip saddr . ip daddr { 10.77.0.2 . 10.77.0.3, 10.77.0.3 . 10.77.0.2 }",
    "iifname . ip daddr { IF . 10.77.0.0/24, eth0 . 10.0.0.0/8 }",
];
const VERDICTS: [&str; 8] = [
    "accept",
    "accept",
    "drop",
    "return",
    "iifname vmap { IF : accept, eth0 : drop }",
    "oifname vmap { eth0 : accept, lo : drop }",
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
    let (own, forward) = (rules(4, &VERDICTS[..6]), rules(5, &VERDICTS));
    let early = rules(2, &["accept", "return", "dnat to 10.77.0.3", "dnat to 172.17.0.2"]);
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

/// Servers at every port that say whom they see.
fn serve(threads: &mut Threads, namespace: &Namespace, address: &str) {
    for port in TCP_PORTS {
        let listener = namespace.enter(|| TcpListener::bind((address, port)).expect("free"));
        listener.set_nonblocking(true).expect("a listener");
        threads.repeat(move || match listener.accept() {
            // A client that is gone does not matter.
            Ok((mut stream, from)) => drop(stream.write_all(from.ip().to_string().as_bytes())),
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        });
    }
    for port in UDP_PORTS {
        let socket = namespace.udp_socket(&format!("{address}:{port}"));
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("not zero");
        threads.repeat(move || {
            if let Ok((_, from)) = socket.recv_from(&mut [0; 8]) {
                let _ = socket.send_to(from.ip().to_string().as_bytes(), from);
            }
        });
    }
}

/// What the other end says at one port; empty if nothing comes.
fn by_tcp(to: SocketAddr) -> String {
    let mut text = String::new();
    if let Ok(mut stream) = TcpStream::connect_timeout(&to, seconds(1)) {
        let _ = stream.set_read_timeout(Some(seconds(1)));
        let _ = stream.read_to_string(&mut text);
    }
    text
}

fn by_udp(to: SocketAddr) -> String {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a port is free");
    let _ = socket.set_read_timeout(Some(seconds(1)));
    let mut text = [0; 64];
    let _ = socket.connect(to).and_then(|()| socket.send(b"whom?"));
    let length = socket.recv(&mut text).unwrap_or(0);
    String::from_utf8_lossy(&text[..length]).into_owned()
}

/// Whole conversations in both directions. Returns whom the servers saw, in order.
fn converse(relay: &Relay) -> Vec<String> {
    let mut seen = Vec::new();
    let (alice, bob) = (ALICE.inner(Family::V4), BOB.inner(Family::V4));
    for (from, to) in [(&relay.alice.namespace, bob), (&relay.bob.namespace, alice)] {
        let (sent, back) = ping(from, to, "-c 2 -i 0.02 -W 1");
        seen.push(format!("{back} of {sent}"));
        let to = |port| SocketAddr::new(to.parse().expect("an address"), port);
        seen.extend(TCP_PORTS.map(|port| from.enter(|| by_tcp(to(port)))));
        seen.extend(UDP_PORTS.map(|port| from.enter(|| by_udp(to(port)))));
    }
    seen
}

/// A capture makes the policy hand everything to the kernel, so that one daemon shows both.
#[test]
#[ignore = "needs root: creates network namespaces"]
#[expect(clippy::disallowed_methods, reason = "the time of a test, not protocol time")]
fn what_is_relayed_directly_the_kernel_lets_pass() {
    let relay = connected(Backend::Mmsg, "auto");
    let hub = &relay.hub.namespace;
    let mut threads = Threads::default();
    serve(&mut threads, &relay.bob.namespace, BOB.inner(Family::V4));
    serve(&mut threads, &relay.alice.namespace, ALICE.inner(Family::V4));
    expect(&relay, BOTH, "");
    let usual = converse(&relay);
    let mut noise = noise();
    let mut pick = move |count: usize| (noise() % count as u64) as usize;
    let (start, mut sets, mut passing) = (Instant::now(), 0, 0);
    while sets < 6 || start.elapsed() < duration() {
        let rules = match sets % 3 {
            0 => of_iptables("iptables-nft", &mut pick),
            1 => of_iptables("iptables-legacy", &mut pick),
            _ => of_nft(&mut pick),
        };
        let named = |text: &str| text.replace("IF", &relay.hub.interface);
        let added: Vec<&String> =
            rules.lines.iter().filter(|line| hub.attempt(&named(line)).is_ok()).collect();
        let is_file_added = hub.attempt_with("nft -f -", &named(&rules.file)).is_ok();
        std::thread::sleep(SETTLED);
        sets += 1;
        if direct(&said(&relay)) == BOTH {
            passing += 1;
            let text = || format!("{added:#?}\n{}", rules.file);
            assert_eq!(converse(&relay), usual, "directly: {}", text());
            let line = format!("tcpdump -n -w /dev/null -i {}", relay.hub.interface);
            let capture = hub.spawn(&relay.lab, &line);
            eventually(seconds(5), "the kernel forwards", || said(&relay).contains("capture"));
            assert_eq!(converse(&relay), usual, "by the kernel: {}", text());
            drop(capture);
        }
        // Without tracked connections nothing has to settle.
        hub.run("conntrack -F");
        if is_file_added && !rules.file.is_empty() {
            hub.run("nft delete table ip t");
        }
        for program in ["iptables-nft", "iptables-legacy"] {
            hub.run(&format!("{program} -P FORWARD ACCEPT"));
            for table in ["filter", "nat", "mangle", "raw"] {
                hub.run(&format!("{program} -t {table} -F"));
            }
            hub.run(&format!("{program} -X"));
        }
        eventually(LATE, "it is direct again", || direct(&said(&relay)) == BOTH);
    }
    println!("{sets} rule sets, {passing} of them relayed directly");
    assert!(passing > 0);
}
