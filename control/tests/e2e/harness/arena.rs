//! A hub on a core of its own, with everything else on another one.
//!
//! ```text
//!   peers ── 192.0.2.0/24 ── hub ── 203.0.113.0/24 ── mallory
//! ```
//!
//! The kernel's work on a received packet runs on the core of the receiver, as if these were
//! machines: otherwise, the sender of a flood would do it for its victim.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::crowd::{CROWD_NETWORK, Crowd};
use super::daemon::{Backend, Daemon, Program, RelayMode};
use super::fake_peer::FakePeer;
use super::lab::{Lab, Namespace};
use super::packet::Draft;
use super::relay::endpoint;
use super::spoof::SPOOFED_NETWORK;

/// Bytes of a packet of [`Arena::blast`].
const BLAST_LEN: usize = 1408;
/// Packets of a train, and in flight.
const BLAST_TRAIN: usize = 44;
const BLAST_WINDOW: usize = 20 * BLAST_TRAIN;
/// Silence after which all packets in flight count as lost.
const BLAST_SILENCE: Duration = Duration::from_millis(5);

/// The hub, two peers with a session, and a sender of floods.
pub struct Arena {
    /// The hub.
    pub hub: Daemon,
    /// A peer at 172.16.0.2.
    pub alice: FakePeer,
    /// A peer at 172.16.0.3.
    pub bob: FakePeer,
    /// A namespace without a peer.
    pub mallory: Namespace,
    _lab: Lab,
    core: usize,
}

/// The result of [`Arena::blast`].
pub struct Blast {
    /// Packets per second.
    pub rate: f64,
    /// Times at which nothing arrived any longer.
    losses: u32,
    /// Shares of the hub's core: its control thread, all its threads, and idle.
    usage: [f64; 3],
}

impl fmt::Display for Blast {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [control, daemon, idle] = self.usage.map(|share| 100.0 * share);
        write!(
            out,
            "{:.0} packets/s, {} stalls, control {control:.0} %, daemon {daemon:.0} %, core idle \
             {idle:.0} %",
            self.rate, self.losses
        )
    }
}

/// Addresses of the hub, as the peers and as mallory see it.
pub fn arena_hub() -> [SocketAddr; 2] {
    ["192.0.2.1", "203.0.113.1"].map(|address| endpoint(address, 51820))
}

impl Arena {
    /// A hub that relays by itself, with the peers of `crowd` too. Pins the calling thread, and all
    /// threads that it starts, to a core other than the hub's. None on a machine with one core.
    pub fn new(backend: Backend, crowd: &mut Option<Crowd>) -> Option<Arena> {
        let allowed = sched_getaffinity(Pid::from_raw(0)).expect("our own");
        let mut cores = (0..CpuSet::count()).filter(|&core| allowed.is_set(core) == Ok(true));
        let (ours, core) = (cores.next()?, cores.next_back()?);
        let mut only = CpuSet::new();
        only.set(ours).expect("it is in the set");
        sched_setaffinity(Pid::from_raw(0), &only).expect("it is allowed");

        let lab = Lab::new();
        let [hub, peers, mallory] = ["hub", "peers", "mallory"].map(|role| lab.namespace(role));
        hub.sysctl("net.ipv4.ip_forward=1");
        for (other, name, network) in
            [(&peers, "peers", "192.0.2"), (&mallory, "mallory", "203.0.113")]
        {
            lab.link((&hub, name), (other, "out0"), 1500);
            hub.run(&format!("ip address add {network}.1/24 dev {name}"));
            other.run(&format!("ip address add {network}.2/24 dev out0"));
            for (namespace, device, core) in [(&hub, name, core), (other, "out0", ours)] {
                let file = format!("/sys/class/net/{device}/queues/rx-0/rps_cpus");
                namespace.run_with(&format!("tee {file}"), &format!("{:x}", 1u64 << core));
            }
        }
        peers.run(&format!("ip route add local {CROWD_NETWORK} dev lo"));
        hub.run(&format!("ip route add {CROWD_NETWORK} via 192.0.2.2"));
        hub.run(&format!("ip route add {SPOOFED_NETWORK} via 203.0.113.2"));
        let [near, _] = arena_hub();
        let core_text = core.to_string();
        let hub = Daemon::start_under(
            &["taskset", "-c", &core_text],
            &lab,
            &hub,
            "hub",
            Program::Ours(backend),
            &[RelayMode::Direct.variable(), ("WG_BOUNCE_WORKERS", "1"), ("LOG_LEVEL", "info")],
        );
        let peer = || FakePeer::new(&peers, "192.0.2.2:0", near, &hub.key);
        let (mut alice, mut bob) = (peer(), peer());
        let mut config =
            format!("[Interface]\nPrivateKey = {}\nListenPort = 51820\n", hub.key.private());
        for (peer, inner) in [(&alice, "172.16.0.2"), (&bob, "172.16.0.3")] {
            let public = peer.key.public();
            config += &format!("[Peer]\nPublicKey = {public}\nAllowedIPs = {inner}/32\n");
        }
        if let Some(crowd) = crowd {
            crowd.join(&hub.key);
            crowd.open(&peers, "192.0.2.2");
            config += &crowd.config();
        }
        hub.configure("setconf", &config);
        hub.bring_up(1420, &["172.16.0.1/12"]);
        alice.connect();
        bob.connect();
        Some(Arena { hub, alice, bob, mallory, _lab: lab, core })
    }

    /// Sends packets from alice to bob for `duration`, as many as the hub relays.
    #[expect(clippy::disallowed_methods, reason = "a test measures time")]
    pub fn blast(&mut self, duration: Duration) -> Blast {
        let packet = Draft::udp("172.16.0.2", "172.16.0.3", BLAST_LEN - 28).build();
        self.bob.begin_counting();
        let before = self.usage();
        let start = Instant::now();
        let (mut arrived, mut in_flight, mut last, mut losses) = (0, 0, start, 0);
        let mut now = start;
        while now < start + duration {
            if in_flight + BLAST_TRAIN <= BLAST_WINDOW {
                self.alice.send_copies(&packet, BLAST_TRAIN);
                in_flight += BLAST_TRAIN;
            }
            let count = self.bob.count_arrived();
            arrived += count;
            in_flight = in_flight.saturating_sub(count);
            now = Instant::now();
            if count != 0 {
                last = now;
            } else if now - last > BLAST_SILENCE {
                (in_flight, last) = (0, now);
                losses += 1;
            }
        }
        self.bob.end_counting();
        let seconds = (now - start).as_secs_f64();
        let after = self.usage();
        let usage = [0, 1, 2].map(|of| (after[of] - before[of]).as_secs_f64() / seconds);
        Blast { rate: arrived as f64 / seconds, losses, usage }
    }

    /// CPU time of the hub's control thread, of all its threads, and the idle time of its core.
    fn usage(&self) -> [Duration; 3] {
        let control = Duration::from_millis(self.hub.control_ticks() * 10);
        [control, self.hub.cpu_time(), self.idle_time()]
    }

    /// Time for which the hub's core was idle since boot.
    fn idle_time(&self) -> Duration {
        let text = std::fs::read_to_string("/proc/stat").expect("every Linux has it");
        let name = format!("cpu{} ", self.core);
        let line = text.lines().find_map(|line| line.strip_prefix(&name)).expect("a core");
        // The fourth is the idle time (clock ticks, 100 per second; proc_stat(5)).
        let ticks: u64 = line.split(' ').nth(3).expect("ten").parse().expect("a number");
        Duration::from_millis(ticks * 10)
    }

    /// Packets and bytes that the hub has received from mallory, and sent there.
    pub fn traffic_of_mallory(&self) -> [(u64, u64); 2] {
        let read = |name: &str| -> u64 {
            let file = format!("/sys/class/net/mallory/statistics/{name}");
            let text = self.hub.namespace.run(&format!("cat {file}"));
            text.trim().parse().expect("a number")
        };
        [(read("rx_packets"), read("rx_bytes")), (read("tx_packets"), read("tx_bytes"))]
    }
}
