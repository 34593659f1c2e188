//! Starting: the daemon is ready when the command returns, and each failure has a clear error.

use std::collections::BTreeMap;
use std::os::unix::net::{UnixDatagram, UnixListener};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule, apply_filter};
use wg_bounce_control::noise::{Dh, DhChoice};

use crate::harness::{
    Backend, Daemon, Lab, Namespace, Outcome, Program, eventually, seconds, socket_path,
};
use crate::interop::is_supported;

fn binary() -> String {
    Program::under_test().to_str().expect("UTF-8").to_owned()
}

/// A lab with a namespace, and the name of an interface that does not exist yet.
fn empty_lab() -> (Lab, Namespace, String) {
    let lab = Lab::new();
    let (namespace, interface) = (lab.namespace("alone"), lab.interface("alone"));
    (lab, namespace, interface)
}

/// Checks that the daemon fails to start, with an error that contains `reasons`.
#[track_caller]
fn fails(namespace: &Namespace, before: &str, arguments: &str, reasons: &[&str]) {
    let line = format!("timeout --foreground 10 {before} {} {arguments}", binary());
    let outcome = namespace.attempt(&line);
    assert!(
        matches!(outcome.code, Some(code) if code != 0 && code != 124 && code < 128),
        "must fail with an exit code of its own: {outcome:#?}"
    );
    let text = outcome.stderr.to_lowercase();
    for reason in reasons {
        assert!(text.contains(reason), "{reason:?} is missing: {outcome:#?}");
    }
    assert!(!text.contains("panicked"), "an operator error must not panic: {outcome:#?}");
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_background_start_returns_when_ready() {
    for backend in [Backend::Uring, Backend::Mmsg] {
        let lab = Lab::new();
        let namespace = lab.namespace("alone");
        let interface = lab.interface("alone");
        let io = backend.name();
        let line = format!("env WG_BOUNCE_IO={io} {} {interface}", binary());
        namespace.run(&line);
        // No waiting: both exist when the command returns.
        namespace.run(&format!("ip link show {interface}"));
        namespace.run(&format!("wg show {interface}"));
        namespace.run(&format!("ip link del {interface}"));
        eventually(seconds(5), "it ends", || !socket_path(&interface).exists());
    }
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn the_service_manager_is_notified() {
    let (lab, namespace, interface) = empty_lab();
    let path = lab.file("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(seconds(10))).expect("a timeout");
    let next_message = || {
        let mut bytes = [0; 1024];
        let length = manager.recv(&mut bytes).expect("the daemon says something");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    let line = format!("env NOTIFY_SOCKET={} {} -f {interface}", path.display(), binary());
    let mut process = namespace.spawn(&lab, &line);
    assert_eq!(next_message(), "READY=1");
    namespace.run(&format!("ip link show {interface}"));
    namespace.run(&format!("wg show {interface}"));
    let status = next_message();
    assert!(status.starts_with("STATUS=relay: IPv4 by the kernel (forwarding is off"), "{status}");
    process.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(next_message(), "STOPPING=1");
    assert_eq!(process.exit_code(), Some(0));
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn the_environment_selects_the_foreground() {
    let (lab, namespace, interface) = empty_lab();
    let line = format!("env WG_PROCESS_FOREGROUND=1 {} {interface}", binary());
    let mut process = namespace.spawn(&lab, &line);
    eventually(seconds(10), "it is ready", || socket_path(&interface).exists());
    assert!(!process.has_ended());
    namespace.run(&format!("ip link del {interface}"));
    assert_eq!(process.exit_code(), Some(0));
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_name_may_be_a_pattern() {
    let lab = Lab::new();
    let namespace = lab.namespace("alone");
    let pattern = format!("{}%d", lab.interface("p"));
    namespace.run(&format!("{} {pattern}", binary()));
    let interface = pattern.replace("%d", "0");
    namespace.run(&format!("wg show {interface}"));
    namespace.run(&format!("ip link del {interface}"));
    eventually(seconds(5), "it ends", || !socket_path(&interface).exists());
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_name_that_is_too_long_is_rejected() {
    let lab = Lab::new();
    let namespace = lab.namespace("alone");
    fails(&namespace, "", "-f abcdefghijklmnop", &["abcdefghijklmnop", "15"]);
    fails(&namespace, "", "abcdefghijklmnop", &["abcdefghijklmnop", "15"]);
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn an_invalid_name_is_rejected() {
    let lab = Lab::new();
    let namespace = lab.namespace("alone");
    for name in ["a/b", "..", "a%sb"] {
        fails(&namespace, "", &format!("-f {name}"), &["name"]);
    }
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_missing_name_or_unknown_option_is_rejected() {
    let lab = Lab::new();
    let namespace = lab.namespace("alone");
    fails(&namespace, "", "", &["usage"]);
    fails(&namespace, "", "--no-such-option wg0", &["--no-such-option"]);
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn an_existing_interface_is_rejected() {
    let (_lab, namespace, interface) = empty_lab();
    namespace.run(&format!("ip link add {interface} type veth peer name other"));
    for mode in ["-f ", ""] {
        fails(&namespace, "", &format!("{mode}{interface}"), &[&interface]);
    }
    assert!(!socket_path(&interface).exists(), "a failed start leaves no control socket");
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_control_socket_in_use_is_rejected() {
    let (_lab, namespace, interface) = empty_lab();
    let path = socket_path(&interface);
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("root may");
    let _other = UnixListener::bind(&path).expect("the name is unique");
    for mode in ["-f ", ""] {
        fails(&namespace, "", &format!("{mode}{interface}"), &["in use"]);
    }
    assert!(path.exists(), "the socket of the other daemon stays");
    let found = namespace.attempt(&format!("ip link show {interface}"));
    assert!(!found.is_ok(), "a failed start leaves no interface: {found:?}");
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_second_daemon_with_the_same_name_is_rejected() {
    let lab = Lab::new();
    let (first, second) = (lab.namespace("first"), lab.namespace("second"));
    let daemon = Daemon::start(&lab, &first, "alone", Program::Ours(Backend::Mmsg));
    // In the other namespace the interface's name is free, but the control socket is not.
    fails(&second, "", &format!("-f {}", daemon.interface), &["in use"]);
    daemon.show("peers");
}

/// The log names the AEAD implementation; one that the CPU does not support is an error with
/// advice.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn every_aead_runs_or_is_rejected() {
    let names = [("ring", "ring"), ("avx2", "AVX2"), ("avx512", "AVX-512")];
    each_runs_or_is_rejected("aead", &names.map(|(aead, name)| (aead, name, is_supported(aead))));
}

/// The start-up line names the X25519 implementation, and one that the CPU does not support is an
/// error with advice.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn every_x25519_runs_or_is_rejected() {
    let best = Dh::best().to_string();
    let choices = [
        ("graviola", "graviola", Dh::new(DhChoice::Graviola).is_ok()),
        ("dalek", "x25519-dalek", true),
        ("auto", &best, true),
    ];
    each_runs_or_is_rejected("dh", &choices);
}

/// For each choice of `--OPTION`: its name in the start-up line, and whether this CPU supports it.
fn each_runs_or_is_rejected(option: &str, choices: &[(&str, &str, bool)]) {
    let (lab, namespace, interface) = empty_lab();
    let label = option.to_uppercase();
    for (choice, name, is_supported) in choices {
        if !is_supported {
            let reasons = ["this cpu", &name.to_lowercase(), &format!("--{option} auto")];
            fails(&namespace, "", &format!("--{option} {choice} -f {interface}"), &reasons);
            continue;
        }
        let line = format!("env WG_BOUNCE_{label}={choice} {} -f {interface}", binary());
        let mut process = namespace.spawn(&lab, &line);
        let says = format!("; {label}: {name}");
        eventually(seconds(10), "it says so", || process.output().contains(&says));
        namespace.run(&format!("ip link del {interface}"));
        assert_eq!(process.exit_code(), Some(0));
    }
}

/// Without CAP_IPC_LOCK, rings count against the limit for locked memory.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_low_limit_for_locked_memory_falls_back() {
    let (lab, namespace, interface) = empty_lab();
    let limited = "setpriv --bounding-set=-ipc_lock,-sys_resource prlimit --memlock=16384:16384";
    let reasons = ["locked memory", "limitmemlock", "--io mmsg"];
    fails(&namespace, limited, &format!("--io uring -f {interface}"), &reasons);
    let line = format!("{limited} {} -f {interface}", binary());
    let process = namespace.spawn(&lab, &line);
    eventually(seconds(10), "it falls back and says so", || {
        let log = process.output();
        log.contains("io_uring unavailable") && log.contains("recvmmsg (")
    });
    eventually(seconds(10), "it is ready", || socket_path(&interface).exists());
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn an_unprivileged_start_is_rejected() {
    let lab = Lab::new();
    let namespace = lab.namespace("alone");
    let copy = lab.file("copy");
    std::fs::copy(binary(), &copy).expect("the lab's directory is writable");
    let interface = lab.interface("alone");
    // User 65534 cannot reach the copy's directory, so the shell opens it first.
    let line = format!(
        "setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all \
         -- /proc/self/fd/9 -f {interface}"
    );
    let script = format!("exec 9<{} && exec {line}", copy.display());
    let outcome = shell(&namespace, &script);
    assert!(!outcome.is_ok(), "{outcome:?}");
    let text = outcome.stderr.to_lowercase();
    let is_clear = text.contains("permitted") || text.contains("permission");
    assert!(is_clear && (text.contains("cap_net_admin") || text.contains("root")), "{outcome:?}");
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_missing_tun_device_is_rejected() {
    let (_lab, namespace, interface) = empty_lab();
    let script = format!(
        "exec unshare --mount sh -c 'mount -t tmpfs none /dev/net && exec {} -f {interface}'",
        binary()
    );
    let outcome = shell(&namespace, &script);
    assert!(matches!(outcome.code, Some(1..=123)), "{outcome:?}");
    assert!(outcome.stderr.contains("/dev/net/tun"), "{outcome:?}");
}

fn shell(namespace: &Namespace, script: &str) -> Outcome {
    let mut command = namespace.command("timeout");
    command.args(["--foreground", "10", "sh", "-c", script]);
    Outcome::of(command, "")
}

/// Makes io_uring fail with EPERM in this thread and its children, as container runtimes do.
fn deny_io_uring() {
    let system_calls = [425i64, 426, 427]; // io_uring_setup, _enter, _register: same everywhere
    let rules: BTreeMap<i64, Vec<SeccompRule>> =
        system_calls.into_iter().map(|number| (number, Vec::new())).collect();
    let arch = std::env::consts::ARCH.try_into().expect("a known architecture");
    let refused = SeccompAction::Errno(1); // EPERM
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, arch).expect("valid");
    let program: BpfProgram = filter.try_into().expect("it compiles");
    apply_filter(&program).expect("root may filter itself");
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn falls_back_where_io_uring_is_denied() {
    // The filter applies to this thread only and ends with it.
    std::thread::scope(|scope| {
        let test = scope.spawn(|| {
            deny_io_uring();
            let lab = Lab::new();
            let namespace = lab.namespace("alone");
            let ours = Program::Ours(Backend::Uring);
            let auto = [("WG_BOUNCE_IO", "auto")];
            let daemon = Daemon::start_with(&lab, &namespace, "alone", ours, &auto);
            daemon.set("listen-port 0");
            let log = daemon.log();
            assert!(log.contains("mmsg"), "it says what it uses: {log}");
            let reason = log.lines().find(|line| line.contains("io_uring"));
            assert!(reason.is_some(), "and why: {log}");
            // `--io uring` has no fallback.
            let interface = lab.interface("demanded");
            let demanded = format!("--io uring -f {interface}");
            fails(&namespace, "", &demanded, &["io_uring"]);
        });
        test.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// `auto` uses io_uring where it is allowed, and logs that.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn uses_io_uring_where_it_is_allowed() {
    let lab = Lab::new();
    let namespace = lab.namespace("alone");
    let auto = [("WG_BOUNCE_IO", "auto")];
    let ours = Program::Ours(Backend::Uring);
    let daemon = Daemon::start_with(&lab, &namespace, "alone", ours, &auto);
    daemon.set("listen-port 0");
    let log = daemon.log();
    assert!(log.contains("io_uring") && !log.contains("mmsg"), "{log}");
}

/// The log never contains a secret, even if verbose.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn no_secret_is_logged() {
    let lab = Lab::new();
    let namespace = lab.namespace("alone");
    let daemon = Daemon::start(&lab, &namespace, "alone", Program::Ours(Backend::Mmsg));
    let psk = crate::harness::KeyPair::new();
    daemon.configure(
        "setconf",
        &format!(
            "[Interface]\nPrivateKey = {}\n[Peer]\nPublicKey = {}\nPresharedKey = {}\n",
            daemon.key.private(),
            psk.public(),
            psk.private()
        ),
    );
    let log = daemon.log();
    for secret in [&daemon.key, &psk] {
        assert!(!log.contains(&secret.private()) && !log.contains(&secret.private_hex()));
    }
}
