//! From the start to the end, and every way to fail.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Tunnel, assert_same, host_with_uplink, wait_until_up};
use crate::harness::{Backend, Background, KeyPair, Lab, eventually, seconds};

/// A file with hooks that write what they see to `log`.
fn with_hooks(log: &Path, more: &str) -> String {
    let log = log.display();
    let hook =
        |name: &str| format!("{name} = echo {name} $(ip -br link show %i 2>&1 | wc -w) >> {log}\n");
    let hooks = ["PreUp", "PostUp", "PreDown", "PostDown"].map(hook).concat();
    let key = KeyPair::new().private();
    format!("[Interface]\nPrivateKey = {key}\nAddress = 10.7.0.1/24\n{hooks}{more}")
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn hooks_run_in_order_and_a_failed_start_is_undone() {
    let lab = Lab::new();
    let host = host_with_uplink(&lab);
    host.sysctl("net.ipv4.conf.all.src_valid_mark=1");
    let tunnel = Tunnel::new(&lab, &host, "up", Backend::Mmsg);
    let log = lab.file("hooks");
    let times = || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(&log);
        let of_line = |line: &str| {
            let (name, words) = line.split_once(' ').expect("two words");
            format!("{name}{}", if words == "5" { "" } else { "+" })
        };
        text.lines().map(of_line).collect::<Vec<_>>().join(" ")
    };
    tunnel.write(&with_hooks(&log, ""));
    let before = tunnel.state();
    let mut process = tunnel.up();
    let second = tunnel.attempt("up");
    assert!(!second.is_ok() && second.stderr.contains("another wg-bounce up"), "{second:?}");
    tunnel.run("down");
    assert_eq!(process.exit_code(), Some(0));
    assert_eq!(times(), "PreUp PostUp+ PreDown+ PostDown", "+: the interface is there");

    // Failures of the last hook, of a route, of the port, of the first hook.
    let exit = format!("[Peer]\nPublicKey = {}\nAllowedIPs = 0.0.0.0/0", KeyPair::new().public());
    let route =
        format!("[Peer]\nPublicKey = {}\nAllowedIPs = 198.51.100.0/24\n", KeyPair::new().public());
    let socket = host.udp_socket("0.0.0.0:4000");
    for (more, reason, hooks) in [
        (
            format!("PostUp = false\n{exit}"),
            "PostUp in line 8 failed",
            "PreUp PostUp+ PreDown+ PostDown",
        ),
        (route, "198.51.100.0/24 in table 254: File exists", "PreUp PostDown"),
        ("ListenPort = 4000\n".to_owned(), "ListenPort is in use", "PreUp PostDown"),
        ("PreUp = exit 3 # no\n".to_owned(), "PreUp in line 8 failed", "PreUp PostDown"),
        ("MTU = 1 # none\n".to_owned(), ":8:7: error: MTU: \"1\" is not", ""),
    ] {
        tunnel.write(&with_hooks(&log, &more));
        let outcome = tunnel.attempt("up");
        assert!(!outcome.is_ok() && outcome.stderr.contains(reason), "{reason}: {outcome:#?}");
        assert_eq!(times(), hooks, "{reason}");
        assert_same(&tunnel.state(), &before, reason);
        assert!(!host.run("nft list ruleset").contains("wg-bounce"), "{reason}");
    }
    drop(socket);

    tunnel.write(&with_hooks(&log, ""));
    fs::set_permissions(&tunnel.file, Permissions::from_mode(0o620)).expect("our own file");
    let outcome = tunnel.attempt("up");
    assert!(outcome.stderr.contains("hooks are refused"), "{outcome:?}");
    assert_eq!(times(), "");
    let down = tunnel.attempt("down");
    assert!(!down.is_ok() && down.stderr.contains("no wg-bounce up runs"), "{down:?}");
}

/// However one of the two processes ends, the other one does too, and nothing is left behind.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn every_end_leaves_nothing_behind() {
    let lab = Lab::new();
    let host = host_with_uplink(&lab);
    host.sysctl("net.ipv4.conf.all.src_valid_mark=1");
    let tunnel = Tunnel::new(&lab, &host, "up", Backend::Uring);
    let log = lab.file("hooks");
    let peer =
        format!("[Peer]\nPublicKey = {}\nAllowedIPs = 0.0.0.0/0, ::/0\n", KeyPair::new().public());
    tunnel.write(&with_hooks(&log, &peer));
    let before = tunnel.state();
    let daemon = || {
        let text = host.run("ps -eo pid,args");
        let is_daemon =
            |line: &&str| line.contains("--foreground") && line.ends_with(&tunnel.interface);
        let line = text.lines().find(is_daemon).expect("a daemon").trim().to_owned();
        Pid::from_raw(line.split(' ').next().expect("a pid").parse().expect("a number"))
    };
    let delete = format!("ip link del {}", tunnel.interface);
    type End<'a> = &'a dyn Fn(&Background);
    let everybody = |process: &Background| {
        kill(daemon(), Signal::SIGTERM).expect("ours");
        process.signal(Signal::SIGTERM);
    };
    let ends: [(&str, End<'_>, Option<i32>); 6] = [
        ("SIGTERM to both", &everybody, Some(0)),
        ("SIGTERM", &|process| process.signal(Signal::SIGTERM), Some(0)),
        ("SIGINT", &|process| process.signal(Signal::SIGINT), Some(0)),
        ("the interface is deleted", &|_| drop(host.run(&delete)), Some(0)),
        ("the daemon is killed", &|_| kill(daemon(), Signal::SIGKILL).expect("ours"), Some(1)),
        ("it is killed", &|process| process.signal(Signal::SIGKILL), None),
    ];
    for (what, end, code) in ends {
        let mut process = tunnel.up();
        let _ = fs::remove_file(&log);
        end(&process);
        assert_eq!(process.exit_code(), code, "{what}");
        eventually(seconds(5), "the daemon ends", || host.processes().is_empty());
        assert!(!tunnel.has_interface(), "{what}");
        if code.is_some() {
            assert_same(&tunnel.state(), &before, what);
            assert!(!host.run("nft list ruleset").contains("wg-bounce"), "{what}");
            let hooks = fs::read_to_string(&log).expect("PostDown ran");
            assert!(hooks.contains("PreDown") && hooks.contains("PostDown"), "{what}: {hooks}");
            let is_late = hooks.lines().any(|line| line == "PreDown 5");
            // That of a killed daemon goes soon.
            let is_gone = what.contains("deleted");
            assert!(what.contains("killed") || is_late == is_gone, "{what}: {hooks}");
        }
    }
    // What the killed process has left behind does not matter to the next one.
    let mut process = tunnel.up();
    tunnel.run("down");
    assert_eq!(process.exit_code(), Some(0));
    assert_same(&tunnel.state(), &before, "after a killed process");
}

/// A hook that hangs does not keep the process from ending; a service manager that reads nothing
/// does not hold up the daemon.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn nothing_hangs() {
    let lab = Lab::new();
    let host = host_with_uplink(&lab);
    let tunnel = Tunnel::new(&lab, &host, "up", Backend::Uring);
    let log = lab.file("hooks");
    tunnel.write(&with_hooks(&log, "PostUp = sleep 1000\n"));
    let mut process = tunnel.start("");
    eventually(seconds(10), "the hook runs", || process.output().contains("PostUp: sleep"));
    process.signal(Signal::SIGTERM);
    assert_eq!(process.exit_code(), Some(1), "{}", process.output());
    assert!(!tunnel.has_interface() && fs::read_to_string(&log).expect("ran").contains("PostDown"));

    // Each of these changes the relay mode, and so the status.
    let toggle =
        "for i in $(seq 40); do sysctl -qw net.ipv4.ip_forward=$((i % 2)); sleep 0.02; done";
    tunnel.write(&with_hooks(&log, &format!("PostUp = {toggle}\nPostUp = wg show %i\n")));
    let manager = lab.file("notify");
    let _silent = UnixDatagram::bind(&manager).expect("the lab's directory is writable");
    let mut process = tunnel.start(&format!("NOTIFY_SOCKET={}", manager.display()));
    wait_until_up(&mut process, seconds(20));
    tunnel.run("down");
    assert_eq!(process.exit_code(), Some(0));
}

/// The service manager hears of each step.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn the_service_manager_is_told() {
    let lab = Lab::new();
    let host = host_with_uplink(&lab);
    let tunnel = Tunnel::new(&lab, &host, "up", Backend::Uring);
    tunnel.write(&format!("[Interface]\nPrivateKey = {}\n", KeyPair::new().private()));
    let path = lab.file("notify");
    let manager = UnixDatagram::bind(&path).expect("the lab's directory is writable");
    manager.set_read_timeout(Some(seconds(10))).expect("set");
    let next = |expected: &str| {
        let mut buffer = [0; 4096];
        loop {
            let length = manager.recv(&mut buffer).expect(expected);
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if !text.starts_with("STATUS=") {
                assert!(text.contains(expected), "{expected}: {text}");
                break;
            }
        }
    };
    // Its journal reads the log.
    let process = tunnel.start(&format!("JOURNAL_STREAM=1:1 NOTIFY_SOCKET={}", path.display()));
    next("READY=1");
    let log = process.output();
    assert!(log.lines().all(|line| line.starts_with("<6>INFO: (")), "{log}");
    process.signal(Signal::SIGHUP);
    next("RELOADING=1\nMONOTONIC_USEC=");
    next("READY=1");
    process.signal(Signal::SIGTERM);
    next("STOPPING=1");
}
