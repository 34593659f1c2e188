//! The daemon's view of its interface: what changes without a plain event, and what was missed.

use nix::sys::signal::Signal;

use crate::harness::{
    Backend, DF, Daemon, Draft, IcmpError, Lab, MTU, Observed, Program, RelayMode, Testbed,
    TestbedOptions, eventually, seconds, trim,
};

/// The interface leaves its namespace and comes back with another index while the daemon does not
/// look; another interface has the old index.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_new_index_is_noticed() {
    let mut testbed = Testbed::new(&TestbedOptions::new(Backend::Mmsg, RelayMode::Direct));
    let (hub, interface) = (testbed.hub.namespace.clone(), testbed.hub.interface.clone());
    let inside = testbed.lab.namespace("inside");
    let last_hop = Draft::udp("10.77.0.2", "10.77.0.3", 60).hop_limit(1).build();
    let is_answered = |testbed: &mut Testbed| {
        let Observed { alice, .. } = testbed.observe(&last_hop);
        alice.into_iter().any(|packet| IcmpError::read(&trim(packet)).is_some())
    };
    eventually(seconds(2), "an ICMP error", || is_answered(&mut testbed));
    let index = hub.run(&format!("cat /sys/class/net/{interface}/ifindex"));
    testbed.hub.signal(Signal::SIGSTOP);
    hub.run(&format!("ip link set {interface} netns {}", inside.name()));
    hub.run(&format!("ip link add filler index {} type veth peer name filler1", index.trim()));
    inside.run(&format!("ip link set {interface} netns {}", hub.name()));
    testbed.hub.signal(Signal::SIGCONT);
    testbed.hub.bring_up(MTU as u32, &["10.77.0.1/24", "fd77::1/64"]);
    let other = hub.run(&format!("cat /sys/class/net/{interface}/ifindex"));
    assert_ne!(other, index);
    testbed.alice.connect();
    testbed.bob.connect();
    eventually(seconds(2), "an ICMP error again", || is_answered(&mut testbed));
}

/// The process has no descriptor left just when its interface is moved.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_lost_interface_is_looked_for_again() {
    let (daemon, lab) = Daemon::alone(Backend::Uring);
    let inside = lab.namespace("inside");
    let limit = |files: &str| {
        let pid = daemon.pid();
        daemon.namespace.run(&format!("prlimit --pid {pid} --nofile={files}:"));
    };
    let says = |text: &str| eventually(seconds(3), text, || daemon.log().contains(text));
    let interface = &daemon.interface;
    limit("8");
    daemon.namespace.run(&format!("ip link set {interface} netns {}", inside.name()));
    says("link monitoring failed");
    limit("1024");
    says("link monitoring resumed");
    inside.run(&format!("ip link set {interface} mtu 1400 up"));
    says("link is up (MTU 1400)");
    assert_eq!(daemon.log().matches("link monitoring failed").count(), 1);
}

/// `net.ipv6.conf.IF.mtu` bounds forwarded packets below the link's MTU; a change raises no event.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn the_ipv6_mtu_of_the_interface_is_honoured() {
    let mut testbed = Testbed::new(&TestbedOptions::new(Backend::Uring, RelayMode::Direct));
    let v6 = Draft::udp("fd77::2", "fd77::3", 1400 - 48).build();
    let v4 = Draft::udp("10.77.0.2", "10.77.0.3", 1400 - 28).fragment(DF).build();
    let is_forwarded =
        |testbed: &mut Testbed, packet: &[u8]| !testbed.observe(packet).bob.is_empty();
    eventually(seconds(2), "both are relayed", || {
        is_forwarded(&mut testbed, &v6) && is_forwarded(&mut testbed, &v4)
    });
    let interface = testbed.hub.interface.clone();
    testbed.hub.namespace.sysctl(&format!("net.ipv6.conf.{interface}.mtu=1300"));
    eventually(seconds(2), "packet too big", || {
        let Observed { alice, bob, .. } = testbed.observe(&v6);
        let error = alice.into_iter().find_map(|packet| IcmpError::read(&trim(packet)));
        error.is_some_and(|error| {
            assert!(bob.is_empty(), "either relayed or refused");
            (error.kind, error.code, error.word) == (2, 0, 1300)
        })
    });
    assert!(is_forwarded(&mut testbed, &v4), "IPv4 is not concerned");
}

/// In many containers /proc/sys is read-only: the kernel sends nothing of its own all the same.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn read_only_settings_do_not_matter() {
    let lab = Lab::new();
    let namespace = lab.namespace("alone");
    namespace.sysctl("net.ipv4.conf.default.send_redirects=1");
    let script = "mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys \
                  && exec \"$0\" \"$@\"";
    let wrapper = ["unshare", "--mount", "sh", "-c", script];
    let program = Program::Ours(Backend::Mmsg);
    let daemon = Daemon::start_under(&wrapper, &lab, &namespace, "alone", program, &[]);
    daemon.bring_up(MTU as u32, &["10.77.0.1/24"]);
    let addresses = namespace.run(&format!("ip -6 address show dev {}", daemon.interface));
    assert!(!addresses.contains("fe80:"), "{addresses}");
    let path = format!("/proc/sys/net/ipv4/conf/{}/send_redirects", daemon.interface);
    assert_eq!(namespace.run(&format!("cat {path}")).trim(), "0");
}
