//! A hub without an interface (`--tun off`), as a user without any privilege.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;

use super::hub::Hub;
use super::wait_until_up;
use crate::harness::{
    Backend, Background, Lab, Outcome, Program, ping, ping_until_answered, seconds,
};

const NOBODY: u32 = 65_534;

/// A user without capabilities.
const AS_NOBODY: [&str; 8] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--inh-caps=-all",
    "--bounding-set=-all",
    "--no-new-privs",
    "--",
];

/// That user as root of a user namespace of its own, as in a rootless container: its capabilities
/// are worth nothing in the network namespace.
const IN_USER_NAMESPACE: [&str; 9] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--",
    "unshare",
    "--user",
    "--map-root-user",
    "--",
];

/// A hub of an unprivileged user.
struct Unprivileged<'a> {
    set: Hub<'a>,
    directory: PathBuf,
    process: Background,
}

impl<'a> Unprivileged<'a> {
    fn new(lab: &'a Lab, backend: Backend, wrapper: &[&str]) -> Unprivileged<'a> {
        let set = Hub::new(lab, backend);
        // Readable and writable for that user.
        let directory = lab.file("user");
        fs::create_dir(&directory).expect("the lab's directory is writable");
        for directory in [directory.parent(), set.hub.file.parent()].into_iter().flatten() {
            fs::set_permissions(directory, Permissions::from_mode(0o755)).expect("our own");
        }
        chown(&directory, Some(NOBODY), Some(NOBODY)).expect("we are root");
        set.hub.write(&set.file("# wg-bounce: tun = off\nPostUp = iptables -A INPUT -j ACCEPT\n"));
        chown(&set.hub.file, Some(NOBODY), Some(NOBODY)).expect("we are root");
        // The kernel's forwarding does not matter.
        set.hub.namespace.sysctl("net.ipv4.ip_forward=0");
        let environment = format!("WG_BOUNCE_SOCKET_DIR={}", directory.display());
        let mut process = set.hub.start_under(wrapper, &environment);
        wait_until_up(&mut process, seconds(10));
        Unprivileged { set, directory, process }
    }

    fn command(&self, arguments: &str) -> Outcome {
        let program = Program::under_test();
        let line =
            format!("{} {arguments} --socket-dir {}", program.display(), self.directory.display());
        self.set.hub.namespace.attempt(&line)
    }

    fn reload(&self, text: &str) -> Outcome {
        fs::write(&self.set.hub.file, text).expect("a writable file");
        self.command(&format!("reload {}", self.set.hub.file.display()))
    }
}

/// Peers reach each other and the hub, which answers as a router and as a host.
fn peers_are_relayed_by(backend: Backend, wrapper: &[&str]) {
    let lab = Lab::new();
    let mut hub = Unprivileged::new(&lab, backend, wrapper);
    let interface = hub.set.hub.interface.clone();
    let log = hub.process.output();
    assert!(log.contains("--tun off: ignored, since they need an interface: PostUp"), "{log}");
    assert!(log.contains("no TUN"), "{log}");
    assert!(!hub.set.hub.has_interface());
    let [alice, bob] = &hub.set.clients;
    let mut clients = [alice.up(), bob.up()];
    ping_until_answered(&alice.namespace, "10.77.0.3");
    for target in ["10.77.0.3", "10.77.0.1"] {
        assert_eq!(ping(&alice.namespace, target, "-c 50 -i 0.01 -s 1000"), (50, 50), "{target}");
    }
    assert_eq!(ping(&alice.namespace, "10.77.0.1", "-c 2 -s 4000"), (2, 2), "in fragments");
    let on_last_hop = alice.namespace.attempt("ping -c 1 -W 1 -t 1 10.77.0.3").stdout;
    assert!(
        on_last_hop.contains("From 10.77.0.1 icmp_seq=1 Time to live exceeded"),
        "{on_last_hop}"
    );
    let unreachable = alice.namespace.attempt("ping -c 1 -W 1 10.77.0.9").stdout;
    assert!(
        unreachable.contains("From 10.77.0.1 icmp_seq=1 Destination Host Unreachable"),
        "{unreachable}"
    );
    let route =
        alice.namespace.attempt("mtr --report --report-cycles 2 --no-dns --udp 10.77.0.3").stdout;
    assert!(route.contains("1.|-- 10.77.0.1 ") && route.contains("2.|-- 10.77.0.3 "), "{route}");

    // Another address, a smaller MTU.
    let text = hub.set.file("# wg-bounce: tun = off\nAddress = 10.99.0.1/24\nMTU = 1300\n");
    hub.reload(&text).expect_ok();
    alice.namespace.run(&format!(
        "wg set {} peer {} allowed-ips 10.77.0.0/24,10.99.0.0/24",
        alice.interface,
        hub.set.keys[0].public()
    ));
    alice.namespace.run(&format!("ip route add 10.99.0.0/24 dev {}", alice.interface));
    assert_eq!(ping(&alice.namespace, "10.99.0.1", "-c 1"), (1, 1));
    let too_big = alice.namespace.attempt("ping -c 1 -W 1 -M do -s 1300 10.77.0.3").stdout;
    assert!(
        too_big.contains("From 10.77.0.1 icmp_seq=1 Frag needed and DF set (mtu = 1300)"),
        "{too_big}"
    );
    let mark = hub.set.file("# wg-bounce: tun = off\nFwMark = 7\n");
    let refused = hub.reload(&mark);
    assert!(
        refused.stderr.contains("may not set FwMark, which takes CAP_NET_ADMIN"),
        "{refused:?}"
    );
    let port = text.replace("51820", "99");
    let refused = hub.reload(&port);
    assert!(refused.stderr.contains("one below 1024 takes CAP_NET_BIND_SERVICE"), "{refused:?}");
    assert_eq!(ping(&alice.namespace, "10.99.0.1", "-c 1"), (1, 1));

    let shown = hub.command(&format!("show {interface}")).expect_ok();
    for expected in ["MTU: 1300", "direct (no interface: past the firewall", "(alice)"] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    hub.command(&format!("down {interface}")).expect_ok();
    assert_eq!(hub.process.exit_code(), Some(0));
    for (client, process) in hub.set.clients.iter().zip(&mut clients) {
        client.run("down");
        assert_eq!(process.exit_code(), Some(0));
    }
}

/// The directory of the sockets: a flag wins over the variable; others must not write to it.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn socket_directories() {
    let lab = Lab::new();
    let set = Hub::new(&lab, Backend::Mmsg);
    let hub = &set.hub;
    hub.write(&set.file("# wg-bounce: tun = off\n"));
    let program = Program::under_test();
    let program = program.display();
    let [one, other] = ["one", "other"].map(|name| lab.file(name));
    let (from_variable, from_flag) = (one.display(), other.display());
    let line = format!(
        "env WG_BOUNCE_SOCKET_DIR={from_variable} {program} up {} --io mmsg --socket-dir \
         {from_flag}",
        hub.file.display()
    );
    let mut process = hub.namespace.spawn(&lab, &line);
    wait_until_up(&mut process, seconds(10));
    let command = |line: &str| hub.namespace.attempt(&format!("{program} {line}"));
    let shown = command(&format!("show --interval 0 --socket-dir {from_flag}")).expect_ok();
    assert!(shown.contains(&hub.interface), "{shown}");
    let misplaced = command(&format!("--socket-dir {from_flag} show"));
    assert!(misplaced.stderr.contains("show is a command: write it before"), "{misplaced:?}");
    command(&format!("down {} --socket-dir {from_flag}", hub.interface)).expect_ok();
    assert_eq!(process.exit_code(), Some(0));

    let open = other.join("wireguard");
    fs::set_permissions(&open, Permissions::from_mode(0o777)).expect("our own");
    let refused = command(&format!("wg9 --foreground --tun off --socket-dir {from_flag}"));
    assert!(refused.stderr.contains("other users could replace sockets in"), "{refused:?}");
    for (options, expected) in [
        ("--tun on --address 10.0.0.1/24", "--address is for --tun off"),
        ("--tun off --address 10.0.0.x", "not an IP address with a prefix length"),
        ("--tun off --mtu 100", "100 is not in 1280..=65535"),
    ] {
        let refused = command(&format!("wg9 --foreground {options}"));
        assert!(!refused.is_ok() && refused.stderr.contains(expected), "{refused:?}");
    }
    let refused = command(&format!("up {} --tun off --mtu 1300", hub.file.display()));
    assert!(refused.stderr.contains("--mtu is not for up: MTU = "), "{refused:?}");
    hub.write(&set.file("# wg-bounce: socket-dir = /tmp\n# wg-bounce: mtu = 1300\n"));
    let problems = command(&format!("check {}", hub.file.display())).stdout;
    for expected in ["socket-dir is not for a file", "mtu is MTU = … in [Interface]"] {
        assert!(problems.contains(expected), "{problems}");
    }
}

fn a_user_without_capabilities_is_enough(backend: Backend) {
    peers_are_relayed_by(backend, &AS_NOBODY);
}

fn an_unprivileged_user_namespace_is_enough(backend: Backend) {
    peers_are_relayed_by(backend, &IN_USER_NAMESPACE);
}

on_both_backends!(a_user_without_capabilities_is_enough, an_unprivileged_user_namespace_is_enough);
