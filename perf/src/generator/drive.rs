//! The generator's loop: one thread that sends and receives by turns and never sleeps, so that
//! the relay never pays for waking it.
//!
//! While the clock runs nothing is done for each packet but reading its counter: a train is one
//! system call to send, and one or few to receive.

use std::io::IoSliceMut;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::sockopt::{RcvBufForce, SndBufForce, UdpGroSegment, UdpGsoSegment};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt};

use super::peer::{OVERHEAD, Session};
use super::pool::Pool;
use super::receive::{Sampler, Tally};
use super::silence::Silence;
use crate::clock;
use crate::failure::{Failure, while_doing};
use crate::interrupt::Interrupt;

/// Buffers of each of the generator's sockets (bytes): nothing is lost in the generator.
const SOCKET_BUFFER: usize = 8 << 20;

/// Bytes of the longest train that UDP_GRO gives: a UDP datagram's.
const TRAIN_BYTES_MAX: usize = 1 << 16;

/// Ready sockets taken by one call.
const EVENTS_MAX: usize = 64;

/// When nothing has arrived for so long, and the relay rests, what is on its way has been lost.
const SILENCE: Duration = Duration::from_millis(200);

/// How often receivers say that they still live: a daemon that sends data and hears nothing
/// starts a handshake after 15 s (KEEPALIVE_TIMEOUT + REKEY_TIMEOUT; whitepaper, section 6).
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// Where packets arrive.
pub struct Receiver {
    socket: UdpSocket,
    session: Session,
    /// Counter of its next keepalive; 0 has confirmed the session.
    next_counter: u64,
    /// Bytes of the shortest message that is a packet.
    shortest: usize,
    /// What has arrived.
    pub tally: Tally,
    /// The greatest number inside a sample.
    pub last_sample: Option<u32>,
}

impl Receiver {
    /// One that takes packets of `packet_len` bytes.
    pub fn new(
        socket: UdpSocket,
        session: Session,
        packet_len: usize,
    ) -> Result<Receiver, Failure> {
        setsockopt(&socket, RcvBufForce, &SOCKET_BUFFER).map_err(refused("SO_RCVBUFFORCE"))?;
        setsockopt(&socket, UdpGroSegment, &true).map_err(refused("UDP_GRO"))?;
        let shortest = packet_len + OVERHEAD;
        let tally = Tally::default();
        Ok(Receiver { socket, session, next_counter: 1, shortest, tally, last_sample: None })
    }

    /// Opens a message that was kept.
    pub fn open<'a>(&self, message: &'a mut [u8]) -> Option<&'a [u8]> {
        self.session.open(message).map(|(_, plaintext)| plaintext)
    }
}

/// Pairs that send from one pool, at one rate.
pub struct Group {
    /// Sockets of the senders, in the pool's order.
    senders: Vec<UdpSocket>,
    /// Number of the first pair: sender `i` sends to receiver `first + i`.
    pub first: usize,
    /// What they send.
    pub pool: Pool,
}

impl Group {
    /// Prepares the sockets for the pool's trains.
    pub fn new(senders: Vec<UdpSocket>, first: usize, pool: Pool) -> Result<Group, Failure> {
        let segment = i32::try_from(pool.message_len()).expect("a datagram's length");
        for socket in &senders {
            setsockopt(socket, SndBufForce, &SOCKET_BUFFER).map_err(refused("SO_SNDBUFFORCE"))?;
            if pool.train() > 1 {
                setsockopt(socket, UdpGsoSegment, &segment).map_err(refused("UDP_SEGMENT"))?;
            }
        }
        Ok(Group { senders, first, pool })
    }

    /// Number of pairs.
    pub fn pairs(&self) -> usize {
        self.senders.len()
    }

    /// Sends the next train; false if the pool is empty.
    fn send(&mut self, now: Duration) -> Result<bool, Failure> {
        let Some((sender, train)) = self.pool.take(now) else { return Ok(false) };
        self.senders[sender].send(train).map_err(while_doing("sending a train"))?;
        Ok(true)
    }
}

/// How fast a group sends without looking at what comes back.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Which group.
    pub group: usize,
    /// From train to train.
    pub interval: Duration,
}

/// What one stretch of sending gave; the clock stood before and after it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slice {
    /// From the first train sent to the last arrived.
    pub duration: Duration,
    /// Packets that were sent.
    pub sent: u64,
    /// Packets that arrived.
    pub received: u64,
    /// The most by which the generator was behind its own pace.
    pub lag: Duration,
}

/// All peers.
pub struct Generator {
    /// The senders.
    pub groups: Vec<Group>,
    /// The receivers, by the number of their pair.
    pub receivers: Vec<Receiver>,
    /// What is kept to be opened.
    pub sampler: Sampler,
    epoll: Epoll,
    events: Vec<EpollEvent>,
    buffer: Vec<u8>,
    kept_alive_at: Duration,
    /// The relay's process, if that is known.
    relay: Option<u32>,
    interrupt: Interrupt,
}

impl Generator {
    /// Senders and receivers, ready to go.
    pub fn new(
        groups: Vec<Group>,
        receivers: Vec<Receiver>,
        sampler: Sampler,
        relay: Option<u32>,
        interrupt: &Interrupt,
    ) -> Result<Generator, Failure> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(refused("epoll"))?;
        for (number, receiver) in receivers.iter().enumerate() {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, number as u64);
            epoll.add(&receiver.socket, event).map_err(refused("epoll"))?;
        }
        Ok(Generator {
            groups,
            receivers,
            sampler,
            epoll,
            events: vec![EpollEvent::empty(); EVENTS_MAX],
            buffer: vec![0; TRAIN_BYTES_MAX],
            kept_alive_at: clock::now(),
            relay,
            interrupt: interrupt.clone(),
        })
    }

    /// Sends from one group until `limit` has passed, `packets` are sent or its pool is empty,
    /// with at most `window` packets, but at least one train, on their way. Then waits for the
    /// last.
    pub fn closed(
        &mut self,
        group: usize,
        window: usize,
        packets: u64,
        limit: Duration,
    ) -> Result<Slice, Failure> {
        self.prepare()?;
        let train = self.groups[group].pool.train();
        let mut slice = Slice::default();
        let (start, mut on_their_way) = (clock::now(), 0);
        let (mut now, mut last_arrival) = (start, start);
        let mut silence = Silence::new(SILENCE, self.relay, start);
        let mut sends = true;
        loop {
            self.interrupt.check()?;
            while sends && (on_their_way == 0 || on_their_way + train <= window) {
                sends = now - start < limit && slice.sent < packets;
                sends = sends && self.groups[group].send(now)?;
                if sends {
                    slice.sent += train as u64;
                    on_their_way += train;
                }
            }
            let arrived = self.receive()?;
            now = clock::now();
            if arrived > 0 {
                slice.received += arrived as u64;
                on_their_way = on_their_way.saturating_sub(arrived);
                last_arrival = now;
                silence.end(now);
            } else if silence.is_loss(now) {
                // Lost. Without this a window that has leaked away would stop everything.
                on_their_way = 0;
            }
            if on_their_way == 0 && !sends {
                slice.duration = last_arrival - start;
                return Ok(slice);
            }
        }
    }

    /// Sends every group that has a pace at that, for `limit` or until a pool is empty, whatever
    /// comes back. Then waits for the last.
    pub fn open(&mut self, paces: &[Pace], limit: Duration) -> Result<Slice, Failure> {
        self.prepare()?;
        let mut slice = Slice::default();
        let start = clock::now();
        let mut due: Vec<(Pace, Duration)> = paces.iter().map(|pace| (*pace, start)).collect();
        let (mut now, mut last_event) = (start, start);
        let mut silence = Silence::new(SILENCE, self.relay, start);
        let mut sends = true;
        while sends || (slice.received < slice.sent && !silence.is_loss(now)) {
            self.interrupt.check()?;
            sends = sends && now - start < limit;
            for (pace, due) in &mut due {
                if !sends || *due > now {
                    continue;
                }
                slice.lag = slice.lag.max(now - *due);
                *due += pace.interval;
                // The clock anew: the trains of other groups took their time.
                sends = self.groups[pace.group].send(clock::now())?;
                if sends {
                    slice.sent += self.groups[pace.group].pool.train() as u64;
                    last_event = now;
                    silence.end(now);
                }
            }
            let arrived = self.receive()?;
            now = clock::now();
            if arrived > 0 {
                slice.received += arrived as u64;
                last_event = now;
                silence.end(now);
            }
        }
        slice.duration = last_event - start;
        Ok(slice)
    }

    /// Takes what has arrived, a train from each socket that has one; how many packets.
    fn receive(&mut self) -> Result<usize, Failure> {
        let ready = match self.epoll.wait(&mut self.events, EpollTimeout::ZERO) {
            Err(Errno::EINTR) => 0,
            outcome => outcome.map_err(refused("epoll"))?,
        };
        let mut arrived = 0;
        // They wait already, so none has arrived later.
        let now = clock::now();
        for event in &self.events[..ready] {
            let pair = event.data() as usize; // a receiver's number, as it was given
            let receiver = &mut self.receivers[pair];
            let Some((length, segment)) = receive_train(&receiver.socket, &mut self.buffer)? else {
                continue;
            };
            let train = &self.buffer[..length];
            arrived += receiver.tally.count(train, segment, receiver.shortest);
            self.sampler.offer(pair, train, segment, now);
        }
        Ok(arrived)
    }

    /// Fills the pools, and has receivers show that they live. Sending does it by itself if it has
    /// to; before the clock starts is better.
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
            receiver.socket.send(&keepalive).map_err(while_doing("sending a keepalive"))?;
        }
        Ok(())
    }
}

/// One train: its bytes, and those of each of its messages. None if there is nothing.
fn receive_train(socket: &UdpSocket, buffer: &mut [u8]) -> Result<Option<(usize, usize)>, Failure> {
    let mut control = [0; 64]; // more than UDP_GRO's integer takes
    let mut slices = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    match recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags) {
        Ok(message) if message.bytes == 0 => Ok(None),
        Ok(message) => {
            let mut notes = message.cmsgs().map_err(refused("recvmsg"))?;
            let segment = notes.find_map(|note| match note {
                ControlMessageOwned::UdpGroSegments(bytes) => usize::try_from(bytes).ok(),
                _ => None,
            });
            Ok(Some((message.bytes, segment.unwrap_or(message.bytes))))
        }
        // Refused: an ICMP error from before the relay's socket was there.
        Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => Ok(None),
        Err(errno) => Err(refused("recvmsg")(errno)),
    }
}

fn refused(what: &'static str) -> impl FnOnce(Errno) -> Failure {
    move |errno| Failure::step(format!("{what}: {errno}"))
}
