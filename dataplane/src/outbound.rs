//! The way out: from frames of the TUN to sealed messages.
//!
//! 1. [`Outbound::run`] checks and cuts each frame, and drops what has no business in the tunnel.
//! 2. The destination's owner by allowed IPs is its peer; without one, or without an endpoint,
//!    the sender is told (ICMP), as the kernel module does.
//! 3. [`Outbound::send_cut`] writes each packet into a message under a nonce of the peer's
//!    session. Without a session it is staged, and a handshake is asked for.
//! 4. [`Departures::flush`] seals and sends all messages of the turn.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::counters::DropReason;
use crate::departures::{Departures, Way};
use crate::icmp;
use crate::ip::{self, Packet};
use crate::offload::{Cut, VNET_HEADER_LEN};
use crate::peer::{Path, Peer, flag};
use crate::staging::Staging;
use crate::sys::{Delivery, Errno, Frame};
use crate::turn::Turn;
use crate::wire::{DATA, INITIATION, padded_len};

/// ICMP errors that may be sent in one burst, and per second afterwards (messages).
const UNREACHABLE_BURST: u64 = 50;
const UNREACHABLE_PER_SECOND: u64 = 1000;

const ICMP_REDIRECT: u8 = 5;
const NDISC_ROUTER_SOLICITATION: u8 = 133;
const NDISC_REDIRECT: u8 = 137;

/// The way out of one worker.
pub struct Outbound {
    departures: Departures,
    /// Packets that wait for a session.
    pub staging: Staging,
    answer: Box<[u8; VNET_HEADER_LEN + icmp::ERROR_LEN_MAX]>,
    outcomes: Vec<Errno>,
    bucket: Bucket,
}

impl Outbound {
    /// Takes its memory here.
    pub fn new(worker: usize, workers: usize, use_gso: bool) -> Outbound {
        Outbound {
            departures: Departures::new(workers, use_gso),
            staging: Staging::new(worker),
            answer: Box::new([0; VNET_HEADER_LEN + icmp::ERROR_LEN_MAX]),
            outcomes: Vec::with_capacity(1),
            bucket: Bucket::default(),
        }
    }

    /// Takes all frames of a turn through the stages.
    pub fn run(&mut self, frames: &[Frame], turn: &mut Turn<'_>) -> io::Result<()> {
        for frame in frames {
            turn.counters.tun_frames_read.add(1);
            if !turn.snapshot.is_up {
                turn.counters.dropped(DropReason::InterfaceDown, 1);
                continue;
            }
            match Cut::new(&frame.slot[..frame.length]) {
                Ok(cut) => self.route(&cut, turn)?,
                Err(_) => turn.counters.dropped(DropReason::BadFrame, 1),
            }
        }
        self.departures.flush(turn)
    }

    /// Sends what was staged for a peer, now that it has a session.
    pub fn send_staged(&mut self, peer: &Arc<Peer>, turn: &mut Turn<'_>) -> io::Result<()> {
        if !self.staging.holds(peer.id) {
            return Ok(());
        }
        let path = peer.path();
        let Some(path) = path.as_ref() else { return Ok(()) };
        let Some(way) = way_to(peer, path, turn) else { return Ok(()) };
        for packet in self.staging.take(peer) {
            self.send_whole(&way, &packet, turn)?;
        }
        self.departures.flush(turn)
    }

    /// Sends a keepalive, or stages it and asks for a handshake. What is staged for a peer serves
    /// as its keepalive.
    pub fn send_keepalive(&mut self, peer: &Arc<Peer>, turn: &mut Turn<'_>) -> io::Result<()> {
        if !turn.snapshot.is_up {
            return Ok(());
        }
        if !self.staging.holds(peer.id) {
            self.stage(peer, [Box::default()], turn)?;
        }
        self.send_staged(peer, turn)
    }

    fn route(&mut self, cut: &Cut<'_>, turn: &mut Turn<'_>) -> io::Result<()> {
        let packet = cut.ip();
        if is_link_local_chatter(cut.packet(), packet) {
            turn.counters.dropped(DropReason::LinkLocalChatter, 1);
            return Ok(());
        }
        if is_own_datagram(cut.packet(), packet, turn) {
            turn.counters.dropped(DropReason::RoutingLoop, 1);
            log::debug!("an endpoint is routed into the interface itself: datagram dropped");
            return Ok(());
        }
        let snapshot = turn.snapshot;
        let Some(peer) = snapshot.routes.lookup(packet.destination) else {
            return self.answer_unreachable(cut, DropReason::NoPeer, turn);
        };
        let path = peer.path();
        let Some(path) = path.as_ref() else {
            return self.answer_unreachable(cut, DropReason::NoEndpoint, turn);
        };
        match way_to(peer, path, turn) {
            Some(way) => {
                if self.staging.holds(peer.id) {
                    self.send_staged(peer, turn)?;
                }
                self.send_cut(&way, cut, turn)
            }
            None => self.stage(peer, packets_of(cut, 0), turn),
        }
    }

    /// Writes every packet of a frame into a message, as far as the nonces of a flush go at once.
    fn send_cut(&mut self, way: &Way, cut: &Cut<'_>, turn: &mut Turn<'_>) -> io::Result<()> {
        let (segments, ecn) = (cut.segments(), ip::outer_ecn(cut.packet()));
        let mtu = turn.snapshot.mtu;
        let longest = padded_len(cut.max_segment_len(), mtu);
        let mut next = 0;
        while next < segments {
            let room = self.departures.room_for(&way.session, longest);
            if room == 0 {
                self.departures.flush(turn)?;
                continue;
            }
            let count = room.min(segments - next);
            let Some(nonces) = way.session.reserve(count as u64) else {
                return self.stage(&way.peer, packets_of(cut, next), turn);
            };
            for counter in nonces {
                let length = padded_len(cut.segment_len(next), mtu);
                self.departures.push(way, ecn, counter, length, |plaintext| {
                    let written = cut.write_segment(next, plaintext);
                    plaintext[written..].fill(0);
                });
                next += 1;
            }
        }
        Ok(())
    }

    /// Writes one finished packet (empty: a keepalive) into a message.
    fn send_whole(&mut self, way: &Way, packet: &[u8], turn: &mut Turn<'_>) -> io::Result<()> {
        let length = padded_len(packet.len(), turn.snapshot.mtu);
        if self.departures.room_for(&way.session, length) == 0 {
            self.departures.flush(turn)?;
        }
        let Some(mut nonces) = way.session.reserve(1) else {
            return self.stage(&way.peer, [packet.into()], turn);
        };
        let counter = nonces.next().expect("one was reserved");
        let ecn = if packet.is_empty() { 0 } else { ip::outer_ecn(packet) };
        self.departures.push(way, ecn, counter, length, |plaintext| {
            plaintext[..packet.len()].copy_from_slice(packet);
            plaintext[packet.len()..].fill(0);
        });
        Ok(())
    }

    fn stage(
        &mut self,
        peer: &Arc<Peer>,
        packets: impl IntoIterator<Item = Box<[u8]>>,
        turn: &mut Turn<'_>,
    ) -> io::Result<()> {
        for packet in packets {
            let dropped = self.staging.push(peer, packet);
            turn.counters.dropped(DropReason::StagingFull, dropped);
        }
        turn.raise(peer, flag::WANTS_HANDSHAKE);
        // Control may have published a session before it could see that something is staged.
        let is_alive = peer.session().as_ref().is_some_and(|session| session.is_alive(turn.now));
        if is_alive { self.send_staged(peer, turn) } else { Ok(()) }
    }

    /// Tells the sender that its packet goes nowhere, within a rate.
    fn answer_unreachable(
        &mut self,
        cut: &Cut<'_>,
        reason: DropReason,
        turn: &mut Turn<'_>,
    ) -> io::Result<()> {
        turn.counters.dropped(reason, cut.segments() as u64);
        let (header, body) = self.answer.split_at_mut(VNET_HEADER_LEN);
        header.fill(0);
        let Some(length) = icmp::unreachable(cut.packet(), body) else { return Ok(()) };
        if !self.bucket.take(turn.now.0) {
            return Ok(());
        }
        let piece = [IoSlice::new(&self.answer[..VNET_HEADER_LEN + length])];
        let delivery = Delivery { queue: turn.worker, pieces: 0..1 };
        turn.io.write(&[delivery], &piece, &mut self.outcomes)
    }
}

/// A session that may send now, and its peer's path.
fn way_to(peer: &Arc<Peer>, path: &Arc<Path>, turn: &Turn<'_>) -> Option<Way> {
    let session = peer.session();
    let session = session.as_ref().filter(|session| session.is_alive(turn.now))?;
    Some(Way { peer: Arc::clone(peer), session: Arc::clone(session), path: Arc::clone(path) })
}

/// The packets of a frame from number `first` on, each by itself.
fn packets_of(cut: &Cut<'_>, first: usize) -> impl Iterator<Item = Box<[u8]>> {
    (first..cut.segments()).map(|number| {
        let mut packet = vec![0; cut.segment_len(number)].into_boxed_slice();
        cut.write_segment(number, &mut packet);
        packet
    })
}

/// Redirects (the kernel sends them when it forwards back out of the interface) and router
/// solicitations mean nothing to a peer; see "Forwarding through a TUN" in the documentation.
fn is_link_local_chatter(packet: &[u8], header: &Packet) -> bool {
    let Some(&kind) = packet.get(header.header_len) else { return false };
    match header.protocol {
        ip::ICMP => kind == ICMP_REDIRECT,
        ip::ICMPV6 => kind == NDISC_REDIRECT || kind == NDISC_ROUTER_SOLICITATION,
        _ => false,
    }
}

/// Whether a packet is a datagram that we sent ourselves: UDP from our port to where we send,
/// with a WireGuard message in it.
fn is_own_datagram(packet: &[u8], header: &Packet, turn: &Turn<'_>) -> bool {
    if header.protocol != ip::UDP {
        return false;
    }
    let Some(udp) = packet.get(header.header_len..header.header_len + 12) else { return false };
    let port_at = |at: usize| u16::from_be_bytes([udp[at], udp[at + 1]]);
    let is_message = matches!(udp[8..12], [INITIATION..=DATA, 0, 0, 0]);
    port_at(0) == turn.snapshot.listen_port
        && is_message
        && turn.recent.contains(&SocketAddr::new(header.destination, port_at(2)))
}

/// A token bucket for ICMP errors.
#[derive(Default)]
struct Bucket {
    /// Tokens, in thousandths.
    milli_tokens: u64,
    refilled: u64,
}

impl Bucket {
    fn take(&mut self, now_ms: u64) -> bool {
        let gained = now_ms.saturating_sub(self.refilled).saturating_mul(UNREACHABLE_PER_SECOND);
        self.refilled = now_ms;
        self.milli_tokens = (self.milli_tokens + gained).min(UNREACHABLE_BURST * 1000);
        let has_token = self.milli_tokens >= 1000;
        if has_token {
            self.milli_tokens -= 1000;
        }
        has_token
    }
}
