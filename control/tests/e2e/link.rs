//! The life of the interface: its flags, link down and up, and a new name.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::os::unix::net::UnixListener;

use crate::harness::{
    Backend, Daemon, KeyPair, Lab, Namespace, Program, eventually, holds_for, ping, seconds,
    socket_path,
};

/// The host's own multicast does not wake an idle `::/0` tunnel: the interface is not a multicast
/// one, as the kernel module's, until the operator makes it one.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn an_idle_tunnel_is_silent() {
    let lab = Lab::new();
    let namespace = lab.namespace("alone");
    // A router reports on each multicast interface that it listens to ff02::2, here without delay.
    namespace.sysctl("net.ipv6.conf.all.forwarding=1");
    namespace.sysctl("net.ipv6.conf.default.mldv2_unsolicited_report_interval=1");
    let daemon = Daemon::start(&lab, &namespace, "alone", Program::Ours(Backend::Uring));
    let is_multicast =
        || namespace.run(&format!("ip link show {}", daemon.interface)).contains("MULTICAST");
    assert!(!is_multicast());
    let peer = add_silent_peer(&daemon, "10.77.0.2/32,::/0");
    daemon.bring_up(1420, &["10.77.0.1/24", "fd77::1/64"]);
    assert_eq!(received(&peer), 0, "bytes sent by an idle tunnel");
    ping(&namespace, "fd77::2", "-c 1 -W 1");
    assert_ne!(received(&peer), 0, "a packet wakes it");

    namespace.run(&format!("ip link set {} multicast on", daemon.interface));
    for state in ["down", "up"] {
        namespace.run(&format!("ip link set {} {state}", daemon.interface));
    }
    eventually(seconds(5), "it listens again", || !ports(&namespace).is_empty());
    assert!(is_multicast(), "the operator's flag stays");
}

/// The daemon polls an interface that it cannot get events about. It suppresses the kernel's own
/// messages there once; after that, the settings are the operator's.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_polled_interface_keeps_the_operators_settings() {
    let lab = Lab::new();
    let (namespace, inside) = (lab.namespace("alone"), lab.namespace("inside"));
    // A moved interface gets the defaults of its new namespace: a 0 is then the daemon's.
    inside.sysctl("net.ipv4.conf.default.send_redirects=1");
    // Events of other namespaces need CAP_NET_BROADCAST.
    let wrapper = ["setpriv", "--bounding-set=-all,+net_admin,+sys_admin", "--inh-caps=-all"];
    let program = Program::Ours(Backend::Uring);
    let daemon = Daemon::start_under(&wrapper, &lab, &namespace, "alone", program, &[]);
    namespace.run(&format!("ip link set {} netns {}", daemon.interface, inside.name()));
    let setting = format!("net.ipv4.conf.{}.send_redirects", daemon.interface);
    let value = || inside.run(&format!("sysctl -n {setting}")).trim().to_owned();
    eventually(seconds(3), "the daemon follows", || value() == "0");
    inside.sysctl(&format!("{setting}=1"));
    inside.run(&format!("ip link set {} mtu 1400 up", daemon.interface));
    let is_up = || daemon.log().contains("link is up (MTU 1400)");
    eventually(seconds(3), "the daemon polls", is_up);
    holds_for(seconds(3), "the setting stays", || value() == "1");
}

/// While the link is down no port is bound, and a stranger is told so; the port stays reserved in
/// the configuration.
fn a_port_is_bound_only_while_the_link_is_up(backend: Backend) {
    let (daemon, _lab) = Daemon::alone(backend);
    let namespace = &daemon.namespace;
    let listens = |port: &str| {
        eventually(seconds(5), "both families listen", || {
            let ports = ports(namespace);
            // One socket per worker and family.
            ports.len() == 4 && ports.iter().all(|bound| bound == port)
        });
    };
    let is_closed = || eventually(seconds(5), "no port is bound", || ports(namespace).is_empty());
    let port = || daemon.show("listen-port").trim().to_owned();
    is_closed();
    assert_eq!(port(), "0", "none is chosen yet");

    daemon.bring_up(1420, &["10.77.0.1/24"]);
    eventually(seconds(5), "a port is chosen", || port() != "0");
    let chosen = port();
    listens(&chosen);
    namespace.run(&format!("ip link set {} down", daemon.interface));
    is_closed();
    assert_eq!(port(), chosen, "a chosen port is kept");
    let stranger = namespace.udp_socket("127.0.0.1:0");
    stranger.connect(format!("127.0.0.1:{chosen}")).expect("local");
    stranger.send(&[0; 64]).expect("loopback");
    let error = stranger.recv(&mut [0; 64]).expect_err("no process listens");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "port unreachable");

    daemon.set("fwmark 0x77");
    namespace.run(&format!("ip link set {} up", daemon.interface));
    listens(&chosen);
    let marked = namespace.run("ss -Hlune").matches("fwmark:0x77").count();
    assert_eq!(marked, 4, "the mark set while down");

    namespace.run(&format!("ip link set {} down", daemon.interface));
    is_closed();
    daemon.set("listen-port 0");
    assert!(!["0", &chosen].contains(&port().as_str()), "another is chosen, and shown");
    assert_eq!(ports(namespace).len(), 0, "but not bound");
}

/// A port that another program holds is refused while the link is down, too. One that is taken
/// later is tried again until it is free.
fn a_port_in_use_is_tried_again(backend: Backend) {
    let (daemon, _lab) = Daemon::alone(backend);
    let namespace = &daemon.namespace;
    daemon.set("listen-port 4000");
    let other = namespace.udp_socket("[::]:4001");
    let outcome = namespace.attempt(&format!("wg set {} listen-port 4001", daemon.interface));
    assert!(outcome.stderr.contains("in use"), "{outcome:?}");
    assert_eq!(daemon.show("listen-port").trim(), "4000");
    drop(other);

    let other = namespace.udp_socket("0.0.0.0:4000");
    daemon.bring_up(1420, &["10.77.0.1/24"]);
    let errors = || daemon.log().lines().filter(|line| line.contains("UDP port 4000: ")).count();
    eventually(seconds(5), "the log names the port", || errors() > 0);
    assert!(daemon.log().contains("ERROR"));
    assert_eq!(daemon.show("listen-port").trim(), "4000");
    drop(other);
    eventually(seconds(5), "it is bound", || ports(namespace).len() == 4);
    assert_eq!(errors(), 1, "one line, not one per attempt");
}

/// Set, link up, ping at once: nothing is lost between the link and the daemon's notice of it.
fn the_first_packet_after_link_up_arrives(backend: Backend) {
    let lab = Lab::new();
    let [one, two] = ["one", "two"].map(|role| lab.namespace(role));
    lab.link((&one, "out"), (&two, "out"), 1500);
    let daemons = [(&one, "one", 1), (&two, "two", 2)].map(|(namespace, role, number)| {
        namespace.run(&format!("ip address add 192.0.2.{number}/24 dev out"));
        let daemon = Daemon::start(&lab, namespace, role, Program::Ours(backend));
        namespace.run(&format!("ip address add 10.77.0.{number}/24 dev {}", daemon.interface));
        daemon.set_private_key();
        daemon
    });
    for round in 0..10 {
        for (index, other) in [(0, 1), (1, 0)] {
            let (daemon, peer) = (&daemons[index], daemons[other].key.public());
            daemon.namespace.run(&format!("ip link set {} down", daemon.interface));
            daemon.set(&format!(
                "listen-port {} peer {peer} allowed-ips 10.77.0.{}/32 endpoint 192.0.2.{}:{}",
                5000 + 10 * round + index,
                other + 1,
                other + 1,
                5000 + 10 * round + other,
            ));
        }
        for daemon in &daemons {
            daemon.namespace.run(&format!("ip link set {} up", daemon.interface));
        }
        assert_eq!(ping(&two, "10.77.0.1", "-c 1 -W 2"), (1, 1), "round {round}");
    }
}

/// The control socket follows a new name of the interface, but never displaces another daemon's.
fn a_renamed_interface_is_followed(backend: Backend) {
    let lab = Lab::new();
    let [namespace, elsewhere] = ["alone", "far"].map(|role| lab.namespace(role));
    let mut daemon = Daemon::start(&lab, &namespace, "alone", Program::Ours(backend));
    let (old, new) = (daemon.interface.clone(), lab.interface("new"));
    namespace.run(&format!("ip link set {old} name {new}"));
    eventually(seconds(5), "the socket has the new name", || socket_path(&new).exists());
    assert!(!socket_path(&old).exists());
    daemon.interface.clone_from(&new);
    daemon.set("listen-port 0");
    assert!(daemon.log().contains(&format!("({new}) ")), "the log as well");

    // A live socket of the old name.
    let other = UnixListener::bind(socket_path(&old)).expect("the name is free");
    namespace.run(&format!("ip link set {new} name {old}"));
    eventually(seconds(5), "the log says why", || daemon.log().contains("in use"));
    daemon.set("listen-port 0");
    drop(other);
    std::fs::remove_file(socket_path(&old)).expect("it was left alone");
    namespace.run(&format!("ip link set {old} name {new}"));

    // In another namespace names mean nothing here.
    namespace.run(&format!("ip link set {new} netns {} name {old}", elsewhere.name()));
    let moved = format!("interface {old}: ");
    eventually(seconds(5), "the move is noticed", || daemon.log().contains(&moved));
    assert!(socket_path(&new).exists() && !socket_path(&old).exists());
    elsewhere.run(&format!("ip link set {old} netns {}", namespace.name()));
    eventually(seconds(5), "it is back", || socket_path(&old).exists());
    daemon.interface.clone_from(&old);
    daemon.set("listen-port 0");

    std::fs::remove_file(socket_path(&old)).expect("it exists");
    assert_eq!(daemon.exit_code(), Some(0), "deleted, not moved: {}", daemon.log());
}

on_both_backends!(
    a_port_is_bound_only_while_the_link_is_up,
    a_port_in_use_is_tried_again,
    the_first_packet_after_link_up_arrives,
    a_renamed_interface_is_followed,
);

/// The ports of all UDP sockets in a namespace, one entry per socket.
fn ports(namespace: &Namespace) -> Vec<String> {
    let sockets = namespace.run("ss -Hlun");
    let local = sockets.lines().filter_map(|line| line.split_whitespace().nth(3));
    local.filter_map(|local| local.rsplit(':').next()).map(str::to_owned).collect()
}

/// Adds a peer that never answers; returns its socket.
fn add_silent_peer(daemon: &Daemon, allowed_ips: &str) -> UdpSocket {
    let socket = daemon.namespace.udp_socket("127.0.0.1:0");
    socket.set_read_timeout(Some(seconds(2))).expect("not zero");
    let key = KeyPair::new().public();
    let endpoint = socket.local_addr().expect("it is bound");
    daemon.set_private_key();
    daemon.set(&format!("peer {key} allowed-ips {allowed_ips} endpoint {endpoint}"));
    socket
}

/// Bytes of the next datagram; zero if none arrives within the socket's timeout.
fn received(socket: &UdpSocket) -> usize {
    loop {
        match socket.recv(&mut [0; 2048]) {
            Ok(length) => return length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return 0,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("the socket fails: {error}"),
        }
    }
}
