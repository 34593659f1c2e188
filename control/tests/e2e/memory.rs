//! The memory that the daemon uses: its buffers follow the limit of its control group.

use std::net::SocketAddr;
use std::time::Duration;

use crate::harness::{
    ALICE, Backend, Daemon, Family, Flood, Forgery, HUB, KeyPair, Lab, Program, Threads,
    eventually, ping_until_answered, seconds,
};

/// The limit (bytes), as a container gets it.
const LIMIT: u64 = 128 << 20;
const WORKERS: usize = 64;
/// Peers that never answer.
const ABSENT: usize = 250;
/// Pause after each train of the flood: the CPUs have 64 workers to run as well.
const PAUSE: Duration = Duration::from_millis(1);

/// With 64 workers, a flood of forged datagrams and one of packets for absent peers stay within 128
/// MiB, the kernel's socket buffers included. The daemon sees control groups that say so.
///
/// Not a group of this test's own: that would depend on the version and on what the machine allows.
fn a_flood_fits_in_the_limit_of_the_group(backend: Backend) {
    let lab = Lab::new();
    let (namespace, outside) = (lab.namespace("hub"), lab.namespace("outside"));
    lab.link((&namespace, "outside"), (&outside, "out0"), 1500);
    namespace.run("ip address add 192.0.2.1/24 dev outside");
    outside.run("ip address add 192.0.2.2/24 dev out0");
    // Version 1 and 2: the process's own groups have one of them.
    let groups = format!(
        "mount -t tmpfs none /sys/fs/cgroup && mkdir /sys/fs/cgroup/memory &&
         echo {LIMIT} >/sys/fs/cgroup/memory.max &&
         echo {LIMIT} >/sys/fs/cgroup/memory/memory.limit_in_bytes && exec \"$@\""
    );
    let wrapper = ["unshare", "--mount", "sh", "-c", &groups, "sh"];
    let workers = WORKERS.to_string();
    let environment = [("WG_BOUNCE_WORKERS", workers.as_str())];
    let ours = Program::Ours(backend);
    let hub = Daemon::start_under(&wrapper, &lab, &namespace, "hub", ours, &environment);
    let alice = Daemon::start(&lab, &outside, "alice", ours);
    let mut config =
        format!("[Interface]\nPrivateKey = {}\nListenPort = 51820\n", hub.key.private());
    let mut peer = |key: String, allowed: &str, port: usize| {
        config += &format!(
            "[Peer]\nPublicKey = {key}\nAllowedIPs = {allowed}\nEndpoint = 192.0.2.2:{port}\n"
        );
    };
    peer(alice.key.public(), ALICE.inner(Family::V4), 51820);
    for number in 1..=ABSENT {
        peer(KeyPair::new().public(), &format!("10.80.0.{number}"), 10_000 + number);
    }
    hub.configure("setconf", &config);
    hub.bring_up(1420, &[&format!("{}/24", HUB.inner(Family::V4)), "10.80.255.1/16"]);
    alice.set_private_key();
    let hub_key = hub.key.public();
    alice.set(&format!(
        "listen-port 51820 peer {hub_key} endpoint 192.0.2.1:51820 allowed-ips 0.0.0.0/0"
    ));
    alice.bring_up(1420, &[&format!("{}/24", ALICE.inner(Family::V4))]);
    ping_until_answered(&outside, HUB.inner(Family::V4));

    let granted = granted_to_sockets(&hub);
    let idle = hub.resident_kib() << 10;
    let target: SocketAddr = "192.0.2.1:51820".parse().expect("an address");
    let mut make = Forgery::Data.maker(&hub.key, None);
    let (mut message, mut worker) = (Vec::new(), 0);
    let flood = Flood::bursts(&outside, "0.0.0.0:0", target, move |payload| {
        make(&mut message);
        message.resize(1400, 0);
        worker = (worker + 1) % WORKERS as u8;
        message[4] = worker;
        *payload = message.repeat(44);
        (1400, PAUSE)
    });
    let mut threads = Threads::default();
    // Many flows, which the interface's queues share out to all workers.
    let sockets: Vec<_> = (0..WORKERS).map(|_| namespace.udp_socket("0.0.0.0:0")).collect();
    let mut next = 0;
    threads.repeat(move || {
        for socket in &sockets {
            next = (next + 1) % ABSENT;
            let address = SocketAddr::from(([10, 80, 0, next as u8 + 1], 9));
            // A full queue drops packets.
            let _ = socket.send_to(&[0; 1392], address);
        }
        std::thread::sleep(PAUSE);
    });
    let mut most = 0;
    for _ in 0..30 {
        most = most.max(hub.resident_kib() << 10);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(flood.sent() > 20 * WORKERS as u64, "the flood was too weak: {}", flood.sent());
    // The honest peer gets through.
    eventually(seconds(20), "alice is answered", || {
        outside.attempt(&format!("ping -c 1 -W 1 {}", HUB.inner(Family::V4))).is_ok()
    });
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "idle {:.1} MiB, under flood {:.1} MiB, granted to sockets {:.1} MiB",
        mebibytes(idle),
        mebibytes(most),
        mebibytes(granted)
    );
    assert!(most + granted < LIMIT, "{most} and {granted} bytes");
}

/// The bytes that the daemon's UDP sockets may hold, for receiving and sending (`skmem` of ss(8)).
fn granted_to_sockets(hub: &Daemon) -> u64 {
    let text = hub.namespace.run("ss -H -u -a -n -m sport = :51820");
    let fields = text.split([',', '(']).filter_map(|field| {
        let number = field.strip_prefix("rb").or_else(|| field.strip_prefix("tb"))?;
        Some(number.parse::<u64>().expect("a number"))
    });
    let granted: Vec<u64> = fields.collect();
    assert_eq!(granted.len(), 2 * 2 * WORKERS, "two sockets of each worker: {text}");
    granted.iter().sum()
}

on_both_backends!(a_flood_fits_in_the_limit_of_the_group);
