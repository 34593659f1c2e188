//! A real engine in its own network namespace, and peers that the test plays.
#![allow(dead_code, reason = "the tests of faults use some of it")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command as Program;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket as netlink};
use wg_bounce_aead::{self, Aead, Key, Open, Seal};
use wg_bounce_dataplane::checksum;
use wg_bounce_dataplane::counters::imbalance;
use wg_bounce_dataplane::engine::{Engine, Events, IoChoice, Options, Sizes};
use wg_bounce_dataplane::messages::Command;
use wg_bounce_dataplane::peer::{Peer, PeerId};
use wg_bounce_dataplane::receive_session::ReceiveSession;
use wg_bounce_dataplane::session::{KeypairInfo, Lifetime, SendSession};
use wg_bounce_dataplane::snapshot::{DirectRelay, Snapshot};
use wg_bounce_dataplane::wire::{DATA_OVERHEAD, DataHeader, write_data_header};
use wg_bounce_sys::Endpoint;
use wg_bounce_sys::route::RouteSocket;
use wg_bounce_sys::{clock, tun::Tun};

/// Workers of every engine here.
pub const WORKERS: usize = 2;
/// Buffers for trains of each worker.
pub const BUFFERS: u16 = 64;
/// Our address inside the tunnel, and the port of [`Hub::app`].
pub const INNER: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 9, 0, 1), 7000);
/// Time limit of every wait.
const PATIENCE: Duration = Duration::from_secs(5);

/// Serializes the tests: a child process of another test holds copies of all descriptors between
/// fork and exec, and with them ports and interfaces that a test expects to be free.
static TURN: Mutex<()> = Mutex::new(());

/// Waits for the end of other tests.
pub fn alone() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a test once per backend, each time in a fresh network namespace.
pub fn on_both_backends(test: fn(IoChoice)) {
    let _turn = alone();
    for io in [IoChoice::Uring, IoChoice::Mmsg] {
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("root, to make a network namespace");
            run("ip link set lo up");
            test(io);
        });
        assert!(thread.join().is_ok(), "failed with {io:?}");
    }
}

/// Runs a program that must succeed.
pub fn run(line: &str) {
    let mut words = line.split(' ');
    let status = Program::new(words.next().expect("a program")).args(words).status();
    assert!(status.is_ok_and(|status| status.success()), "{line}");
}

/// An engine with its interface, and an application behind it.
pub struct Hub {
    pub engine: Engine,
    pub events: Events,
    pub snapshot: Snapshot,
    port: u16,
    pub name: String,
    /// A socket on the inner address.
    pub app: UdpSocket,
}

impl Hub {
    pub fn start(io: IoChoice) -> Hub {
        Hub::start_with(io, 16 << 20)
    }

    /// As [`Hub::start`], with UDP socket buffers of `socket_buffer` bytes.
    pub fn start_with(io: IoChoice, socket_buffer: usize) -> Hub {
        let tun = Tun::create("hub%d", WORKERS, true).expect("root, to make an interface");
        let name = tun.name().expect("it has a name");
        run(&format!("ip address add {}/24 dev {name}", INNER.0));
        let (engine, events) = start_engine(io, tun, socket_buffer);
        // Without a link-local address, no router solicitation counts as a packet of the test.
        run(&format!("ip link set {name} addrgenmode none"));
        run(&format!("ip link set {name} up"));
        let app = UdpSocket::bind(INNER).expect("the inner address is ours");
        Hub::new(engine, events, name, app)
    }

    /// A relay without an interface, for which no privilege is needed. Nothing leads to its `app`.
    pub fn without_interface(io: IoChoice) -> Hub {
        let tun = Tun::absent(WORKERS).expect("eventfds");
        let (engine, events) = start_engine(io, tun, 1 << 20);
        let app = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let mut hub = Hub::new(engine, events, String::new(), app);
        hub.snapshot.relay.mode.v4 = DirectRelay::Alone;
        hub.publish();
        hub
    }

    fn new(engine: Engine, events: Events, name: String, app: UdpSocket) -> Hub {
        app.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let snapshot = Snapshot { is_up: true, mtu: 1420, ..Snapshot::default() };
        let mut hub = Hub { engine, events, snapshot, port: 0, name, app };
        hub.bind(0);
        hub
    }

    /// Moves to another port (zero: any); returns it once all workers use it.
    pub fn bind(&mut self, port: u16) -> u16 {
        let bound = self.engine.bind(port, 0).expect("the port is free");
        let port = bound.port;
        self.engine.switch(bound);
        self.port = port;
        self.publish();
        port
    }

    /// Publishes the snapshot and waits until all workers use it.
    pub fn publish(&mut self) {
        let epoch = self.engine.publish(self.snapshot.clone());
        eventually(|| self.engine.epoch_reached() >= epoch);
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Lets the workers relay from peer to peer, and ask the kernel for its routes.
    pub fn relay(&mut self, relaying: DirectRelay) {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("a sysctl");
        let index = nix::net::if_::if_nametoindex(self.name.as_str()).expect("it exists");
        for worker in 0..WORKERS {
            let flags = SockFlag::SOCK_CLOEXEC;
            let protocol = SockProtocol::NetlinkRoute;
            let socket = netlink(AddressFamily::Netlink, SockType::Raw, flags, protocol);
            let socket = RouteSocket::new(socket.expect("netlink"), index);
            self.engine.command(worker, Command::AskRoutes(Some(socket)));
        }
        self.snapshot.relay.mode.v4 = relaying;
        self.routes_changed();
    }

    /// Marks the kernel's earlier answers about routes as stale.
    pub fn routes_changed(&mut self) {
        self.snapshot.relay.routes += 1;
        self.publish();
    }

    /// A peer `10.9.0.NUMBER` whose session belongs to `worker`; with an endpoint on `socket`.
    pub fn add_peer(&mut self, number: u8, worker: usize, socket: UdpSocket) -> Remote {
        let remote = Remote::new(number, worker, socket);
        self.snapshot.routes.insert(IpAddr::V4(remote.inner).into(), remote.peer.clone());
        self.engine.command(worker, remote.installation());
        self.publish();
        remote.open_session();
        remote
    }

    /// The sum over all workers of the counter `name`.
    pub fn count(&self, name: &str) -> u64 {
        let all = self.engine.counters().flat_map(|counters| counters.list());
        all.filter(|(known, _)| *known == name).map(|(_, value)| value).sum()
    }

    /// Waits until the counter `name` is at `value`, and not above.
    #[track_caller]
    pub fn expect_count(&self, name: &str, value: u64) {
        eventually(|| self.count(name) >= value);
        assert_eq!(self.count(name), value, "{name}");
    }

    /// Stops the workers once the books of each are balanced.
    #[track_caller]
    pub fn stop(self) {
        eventually(|| self.engine.counters().all(|counters| imbalance(counters.list()) == 0));
        self.engine.stop();
    }

    /// The next payload that the application receives.
    #[track_caller]
    pub fn app_gets(&self) -> Vec<u8> {
        let mut buffer = vec![0; 65_536];
        let length = self.app.recv(&mut buffer).expect("the packet crosses the tunnel");
        buffer.truncate(length);
        buffer
    }
}

fn start_engine(io: IoChoice, tun: Tun, socket_buffer: usize) -> (Engine, Events) {
    let options = Options {
        workers: WORKERS,
        pin: false,
        io,
        aead: wg_bounce_aead::Choice::Auto,
        gso: true,
        gro: true,
        tun_offload: true,
        sizes: Sizes { buffers: BUFFERS, socket_buffer, ..Sizes::FULL },
    };
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    let wake = Arc::new(EventFd::from_value_and_flags(0, flags).expect("an eventfd"));
    Engine::start(&options, tun, wake).expect("workers")
}

/// Waits until something holds.
#[track_caller]
pub fn eventually(mut condition: impl FnMut() -> bool) {
    for _ in 0..PATIENCE.as_millis() {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(condition(), "timed out");
}

/// A peer that the test plays, with one well-known key for both directions.
pub struct Remote {
    pub socket: UdpSocket,
    pub peer: Arc<Peer>,
    pub inner: Ipv4Addr,
    pub index: u32,
    number: u8,
    counter: u64,
}

impl Remote {
    /// A peer `10.9.0.NUMBER` with an endpoint on `socket`; a session of `worker` is next.
    pub fn new(number: u8, worker: usize, socket: UdpSocket) -> Remote {
        let index = u32::from(number) << 8 | worker as u32;
        let peer = Arc::new(Peer::new(PeerId(number.into()), [number; 32]));
        let remote = socket.local_addr().expect("bound");
        peer.set_endpoint(Endpoint { remote, source: None });
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let inner = Ipv4Addr::new(10, 9, 0, number);
        Remote { socket, peer, inner, index, number, counter: 0 }
    }

    /// Goes on with the next session, under another index.
    pub fn renew(&mut self, index: u32) {
        (self.index, self.counter) = (index, 0);
    }

    /// The command for the worker of the present session.
    pub fn installation(&self) -> Command {
        let (key, peer) = (Key::new(&[self.number; 32]), Arc::clone(&self.peer));
        Command::Install(Box::new(ReceiveSession::new(key, info(self.index), peer)))
    }

    /// Publishes a session to send to this peer with.
    pub fn open_session(&self) {
        let session = SendSession::new(Key::new(&[self.number; 32]), info(self.index));
        let _none = self.peer.set_session(Some(Arc::new(session)));
    }

    /// The next message from this peer: `payload` in a UDP packet to the application.
    pub fn seal(&mut self, payload: &[u8]) -> Vec<u8> {
        let packet = udp_packet(self.inner, payload);
        self.seal_packet(&packet)
    }

    /// The next message from this peer, with any plaintext.
    pub fn seal_packet(&mut self, packet: &[u8]) -> Vec<u8> {
        self.seal_padded(packet, packet.len().next_multiple_of(16))
    }

    /// The next message from this peer, its plaintext padded to `padded` bytes with nonzero
    /// bytes.
    pub fn seal_padded(&mut self, packet: &[u8], padded: usize) -> Vec<u8> {
        let mut message = vec![0xee; padded + DATA_OVERHEAD];
        let counter = self.counter;
        self.counter += 1;
        write_data_header(&mut message, DataHeader { receiver: self.index, counter });
        message[16..16 + packet.len()].copy_from_slice(packet);
        let key = Key::new(&[self.number; 32]);
        Aead::best().seal(&mut [Seal { key: &key, counter, message: &mut message }]);
        message
    }

    pub fn send(&self, message: &[u8], port: u16) {
        let to = match self.socket.local_addr().expect("bound").ip() {
            IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            IpAddr::V6(_) => SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port)),
        };
        self.socket.send_to(message, to).expect("sent");
    }

    /// The UDP payload of the next message to this peer.
    #[track_caller]
    pub fn gets(&self) -> Vec<u8> {
        let packet = self.gets_plaintext();
        let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
        packet[28..length].to_vec()
    }

    /// The plaintext of the next message to this peer, padding included.
    #[track_caller]
    pub fn gets_plaintext(&self) -> Vec<u8> {
        let mut buffer = vec![0; 65_536];
        let length = self.socket.recv(&mut buffer).expect("a message to the peer");
        self.open(&mut buffer[..length]).to_vec()
    }

    /// The plaintext of a message to this peer, padding included.
    #[track_caller]
    pub fn open<'a>(&self, message: &'a mut [u8]) -> &'a [u8] {
        let end = message.len() - 16;
        let counter = u64::from_le_bytes(message[8..16].try_into().expect("eight bytes"));
        let key = Key::new(&[self.number; 32]);
        let mut batch = [Open { key: &key, counter, message: &mut *message, authentic: false }];
        Aead::best().open(&mut batch);
        assert!(batch[0].authentic, "message {counter} is sealed with the session's key");
        &message[16..end]
    }
}

fn info(index: u32) -> KeypairInfo {
    KeypairInfo {
        local_index: index,
        remote_index: index,
        created: clock::boot_time(),
        is_initiator: false,
        lifetime: Lifetime::default(),
    }
}

/// An IPv4 packet with a UDP datagram (without checksum) to the application.
pub fn udp_packet(from: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    udp_packet_to(from, INNER.0, payload)
}

/// An IPv4 packet with a UDP datagram (without checksum) to the application's port at any address.
pub fn udp_packet_to(from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 28 + payload.len()];
    let length = packet.len() as u16;
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[6] = 0x40; // do not fragment
    packet[8] = 64;
    packet[9] = 17;
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&to.octets());
    let sum = checksum::finish(checksum::sum(&packet[..20]));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet[20..22].copy_from_slice(&7001u16.to_be_bytes());
    packet[22..24].copy_from_slice(&INNER.1.to_be_bytes());
    packet[24..26].copy_from_slice(&(length - 20).to_be_bytes());
    packet[28..].copy_from_slice(payload);
    packet
}
