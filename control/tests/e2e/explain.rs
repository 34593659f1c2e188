//! `wg-bounce explain`: the outcome for two addresses, and the rules that lead there.

use crate::harness::{Backend, Outcome, Program, RelayMode, Testbed, TestbedOptions, seconds};
use crate::relay_direct::expect_log_within;

const ALICE: &str = "10.77.0.2";
const BOB: &str = "10.77.0.3";

fn ask(testbed: &Testbed, words: &str, interface: &str) -> Outcome {
    let line = format!("{} explain {words} --on {interface}", Program::under_test().display());
    testbed.hub.namespace.attempt(&line)
}

/// Asks about two addresses, and expects all of `parts` in the answer, in this order.
#[track_caller]
fn expect(testbed: &Testbed, pair: [&str; 2], parts: &[&str]) {
    let answer = ask(testbed, &pair.join(" "), &testbed.hub.interface);
    assert!(answer.is_ok(), "{answer:#?}");
    let mut rest = answer.stdout.as_str();
    for part in parts {
        let Some(at) = rest.find(part) else { panic!("{part:?} is not in {answer:#?}") };
        rest = &rest[at + part.len()..];
    }
}

fn the_rules_of_a_pair_are_named(backend: Backend) {
    let testbed = Testbed::new(&TestbedOptions::new(backend, RelayMode::Auto));
    let run = |line: &str| drop(testbed.hub.namespace.run(line));
    let back = format!("route: back into {}\n", testbed.hub.interface);
    let both = ["outcome: direct\n", "from 10.77.0.2 to", &back, "from 10.77.0.3 to", &back];
    expect(&testbed, [ALICE, BOB], &["10.77.0.2 is of peer ", "10.77.0.3 is of peer "]);
    expect(&testbed, [ALICE, BOB], &both);
    expect(&testbed, ["fd77::2", "fd77::3"], &["outcome: direct\n"]);

    for (program, chain) in [
        ("iptables-nft", "nftables: chain FORWARD of table ip filter, hook forward, priority 0\n"),
        ("iptables-legacy", "iptables-legacy: chain FORWARD of table filter, priority 0\n"),
    ] {
        for rule in [
            "-N OWN",
            "-A OWN -s 10.77.2.0/24 -j DROP",
            "-A OWN -s 10.77.0.2 -d 10.77.0.3 -j DROP",
            "-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT",
            "-A FORWARD -d 10.77.0.0/24 -j OWN",
        ] {
            run(&format!("{program} {rule}"));
        }
        // The answer is about the rules as they are now.
        let parts = [
            "outcome: by the kernel, because of what follows\n",
            "from 10.77.0.2 to 10.77.0.3\n",
            chain,
            "    chain FORWARD, rule ",
            ", if it matches: accepts [ct state … accept]\n    chain FORWARD, rule ",
            ": jumps to OWN [ip daddr 10.77.0.0/24 jump OWN]\n      chain OWN, rule ",
            ": drops [ip saddr 10.77.0.2 ip daddr 10.77.0.3 drop]\n    so by the kernel\n",
            "from 10.77.0.3 to 10.77.0.2\n",
            ": jumps to OWN [ip daddr 10.77.0.0/24 jump OWN]\n",
            "    policy: accepts\n",
            "help: an accept of these packets before that rule, in the same base chain, ",
        ];
        expect(&testbed, [ALICE, BOB], &parts);
        let parts = [
            "outcome: direct, but some ICMP errors and fragments by the kernel\n",
            "policy: accepts\n",
        ];
        expect(&testbed, [ALICE, "10.88.0.1"], &parts);
        run("conntrack -F");
        run(&format!("{program} -F"));
        run(&format!("{program} -X"));
    }
    let clamp = "FORWARD -t mangle -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1000";
    run(&format!("iptables-nft -A {clamp}"));
    let parts = [
        "outcome: direct, but TCP SYN, fragments and packets without a whole transport header by \
         the kernel\n",
        "if it matches: sets the MSS (TCPMSS) [",
    ];
    expect(&testbed, [ALICE, BOB], &parts);
    run(&format!("iptables-nft -D {clamp}"));
    let nat = "PREROUTING -t nat -d 10.96.0.1 -p udp -m udp --dport 53 -j DNAT --to 10.77.0.3";
    run(&format!("iptables-nft -A {nat}"));
    let parts = [
        "outcome: direct, but some protocols or ports (`tcp PORT` or `udp PORT` asks about one), ",
        "may translate to a peer's address",
    ];
    expect(&testbed, [ALICE, BOB], &parts);
    let parts = [
        "outcome: by the kernel, because of what follows\n",
        "perhaps because",
        "may translate to a peer's address",
        "from 10.77.0.2 to 10.77.0.3, port 53\n",
        "from 10.77.0.3 to 10.77.0.2, from port 53\n",
    ];
    expect(&testbed, [ALICE, "10.77.0.3 udp 53"], &parts);
    expect(&testbed, [ALICE, "10.77.0.3 tcp 53"], &["outcome: direct, but fragments"]);
    run("conntrack -F");
    run(&format!("iptables-nft -D {nat}"));

    let interface = &testbed.hub.interface;
    run("ip route replace 10.88.0.0/16 via 192.0.2.2");
    let parts = [
        "outcome from 10.77.0.2 to 10.88.0.1: by the kernel, because of its route\n",
        "outcome from 10.88.0.1 to 10.77.0.2: direct\n",
        "route: out of another interface, or possibly so\n",
    ];
    expect(&testbed, [ALICE, "10.88.0.1"], &parts);
    run(&format!("ip route replace 10.88.0.0/16 dev {interface}"));
    for (pair, parts) in [
        ([ALICE, "10.9.9.9"], ["10.9.9.9 is of no peer\n", "not relayed: not between peers\n"]),
        ([ALICE, "10.77.2.1"], ["10.77.2.1 is of peer", "not relayed: both are of one peer\n"]),
    ] {
        expect(&testbed, pair, &parts);
    }
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn other_modes_are_explained() {
    let testbed = Testbed::new(&TestbedOptions::new(Backend::Mmsg, RelayMode::Kernel));
    expect(&testbed, [ALICE, BOB], &["outcome: by the kernel (--relay kernel)\n"]);
    let testbed = Testbed::new(&TestbedOptions::new(Backend::Mmsg, RelayMode::Direct));
    testbed.hub.namespace.run("iptables-nft -A FORWARD -s 10.77.0.2 -j DROP");
    expect(
        &testbed,
        [ALICE, BOB],
        &["outcome: direct, past all rules\n", ": drops [ip saddr 10.77.0.2 drop]\n    bypassed\n"],
    );
    testbed.hub.namespace.sysctl("net.ipv4.ip_forward=0");
    expect_log_within(seconds(2), &testbed, "IPv4 dropped");
    expect(&testbed, [ALICE, BOB], &["outcome: dropped, as all packets between peers\n"]);
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn wrong_questions_are_refused() {
    let testbed = Testbed::new(&TestbedOptions::new(Backend::Mmsg, RelayMode::Auto));
    for (words, code, reason) in [
        ("10.77.0.2 fd77::3", 2, "are of different IP versions"),
        ("10.77.0.2 bob", 2, "invalid value 'bob' for '<DST>'"),
        ("10.77.0.2", 2, "required arguments were not provided"),
        ("10.77.0.2 10.77.0.3 tcp", 2, "required arguments were not provided"),
        ("10.77.0.2 10.77.0.3 sctp 7", 2, "invalid value 'sctp' for '[tcp|udp]'"),
    ] {
        let answer = ask(&testbed, words, &testbed.hub.interface);
        assert_eq!(answer.code, Some(code), "{answer:#?}");
        assert!(answer.stderr.contains(reason), "{answer:#?}");
    }
    let answer = ask(&testbed, "10.77.0.2 10.77.0.3", "none9");
    assert!(answer.stderr.contains("cannot ask at"), "{answer:#?}");
}

on_both_backends!(the_rules_of_a_pair_are_named);
