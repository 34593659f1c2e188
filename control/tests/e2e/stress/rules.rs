//! Random rule sets, judged by the relay policy and by the kernel: where the policy relays
//! directly, the kernel lets packets between peers pass.

use std::time::Duration;

use super::duration;
use crate::harness::{BOB, Backend, Family, eventually, noise, ping, seconds};
use crate::relay_auto::{BOTH, LATE, connected, direct, expect, said};

/// Time until every change has been noticed: legacy tables are polled every half second.
const SETTLED: Duration = Duration::from_millis(700);

const CONDITIONS: [&str; 16] = [
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
    "-m conntrack --ctstate RELATED,ESTABLISHED",
    "-s 10.77.0.0/24",
    "! -d 10.77.0.0/24",
];
const TARGETS: [&str; 6] = ["-j ACCEPT", "-j ACCEPT", "-j DROP", "-j RETURN", "-j OWN", "-g OWN"];

/// A capture makes the policy hand everything to the kernel, so that one daemon shows both.
#[test]
#[ignore = "needs root: creates network namespaces"]
#[expect(clippy::disallowed_methods, reason = "the time of a test, not protocol time")]
fn what_is_relayed_directly_the_kernel_lets_pass() {
    let relay = connected(Backend::Mmsg, "auto");
    let hub = &relay.hub.namespace;
    expect(&relay, BOTH, "");
    let mut noise = noise();
    let mut pick = move |count: usize| (noise() % count as u64) as usize;
    let (start, mut sets, mut passing) = (std::time::Instant::now(), 0, 0);
    while sets < 4 || start.elapsed() < duration() {
        let program = ["iptables-nft", "iptables-legacy"][pick(2)];
        let mut lines = vec!["-N OWN".to_owned()];
        for (chain, targets) in [("OWN", 4), ("FORWARD", TARGETS.len())] {
            for _ in 0..pick(4) {
                let (one, two) = (CONDITIONS[pick(16)], CONDITIONS[pick(16)]);
                // The same option twice is refused.
                let option =
                    |text: &str| text.replace("! ", "").chars().take(2).collect::<String>();
                let two = if option(one) == option(two) { "" } else { two };
                lines.push(format!("-A {chain} {one} {two} {}", TARGETS[pick(targets)]));
            }
        }
        lines.push(format!("-P FORWARD {}", ["ACCEPT", "DROP"][pick(2)]));
        let text = lines.join("\n").replace("IF", &relay.hub.interface);
        text.lines().for_each(|line| drop(hub.run(&format!("{program} {line}"))));
        std::thread::sleep(SETTLED);
        sets += 1;
        if direct(&said(&relay)) == BOTH {
            passing += 1;
            let line = format!("tcpdump -n -w /dev/null -i {}", relay.hub.interface);
            let capture = hub.spawn(&relay.lab, &line);
            eventually(seconds(5), "the kernel forwards", || said(&relay).contains("capture"));
            let counts = ping(&relay.alice.namespace, BOB.inner(Family::V4), "-c 3 -i 0.02 -W 1");
            assert_eq!(counts, (3, 3), "{program}:\n{text}");
            drop(capture);
        }
        for line in ["-P FORWARD ACCEPT", "-F FORWARD", "-F OWN", "-X OWN"] {
            hub.run(&format!("{program} {line}"));
        }
        eventually(LATE, "it is direct again", || direct(&said(&relay)) == BOTH);
    }
    println!("{sets} rule sets, {passing} of them relayed directly");
    assert!(passing > 0);
}
