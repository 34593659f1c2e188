//! `blast --remote` against our own daemon in a namespace of the test, over a veth, as if it were
//! on another machine.

#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// The relay's address, and its port.
const ADDRESS: &str = "192.0.2.1:51820";

/// The process that holds a namespace, with a /run of its own; it ends with its standard input.
const HOLDER: &str = "mount -t tmpfs -o mode=755 tmpfs /var/run && \
    mkdir -m 700 /var/run/wireguard && ip link set lo up && echo ready && exec cat";

/// A network namespace, which the kernel ends with this process.
struct Namespace(Child);

impl Namespace {
    fn new() -> Namespace {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "sh", "-c", HOLDER]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut holder = command.spawn().expect("root, to make a namespace");
        let mut line = String::new();
        let stdout = holder.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("it prints when it is ready");
        assert_eq!(line, "ready\n");
        Namespace(holder)
    }

    /// A command that runs `program` inside.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        let target = format!("--target={}", self.0.id());
        command.args(["--pdeathsig", "KILL", "nsenter", "--net", "--mount", &target, program]);
        command
    }

    /// Runs a command line with `input` on its standard input, which must succeed; its output.
    fn run(&self, line: &str, input: &str) -> String {
        let mut words = line.split_whitespace();
        let mut command = self.command(words.next().expect("a program"));
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("our own child");
        assert!(output.status.success(), "{line}");
        String::from_utf8(output.stdout).expect("text")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// A running relay, and a place to measure it from.
struct Lab {
    relay: Namespace,
    daemon: Child,
    generator: Namespace,
    folder: TempDir,
    public: String,
}

impl Lab {
    /// Starts a relay with a key and without peers.
    fn new() -> Lab {
        let (relay, generator) = (Namespace::new(), Namespace::new());
        let peer = generator.0.id();
        relay.run(&format!("ip link add eth0 type veth peer name eth0 netns {peer}"), "");
        for (namespace, host) in [(&relay, 1), (&generator, 2)] {
            namespace.run(&format!("ip address add 192.0.2.{host}/24 dev eth0"), "");
            namespace.run("ip link set eth0 up", "");
        }
        let program = Path::new(env!("CARGO_BIN_EXE_wg-bounce-perf")).with_file_name("wg-bounce");
        let mut command = relay.command(program.to_str().expect("a path in UTF-8"));
        command.args(["--foreground", "wg0"]).stdin(Stdio::null()).stderr(Stdio::null());
        let mut daemon = command.spawn().expect("it starts");
        while relay.command("wg").args(["show", "wg0"]).output().expect("`wg`").stdout.is_empty() {
            let ended = daemon.try_wait().expect("our own child");
            assert!(ended.is_none(), "{ended:?}: build all of the workspace");
            sleep(Duration::from_millis(20));
        }
        let private = relay.run("wg genkey", "");
        relay.run("wg set wg0 listen-port 51820 private-key /dev/stdin", &private);
        relay.run("ip link set wg0 up", "");
        let public = relay.run("wg show wg0 public-key", "").trim().to_owned();
        let folder = tempfile::tempdir().expect("a folder");
        Lab { relay, daemon, generator, folder, public }
    }

    /// Runs the harness where it reaches the relay.
    fn harness(&self, more: &str) -> Output {
        let mut command = self.generator.command(env!("CARGO_BIN_EXE_wg-bounce-perf"));
        let keys = self.folder.path().join("keys");
        command.arg("blast").args(more.split_whitespace()).arg("--keys").arg(keys);
        command.output().expect("it starts")
    }

    /// Measures the relay at `address`, with this key.
    fn measure(&self, address: &str, public: &str) -> Output {
        let json = self.folder.path().join("json");
        self.harness(&format!(
            "--remote {address} --remote-key {public} --pairs 2 --rounds 1 --seconds 1 --pool 32 \
             --window 128 --load 2000 --json {}",
            json.display()
        ))
    }

    /// The table of a measurement that fails.
    fn failure(&self, address: &str, public: &str) -> String {
        let output = self.measure(address, public);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs the commands in the first lines of the printed configuration on the relay.
    fn follow(&self, config: &str) {
        let steps = config.lines().filter_map(|line| line.strip_prefix("#   "));
        for step in steps {
            self.relay.run(&step.replace("THIS-FILE", "/dev/stdin"), config);
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_remote_relay_is_measured_and_failures_are_explained() {
    let lab = Lab::new();
    let refused = lab.measure(ADDRESS, &lab.public);
    let refused = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.contains("--remote-config creates it"), "{refused}");

    let config = lab.harness("--remote-config --pairs 3");
    assert!(config.status.success(), "{}", String::from_utf8_lossy(&config.stderr));
    let config = String::from_utf8(config.stdout).expect("text");
    assert_eq!(config.matches("[Peer]").count(), 6, "{config}");

    let unknown = lab.failure(ADDRESS, &lab.public);
    assert!(unknown.contains("Does it know the peers that --remote-config prints"), "{unknown}");
    lab.follow(&config);

    let output = lab.measure(ADDRESS, &lab.public);
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{table}{}", String::from_utf8_lossy(&output.stderr));
    assert!(table.contains(&format!("remote {ADDRESS} · ")), "{table}");
    assert!(table.contains("–"), "{table}");
    let text = std::fs::read_to_string(lab.folder.path().join("json")).expect("written");
    let last = text.lines().last().expect("a measurement");
    let record: Value = serde_json::from_str(last).expect("JSON");
    assert_eq!(record["implementation"], ADDRESS);
    // Some may be lost: the harness cannot see whether a remote relay is scheduled.
    for phase in [&record["result"]["capacity"], &record["result"]["loads"][0]] {
        assert!(phase["sent"].as_u64() >= Some(2000), "{phase}");
        assert!(phase["received"].as_u64() > Some(500), "{phase}");
        assert!(phase["samples"].as_u64() > Some(10), "{phase}");
        for unknown in ["relay_cpu_seconds", "relay_core_busy_seconds", "nanoseconds_per_packet"] {
            assert_eq!(phase[unknown], Value::Null, "{phase}");
        }
    }

    // A wrong key, a closed port, and a relay that does not forward.
    let other = lab.relay.run("wg pubkey", &lab.relay.run("wg genkey", ""));
    let wrong = lab.failure(ADDRESS, other.trim());
    assert!(wrong.contains("Is --remote-key what `wg show"), "{wrong}");
    let closed = lab.failure("192.0.2.1:9", &lab.public);
    assert!(closed.contains("Connection refused"), "{closed}");
    lab.relay.run("sysctl net.ipv4.ip_forward=0", "");
    let idle = lab.failure(ADDRESS, &lab.public);
    assert!(idle.contains("nothing arrives from 2 of 2 senders"), "{idle}");
    assert!(idle.contains("forward (sysctl net.ipv4.ip_forward=1"), "{idle}");
}
