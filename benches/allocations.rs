//! Counts allocations on the warm path, over the whole process: a real engine and TUN in a network
//! namespace relay trains from one peer to another, through the kernel and inside the worker. Fails
//! if any packet causes an allocation.
//!
//! Needs root: `sudo cargo bench -p wg-bounce-benches --bench allocations`. Without root, it prints
//! that it was skipped.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use wg_bounce_aead::{self, Aead, Key, Seal};
use wg_bounce_dataplane::engine::{Engine, IoChoice, Options, Sizes};
use wg_bounce_dataplane::messages;
use wg_bounce_dataplane::peer::{Peer, PeerId};
use wg_bounce_dataplane::receive_session::ReceiveSession;
use wg_bounce_dataplane::session::{KeypairInfo, Lifetime, SendSession};
use wg_bounce_dataplane::snapshot::{self, DirectRelay, Snapshot};
use wg_bounce_dataplane::wire::{DATA_OVERHEAD, DataHeader, write_data_header};
use wg_bounce_sys::Endpoint;
use wg_bounce_sys::route::RouteSocket;
use wg_bounce_sys::{OuterHeader, clock, socket::send_one, tun::Tun};

/// Counts every allocation of the process.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is forwarded unchanged to the system allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's contract is ours.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is ours.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const TRAIN: usize = 44;
const INNER: usize = 1408;
const MESSAGE: usize = INNER + DATA_OVERHEAD;
const ROUNDS: u64 = 400;
const WARM_UP: u64 = 200;

fn main() {
    match unshare(CloneFlags::CLONE_NEWNET) {
        Err(Errno::EPERM) => {
            println!("allocations: skipped: creating a network namespace needs root");
            return;
        }
        outcome => outcome.expect("a kernel with network namespaces"),
    }
    for io in [IoChoice::Uring, IoChoice::Mmsg] {
        for relaying in [DirectRelay::Never, DirectRelay::IfRoutedBack, DirectRelay::Always] {
            measure(io, relaying);
        }
    }
}

fn measure(io: IoChoice, relaying: DirectRelay) {
    let mut relay = Relay::new(io, relaying);
    let mut sender = Sender::new(relay.port);
    let receiver = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    receiver.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    relay.add_peer(1, Ipv4Addr::new(10, 0, 0, 2), sender.socket.local_addr().expect("bound"));
    relay.add_peer(2, Ipv4Addr::new(10, 0, 0, 3), receiver.local_addr().expect("bound"));

    let mut buffer = vec![0u8; 65_536];
    let mut relay_round = |sender: &mut Sender| {
        sender.send_train();
        for _ in 0..TRAIN {
            receiver.recv(&mut buffer).expect("the relay forwards every packet");
        }
    };
    (0..WARM_UP).for_each(|_| relay_round(&mut sender));
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    (0..ROUNDS).for_each(|_| relay_round(&mut sender));
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;

    let packets = ROUNDS * TRAIN as u64;
    println!("{io:?}, {relaying:?}: {packets} packets relayed, {allocations} allocations");
    let past_the_tun: u64 = relay.engine.counters().map(|counters| counters.relayed.read()).sum();
    let expected = (ROUNDS + WARM_UP) * TRAIN as u64;
    assert_eq!(past_the_tun, if relaying == DirectRelay::Never { 0 } else { expected });
    relay.engine.stop();
    assert_eq!(allocations, 0, "the warm path must not allocate");
}

/// An engine that relays between its peers.
struct Relay {
    engine: Engine,
    port: u16,
    peers: Snapshot,
}

impl Relay {
    fn new(io: IoChoice, relaying: DirectRelay) -> Relay {
        run("ip link set lo up");
        let tun = Tun::create("relay%d", 1, true).expect("root can create an interface");
        let name = tun.name().expect("it has a name");
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("forwarding");
        run(&format!("ip address add 10.0.0.1/24 dev {name}"));
        let options = Options {
            workers: 1,
            pin: false,
            io,
            aead: wg_bounce_aead::Choice::Auto,
            gso: true,
            gro: true,
            tun_offload: true,
            sizes: Sizes::FULL,
        };
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let wake = Arc::new(EventFd::from_value_and_flags(0, flags).expect("an eventfd"));
        let (mut engine, _events) = Engine::start(&options, tun, wake).expect("workers");
        let bound = engine.bind(0, 0).expect("a port");
        let port = bound.port;
        engine.switch(bound);
        run(&format!("ip link set {name} up mtu 1420"));
        let routes = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        );
        let interface = nix::net::if_::if_nametoindex(name.as_str()).expect("it exists");
        let routes = RouteSocket::new(routes.expect("netlink"), interface);
        engine.command(0, messages::Command::AskRoutes(Some(routes)));
        let relay = snapshot::Relay {
            mode: wg_bounce_sys::PerFamily { v4: relaying, v6: relaying },
            routes: 1,
            ..snapshot::Relay::default()
        };
        let peers = Snapshot { is_up: true, mtu: 1420, relay, ..Snapshot::default() };
        Relay { engine, port, peers }
    }

    /// Adds a peer with a session. Both directions share a key made of the peer's number.
    fn add_peer(&mut self, number: u8, inner: Ipv4Addr, remote: SocketAddr) {
        let peer = Arc::new(Peer::new(PeerId(number.into()), [number; 32]));
        peer.set_endpoint(Endpoint { remote, source: None });
        peer.set_watched(true);
        let info = KeypairInfo {
            local_index: u32::from(number) << 8,
            remote_index: 0,
            created: clock::boot_time(),
            is_initiator: false,
            lifetime: Lifetime::default(),
        };
        let session = ReceiveSession::new(Key::new(&[number; 32]), info, Arc::clone(&peer));
        self.engine.command(0, messages::Command::Install(Box::new(session)));
        let session = Arc::new(SendSession::new(Key::new(&[number; 32]), info));
        let _none = peer.set_session(Some(session));
        self.peers.routes.insert(IpAddr::V4(inner).into(), peer);
        let epoch = self.engine.publish(self.peers.clone());
        while self.engine.epoch_reached() < epoch {
            std::thread::yield_now();
        }
    }
}

/// The first peer: seals UDP packets for the second one and sends them in trains.
struct Sender {
    socket: UdpSocket,
    relay: SocketAddr,
    key: Key,
    counter: u64,
    train: Vec<u8>,
}

impl Sender {
    fn new(port: u16) -> Sender {
        Sender {
            socket: UdpSocket::bind("127.0.0.1:0").expect("a socket"),
            relay: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            key: Key::new(&[1; 32]),
            counter: 0,
            train: vec![0; TRAIN * MESSAGE],
        }
    }

    fn send_train(&mut self) {
        for message in self.train.chunks_exact_mut(MESSAGE) {
            write_data_header(message, DataHeader { receiver: 1 << 8, counter: self.counter });
            write_packet(&mut message[16..16 + INNER]);
            let counter = self.counter;
            Aead::best().seal(&mut [Seal { key: &self.key, counter, message }]);
            self.counter += 1;
        }
        let to = Endpoint { remote: self.relay, source: None };
        let pieces = [IoSlice::new(&self.train)];
        send_one(self.socket.as_raw_fd(), &to, OuterHeader::default(), MESSAGE, &pieces)
            .expect("a train fits the socket buffer");
    }
}

/// Writes a UDP packet from 10.0.0.2 to 10.0.0.3 without a UDP checksum.
fn write_packet(packet: &mut [u8]) {
    packet.fill(0);
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(INNER as u16).to_be_bytes());
    packet[6] = 0x40; // do not fragment
    packet[8] = 64;
    packet[9] = 17;
    packet[12..16].copy_from_slice(&[10, 0, 0, 2]);
    packet[16..20].copy_from_slice(&[10, 0, 0, 3]);
    let sum =
        wg_bounce_dataplane::checksum::finish(wg_bounce_dataplane::checksum::sum(&packet[..20]));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet[20..24].copy_from_slice(&[0x30, 0x39, 0x30, 0x39]);
    packet[24..26].copy_from_slice(&((INNER - 20) as u16).to_be_bytes());
}

fn run(line: &str) {
    let mut words = line.split(' ');
    let status = Command::new(words.next().expect("a program")).args(words).status();
    assert!(status.is_ok_and(|status| status.success()), "{line}");
}
