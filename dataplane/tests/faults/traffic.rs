//! Numbered packets through a hub, and where each of them went.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use wg_bounce_dataplane::engine::IoChoice;
use wg_bounce_dataplane::snapshot::DirectRelay;
use wg_bounce_sys::faults::free_buffers;
use wg_bounce_sys::{Endpoint, clock};

use crate::support::{BUFFERS, Hub, Remote, WORKERS, udp_packet, udp_packet_to};

/// Time limit of every wait.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Frame buffers of a worker.
const FRAMES: usize = 32;
/// Packets of one flow that are sent one right after the other.
const BURST: u32 = 8;
/// Bytes of an inner packet's payload.
const PAYLOAD_LEN: usize = 100;

/// [`PATIENCE`] of running time: a process that is stopped meanwhile does not run out of it.
pub struct Patience {
    left: Duration,
    now: Duration,
}

impl Patience {
    pub fn new() -> Patience {
        Patience { left: PATIENCE, now: clock::uptime() }
    }

    /// Whether some is left; to be called all the time.
    pub fn is_left(&mut self) -> bool {
        let before = std::mem::replace(&mut self.now, clock::uptime());
        self.left = self.left.saturating_sub((self.now - before).min(PATIENCE / 1000));
        !self.left.is_zero()
    }
}

/// A hub, two peers whose sessions belong to different workers, and what they sent each other.
pub struct Traffic {
    pub hub: Hub,
    peers: [Remote; 2],
    has_interface: bool,
    /// The number of packets sent so far, and of the next one.
    sent: u32,
    arrived: HashSet<u32>,
}

impl Traffic {
    /// Peers behind a hub with an interface, and an application at the hub.
    pub fn with_interface(io: IoChoice) -> Traffic {
        let mut hub = Hub::start(io);
        hub.relay(DirectRelay::Always);
        Traffic::new(hub, true)
    }

    /// Peers behind a relay without an interface.
    pub fn without_interface(io: IoChoice) -> Traffic {
        Traffic::new(Hub::without_interface(io), false)
    }

    fn new(mut hub: Hub, has_interface: bool) -> Traffic {
        let socket = || {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            socket.set_nonblocking(true).expect("an option");
            socket
        };
        hub.app.set_nonblocking(true).expect("an option");
        let peers = [hub.add_peer(2, 0, socket()), hub.add_peer(3, 1, socket())];
        Traffic { hub, peers, has_interface, sent: 0, arrived: HashSet::new() }
    }

    /// Ends the workers, and with them the interface.
    pub fn stop(self) {
        self.hub.engine.stop();
    }

    /// Sends some packets on every flow.
    pub fn burst(&mut self) {
        for from in [0, 1] {
            let to = self.peers[1 - from].inner;
            for _ in 0..BURST {
                let payload = self.next_payload();
                let packet = udp_packet_to(self.peers[from].inner, to, &payload);
                self.send(from, &packet);
            }
            for _ in 0..if self.has_interface { BURST } else { 0 } {
                let payload = self.next_payload();
                self.send(from, &udp_packet(self.peers[from].inner, &payload));
                let payload = self.next_payload();
                self.hub.app.send_to(&payload, (to, 7001)).expect("sent");
            }
        }
    }

    fn next_payload(&mut self) -> [u8; PAYLOAD_LEN] {
        let mut payload = [0; PAYLOAD_LEN];
        payload[..4].copy_from_slice(&self.sent.to_be_bytes());
        self.sent += 1;
        payload
    }

    fn send(&mut self, from: usize, packet: &[u8]) {
        let message = self.peers[from].seal_packet(packet);
        self.peers[from].send(&message, self.hub.port());
    }

    /// Takes what has arrived; returns the number of packets that are on their way. Nothing must
    /// arrive twice.
    #[track_caller]
    pub fn on_the_way(&mut self) -> u32 {
        let mut bytes = [0; 2048];
        let mut note = |payload: &[u8]| {
            let number = u32::from_be_bytes(payload[..4].try_into().expect("four bytes"));
            assert!(self.arrived.insert(number), "packet {number} arrived twice");
        };
        while let Ok(length) = self.hub.app.recv(&mut bytes) {
            note(&bytes[..length]);
        }
        for peer in &self.peers {
            while let Ok(length) = peer.socket.recv(&mut bytes) {
                note(&peer.open(&mut bytes[..length])[28..]);
            }
        }
        let gone = self.arrived.len() as u64 + self.drops().values().sum::<u64>();
        let left = u64::from(self.sent).checked_sub(gone);
        left.unwrap_or_else(|| panic!("{gone} of {} packets: {:?}", self.sent, self.drops())) as u32
    }

    /// Waits until at most `count` packets are on their way.
    #[track_caller]
    pub fn settle(&mut self, count: u32) {
        let mut patience = Patience::new();
        while self.on_the_way() > count {
            let (left, drops) = (self.on_the_way(), self.drops());
            assert!(patience.is_left(), "{left} of {} packets lost; {drops:?}", self.sent);
            std::thread::yield_now();
        }
    }

    /// Checks that everything works: all packets arrive, and all buffers come back.
    #[track_caller]
    pub fn works(&mut self) {
        self.settle(0);
        let dropped = self.drops();
        self.burst();
        self.settle(0);
        assert_eq!(self.drops(), dropped, "without faults nothing is dropped");
        let all = (usize::from(BUFFERS), FRAMES);
        let mut patience = Patience::new();
        while free_buffers().values().filter(|&&free| free == all).count() < WORKERS {
            assert!(patience.is_left(), "buffers are missing: {:?}", free_buffers());
            std::thread::yield_now();
        }
    }

    /// Packets dropped so far, by reason.
    pub fn drops(&self) -> BTreeMap<&'static str, u64> {
        let mut drops = BTreeMap::new();
        for (name, count) in self.hub.engine.counters().flat_map(|counters| counters.list()) {
            if name.starts_with("drop_") && count > 0 {
                *drops.entry(name).or_default() += count;
            }
        }
        drops
    }

    /// Forgets what sends have taught about the paths to the peers.
    pub fn forget_paths(&self) {
        for peer in &self.peers {
            let there = peer.peer.endpoint().expect("it has sent");
            let elsewhere = Endpoint { source: Some(Ipv4Addr::LOCALHOST.into()), ..there };
            peer.peer.set_endpoint(Endpoint { source: None, ..there });
            peer.peer.set_endpoint(elsewhere);
        }
    }
}

/// CPU time that all workers of this process have used.
pub fn cpu_time() -> Duration {
    let threads = fs::read_dir("/proc/self/task").expect("procfs");
    let of_thread = |path: std::path::PathBuf| {
        let name = fs::read_to_string(path.join("comm")).ok()?;
        let statistics = fs::read_to_string(path.join("schedstat")).ok()?;
        let nanoseconds = statistics.split(' ').next()?.parse().ok()?;
        name.starts_with("worker-").then(|| Duration::from_nanos(nanoseconds))
    };
    threads.filter_map(|thread| of_thread(thread.ok()?.path())).sum()
}
