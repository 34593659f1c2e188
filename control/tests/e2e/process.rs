//! The process: what it takes from its caller, and what it keeps of its privileges.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::Signal;

use crate::harness::{
    Backend, Daemon, Lab, Namespace, Outcome, Program, eventually, seconds, socket_path,
};

fn binary() -> String {
    Program::under_test().to_str().expect("UTF-8").to_owned()
}

/// Runs a shell script in the namespace.
fn script(namespace: &Namespace, text: &str) -> Outcome {
    let mut command = namespace.command("timeout");
    command.args(["--foreground", "20", "sh", "-c", text]);
    Outcome::of(command, "")
}

/// nohup ignores SIGHUP, a shell SIGINT and SIGQUIT for its background jobs. SIGTERM always works.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn signals_ignored_by_the_caller_stay_ignored() {
    let lab = Lab::new();
    let namespace = lab.namespace("alone");
    let interface = lab.interface("alone");
    let text =
        format!("trap '' INT QUIT TERM; LOG_LEVEL=verbose exec nohup {} -f {interface}", binary());
    let mut command = namespace.command("sh");
    command.args(["-c", &text]);
    let mut process = lab.spawn(command, "nohup");
    eventually(seconds(10), "it is ready", || socket_path(&interface).exists());
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
        process.signal(signal);
    }
    // Signals are handled in the order of their numbers, and this is the last of them.
    process.signal(Signal::SIGUSR1);
    eventually(seconds(5), "it counts or ends", || {
        process.has_ended() || process.output().contains("handshakes: counters:")
    });
    namespace.run(&format!("wg show {interface}"));
    process.signal(Signal::SIGTERM);
    assert_eq!(process.exit_code(), Some(0));
    assert!(!socket_path(&interface).exists());
}

/// A failed start in the background reports its own error only, also to a caller that ignores
/// SIGCHLD, for which the kernel keeps no exit code.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn an_ignored_sigchld_does_not_hide_the_error() {
    let lab = Lab::new();
    let namespace = lab.namespace("alone");
    let interface = lab.interface("alone");
    namespace.run(&format!("ip link add {interface} type veth peer name other"));
    let program = binary();
    let text = format!("exec env --ignore-signal=CHLD {program} {interface}");
    let outcome = script(&namespace, &text);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("exists"), "{outcome:?}");
    assert!(!outcome.stderr.contains("daemonize"), "{outcome:?}");
}

/// A lock that the caller held across the start is free once the caller has released it.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn inherited_descriptors_are_closed() {
    let lab = Lab::new();
    let namespace = lab.namespace("alone");
    let (interface, lock) = (lab.interface("alone"), lab.file("lock"));
    let (program, lock) = (binary(), lock.display());
    let text = format!(
        "exec 9>{lock} && flock 9 && {program} {interface} && exec 9>&- && flock -n {lock} true"
    );
    let outcome = script(&namespace, &text);
    assert!(outcome.is_ok(), "the daemon holds the lock: {outcome:?}");
    namespace.run(&format!("ip link del {interface}"));
    eventually(seconds(5), "it ends", || !socket_path(&interface).exists());
}

/// A descriptor that the environment names is kept and used.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn named_descriptors_are_kept() {
    let lab = Lab::new();
    let namespace = lab.namespace("alone");
    let path = socket_path(&lab.interface("alone"));
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("root may");
    let listener = OwnedFd::from(UnixListener::bind(&path).expect("the name is unique"));
    fcntl(&listener, FcntlArg::F_SETFD(FdFlag::empty())).expect("an open descriptor");
    let number = listener.as_raw_fd().to_string();
    let variables = [("WG_UAPI_FD", number.as_str())];
    let ours = Program::Ours(Backend::Mmsg);
    let mut daemon = Daemon::start_with(&lab, &namespace, "alone", ours, &variables);
    drop(listener);
    daemon.set("fwmark 3");
    assert_eq!(daemon.show("fwmark").trim(), "0x3");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0));
}

/// Any user can lock a directory that is readable for all; a start does not wait for that.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_locked_directory_delays_no_start() {
    let lab = Lab::new();
    let namespace = lab.namespace("alone");
    let (program, interface) = (binary(), lab.interface("alone"));
    let directory = "/var/run/wireguard";
    let text = format!(
        "mount -t tmpfs -o mode=0755 none {directory} || exit 3
         setpriv --reuid 65534 --regid 65534 --clear-groups flock {directory} sleep 30 &
         while flock -n {directory} true; do sleep 0.02; done
         timeout 5 {program} {interface} && wg show {interface} && ls -A {directory}
         code=$?; kill $!; ip link del {interface}; exit $code"
    );
    let mut command = namespace.command("unshare");
    command.args(["--mount", "sh", "-c", &text]);
    let outcome = Outcome::of(command, "");
    assert!(outcome.is_ok(), "{outcome:?}");
    assert!(!outcome.stdout.contains("lock"), "a lock file is left: {outcome:?}");
}

/// A held lock of the name itself ends the start in bounded time, with an error that names it.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_held_lock_is_named() {
    let lab = Lab::new();
    let namespace = lab.namespace("alone");
    let (program, interface) = (binary(), lab.interface("alone"));
    let path = format!("/var/run/wireguard/.{interface}.lock");
    std::fs::create_dir_all("/var/run/wireguard").expect("root may");
    let outcome = script(&namespace, &format!("flock {path} timeout 10 {program} -f {interface}"));
    std::fs::remove_file(&path).expect("flock has created it");
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains(&path), "{outcome:?}");
}

/// The values of one field of /proc/PID/status, of every thread.
fn of_threads(pid: u32, field: &str) -> Vec<u64> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").flatten();
    let texts = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok());
    let value = |text: String| {
        let line = text.lines().find_map(|line| line.strip_prefix(field)).expect("a known field");
        u64::from_str_radix(line.trim_start_matches(':').trim(), 16).expect("a number")
    };
    texts.map(value).collect()
}

/// CAP_NET_BIND_SERVICE, CAP_NET_BROADCAST, CAP_NET_ADMIN, CAP_IPC_LOCK and CAP_SYS_ADMIN.
const USED: u64 = 1 << 10 | 1 << 11 | 1 << 12 | 1 << 14 | 1 << 21;

#[track_caller]
fn expect_privileges(daemon: &Daemon, capabilities: u64) {
    for (field, expected) in [
        ("CapEff", capabilities),
        ("CapPrm", capabilities),
        ("CapInh", 0),
        ("CapBnd", 0),
        ("CapAmb", 0),
        ("NoNewPrivs", 1),
    ] {
        let values = of_threads(daemon.pid(), field);
        assert!(values.len() >= 4, "control, workers and others: {values:?}");
        assert!(values.iter().all(|value| *value == expected), "{field}: {values:x?}");
    }
}

/// Every thread keeps only the capabilities that it may need, and everything that needs them works.
fn privileges_are_reduced(backend: Backend) {
    let lab = Lab::new();
    let (namespace, other) = (lab.namespace("alone"), lab.namespace("other"));
    let ours = Program::Ours(backend);
    let auto = [("WG_BOUNCE_RELAY", "auto")];
    let daemon = Daemon::start_with(&lab, &namespace, "alone", ours, &auto);
    // The relay mode is logged when all threads run.
    eventually(seconds(10), "it runs", || daemon.log().contains("relay: IPv4"));
    expect_privileges(&daemon, USED);
    let log = daemon.log();
    assert!(!log.contains("cannot restrict the ring"), "{log}");

    daemon.set_private_key();
    daemon.set("listen-port 443 fwmark 7"); // a low port
    let interface = &daemon.interface;
    namespace.run(&format!("ip link set {interface} up"));
    eventually(seconds(5), "it listens", || namespace.run("ss -Hlun").contains(":443"));
    namespace.run(&format!("ip link set {interface} netns {}", other.name()));
    other.run(&format!("ip link set {interface} mtu 1300 up"));
    eventually(seconds(5), "the daemon follows its interface", || {
        daemon.log().contains("link is up (MTU 1300)")
    });
    daemon.counter("relayed");
    expect_privileges(&daemon, USED);
    let log = daemon.log();
    assert!(!log.contains("not permitted"), "{log}");
}

/// Whether the kernel has time slices of single threads, as since Linux 6.12.
fn kernel_has_slices() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("of every kernel");
    let mut numbers = release.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let [major, minor] = [(); 2].map(|()| numbers.next().unwrap_or(0));
    (major, minor) >= (6, 12)
}

/// Workers preempt other threads of their core when they wake.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn workers_have_the_shortest_time_slice() {
    if !kernel_has_slices() {
        eprintln!("skipped: needs Linux 6.12");
        return;
    }
    let lab = Lab::new();
    let namespace = lab.namespace("alone");
    let interface = lab.interface("alone");
    let mut command = namespace.command(&binary());
    command.args(["-f", &interface]);
    let process = lab.spawn(command, "alone");
    let slices = || {
        let threads = fs::read_dir(format!("/proc/{}/task", process.pid())).expect("it runs");
        let texts = threads.flatten().filter_map(|thread| {
            let name = fs::read_to_string(thread.path().join("comm")).ok()?;
            let text = fs::read_to_string(thread.path().join("sched")).ok()?;
            name.starts_with("worker-").then_some(text)
        });
        let slices = texts.map(|text| {
            let line = text.lines().find(|line| line.starts_with("se.slice"));
            line.and_then(|line| line.rsplit(' ').next()).expect("a slice").to_owned()
        });
        slices.collect::<Vec<String>>()
    };
    eventually(seconds(10), "each worker has the shortest slice", || {
        let slices = slices();
        !slices.is_empty() && slices.iter().all(|nanos| nanos == "100000")
    });
}

/// Threads that compute handshakes run at a lower priority than all others, and the one that sends
/// cookie replies at the lowest.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn handshakes_have_a_lower_priority() {
    let lab = Lab::new();
    let namespace = lab.namespace("alone");
    let interface = lab.interface("alone");
    let line = format!("nice -n 3 {} -f --handshake-threads 2 {interface}", binary());
    let process = namespace.spawn(&lab, &line);
    let expected = |name: &str| match name {
        "handshakes-0" | "handshakes-1" => 13,
        "cookies" => 19,
        _ => 3,
    };
    eventually(seconds(10), "each thread has its priority", || {
        let text = namespace.run(&format!("ps -L --no-headers -o ni,comm -p {}", process.pid()));
        let threads = text.lines().filter_map(|line| line.trim().split_once(' '));
        let mut lower = 0;
        threads.into_iter().all(|(nice, name)| {
            let expected = expected(name.trim());
            lower += usize::from(expected != 3);
            nice.parse() == Ok(expected)
        }) && lower == 3
    });
}

/// Capabilities that the caller lacks are not asked for.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn missing_capabilities_are_not_needed() {
    let lab = Lab::new();
    let namespace = lab.namespace("alone");
    let interface = lab.interface("alone");
    let line = format!(
        "setpriv --bounding-set=-all,+net_admin --inh-caps=-all {} -f {interface}",
        binary()
    );
    let process = namespace.spawn(&lab, &line);
    // The relay mode is logged when all threads run.
    eventually(seconds(10), "it is ready", || process.output().contains("relay: IPv4"));
    let values = of_threads(process.pid(), "CapEff");
    assert!(values.iter().all(|value| *value == 1 << 12), "{values:x?}");
    assert!(of_threads(process.pid(), "NoNewPrivs").iter().all(|value| *value == 1));
    namespace.run(&format!("wg show {interface}"));
}

on_both_backends!(privileges_are_reduced);
