//! One endpoint on virtual time: the device, a minimal runtime, and fake workers built from the
//! data path's pure types. Datagrams and packets go in and come out as values.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrayvec::ArrayVec;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use wg_bounce_aead::{Aead, Open, Seal};
use wg_bounce_control::device::{
    Device, Input, LogEvent, Now, Output, PendingResponse, Settings, Timings,
};
use wg_bounce_control::noise::Dh;
use wg_bounce_dataplane::limits::STAGED_PACKETS_MAX;
use wg_bounce_dataplane::messages::{Command, HandshakeMessage};
use wg_bounce_dataplane::peer::{Peer, PeerId, flag};
use wg_bounce_dataplane::receive_session::ReceiveSession;
use wg_bounce_dataplane::routes::Routes;
use wg_bounce_dataplane::session::SendSession;
use wg_bounce_dataplane::wire::{
    DATA_HEADER_LEN, DATA_OVERHEAD, DataHeader, Kind, TAG_LEN, classify, write_data_header,
};
use wg_bounce_sys::Endpoint;
use wg_bounce_sys::clock::Millis;
use wg_bounce_uapi::types::{AllowedIp, Change, PeerChange, PeerState, SecretKey};

/// A sent datagram.
#[derive(Clone, Debug)]
pub struct Datagram {
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
}

/// A packet received through the tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub from: [u8; 32],
    pub payload: Vec<u8>,
}

/// The state of a worker that matters to control.
#[derive(Default)]
struct Worker {
    expected: HashSet<u32>,
    sessions: HashMap<u32, ReceiveSession>,
    staged: HashMap<PeerId, (Arc<Peer>, VecDeque<Vec<u8>>)>,
}

pub struct Node {
    pub device: Device,
    pub address: SocketAddr,
    pub private_key: [u8; 32],
    pub public_key: [u8; 32],
    /// The wall clock at boot time zero; tests make it jump.
    pub wall: Duration,
    pub sent: Vec<Datagram>,
    pub received: Vec<Packet>,
    /// Peers about which a worker has queued a notice.
    pub notices: Vec<PeerId>,
    /// Dropped datagrams: for a dead session, replayed or not authentic.
    pub dropped: usize,
    /// Staged packets dropped because of the limit or an abandoned handshake.
    pub discarded: usize,
    /// Events for the log.
    pub logged: Vec<LogEvent>,
    /// Number of published snapshots.
    pub published: usize,
    /// Responses wait in `pending` until a test completes their next step: by another thread.
    pub is_helped: bool,
    pub pending: Vec<PendingResponse>,
    pub routes: Routes<Arc<Peer>>,
    workers: Vec<Worker>,
    is_up: bool,
    /// Every send key ever used (by its fingerprint), with every counter.
    pub used: HashSet<([u8; 16], u64)>,
    fingerprints: HashMap<PeerId, [u8; 16]>,
    /// For what other threads send.
    rng: ChaCha8Rng,
}

impl Node {
    pub fn new(private_key: [u8; 32], workers: usize, seed: u64) -> Node {
        let rng = Box::new(ChaCha8Rng::seed_from_u64(seed));
        let settings = Settings { workers, timings: Timings::default(), dh: Dh::best() };
        Node {
            device: Device::new(settings, rng),
            address: SocketAddr::from(([192, 0, 2, 1], 1)),
            private_key,
            public_key: public_key(&private_key),
            wall: Duration::from_secs(1_700_000_000),
            sent: Vec::new(),
            received: Vec::new(),
            notices: Vec::new(),
            dropped: 0,
            discarded: 0,
            logged: Vec::new(),
            published: 0,
            is_helped: false,
            pending: Vec::new(),
            routes: Routes::default(),
            workers: (0..workers).map(|_| Worker::default()).collect(),
            is_up: false,
            used: HashSet::new(),
            fingerprints: HashMap::new(),
            rng: ChaCha8Rng::seed_from_u64(!seed),
        }
    }

    pub fn now(&self, monotonic: Millis) -> Now {
        Now { monotonic, wall: self.wall + Duration::from_millis(monotonic.0) }
    }

    /// One UAPI `set`.
    pub fn set(&mut self, now: Millis, changes: Vec<Change>) {
        let time = self.now(now);
        let mut out = Vec::new();
        self.device.begin_set();
        for change in changes {
            self.device.apply(change, time, &mut out);
        }
        self.device.end_set(time, &mut out);
        self.execute(out, now);
    }

    pub fn input(&mut self, input: Input<'_>, now: Millis) {
        let mut out = Vec::new();
        self.device.handle(input, self.now(now), &mut out);
        self.execute(out, now);
    }

    /// Computes the next step of a response.
    pub fn complete(&mut self, mut response: PendingResponse, now: Millis) {
        response.compute();
        self.input(Input::Computed(Box::new(response)), now);
    }

    pub fn link(&mut self, up: bool, now: Millis) {
        self.input(Input::Link { up }, now);
    }

    /// Handles the notices queued so far, and all deadlines up to `now`.
    pub fn run(&mut self, now: Millis) {
        for _ in 0..1000 {
            for id in std::mem::take(&mut self.notices) {
                self.input(Input::Peer(id), now);
            }
            if self.device.next_deadline().is_none_or(|deadline| deadline > now) {
                return;
            }
            self.input(Input::Deadline, now);
        }
        panic!("a deadline at {now:?} never goes away");
    }

    /// Sends a packet into the tunnel; an empty one is a keepalive.
    pub fn send(&mut self, to: IpAddr, payload: &[u8], now: Millis) {
        if !self.is_up {
            return;
        }
        let Some(peer) = self.routes.lookup(to).cloned() else { return };
        let worker = payload.first().map_or(0, |&byte| usize::from(byte) % self.workers.len());
        self.transmit(worker, &peer, payload, now);
    }

    /// Handles a received datagram.
    pub fn receive(&mut self, from: SocketAddr, bytes: &[u8], under_load: bool, now: Millis) {
        if !self.is_up {
            return;
        }
        let index = match classify(bytes) {
            Some(Kind::Data(header)) => return self.receive_data(from, bytes, header, now),
            Some(Kind::Initiation) => None,
            Some(Kind::Response(index) | Kind::CookieReply(index)) => Some(index),
            None => return,
        };
        if let Some(index) = index {
            let worker = &self.workers[(index & 0xff) as usize % self.workers.len()];
            if !worker.expected.contains(&index) && !worker.sessions.contains_key(&index) {
                self.dropped += 1;
                return;
            }
        }
        let message = HandshakeMessage {
            bytes: ArrayVec::try_from(bytes).expect("classified by its length"),
            from: Endpoint { remote: from, source: Some(self.address.ip()) },
        };
        self.input(Input::Handshake { message: &message, under_load }, now);
    }

    pub fn peer(&self, public_key: &[u8; 32]) -> Option<PeerState> {
        self.device.peer_states().into_iter().find(|peer| &peer.public_key == public_key)
    }

    /// State in the workers: number of expected indexes and sessions, number of peers with staged
    /// packets.
    pub fn held(&self) -> (usize, usize) {
        let indexes = self.workers.iter().map(|w| w.expected.len() + w.sessions.len()).sum();
        (indexes, self.workers.iter().map(|worker| worker.staged.len()).sum())
    }

    fn execute(&mut self, outputs: Vec<Output>, now: Millis) {
        for output in outputs {
            match output {
                Output::Command { worker, command } => self.command(worker, command, now),
                Output::Compute(response) if self.is_helped => self.pending.push(*response),
                Output::Compute(response) => self.complete(*response, now),
                Output::SetSession { peer, session } => {
                    match &session {
                        Some(session) => self.fingerprints.insert(peer.id, fingerprint(session)),
                        None => self.fingerprints.remove(&peer.id),
                    };
                    drop(peer.set_session(session));
                }
                Output::Cookie { to, reply } => {
                    assert!(self.is_up, "nothing is sent while the link is down");
                    let bytes = reply.seal(&mut self.rng).to_vec();
                    self.sent.push(Datagram { to: to.remote, bytes });
                }
                Output::Send { peer, to, message } => {
                    assert!(self.is_up, "nothing is sent while the link is down");
                    peer.counters.sent_bytes.add(message.len() as u64);
                    self.sent.push(Datagram { to: to.remote, bytes: message.to_vec() });
                }
                Output::Log(event) => self.logged.push(event),
                Output::Publish => {
                    self.published += 1;
                    self.routes = self.device.routes();
                    self.is_up = self.device.is_up() && self.device.mac1_key().is_some();
                }
            }
        }
    }

    fn command(&mut self, number: usize, command: Command, now: Millis) {
        let worker = &mut self.workers[number];
        match command {
            Command::Expect { index } => {
                assert_eq!(index as usize & 0xff, number);
                assert!(worker.expected.insert(index) && !worker.sessions.contains_key(&index));
            }
            Command::Install(session) => {
                worker.expected.remove(&session.info.local_index);
                let old = worker.sessions.insert(session.info.local_index, *session);
                assert!(old.is_none(), "an index is used once");
            }
            Command::Forget { index } => {
                let was_expected = worker.expected.remove(&index);
                let was_installed = worker.sessions.remove(&index).is_some();
                assert!(was_expected != was_installed, "a forgotten index was known");
            }
            Command::SendStaged { peer } => {
                for payload in self.unstage(number, peer.id) {
                    self.transmit(number, &peer, &payload, now);
                }
            }
            Command::Discard { peer } => {
                self.discarded += self.unstage(number, peer.id).len();
            }
            Command::Keepalive { peer } => self.transmit(number, &peer, &[], now),
            Command::Sockets { .. } | Command::AskRoutes(_) => {
                unreachable!("the device knows no sockets")
            }
        }
    }

    fn unstage(&mut self, worker: usize, id: PeerId) -> Vec<Vec<u8>> {
        let Some((peer, staged)) = self.workers[worker].staged.remove(&id) else {
            return Vec::new();
        };
        peer.staged.fetch_sub(staged.len() as u32, Ordering::Relaxed);
        peer.staged_by.fetch_and(!(1 << worker), Ordering::Relaxed);
        staged.into()
    }

    fn transmit(&mut self, worker: usize, peer: &Arc<Peer>, payload: &[u8], now: Millis) {
        let Some(endpoint) = peer.endpoint() else { return };
        let session = peer.session().clone();
        let nonce = session
            .filter(|session| session.is_alive(now))
            .and_then(|session| Some((session.reserve(1)?.next()?, session)));
        let Some((counter, session)) = nonce else {
            self.stage(worker, peer, payload);
            return;
        };
        let fingerprint = self.fingerprints[&peer.id];
        assert!(self.used.insert((fingerprint, counter)), "a nonce is used once");
        let mut message = vec![0; DATA_OVERHEAD + payload.len()];
        write_data_header(
            &mut message,
            DataHeader { receiver: session.info.remote_index, counter },
        );
        message[DATA_HEADER_LEN..][..payload.len()].copy_from_slice(payload);
        Aead::best().seal(&mut [Seal { key: &session.key, counter, message: &mut message }]);
        peer.counters.sent_bytes.add(message.len() as u64);
        self.sent.push(Datagram { to: endpoint.remote, bytes: message });
        let mut notice = peer.note_sent(now, !payload.is_empty());
        if session.wants_rekey(now) {
            notice |= peer.raise(flag::WANTS_HANDSHAKE);
        }
        self.notice(peer, notice);
    }

    fn stage(&mut self, worker: usize, peer: &Arc<Peer>, payload: &[u8]) {
        let empty = || (Arc::clone(peer), VecDeque::new());
        let (_, staged) = self.workers[worker].staged.entry(peer.id).or_insert_with(empty);
        if staged.len() == STAGED_PACKETS_MAX as usize {
            staged.pop_front();
            self.discarded += 1;
        } else {
            peer.staged.fetch_add(1, Ordering::Relaxed);
        }
        staged.push_back(payload.to_vec());
        peer.staged_by.fetch_or(1 << worker, Ordering::Relaxed);
        let notice = peer.raise(flag::WANTS_HANDSHAKE);
        self.notice(peer, notice);
    }

    fn receive_data(&mut self, from: SocketAddr, bytes: &[u8], header: DataHeader, now: Millis) {
        let worker = (header.receiver & 0xff) as usize % self.workers.len();
        let mut message = bytes.to_vec();
        let session = self.workers[worker].sessions.get_mut(&header.receiver);
        let Some(session) = session.filter(|session| session.info.is_within_age(now)) else {
            self.dropped += 1;
            return;
        };
        let mut batch = [Open {
            key: &session.key,
            counter: header.counter,
            message: &mut message,
            authentic: false,
        }];
        Aead::best().open(&mut batch);
        if !batch[0].authentic || !session.window.accept(header.counter) {
            self.dropped += 1;
            return;
        }
        let peer = Arc::clone(&session.peer);
        let payload = message[DATA_HEADER_LEN..message.len() - TAG_LEN].to_vec();
        peer.set_endpoint(Endpoint { remote: from, source: Some(self.address.ip()) });
        peer.counters.received_bytes.add(bytes.len() as u64);
        let mut notice = false;
        if !session.is_confirmed {
            session.is_confirmed = true;
            peer.confirmed_index.store(header.receiver, Ordering::Relaxed);
            notice |= peer.raise(flag::CONFIRMED);
        }
        notice |= peer.note_received(now, !payload.is_empty());
        if session.info.wants_last_minute_rekey(now) {
            notice |= peer.raise(flag::WANTS_LAST_MINUTE_HANDSHAKE);
        }
        if !payload.is_empty() {
            self.received.push(Packet { from: peer.public_key, payload });
        }
        self.notice(&peer, notice);
    }

    fn notice(&mut self, peer: &Arc<Peer>, wanted: bool) {
        if wanted {
            self.notices.push(peer.id);
        }
    }
}

/// The tag of an empty message, which identifies a key without revealing it.
fn fingerprint(session: &SendSession) -> [u8; 16] {
    let mut message = [0; DATA_OVERHEAD];
    Aead::best().seal(&mut [Seal { key: &session.key, counter: u64::MAX, message: &mut message }]);
    message[DATA_HEADER_LEN..].try_into().expect("a tag")
}

pub fn public_key(private_key: &[u8; 32]) -> [u8; 32] {
    *wg_bounce_control::noise::Identity::new(private_key).public()
}

pub fn secret(bytes: [u8; 32]) -> SecretKey {
    SecretKey::new(bytes)
}

/// An empty change of the peer with this key.
pub fn peer_change(public_key: [u8; 32]) -> PeerChange {
    PeerChange::new(public_key)
}

pub fn allowed_ip(prefix: &str) -> AllowedIp {
    AllowedIp { prefix: prefix.parse().expect("a prefix"), remove: false }
}
