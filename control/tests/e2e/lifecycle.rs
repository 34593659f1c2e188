//! Termination: exit code 0 and nothing left behind.

use std::os::unix::net::UnixListener;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Backend, Daemon, Lab, Program, eventually, seconds, socket_path, within};

/// A daemon that ignores no signal, also if the tests run under nohup(1) or in the background.
fn daemon(backend: Backend) -> (Daemon, Lab) {
    let lab = Lab::new();
    let namespace = lab.namespace("alone");
    let wrapper = ["env", "--default-signal"];
    let program = Program::Ours(backend);
    let daemon = Daemon::start_under(&wrapper, &lab, &namespace, "alone", program, &[]);
    // Configured and with an open port, as in production.
    daemon.set("listen-port 0");
    daemon.set_private_key();
    daemon.bring_up(1420, &["10.77.0.1/24"]);
    (daemon, lab)
}

#[track_caller]
fn expect_clean_exit(mut daemon: Daemon) {
    assert_eq!(daemon.exit_code(), Some(0), "log: {}", daemon.log());
    assert!(!daemon.is_reachable(), "the control socket is gone");
    assert!(!daemon.has_interface(), "the interface is gone");
    let sockets = daemon.namespace.run("ss -Hlun");
    assert_eq!(sockets.trim(), "", "the port is closed");
}

fn exits_on_sigterm(backend: Backend) {
    let (daemon, _lab) = daemon(backend);
    daemon.signal(Signal::SIGTERM);
    expect_clean_exit(daemon);
}

fn exits_on_sigint(backend: Backend) {
    let (daemon, _lab) = daemon(backend);
    daemon.signal(Signal::SIGINT);
    expect_clean_exit(daemon);
}

/// Not a reload; so the log says what is.
fn exits_on_sighup(backend: Backend) {
    let (mut daemon, _lab) = daemon(backend);
    daemon.signal(Signal::SIGHUP);
    assert_eq!(daemon.exit_code(), Some(0));
    let log = daemon.log();
    assert!(log.lines().any(|line| line.contains("SIGHUP") && line.contains("syncconf")), "{log}");
    expect_clean_exit(daemon);
}

fn exits_on_sigquit(backend: Backend) {
    let (daemon, _lab) = daemon(backend);
    daemon.signal(Signal::SIGQUIT);
    expect_clean_exit(daemon);
}

fn exits_when_its_interface_is_deleted(backend: Backend) {
    let (daemon, _lab) = daemon(backend);
    daemon.namespace.run(&format!("ip link del {}", daemon.interface));
    expect_clean_exit(daemon);
}

/// The interface was moved into the namespace of a container, which is then deleted: nothing of
/// the daemon keeps that namespace alive.
fn exits_when_the_namespace_of_its_interface_is_deleted(backend: Backend) {
    let no_events: &[&str] =
        &["setpriv", "--bounding-set=-all,+net_admin,+sys_admin", "--inh-caps=-all", "--"];
    let cases = match backend {
        Backend::Uring => [("kernel", &[][..]), ("auto", &[])],
        Backend::Mmsg => [("direct", &[][..]), ("auto", no_events)],
    };
    for (mode, wrapper) in cases {
        let lab = Lab::new();
        let (namespace, inside) = (lab.namespace("alone"), lab.namespace("inside"));
        let program = Program::Ours(backend);
        let environment = [("WG_BOUNCE_RELAY", mode)];
        let mut daemon =
            Daemon::start_under(wrapper, &lab, &namespace, "alone", program, &environment);
        daemon.set("listen-port 0");
        daemon.set_private_key();
        let interface = &daemon.interface;
        namespace.run(&format!("ip link set {interface} netns {}", inside.name()));
        inside.run(&format!("ip address add 10.77.0.1/24 dev {interface}"));
        inside.run(&format!("ip link set {interface} mtu 1400 up"));
        let is_up = || daemon.log().contains("link is up (MTU 1400)");
        eventually(seconds(3), "the daemon follows", is_up);
        assert!(!daemon.has_ended(), "log: {}", daemon.log());
        inside.delete();
        let has_ended = within(seconds(3), || daemon.has_ended());
        assert!(has_ended, "{mode}, {wrapper:?}: {}", daemon.log());
        expect_clean_exit(daemon);
    }
}

fn exits_when_its_control_socket_is_deleted(backend: Backend) {
    let (daemon, _lab) = daemon(backend);
    std::fs::remove_file(socket_path(&daemon.interface)).expect("it exists");
    expect_clean_exit(daemon);
}

/// The control socket left by a crashed daemon is replaced.
fn a_stale_socket_is_replaced(backend: Backend) {
    let lab = Lab::new();
    let namespace = lab.namespace("alone");
    let path = socket_path(&lab.interface("alone"));
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("root may");
    drop(UnixListener::bind(&path).expect("the name is unique"));
    assert!(path.exists(), "a listener leaves its file behind");
    let daemon = Daemon::start(&lab, &namespace, "alone", Program::Ours(backend));
    eventually(seconds(2), "the new daemon answers", || {
        namespace.attempt(&format!("wg show {}", daemon.interface)).is_ok()
    });
}

/// A daemon can start with the same name and port right after another has exited.
fn can_restart_at_once(backend: Backend) {
    let lab = Lab::new();
    let namespace = lab.namespace("alone");
    for _ in 0..3 {
        let mut daemon = Daemon::start(&lab, &namespace, "alone", Program::Ours(backend));
        daemon.set("listen-port 41999");
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.exit_code(), Some(0));
    }
}

/// A killed daemon leaves its socket, and for a moment its interface; neither hinders a start at
/// once, with the same port.
fn can_restart_at_once_after_a_kill(backend: Backend) {
    let lab = Lab::new();
    let namespace = lab.namespace("alone");
    let interface = lab.interface("alone");
    let binary = Program::under_test();
    let options = format!("WG_BOUNCE_IO={} WG_BOUNCE_WORKERS=2", backend.name());
    for _ in 0..8 {
        // In the background: returns when the new daemon is ready.
        namespace.run(&format!("env {options} {} {interface}", binary.display()));
        namespace.run(&format!("wg set {interface} listen-port 41998"));
        namespace.run(&format!("ip link set {interface} up"));
        for pid in namespace.processes() {
            // Not waited for: the kernel may still be taking it down at the next start.
            kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it runs");
        }
    }
    let mut daemon = Daemon::start(&lab, &namespace, "alone", Program::Ours(backend));
    eventually(seconds(5), "the port is free", || {
        namespace.attempt(&format!("wg set {interface} listen-port 41998")).is_ok()
    });
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0));
    let left = std::fs::read_dir("/var/run/wireguard").expect("a directory").flatten();
    let names: Vec<_> = left.map(|entry| entry.file_name().into_string().expect("UTF-8")).collect();
    assert!(!names.iter().any(|name| name.contains(&interface)), "left behind: {names:?}");
}

on_both_backends!(
    exits_on_sigterm,
    exits_on_sigint,
    exits_on_sighup,
    exits_on_sigquit,
    exits_when_its_interface_is_deleted,
    exits_when_the_namespace_of_its_interface_is_deleted,
    exits_when_its_control_socket_is_deleted,
    a_stale_socket_is_replaced,
    can_restart_at_once,
    can_restart_at_once_after_a_kill,
);
