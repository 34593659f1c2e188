//! A full routing table that churns while packets are relayed.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::duration;
use crate::harness::{BOB, Backend, Family, Options, Relay, eventually, holds_for, seconds};

/// Routes of the table: a tenth of the Internet's.
const ROUTES: u32 = 100_000;
/// Most of one core that the thread which follows them may use.
const SHARE_MAX: f64 = 0.5;

/// 100,000 routes are inserted and replaced without pause: the thread that follows them leaves the
/// core to the workers, and no packet takes the slow path.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_table_that_churns_does_not_disturb() {
    let mut options = Options::new(Backend::Uring);
    options.environment.push(("WG_BOUNCE_RELAY", "auto"));
    let relay = Relay::connected(&options);
    let is_direct = || relay.hub.log().contains("relay: IPv4 and IPv6 direct");
    eventually(seconds(2), "direct", is_direct);

    let mut script = String::from("while :; do\n");
    for device in ["lo", "mallory"] {
        let mut table = String::new();
        for number in 0..ROUTES {
            let address = Ipv4Addr::from_bits(0x1400_0000 + number);
            let _ = writeln!(table, "route replace {address}/32 dev {device}");
        }
        let path = relay.lab.file(device);
        std::fs::write(&path, table).expect("the lab's directory is writable");
        let _ = writeln!(script, "ip -batch {}", path.display());
    }
    script.push_str("done\n");
    let path = relay.lab.file("churn");
    std::fs::write(&path, script).expect("the lab's directory is writable");
    let _churn = relay.hub.namespace.spawn(&relay.lab, &format!("sh {}", path.display()));
    let line = format!("ping -n -q -i 0.002 {}", BOB.inner(Family::V4));
    let _traffic = relay.alice.namespace.spawn(&relay.lab, &line);
    let changes = || relay.hub.namespace.run("ip -s route show 20.0.0.0/32").len();
    eventually(seconds(10), "routes appear", || changes() > 0);

    let arrived = || relay.bob.transfer_with(&relay.hub.key).0;
    let (frames, bytes) = (frames(&relay), arrived());
    let before = processor_seconds(relay.hub.pid(), "relay-policy");
    holds_for(duration(), "direct", || {
        relay
            .hub
            .log()
            .lines()
            .rfind(|line| line.contains(" relay: IPv4"))
            .is_some_and(|line| line.contains("IPv4 and IPv6 direct"))
    });
    let share =
        (processor_seconds(relay.hub.pid(), "relay-policy") - before) / duration().as_secs_f64();
    println!("relay-policy: {share:.2} of a core, {} bytes arrived", arrived() - bytes);
    assert_eq!(self::frames(&relay) - frames, 0, "frames through the TUN");
    assert!(arrived() - bytes > 10_000, "packets arrive");
    assert!(share < SHARE_MAX, "{share:.2} of a core");
}

/// Packets received by the kernel on the hub's interface.
fn frames(relay: &Relay) -> u64 {
    let path = format!("/sys/class/net/{}/statistics/rx_packets", relay.hub.interface);
    relay.hub.namespace.run(&format!("cat {path}")).trim().parse().expect("a number")
}

/// Processor time of the thread of a process with this name.
fn processor_seconds(pid: u32, name: &str) -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").flatten() {
        let text = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        let Some((head, tail)) = text.rsplit_once(") ") else { continue };
        if head.ends_with(&format!("({name}")) {
            // User and system time are fields 14 and 15; the tail begins with field 3.
            let fields: Vec<&str> = tail.split(' ').collect();
            let ticks = |field: usize| fields[field].parse::<f64>().expect("a number");
            return (ticks(11) + ticks(12)) / TICKS_PER_SECOND;
        }
    }
    panic!("no thread {name}");
}
