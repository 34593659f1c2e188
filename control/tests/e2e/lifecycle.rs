//! How a daemon ends: with code 0, and leaving nothing behind.

use std::os::unix::net::UnixListener;

use nix::sys::signal::Signal;

use crate::harness::{Backend, Daemon, Lab, Program, eventually, seconds, socket_path};

fn daemon(backend: Backend) -> (Daemon, Lab) {
    let lab = Lab::new();
    let namespace = lab.namespace("alone");
    let daemon = Daemon::start(&lab, &namespace, "alone", Program::Ours(backend));
    // With a configuration and an open port, as it is when it matters.
    daemon.set("listen-port 0");
    daemon.set_private_key();
    daemon.bring_up(1420, &["10.77.0.1/24"]);
    (daemon, lab)
}

#[track_caller]
fn ends_cleanly(mut daemon: Daemon) {
    assert_eq!(daemon.exit_code(), Some(0), "log: {}", daemon.log());
    assert!(!daemon.is_reachable(), "the control socket is gone");
    assert!(!daemon.has_interface(), "the interface is gone");
    let sockets = daemon.namespace.run("ss -Hlun");
    assert_eq!(sockets.trim(), "", "the port is closed");
}

fn terminated(backend: Backend) {
    let (daemon, _lab) = daemon(backend);
    daemon.signal(Signal::SIGTERM);
    ends_cleanly(daemon);
}

fn interrupted(backend: Backend) {
    let (daemon, _lab) = daemon(backend);
    daemon.signal(Signal::SIGINT);
    ends_cleanly(daemon);
}

fn terminal_closed(backend: Backend) {
    let (daemon, _lab) = daemon(backend);
    daemon.signal(Signal::SIGHUP);
    ends_cleanly(daemon);
}

fn interface_deleted(backend: Backend) {
    let (daemon, _lab) = daemon(backend);
    daemon.namespace.run(&format!("ip link del {}", daemon.interface));
    ends_cleanly(daemon);
}

fn socket_deleted(backend: Backend) {
    let (daemon, _lab) = daemon(backend);
    std::fs::remove_file(socket_path(&daemon.interface)).expect("it exists");
    ends_cleanly(daemon);
}

/// What a crashed daemon leaves is replaced.
fn a_stale_socket_is_replaced(backend: Backend) {
    let lab = Lab::new();
    let namespace = lab.namespace("alone");
    let path = socket_path(&lab.interface("alone"));
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("root may");
    drop(UnixListener::bind(&path).expect("nobody else has this name"));
    assert!(path.exists(), "a listener leaves its file behind");
    let daemon = Daemon::start(&lab, &namespace, "alone", Program::Ours(backend));
    eventually(seconds(2), "the new daemon answers", || {
        namespace.attempt(&format!("wg show {}", daemon.interface)).is_ok()
    });
}

/// A start again under the same name, right after the end, works.
fn restarted_at_once(backend: Backend) {
    let lab = Lab::new();
    let namespace = lab.namespace("alone");
    for _ in 0..3 {
        let mut daemon = Daemon::start(&lab, &namespace, "alone", Program::Ours(backend));
        daemon.set("listen-port 41999");
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.exit_code(), Some(0));
    }
}

on_both_backends!(
    terminated,
    interrupted,
    terminal_closed,
    interface_deleted,
    socket_deleted,
    a_stale_socket_is_replaced,
    restarted_at_once,
);
