//! Many peers that shake hands with a hub at the same time. Each retries as WireGuard does.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::{self, Write as _};
use std::io::{ErrorKind, IoSlice};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::libc::{in_addr, in_pktinfo};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg, setsockopt, sockopt};
use wg_bounce_control::cookie::CookieSigner;
use wg_bounce_control::noise::{Identity, Initiated, InitiationParams, Secret, initiate};
use wg_bounce_control::tai64n::Timestamp;
use wg_bounce_dataplane::wire::{COOKIE_REPLY_LEN, INITIATION_LEN, Kind, RESPONSE_LEN, classify};
use wg_bounce_sys::clock::Millis;

use super::flood::noise;
use super::keys::{KeyPair, random_bytes};
use super::lab::Namespace;

/// The addresses of a crowd whose members have one each (RFC 6598).
pub const CROWD_NETWORK: &str = "100.64.0.0/10";
const FIRST: u32 = Ipv4Addr::new(100, 64, 0, 1).to_bits();
/// The first address inside the tunnel.
const FIRST_INNER: u32 = Ipv4Addr::new(172, 20, 0, 1).to_bits();
/// Buffers of a socket for all members (bytes).
const SOCKET_BUFFER: usize = 32 << 20;
/// Time from an initiation to the next one (REKEY_TIMEOUT, §6.4), and the jitter on top of it
/// (MAX_TIMER_JITTER_MS of the kernel).
const RETRY_AFTER: Duration = Duration::from_secs(5);
const JITTER_MAX: Duration = Duration::from_millis(333);
/// Bits of an index that hold the member's number; the others count its initiations.
const INDEX_BITS: u32 = 16;
/// Initiations sent in a row.
const BURST: usize = 16;

/// The source addresses of a crowd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An address of [`CROWD_NETWORK`] for each member.
    OwnAddresses,
    /// One address with a port for each member, as behind a NAT.
    OneAddress,
}

/// A member of a crowd.
struct Member {
    identity: Identity,
    static_static: Secret,
    signer: CookieSigner,
    last: Timestamp,
    initiations: u32,
    /// The last initiation.
    pending: Option<(Box<[u8; INITIATION_LEN]>, Initiated)>,
    first_sent: Option<Instant>,
    response: Option<([u8; RESPONSE_LEN], Instant)>,
}

/// Peers of one hub.
pub struct Crowd {
    members: Vec<Member>,
    hub: SocketAddr,
    hub_key: [u8; 32],
    origin: Origin,
    /// The first of the addresses in use.
    first: u32,
    /// One for all, or one for each member.
    sockets: Vec<UdpSocket>,
}

/// The result of a storm.
#[derive(Debug)]
pub struct Storm {
    /// Times from the first initiation of a member to its response, sorted.
    pub waits: Vec<Duration>,
    /// Time from the first initiation of all to the last response.
    pub took: Duration,
    /// Members without a session.
    pub missing: usize,
    /// Cookie replies.
    pub cookies: usize,
}

impl fmt::Display for Storm {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |share: f64| {
            let last = self.waits.len().saturating_sub(1);
            self.waits.get((last as f64 * share) as usize).copied().unwrap_or_default()
        };
        write!(
            out,
            "{} sessions within {:.2?} (p50 {:.2?}, p99 {:.2?}), {} missing, {} cookies",
            self.waits.len(),
            self.took,
            at(0.5),
            at(0.99),
            self.missing,
            self.cookies
        )
    }
}

impl Crowd {
    /// `count` members with keys, of a hub at this address, without sockets.
    pub fn new(count: usize, origin: Origin, hub: SocketAddr) -> Crowd {
        let member = |_| Member {
            identity: Identity::new(&KeyPair::new().private_bytes()),
            static_static: Secret::default(),
            signer: CookieSigner::new(&[0; 32]),
            last: Timestamp::default(),
            initiations: 0,
            pending: None,
            first_sent: None,
            response: None,
        };
        let members = (0..count).map(member).collect();
        Crowd { members, hub, hub_key: [0; 32], origin, first: FIRST, sockets: Vec::new() }
    }

    /// Tells all members the hub's key.
    pub fn join(&mut self, hub_key: &KeyPair) {
        self.hub_key = hub_key.public_bytes;
        for member in &mut self.members {
            let secret = member.identity.static_static(&self.hub_key);
            member.static_static = secret.expect("a good key");
        }
    }

    /// The sections of the hub's configuration file.
    pub fn config(&self) -> String {
        let mut text = String::new();
        for (number, member) in (0..).zip(&self.members) {
            let public = super::keys::base64(member.identity.public());
            let inner = Ipv4Addr::from_bits(FIRST_INNER + number);
            writeln!(text, "[Peer]\nPublicKey = {public}\nAllowedIPs = {inner}/32")
                .expect("a string grows");
        }
        text
    }

    /// Opens the sockets at `address` in `namespace`. Members with addresses of their own need
    /// routes: [`CROWD_NETWORK`] must be local there.
    pub fn open(&mut self, namespace: &Namespace, address: &str) {
        let count = match self.origin {
            Origin::OwnAddresses => 1,
            Origin::OneAddress => self.members.len(),
        };
        let address = match self.origin {
            Origin::OwnAddresses => "0.0.0.0",
            Origin::OneAddress => address,
        };
        self.sockets = namespace.enter(|| {
            let bind = |_| UdpSocket::bind((address, 0)).expect("a port is free");
            (0..count).map(bind).collect()
        });
        for socket in &self.sockets {
            socket.set_nonblocking(true).expect("a socket");
        }
        if self.origin == Origin::OwnAddresses {
            let socket = &self.sockets[0];
            setsockopt(socket, sockopt::RcvBufForce, &SOCKET_BUFFER).expect("root may");
            setsockopt(socket, sockopt::SndBufForce, &SOCKET_BUFFER).expect("root may");
        }
    }

    /// Computes the first initiations of a storm, and forgets sessions and cookies. Addresses of
    /// their own are new ones, which the hub has not seen.
    pub fn prepare(&mut self) {
        self.first += self.members.len() as u32;
        for number in 0..self.members.len() {
            let member = &mut self.members[number];
            member.signer = CookieSigner::new(&self.hub_key);
            (member.first_sent, member.response) = (None, None);
            self.initiate(number);
        }
    }

    /// Lets all members shake hands at once, each until it has a response, for at most `patience`.
    /// [`Crowd::prepare`] comes first.
    ///
    /// # Panics
    /// If a response is not authentic.
    #[expect(clippy::disallowed_methods, reason = "a test measures time")]
    pub fn storm(&mut self, patience: Duration) -> Storm {
        let start = Instant::now();
        let mut due: BinaryHeap<_> =
            (0..self.members.len()).map(|number| Reverse((start, number))).collect();
        let (mut missing, mut cookies, mut now) = (self.members.len(), 0, start);
        let mut noise = noise();
        while missing > 0 && now < start + patience {
            let mut is_idle = true;
            for _ in 0..BURST {
                let Some(&Reverse((at, number))) = due.peek() else { break };
                if at > now {
                    break;
                }
                due.pop();
                if self.members[number].response.is_some() {
                    continue;
                }
                is_idle = false;
                if self.members[number].first_sent.is_some() {
                    self.initiate(number);
                }
                self.members[number].first_sent.get_or_insert(now);
                self.send(number);
                let jitter = JITTER_MAX * (noise() % 256) as u32 / 256;
                due.push(Reverse((now + RETRY_AFTER + jitter, number)));
            }
            for socket in 0..self.sockets.len() {
                while let Some(message) = receive(&self.sockets[socket]) {
                    is_idle = false;
                    let (is_response, is_cookie) = self.take(&message);
                    missing -= usize::from(is_response);
                    cookies += usize::from(is_cookie);
                }
            }
            if is_idle {
                std::thread::sleep(Duration::from_micros(300));
            }
            now = Instant::now();
        }
        self.verify();
        let last = self.members.iter().filter_map(|member| Some(member.response?.1)).max();
        let mut waits: Vec<_> = self.members.iter().filter_map(Member::wait).collect();
        waits.sort_unstable();
        Storm { waits, took: last.unwrap_or(start) - start, missing, cookies }
    }

    /// Creates the next initiation of a member.
    #[expect(clippy::disallowed_methods, reason = "handshakes carry wall-clock time")]
    fn initiate(&mut self, number: usize) {
        let member = &mut self.members[number];
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        member.last = member.last.next(wall);
        member.initiations += 1;
        let params = InitiationParams {
            remote_static: &self.hub_key,
            static_static: &member.static_static,
            ephemeral: &Secret::new(random_bytes()),
            timestamp: member.last,
            // A late response does not match the next initiation.
            local_index: number as u32 | member.initiations << INDEX_BITS,
        };
        let mut message = Box::new([0; INITIATION_LEN]);
        let initiated = initiate(&member.identity, &params, &mut message).expect("a good key");
        member.pending = Some((message, initiated));
    }

    fn send(&mut self, number: usize) {
        let member = &mut self.members[number];
        let (message, _) = member.pending.as_mut().expect("it was prepared");
        member.signer.sign(&mut message[..], Millis(1));
        let Some(socket) = self.sockets.get(number).filter(|_| self.sockets.len() > 1) else {
            let source = in_addr { s_addr: (self.first + number as u32).to_be() };
            let from = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: source, ipi_addr: source };
            let SocketAddr::V4(hub) = self.hub else { panic!("IPv4 only") };
            let sent = sendmsg(
                self.sockets[0].as_raw_fd(),
                &[IoSlice::new(&message[..])],
                &[ControlMessage::Ipv4PacketInfo(&from)],
                MsgFlags::empty(),
                Some(&SockaddrIn::from(hub)),
            );
            sent.expect("the link has room");
            return;
        };
        socket.send_to(&message[..], self.hub).expect("the link has room");
    }

    /// Takes an answer: whether it is a member's first response, and whether it is a cookie.
    #[expect(clippy::disallowed_methods, reason = "a test measures time")]
    fn take(&mut self, message: &[u8]) -> (bool, bool) {
        let index = match classify(message) {
            Some(Kind::Response(index) | Kind::CookieReply(index)) => index,
            _ => return (false, false),
        };
        let member = &mut self.members[(index & ((1 << INDEX_BITS) - 1)) as usize];
        let (_, initiated) = member.pending.as_ref().expect("it was sent");
        if initiated.local_index != index {
            return (false, false);
        }
        if let Ok(reply) = <&[u8; COOKIE_REPLY_LEN]>::try_from(message) {
            return (false, member.signer.consume(reply, Millis(1)));
        }
        let response = message.try_into().expect("classified by its length");
        let is_first = member.response.is_none();
        member.response.get_or_insert_with(|| (response, Instant::now()));
        (is_first, false)
    }

    fn verify(&self) {
        for member in &self.members {
            let Some((response, _)) = &member.response else { continue };
            let (_, initiated) = member.pending.as_ref().expect("it was sent");
            let keys = initiated.finish(&member.identity, &Secret::default(), response);
            assert!(keys.is_some(), "a response is not authentic");
        }
    }
}

impl Member {
    fn wait(&self) -> Option<Duration> {
        Some(self.response?.1 - self.first_sent?)
    }
}

fn receive(socket: &UdpSocket) -> Option<Vec<u8>> {
    let mut buffer = [0; 256];
    match socket.recv(&mut buffer) {
        Ok(length) => Some(buffer[..length].to_vec()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("the socket fails: {error}"),
    }
}
