//! Mixed traffic: UDP in packets small and large, fragmented, and to addresses without a host;
//! TCP; and noise from a sender without a key.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use wg_bounce_fuzz::Random;

use super::world::World;
use crate::harness::{Family, Forgery, Namespace, Threads, seconds};

const UDP_PORT: u16 = 9000;
const TCP_PORT: u16 = 9100;

/// Packets of a burst at most, and the pause after it.
const BURST: usize = 48;
const PAUSE: Duration = Duration::from_millis(5);
/// Receive buffer of a UDP socket (bytes).
const RECEIVE_BUFFER: usize = 32 << 20;
/// The pause after a chunk of a TCP connection, and the bytes of it.
const CHUNK_PAUSE: Duration = Duration::from_millis(4);
const CHUNK: usize = 64 << 10;
/// A connection ends after about this many chunks.
const CHUNKS: usize = 500;
/// Messages of noise at once, and the pause after them.
const NOISE: usize = 20;
const NOISE_PAUSE: Duration = Duration::from_millis(50);

/// The counts of all generators.
#[derive(Default)]
struct Moved {
    udp_sent: AtomicU64,
    udp_received: AtomicU64,
    tcp_bytes: AtomicU64,
}

/// Traffic that flows until it is stopped.
pub struct Traffic {
    threads: Threads,
    moved: Arc<Moved>,
}

/// Text about the traffic of one interval.
pub struct Summary(Arc<Moved>);

impl Traffic {
    /// Begins; `has_noise`: also messages that no peer has sent.
    pub fn start(world: &World, random: &mut Random, has_noise: bool) -> Traffic {
        let mut traffic = Traffic { threads: Threads::default(), moved: Arc::default() };
        let hub = &world.hub.namespace;
        let mut targets = vec![address("10.77.0.1"), address("fd77::1")];
        for member in &world.members {
            targets.extend(Family::BOTH.map(|family| address(&member.inner(family))));
        }
        traffic.serve(hub);
        for member in &world.members {
            let namespace = &member.daemon.namespace;
            traffic.serve(namespace);
            traffic.send_tcp(namespace, targets.clone(), Random::new(random.number()));
        }
        traffic.send_tcp(hub, targets.split_off(2), Random::new(random.number()));
        // Moving, of no peer, and of none of the tunnel's networks.
        targets.extend(["10.77.9.1", "10.77.77.77", "fd77::77"].map(address));
        for member in &world.members {
            targets.extend(Family::BOTH.map(|family| address(&member.inner(family))));
        }
        for member in &world.members {
            let namespace = &member.daemon.namespace;
            traffic.send_udp(namespace, UDP_PORT, targets.clone(), Random::new(random.number()));
        }
        // No datagram is for these: what the kernel counts in the hub's namespace is the daemon's.
        traffic.send_udp(hub, 0, targets.split_off(2), Random::new(random.number()));
        if has_noise {
            traffic.make_noise(world, Random::new(random.number()));
        }
        traffic
    }

    /// Ends, and returns when nothing more is sent.
    pub fn stop(self) -> Summary {
        drop(self.threads);
        Summary(self.moved)
    }

    fn send_udp(&mut self, from: &Namespace, port: u16, targets: Vec<IpAddr>, mut random: Random) {
        let second = if port == 0 { 0 } else { port + 1 };
        let sockets = [format!("0.0.0.0:{port}"), format!("[::]:{second}")].map(|local| {
            let socket = from.udp_socket(&local);
            socket.set_nonblocking(true).expect("a socket");
            // Losses in the kernel's UDP are the daemon's alone.
            setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).expect("root may");
            socket
        });
        let (moved, payload) = (Arc::clone(&self.moved), [0xa5; 4000]);
        self.threads.repeat(move || {
            let target = random.pick(&targets);
            let (socket, to) = match target {
                IpAddr::V4(_) => (&sockets[0], SocketAddr::new(target, UDP_PORT)),
                IpAddr::V6(_) => (&sockets[1], SocketAddr::new(target, UDP_PORT + 1)),
            };
            let length = match random.below(8) {
                0 => random.below(payload.len()),
                1..4 => random.below(200),
                _ => 1200 + random.below(172),
            };
            for _ in 0..=random.below(BURST) {
                // ICMP errors of earlier packets, and what the tunnel's state at the time forbids.
                if socket.send_to(&payload[..length], to).is_ok() {
                    moved.udp_sent.fetch_add(1, Ordering::Relaxed);
                }
            }
            if port != 0 {
                let received = sockets.iter().map(drain).sum();
                moved.udp_received.fetch_add(received, Ordering::Relaxed);
            }
            sleep(PAUSE);
        });
    }

    fn serve(&mut self, namespace: &Namespace) {
        let local = (Ipv6Addr::UNSPECIFIED, TCP_PORT);
        let listener = namespace.enter(|| TcpListener::bind(local).expect("the port is free"));
        listener.set_nonblocking(true).expect("a listener");
        let (moved, mut streams) = (Arc::clone(&self.moved), Vec::new());
        let mut buffer = vec![0; CHUNK];
        self.threads.repeat(move || {
            if let Ok((stream, _)) = listener.accept()
                && stream.set_nonblocking(true).is_ok()
            {
                streams.push(stream);
            }
            streams.retain_mut(|stream: &mut TcpStream| match stream.read(&mut buffer) {
                Ok(0) => false,
                Ok(length) => {
                    moved.tcp_bytes.fetch_add(length as u64, Ordering::Relaxed);
                    true
                }
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            });
            sleep(Duration::from_millis(1));
        });
    }

    fn send_tcp(&mut self, from: &Namespace, targets: Vec<IpAddr>, mut random: Random) {
        let (from, chunk) = (from.clone(), vec![0x5a; CHUNK]);
        let mut stream: Option<TcpStream> = None;
        self.threads.repeat(move || {
            sleep(CHUNK_PAUSE);
            let Some(open) = &mut stream else {
                let to = SocketAddr::new(random.pick(&targets), TCP_PORT);
                stream = from.enter(|| TcpStream::connect_timeout(&to, seconds(1))).ok();
                if let Some(open) = &stream {
                    open.set_write_timeout(Some(seconds(1))).expect("not zero");
                }
                return;
            };
            // Stalls and resets come with the faults.
            if open.write(&chunk).is_err() || random.below(CHUNKS) == 0 {
                stream = None;
            }
        });
    }

    fn make_noise(&mut self, world: &World, mut random: Random) {
        let socket = world.crowd.udp_socket("203.0.113.2:0");
        let to: SocketAddr = SocketAddr::new(address("203.0.113.1"), world.port);
        let makers = Forgery::ALL.map(|forgery| forgery.maker(&world.hub.key, None));
        let (mut makers, mut message) = (Vec::from(makers), Vec::new());
        self.threads.repeat(move || {
            for _ in 0..NOISE {
                let maker = random.below(makers.len());
                makers[maker](&mut message);
                match random.below(6) {
                    0 => message.truncate(random.below(message.len())),
                    1 => message.resize(message.len() + 1 + random.below(64), 0),
                    _ => {}
                }
                // The hub may have moved to another port.
                let _ = socket.send_to(&message, to);
            }
            sleep(NOISE_PAUSE);
        });
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Summary(moved) = self;
        let megabytes = read(&moved.tcp_bytes) / 1_000_000;
        let (sent, received) = (read(&moved.udp_sent), read(&moved.udp_received));
        write!(out, "UDP {sent} sent, {received} received, TCP {megabytes} MB")
    }
}

/// Reads all datagrams that wait; returns their number.
fn drain(socket: &UdpSocket) -> u64 {
    let mut count = 0;
    loop {
        match socket.recv(&mut [0; 4096]) {
            Ok(_) => count += 1,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return count,
            // A pending ICMP error.
            Err(_) => {}
        }
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
