//! A worker that the test drives turn by turn, without threads or privilege: its sockets are bound
//! as the engine does it, peers send from the loopback address, and its TUN is a pair of sockets
//! that keep messages apart.

mod fuzz;
mod input;
mod kernel_routes;
mod outcome;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use crossbeam_channel::{Receiver, Sender as Lane, bounded};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use wg_bounce_aead::{Aead, Key};
use wg_bounce_sys::clock::{self, Millis};
use wg_bounce_sys::mmsg::Mmsg;
use wg_bounce_sys::socket::{GroupOptions, bind_groups};
use wg_bounce_sys::tun::Queue;
use wg_bounce_sys::{Backend, Endpoint, PerFamily, Ready, Sockets};

use super::{Gauge, Shared, Worker};
use crate::channels::{Channels, Events, HandOff, Neighbour};
use crate::counters::DropReason;
use crate::offload::CoalescerOptions;
use crate::own_host::OwnHost;
use crate::peer::{Peer, PeerId};
use crate::receive::ReceivePath;
use crate::receive_session::ReceiveSession;
use crate::rx_queue::RxQueue;
use crate::send::Sender;
use crate::session::{KeypairInfo, Lifetime, SendSession};
use crate::sizes::Sizes;
use crate::snapshot::{DirectRelay, Relay, Snapshot};
use crate::source_check::{SourceCheck, Uplinks};
use crate::transmit::TransmitPath;
use crate::wire::DATA_OVERHEAD;
use kernel_routes::Answer;

const SIZES: Sizes = Sizes { buffers: 64, socket_buffer: 1 << 20, ..Sizes::LEAST };
/// Seed of hash tables.
const SEED: u64 = 7;
/// Turns until everything that was sent must have arrived.
const TURNS_MAX: usize = 500;
/// The index of a handshake that waits for a response or cookie reply.
const PENDING: u32 = 0x0900;
/// The key of mac1.
const MAC1_KEY: [u8; 32] = [9; 32];
/// The peers: two with a session, one without, one without an endpoint.
const PEERS: usize = 4;

/// The configuration that an input chooses.
struct Setting {
    mode: DirectRelay,
    is_up: bool,
    mtu: usize,
    /// Whether the sessions are past their age.
    is_expired: bool,
    /// The kernel's routes.
    route: Answer,
}

/// A worker and what surrounds it. Its sockets outlive an input.
struct Testbed {
    worker: Worker,
    shared: Arc<Shared>,
    ready: Ready,
    bell: Arc<EventFd>,
    port: u16,
    /// The other end of the TUN.
    kernel: OwnedFd,
    events: Events,
    hand_offs: Lane<HandOff>,
    /// Datagrams that the worker hands to its neighbour.
    handed_off: Receiver<HandOff>,
    /// The sockets of the first two peers, and of a stranger.
    sockets: [UdpSocket; 3],
    peers: Vec<Arc<Peer>>,
    /// Keeps the kernel's end of the questions about routes.
    routes: Option<OwnedFd>,
}

impl Testbed {
    fn new() -> Testbed {
        let bell = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK).expect("an eventfd"));
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (tun, kernel) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
            .expect("a pair of sockets");
        let copy = || tun.try_clone().expect("a descriptor");
        let writers = [copy(), copy()].into();
        let queue = Queue { fd: copy(), has_header: true, writers };
        let io = Mmsg::new(queue, Arc::clone(&bell), SIZES.buffers).expect("an epoll set");
        let shared = Arc::new(Shared {
            snapshot: ArcSwap::from_pointee(Snapshot::default()),
            uplinks: Arc::new(Uplinks::default()),
            must_stop: AtomicBool::new(false),
        });
        let (mut channels, events) = Channels::new(Arc::clone(&bell));
        let (hand_offs, hand_off_lane) = bounded(SIZES.hand_offs);
        let (lane, handed_off) = bounded(SIZES.hand_offs);
        channels.neighbours = [hand_offs.clone(), lane]
            .map(|lane| Neighbour { lane, bell: Arc::clone(&bell) })
            .into();
        let sources = SourceCheck::open(Arc::clone(&shared.uplinks));
        let mut worker = Worker {
            number: 0,
            io: Backend::Mmsg(Box::new(io)),
            shared: Arc::clone(&shared),
            gauge: Arc::default(),
            commands: bounded(0).1,
            hand_offs: hand_off_lane,
            channels,
            receive: receive_path(),
            transmit: TransmitPath::default(),
            sender: sender(),
            rx_queue: RxQueue::new(SIZES.hand_offs),
            sources,
        };
        let options = GroupOptions {
            steering: &[],
            length_min: DATA_OVERHEAD,
            members: 1,
            fwmark: 0,
            gro: true,
            buffer: SIZES.socket_buffer,
            in_flight: SIZES.socket_buffer,
        };
        let bound = bind_groups(0, &options).expect("a free port");
        let first = |group: Option<Vec<OwnedFd>>| group.and_then(|all| all.into_iter().next());
        let sockets: Sockets = PerFamily { v4: first(bound.groups.v4), v6: first(bound.groups.v6) };
        worker.io.set_sockets(sockets).expect("an epoll set");
        let socket = |address: IpAddr| {
            let socket = UdpSocket::bind((address, 0)).ok()?;
            socket.set_nonblocking(true).ok().map(|()| socket)
        };
        let v4 = || socket(Ipv4Addr::LOCALHOST.into()).expect("a socket");
        let v6 = || socket(Ipv6Addr::LOCALHOST.into()).unwrap_or_else(v4);
        let sockets = [v4(), v6(), v4()];
        let (ready, port, peers, routes) = (Ready::default(), bound.port, Vec::new(), None);
        Testbed {
            worker,
            shared,
            ready,
            bell,
            port,
            kernel,
            events,
            hand_offs,
            handed_off,
            sockets,
            peers,
            routes,
        }
    }

    /// Forgets earlier inputs.
    fn reset(&mut self, setting: &Setting) {
        self.worker.gauge = Arc::new(Gauge::default());
        (self.worker.receive, self.worker.sender) = (receive_path(), sender());
        (self.worker.transmit, self.worker.rx_queue) =
            (TransmitPath::default(), RxQueue::new(SIZES.hand_offs));
        self.peers =
            (0..PEERS as u32).map(|id| Arc::new(Peer::new(PeerId(id), key_of(id)))).collect();
        let mut snapshot = Snapshot {
            epoch: self.shared.snapshot.load().epoch + 1,
            mac1_key: Some(MAC1_KEY),
            is_up: setting.is_up,
            mtu: setting.mtu,
            relay: Relay {
                mode: PerFamily { v4: setting.mode, v6: setting.mode },
                routes: 1,
                own_host: own_host(setting.mode),
                ..Relay::default()
            },
            ..Snapshot::default()
        };
        let age = if setting.is_expired { 200_000 } else { 0 };
        let created = Millis(clock::boot_time().0.saturating_sub(age));
        for (id, peer) in self.peers.iter().enumerate() {
            for prefix in prefixes(id) {
                let prefix = prefix.parse().expect("a prefix");
                snapshot.routes.insert(prefix, Arc::clone(peer));
            }
            if let Some(socket) = self.sockets.get(id) {
                let remote = socket.local_addr().expect("bound");
                peer.set_endpoint(Endpoint { remote, source: None });
            }
            if id < 2 {
                let info = info(id, created);
                let session = SendSession::new(Key::new(&key_of(id as u32)), info);
                let _none = peer.set_session(Some(Arc::new(session)));
                let key = Key::new(&key_of(id as u32));
                let session = ReceiveSession::new(key, info, Arc::clone(peer));
                self.worker.receive.indexes.install(Box::new(session));
            }
        }
        self.worker.receive.indexes.expect(PENDING);
        let (socket, routes) = setting.route.socket().unzip();
        self.worker.receive.router.set_socket(socket);
        self.routes = routes;
        self.shared.snapshot.store(Arc::new(snapshot));
    }

    /// Runs turns until nothing is left to do, and `expected` datagrams have arrived.
    fn run(&mut self, expected: u64) {
        let shared = Arc::clone(&self.shared);
        let mut snapshots = Cache::new(&shared.snapshot);
        for turn in 0..TURNS_MAX {
            self.bell.write(1).expect("not full");
            self.worker.turn(&mut snapshots, &mut self.ready).expect("a turn");
            let is_idle = self.worker.rx_queue.is_empty(false) && self.worker.hand_offs.is_empty();
            let counters = &self.worker.gauge.counters;
            if is_idle && turn > 0 && counters.received_datagrams.read() >= expected {
                return;
            }
        }
    }

    /// Writes a frame as the kernel would; false if the queue is full.
    fn write_frame(&self, frame: &[u8]) -> bool {
        send(self.kernel.as_raw_fd(), frame, MsgFlags::empty()).is_ok()
    }

    /// The frames that the worker has written.
    fn frames(&self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut buffer = vec![0; 1 << 17];
        while let Ok(length @ 1..) = recv(self.kernel.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            frames.push(buffer[..length].to_vec());
        }
        frames
    }

    /// The datagrams that arrived at one of the sockets.
    fn datagrams(&self, socket: usize) -> Vec<Vec<u8>> {
        let mut datagrams = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length) = self.sockets[socket].recv(&mut buffer) {
            datagrams.push(buffer[..length].to_vec());
        }
        datagrams
    }

    /// The worker's address, for one of the sockets.
    fn address(&self, socket: usize) -> SocketAddr {
        let local = self.sockets[socket].local_addr().expect("bound");
        SocketAddr::new(local.ip(), self.port)
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        let counters = &self.worker.gauge.counters;
        counters.list().find(|(name, _)| *name == reason.name()).map_or(0, |(_, count)| count)
    }

    /// Packets that wait for a session.
    fn staged(&self) -> u64 {
        self.peers.iter().map(|peer| u64::from(peer.staged.load(Ordering::Relaxed))).sum()
    }

    fn dropped_for(&self, reasons: &[DropReason]) -> u64 {
        reasons.iter().map(|reason| self.dropped(*reason)).sum()
    }
}

fn receive_path() -> ReceivePath {
    let options = CoalescerOptions { tcp: true, udp: true };
    ReceivePath::new(Aead::best(), options, SEED, &SIZES).expect("memory")
}

fn sender() -> Sender {
    Sender::new(0, 2, Aead::best(), true, SIZES)
}

/// The key of a peer's sessions, in both directions.
fn key_of(id: u32) -> [u8; 32] {
    [id as u8 + 1; 32]
}

/// The index of a peer's session, on both sides. Its low byte names the worker.
fn index_of(id: usize) -> u32 {
    (id as u32 + 1) << 8
}

fn info(id: usize, created: Millis) -> KeypairInfo {
    let index = index_of(id);
    let lifetime = Lifetime::default();
    KeypairInfo { local_index: index, remote_index: index, created, is_initiator: true, lifetime }
}

fn prefixes(id: usize) -> [&'static str; 2] {
    match id {
        0 => ["10.9.0.2/32", "fd09::2/128"],
        1 => ["10.9.3.0/24", "fd09:3::/64"],
        2 => ["10.9.4.0/24", "fd09:4::/64"],
        _ => ["10.9.5.0/24", "fd09:5::/64"],
    }
}

fn own_host(mode: DirectRelay) -> Arc<OwnHost> {
    let addresses = match mode {
        DirectRelay::Alone => vec!["10.9.0.1/24", "fd09::1/64"],
        _ => Vec::new(),
    };
    let addresses = addresses.into_iter().map(|one| one.parse().expect("an address"));
    Arc::new(OwnHost::new(addresses.collect()))
}
