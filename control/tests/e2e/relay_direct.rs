//! `--relay direct` while the daemon cannot see whether, or where to, the kernel would forward:
//! nothing of another peer reaches the kernel, whose routes lead out of another interface.

use std::time::Duration;

use crate::harness::{
    Backend, Counter, DF, DefaultRoute, Draft, Family, RelayMode, Testbed, TestbedOptions,
    eventually, seconds, slow_reads,
};

/// A hub whose kernel routes some of bob's addresses out of another interface.
fn options() -> TestbedOptions {
    TestbedOptions {
        bob: "10.77.0.3/32,10.99.0.0/16,fd77::3/128,fd99::99/128",
        default_route: DefaultRoute::Elsewhere,
        ..TestbedOptions::new(Backend::Uring, RelayMode::Direct)
    }
}

/// Packets from alice for bob, of every way through the router.
fn packets() -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    for family in Family::BOTH {
        let (alice, bob, astray) = match family {
            Family::V4 => ("10.77.0.2", "10.77.0.3", "10.99.0.1"),
            Family::V6 => ("fd77::2", "fd77::3", "fd99::99"),
        };
        packets.extend([
            Draft::udp(alice, astray, 60).build(),
            Draft::udp(alice, bob, 60).build(),
            Draft::udp(alice, astray, 60).hop_limit(1).build(),
            // Larger than the tunnel's MTU; the other interface has more room.
            Draft::udp(alice, astray, 1440).fragment(DF).build(),
        ]);
    }
    packets
}

/// The hub drops and counts all [`packets`], and still answers a ping of its own address.
#[track_caller]
fn expect_drops(testbed: &mut Testbed) {
    let before = testbed.hub.counter("drop_not_forwarded");
    let packets = packets();
    let seen = testbed.observe_all(|alice| packets.iter().for_each(|packet| alice.send(packet)));
    assert_eq!(seen.elsewhere, 0, "in clear text: {seen:?}\n{}", testbed.hub.log());
    assert_eq!((seen.entered, seen.alice.len(), seen.bob.len()), (0, 0, 0), "{seen:?}");
    let dropped = testbed.hub.counter("drop_not_forwarded") - before;
    assert_eq!(dropped, packets.len() as u64, "{}", testbed.hub.log());
}

#[track_caller]
fn expect_log(testbed: &Testbed, text: &str) {
    expect_log_within(seconds(2), testbed, text);
}

/// Waits until the hub's last line about relaying has `text`.
#[track_caller]
pub fn expect_log_within(limit: Duration, testbed: &Testbed, text: &str) {
    eventually(limit, text, || {
        let log = testbed.hub.log();
        log.lines()
            .rev()
            .find(|line| line.contains(" relay: IPv4"))
            .is_some_and(|line| line.contains(text))
    });
}

/// A container without the forwarding settings in its /proc, from the start.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn hidden_settings_let_nothing_out() {
    let script = "mount -t tmpfs none /proc/sys/net && exec \"$0\" \"$@\"";
    let wrapper: &[&str] = Box::leak(Box::new(["unshare", "--mount", "sh", "-c", script]));
    let mut testbed = Testbed::new(&TestbedOptions { wrapper, ..options() });
    expect_drops(&mut testbed);
    expect_log(&testbed, "IPv4 dropped (");
}

/// The kernel does not answer the daemon's first questions, as while another process holds its
/// lock of network settings.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn an_unanswered_first_question_lets_nothing_out() {
    // The testbed is ready after two seconds, or six on a busy machine.
    let path = "/proc/sys/net/ipv6/conf/all/forwarding";
    let wrapper = slow_reads(path, "delay_enter=10s:when=1");
    let mut testbed = Testbed::new(&TestbedOptions { wrapper, ..options() });
    expect_drops(&mut testbed);
    assert!(!testbed.hub.log().contains(" relay: IPv4"), "decided: {}", testbed.hub.log());
    eventually(seconds(15), "the first decision", || {
        testbed.hub.log().contains(" relay: IPv4 and IPv6 direct")
    });
}

/// The process has run out of descriptors: the settings cannot be read.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn exhausted_descriptors_let_nothing_out() {
    let mut testbed = Testbed::new(&options());
    expect_log(&testbed, "IPv4 and IPv6 direct");
    let limit = |files: &str| {
        let pid = testbed.hub.pid();
        testbed.hub.namespace.run(&format!("prlimit --pid {pid} --nofile={files}:"));
    };
    limit("8");
    expect_log(&testbed, "cannot read");
    limit("1024");
    expect_log(&testbed, "IPv4 and IPv6 direct");
    limit("8");
    expect_log(&testbed, "cannot read");
    expect_drops(&mut testbed);
}

/// The interface is moved into a namespace that the daemon may not enter.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_foreign_namespace_lets_nothing_out() {
    let wrapper = &["setpriv", "--bounding-set=-all,+net_admin", "--inh-caps=-all", "--"];
    let mut testbed = Testbed::new(&TestbedOptions { wrapper, ..options() });
    expect_log(&testbed, "IPv4 and IPv6 direct");
    let inside = testbed.lab.namespace("inside");
    testbed.lab.link((&inside, "elsewhere"), (&testbed.outside, "out2"), 1500);
    for name in ["ipv4.ip_forward", "ipv6.conf.all.forwarding"] {
        inside.sysctl(&format!("net.{name}=1"));
    }
    for (family, gateway) in [("-4", "198.51.100.2"), ("-6", "2001:db8:b::2")] {
        let address = "lladdr 02:00:00:00:00:02 nud permanent";
        inside.run(&format!("ip neighbour add {gateway} {address} dev elsewhere"));
        let route = format!("default via {gateway} dev elsewhere onlink");
        inside.run(&format!("ip {family} route add {route}"));
    }
    let rule = "oifname elsewhere meta l4proto udp";
    let elsewhere = Counter::new(&inside, "postrouting", rule);
    let interface = testbed.hub.interface.clone();
    testbed.hub.namespace.run(&format!("ip link set {interface} netns {}", inside.name()));
    inside.run(&format!("ip link set {interface} up"));
    expect_log(&testbed, "CAP_SYS_ADMIN");
    // The hub dropped its sessions when the link went down.
    testbed.alice.connect();
    testbed.bob.connect();
    let before = testbed.hub.counter("drop_not_forwarded");
    let packets = packets();
    for packet in &packets {
        testbed.alice.send(packet);
    }
    eventually(seconds(3), "the packets are dropped", || {
        assert_eq!(elsewhere.packets(), 0, "in clear text: {}", testbed.hub.log());
        testbed.hub.counter("drop_not_forwarded") - before == packets.len() as u64
    });
}

/// Between the moment when forwarding is switched on and the daemon's knowledge of it.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn forwarding_switched_on_lets_nothing_out() {
    let mut testbed = Testbed::new(&options());
    let hub = testbed.hub.namespace.clone();
    let set = |value: &str| {
        hub.enter(|| {
            for path in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                std::fs::write(format!("/proc/sys/net/{path}"), value).expect("writable");
            }
        });
    };
    let packets = packets();
    for _ in 0..4 {
        set("0");
        expect_log(&testbed, "forwarding is off");
        let seen = testbed.observe_all(|alice| {
            for round in 0..20 {
                packets.iter().for_each(|packet| alice.send(packet));
                if round == 5 {
                    set("1");
                }
            }
        });
        assert_eq!(seen.elsewhere, 0, "in clear text: {}", testbed.hub.log());
        expect_log(&testbed, "IPv4 and IPv6 direct");
    }
}
