//! Floods of forged datagrams, alone and in trains, from a sender that has no key.

use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use blake2::digest::{Digest, FixedOutput, KeyInit, Update};
use blake2::{Blake2s256, Blake2sMac};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};

use super::keys::{KeyPair, random_bytes};
use super::lab::Namespace;
use super::threads::Threads;

/// A fast random number generator: xorshift, seeded by the kernel.
pub fn noise() -> impl FnMut() -> u64 + Send {
    let mut state = u64::from_le_bytes(random_bytes()) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

/// A kind of forged message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgery {
    /// An initiation with a wrong mac1.
    BadMac1,
    /// An initiation with a valid mac1, which takes only the public key.
    GoodMac1,
    /// A response to no initiation.
    Response,
    /// A cookie reply to no message.
    CookieReply,
    /// Transport data for an unknown session.
    Data,
}

impl Forgery {
    /// All kinds.
    pub const ALL: [Forgery; 5] = [
        Forgery::BadMac1,
        Forgery::GoodMac1,
        Forgery::Response,
        Forgery::CookieReply,
        Forgery::Data,
    ];

    /// Kinds that are never answered. (A valid mac1 may get a cookie reply.)
    pub const UNANSWERED: [Forgery; 4] =
        [Forgery::BadMac1, Forgery::Response, Forgery::CookieReply, Forgery::Data];

    /// Returns a generator of such messages for the owner of `victim`. `worker` sets the worker
    /// byte of the receiver index, which is random otherwise.
    pub fn maker(
        self,
        victim: &KeyPair,
        worker: Option<u8>,
    ) -> impl FnMut(&mut Vec<u8>) + Send + use<> {
        let mac1_key = mac1_key(victim);
        let mut noise = noise();
        move |message| {
            let (kind, length, index_at) = match self {
                Forgery::BadMac1 | Forgery::GoodMac1 => (1, 148, 4),
                Forgery::Response => (2, 92, 8),
                Forgery::CookieReply => (3, 64, 4),
                Forgery::Data => (4, 32 + 16 * (noise() as usize % 80), 4),
            };
            message.clear();
            message.extend((0..length / 4 + 1).flat_map(|_| (noise() as u32).to_le_bytes()));
            message.truncate(length);
            message[..4].copy_from_slice(&[kind, 0, 0, 0]);
            if let Some(worker) = worker {
                message[index_at] = worker;
            }
            if matches!(self, Forgery::GoodMac1 | Forgery::Response) {
                sign(message, &mac1_key);
            }
        }
    }
}

/// Returns a generator of responses to the initiation with this index, with a valid mac1.
pub fn forged_responses(
    victim: &KeyPair,
    index: [u8; 4],
) -> impl FnMut(&mut Vec<u8>) + Send + use<> {
    let mac1_key = mac1_key(victim);
    let mut noise = noise();
    move |message| {
        message.clear();
        message.extend((0..23).flat_map(|_| (noise() as u32).to_le_bytes()));
        message[..4].copy_from_slice(&[2, 0, 0, 0]);
        message[8..12].copy_from_slice(&index);
        sign(message, &mac1_key);
    }
}

fn mac1_key(victim: &KeyPair) -> [u8; 32] {
    let hash = Blake2s256::new().chain_update(b"mac1----").chain_update(victim.public_bytes);
    hash.finalize().into()
}

/// Writes mac1, which takes only the public key, and an empty mac2.
fn sign(message: &mut [u8], mac1_key: &[u8; 32]) {
    let mac1_at = message.len() - 32;
    let mut mac = Blake2sMac::<blake2::digest::consts::U16>::new_from_slice(mac1_key)
        .expect("BLAKE2s takes a key of 32 bytes");
    mac.update(&message[..mac1_at]);
    message[mac1_at..mac1_at + 16].copy_from_slice(&mac.finalize_fixed());
    message[mac1_at + 16..].fill(0);
}

/// A thread that sends as fast as it can until dropped.
pub struct Flood {
    sent: Arc<AtomicU64>,
    _threads: Threads,
}

impl Flood {
    /// Sends the messages written by `make` from `namespace` to `target`.
    pub fn start(
        namespace: &Namespace,
        target: SocketAddr,
        mut make: impl FnMut(&mut Vec<u8>) + Send + 'static,
    ) -> Flood {
        let socket = namespace.udp_socket(unspecified(target));
        let mut message = Vec::new();
        Flood::repeat(move || {
            make(&mut message);
            // The flood continues after a full buffer or an earlier datagram's ICMP error.
            u64::from(socket.send_to(&message, target).is_ok())
        })
    }

    /// Sends `rate` messages per second, from each of these local addresses in turn.
    #[expect(clippy::disallowed_methods, reason = "a test's own clock, not protocol time")]
    pub fn paced(
        namespace: &Namespace,
        sources: &[String],
        target: SocketAddr,
        rate: u64,
        mut make: impl FnMut(&mut Vec<u8>) + Send + 'static,
    ) -> Flood {
        let sockets: Vec<_> = sources.iter().map(|source| namespace.udp_socket(source)).collect();
        let (mut message, mut next, mut count) = (Vec::new(), 0, 0);
        let start = Instant::now();
        Flood::repeat(move || {
            std::thread::sleep(Duration::from_millis(2));
            // By the time that has passed, however late the thread runs.
            let due = start.elapsed().as_millis() as u64 * rate / 1000 - count;
            count += due;
            for _ in 0..due {
                next = (next + 1) % sockets.len();
                make(&mut message);
                // The flood continues after an earlier datagram's ICMP error.
                let _ = sockets[next].send_to(&message, target);
            }
            due
        })
    }

    /// Sends trains: `make` writes the payload and returns the size of its segments.
    pub fn of_trains(
        namespace: &Namespace,
        target: SocketAddr,
        mut make: impl FnMut(&mut Vec<u8>) -> u16 + Send + 'static,
    ) -> Flood {
        let socket = namespace.udp_socket(unspecified(target));
        let mut payload = Vec::new();
        Flood::repeat(move || {
            let segment = make(&mut payload);
            u64::from(send_segments(&socket, target, &payload, segment).is_ok())
        })
    }

    /// Sends a train and pauses, again and again: `make` writes the payload and returns the size of
    /// its segments and the pause after it.
    pub fn bursts(
        namespace: &Namespace,
        source: &str,
        target: SocketAddr,
        mut make: impl FnMut(&mut Vec<u8>) -> (u16, Duration) + Send + 'static,
    ) -> Flood {
        let socket = namespace.udp_socket(source);
        let mut payload = Vec::new();
        Flood::repeat(move || {
            payload.clear();
            let (segment, pause) = make(&mut payload);
            send_segments(&socket, target, &payload, segment).expect("the kernel accepts a train");
            std::thread::sleep(pause);
            1
        })
    }

    /// Repeats `once`, which returns the number of datagrams that it has sent.
    pub fn repeat(mut once: impl FnMut() -> u64 + Send + 'static) -> Flood {
        let (mut threads, sent) = (Threads::default(), Arc::new(AtomicU64::new(0)));
        let thread_sent = sent.clone();
        threads.repeat(move || {
            thread_sent.fetch_add(once(), Ordering::Relaxed);
        });
        Flood { sent, _threads: threads }
    }

    /// Datagrams or trains sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

/// The wildcard address of the family of `target`.
pub fn unspecified(target: SocketAddr) -> &'static str {
    if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }
}

/// Sends `payload` as datagrams of `segment` bytes in one call (UDP_SEGMENT). A receiver with GRO
/// gets them as one train.
pub fn send_segments(
    socket: &UdpSocket,
    to: SocketAddr,
    payload: &[u8],
    segment: u16,
) -> nix::Result<usize> {
    let address = SockaddrStorage::from(to);
    let parts = [IoSlice::new(payload)];
    let cut = [ControlMessage::UdpGsoSegments(&segment)];
    sendmsg(socket.as_raw_fd(), &parts, &cut, MsgFlags::empty(), Some(&address))
}
