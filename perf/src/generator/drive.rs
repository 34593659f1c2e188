//! The generator's loop: one thread that alternates between sending and receiving and never sleeps,
//! so that the relay never pays for waking it.
//!
//! While the clock runs, the only work per packet is reading its counter: a train is one system
//! call to send, and one or few to receive.

use std::io::IoSliceMut;
use std::net::UdpSocket;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::sockopt::{RcvBufForce, SndBufForce, UdpGroSegment, UdpGsoSegment};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt};

use super::loss_detector::LossDetector;
use super::packet::Flow;
use super::peers::{Role, inner_address};
use super::plan::{GroupPlan, Setup};
use super::pool::Pool;
use super::receive::{Sampler, Tally};
use super::session::{OVERHEAD, Session};
use crate::clock;
use crate::failure::{Failure, while_doing};
use crate::interrupt;

/// Buffers of each of the generator's sockets (bytes): nothing is lost in the generator.
const SOCKET_BUFFER: usize = 8 << 20;

/// Bytes of the longest train that UDP_GRO gives: a UDP datagram's.
const TRAIN_BYTES_MAX: usize = 1 << 16;

/// Ready sockets returned by one call.
const EVENTS_MAX: usize = 64;

/// Silence after which packets in flight are lost, if the relay is idle.
const SILENCE: Duration = Duration::from_millis(200);

/// Interval of the receivers' keepalives: a daemon that sends data and receives nothing starts a
/// handshake after 15 s (KEEPALIVE_TIMEOUT + REKEY_TIMEOUT; whitepaper, section 6).
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// A peer that can send or receive.
pub type Peer = (UdpSocket, Session);

/// A receiving peer.
pub struct Receiver {
    socket: UdpSocket,
    /// Its session with the relay.
    pub session: Session,
    /// Counter of its next keepalive; 0 has confirmed the session.
    next_counter: u64,
    /// Bytes of the shortest message that counts as a packet.
    shortest: usize,
    /// Arrivals since the phase began.
    pub tally: Tally,
    /// The greatest sequence number of a sample.
    pub last_sample: Option<u32>,
}

impl Receiver {
    /// A receiver of packets of `packet_len` bytes.
    fn new((socket, session): Peer, packet_len: usize) -> Result<Receiver, Failure> {
        setsockopt(&socket, RcvBufForce, &SOCKET_BUFFER).map_err(while_doing("SO_RCVBUFFORCE"))?;
        setsockopt(&socket, UdpGroSegment, &true).map_err(while_doing("UDP_GRO"))?;
        let (shortest, tally) = (packet_len + OVERHEAD, Tally::default());
        Ok(Receiver { socket, session, next_counter: 1, shortest, tally, last_sample: None })
    }
}

/// Pairs that send from one pool, at one rate.
pub struct Group {
    /// Sockets of the senders, in the pool's order.
    senders: Vec<UdpSocket>,
    /// Number of the first pair: sender `i` sends to receiver `first + i`.
    pub first: usize,
    /// Their messages.
    pub pool: Pool,
    /// Packets sent since the phase began.
    pub sent: u64,
}

impl Group {
    /// Numbers of its pairs.
    pub fn pairs(&self) -> Range<usize> {
        self.first..self.first + self.senders.len()
    }
}

/// A way to send.
pub enum Pace {
    /// One group, with at most `window` packets, but at least one train, in flight.
    Window { group: usize, window: usize },
    /// Groups and their packets per second, whatever arrives.
    Rates(Vec<(usize, f64)>),
}

/// Outcome of one stretch of sending.
#[derive(Default)]
pub struct Slice {
    /// From the first train sent to the last arrived.
    pub duration: Duration,
    /// Packets sent.
    pub sent: u64,
    /// Packets received.
    pub received: u64,
    /// Longest delay of the generator behind its own pace.
    pub lag: Duration,
    /// Packets sent that may still arrive.
    in_flight: usize,
}

/// All peers of a relay.
pub struct Generator {
    /// The senders.
    pub groups: Vec<Group>,
    /// The receivers, by the number of their pair.
    pub receivers: Vec<Receiver>,
    /// Samples to be decrypted.
    pub sampler: Sampler,
    epoll: Epoll,
    events: Vec<EpollEvent>,
    buffer: Vec<u8>,
    kept_alive_at: Duration,
    /// The relay's process, if known.
    relay: Option<u32>,
}

impl Generator {
    /// A generator of connected peers, senders and receivers alternating. `is_direct` says that
    /// there is no relay between them; `relay` is the relay's process, if known.
    pub fn new(
        plans: &[GroupPlan],
        peers: Vec<Peer>,
        setup: &Setup,
        is_direct: bool,
        relay: Option<u32>,
    ) -> Result<Generator, Failure> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(while_doing("epoll"))?;
        let (mut groups, mut receivers) = (Vec::new(), Vec::new());
        let mut peers = peers.into_iter();
        for plan in plans {
            let (mut senders, mut sources) = (Vec::new(), Vec::new());
            let first = receivers.len();
            for pair in first..first + plan.pairs {
                let [source, destination] = [Role::Sender, Role::Receiver]
                    .map(|role| inner_address(role, pair, setup.family));
                let flow = Flow::new(setup.kind, source, destination, plan.size);
                let (sender, session) = peers.next().expect("a sender for each pair");
                sources.push((flow, session));
                senders.push(sender);
                let receiver = peers.next().expect("a receiver for each pair");
                let receiver = Receiver::new(receiver, plan.size)?;
                let event = EpollEvent::new(EpollFlags::EPOLLIN, pair as u64);
                epoll.add(&receiver.socket, event).map_err(while_doing("epoll"))?;
                receivers.push(receiver);
            }
            let pool = Pool::new(sources, plan, setup.is_padded, is_direct);
            let segment = i32::try_from(pool.message_len).expect("a datagram's length");
            for socket in &senders {
                setsockopt(socket, SndBufForce, &SOCKET_BUFFER)
                    .map_err(while_doing("SO_SNDBUFFORCE"))?;
                if plan.train > 1 {
                    let refused = while_doing("UDP_SEGMENT");
                    setsockopt(socket, UdpGsoSegment, &segment).map_err(refused)?;
                }
            }
            groups.push(Group { senders, first, pool, sent: 0 });
        }
        Ok(Generator {
            groups,
            receivers,
            sampler: Sampler::new(setup.check_every),
            epoll,
            events: vec![EpollEvent::empty(); EVENTS_MAX],
            buffer: vec![0; TRAIN_BYTES_MAX],
            kept_alive_at: clock::now(),
            relay,
        })
    }

    /// Sends at this pace until `limit` has passed, `packets` are sent or a pool is empty. Then
    /// waits for the last.
    pub fn run(&mut self, pace: &Pace, packets: u64, limit: Duration) -> Result<Slice, Failure> {
        self.prepare()?;
        let mut slice = Slice::default();
        let start = clock::now();
        let (mut now, mut last_event) = (start, start);
        let mut due = vec![start; self.groups.len()];
        let mut losses = LossDetector::new(SILENCE, self.relay, start);
        let mut sends = true;
        while sends || slice.in_flight > 0 {
            interrupt::check()?;
            sends = sends && now - start < limit;
            let sent_before = slice.sent;
            match pace {
                Pace::Window { group, window } => {
                    let train = self.groups[*group].pool.train;
                    while sends && (slice.in_flight == 0 || slice.in_flight + train <= *window) {
                        sends = slice.sent < packets && self.send(*group, now, &mut slice)?;
                    }
                }
                Pace::Rates(rates) => {
                    for (&(group, rate), due) in rates.iter().zip(&mut due) {
                        if sends && *due <= now {
                            slice.lag = slice.lag.max(now - *due);
                            let train = self.groups[group].pool.train as f64;
                            *due += Duration::from_secs_f64(train / rate);
                            // Read the clock again: other groups' trains took time.
                            sends = self.send(group, clock::now(), &mut slice)?;
                        }
                    }
                }
            }
            // A slow pace is not silence.
            let is_paced = matches!(pace, Pace::Rates(_)) && slice.sent > sent_before;
            let arrived = self.receive()?;
            now = clock::now();
            slice.received += arrived as u64;
            slice.in_flight = slice.in_flight.saturating_sub(arrived);
            if arrived > 0 || is_paced {
                last_event = now;
                losses.reset(now);
            } else if losses.is_loss(now) {
                // Lost packets must not use up the window.
                slice.in_flight = 0;
            }
        }
        slice.duration = last_event - start;
        Ok(slice)
    }

    /// Sends a group's next train; false if its pool is empty.
    fn send(&mut self, group: usize, now: Duration, slice: &mut Slice) -> Result<bool, Failure> {
        let group = &mut self.groups[group];
        let packets = group.pool.train;
        let Some((sender, train)) = group.pool.take(now) else { return Ok(false) };
        group.senders[sender].send(train).map_err(while_doing("cannot send a train"))?;
        group.sent += packets as u64;
        slice.sent += packets as u64;
        slice.in_flight += packets;
        Ok(true)
    }

    /// Receives a train from each socket that has one; returns the number of packets.
    fn receive(&mut self) -> Result<usize, Failure> {
        let ready = match self.epoll.wait(&mut self.events, EpollTimeout::ZERO) {
            Err(Errno::EINTR) => 0,
            outcome => outcome.map_err(while_doing("epoll"))?,
        };
        let mut arrived = 0;
        // All of them had arrived by now.
        let now = clock::now();
        for event in &self.events[..ready] {
            let pair = event.data() as usize; // a receiver's number, as it was given
            let receiver = &mut self.receivers[pair];
            let socket = receiver.socket.as_raw_fd();
            let mut slices = [IoSliceMut::new(&mut self.buffer)];
            let mut control = [0; 64]; // more than UDP_GRO's integer needs
            let flags = MsgFlags::MSG_DONTWAIT;
            let message = match recvmsg::<()>(socket, &mut slices, Some(&mut control), flags) {
                Ok(message) if message.bytes > 0 => message,
                // ECONNREFUSED: an ICMP error from before the relay's socket existed.
                Ok(_) | Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => continue,
                Err(errno) => return Err(while_doing("recvmsg")(errno)),
            };
            let length = message.bytes;
            let mut notes = message.cmsgs().map_err(while_doing("recvmsg"))?;
            let segment = notes.find_map(|note| match note {
                ControlMessageOwned::UdpGroSegments(bytes) => usize::try_from(bytes).ok(),
                _ => None,
            });
            let segment = segment.unwrap_or(length);
            let train = &self.buffer[..length];
            arrived += receiver.tally.count(train, segment, receiver.shortest);
            self.sampler.offer(pair, train, segment, now);
        }
        Ok(arrived)
    }

    /// Fills the pools, and sends the receivers' keepalives if they are due. Call it before the
    /// clock starts; otherwise sending does it.
    pub fn prepare(&mut self) -> Result<(), Failure> {
        for group in &mut self.groups {
            group.pool.refill();
        }
        let now = clock::now();
        if now - self.kept_alive_at < KEEPALIVE_INTERVAL {
            return Ok(());
        }
        self.kept_alive_at = now;
        for receiver in &mut self.receivers {
            let mut keepalive = [0; OVERHEAD];
            receiver.session.seal(receiver.next_counter, &mut keepalive);
            receiver.next_counter += 1;
            receiver.socket.send(&keepalive).map_err(while_doing("cannot send a keepalive"))?;
        }
        Ok(())
    }
}
