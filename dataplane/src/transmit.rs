//! The transmit path: from TUN frames to sealed messages.
//!
//! 1. [`TransmitPath::run`] checks each frame and cuts it into packets.
//! 2. [`TransmitPath::route`] drops packets that must not enter the tunnel, and finds the peer that
//!    owns the destination by allowed IPs. Without one, or without an endpoint, the sender gets an
//!    ICMP error, as from the kernel module (`wg_xmit`, drivers/net/wireguard/device.c).
//! 3. [`Sender::send`] writes each packet into a message under a nonce of the peer's session, or
//!    stages it.

use std::io::{self, IoSlice};
use std::net::SocketAddr;

use wg_bounce_sys::clock::Millis;
use wg_bounce_sys::{Errno, Frame, TunWrite};

use crate::counters::DropReason;
use crate::icmp;
use crate::ip::{self, Packet};
use crate::ip_forward::is_link_local_control;
use crate::limits::{ICMP_ERROR_BURST, ICMP_ERRORS_PER_SECOND};
use crate::offload::{Cut, VNET_HEADER_LEN};
use crate::send::Sender;
use crate::token_bucket::{Rate, TokenBucket};
use crate::turn::Turn;
use crate::wire::{DATA, INITIATION};

/// The rate of ICMP errors.
const ICMP_ERROR_RATE: Rate = Rate {
    cost: Millis(1000 / ICMP_ERRORS_PER_SECOND),
    burst: Millis(ICMP_ERROR_BURST * 1000 / ICMP_ERRORS_PER_SECOND),
};

/// The transmit path of one worker.
pub struct TransmitPath {
    answer: Box<[u8; VNET_HEADER_LEN + icmp::ERROR_LEN_MAX]>,
    outcomes: Vec<Errno>,
    icmp_errors: TokenBucket,
    /// Frames may still wait in the queue that the kernel sent before the link went down.
    has_stale_frames: bool,
}

impl Default for TransmitPath {
    /// Allocates its memory here.
    fn default() -> Self {
        TransmitPath {
            answer: Box::new([0; VNET_HEADER_LEN + icmp::ERROR_LEN_MAX]),
            outcomes: Vec::with_capacity(1),
            icmp_errors: TokenBucket::full(&ICMP_ERROR_RATE, Millis::ZERO),
            has_stale_frames: false,
        }
    }
}

impl TransmitPath {
    /// Takes all frames of a turn through the stages.
    pub fn run(
        &mut self,
        frames: &[Frame],
        sender: &mut Sender,
        turn: &mut Turn<'_>,
    ) -> io::Result<()> {
        // The kernel sends frames as soon as the link is up, which control learns later. They are
        // staged, and control begins the handshakes: the first packet after link up is not lost.
        self.has_stale_frames = turn.snapshot.is_up || self.has_stale_frames && !frames.is_empty();
        for frame in frames {
            turn.counters.tun_frames_read.add(1);
            if !turn.snapshot.is_up && self.has_stale_frames {
                turn.counters.dropped(DropReason::InterfaceDown, 1);
                continue;
            }
            match Cut::new(&frame.slot[..frame.length]) {
                Ok(cut) => self.route(&cut, sender, turn)?,
                Err(_) => turn.counters.dropped(DropReason::BadFrame, 1),
            }
        }
        Ok(())
    }

    fn route(&mut self, cut: &Cut<'_>, sender: &mut Sender, turn: &mut Turn<'_>) -> io::Result<()> {
        let packet = cut.ip();
        if is_link_local_control(cut.packet(), packet) {
            turn.counters.dropped(DropReason::LinkLocalChatter, 1);
            return Ok(());
        }
        if is_own_datagram(cut.packet(), packet, turn) {
            turn.counters.dropped(DropReason::RoutingLoop, 1);
            log::debug!(
                "routing loop: endpoint {} is routed through the tunnel interface; dropping",
                packet.destination
            );
            return Ok(());
        }
        let snapshot = turn.snapshot;
        let Some(peer) = snapshot.routes.lookup(packet.destination) else {
            return self.answer_unreachable(cut, DropReason::NoPeer, turn);
        };
        let path = peer.path();
        let Some(path) = path.as_ref() else {
            peer.counters.dropped(DropReason::NoEndpoint, cut.segments() as u64);
            return self.answer_unreachable(cut, DropReason::NoEndpoint, turn);
        };
        sender.send(peer, path, cut, turn)
    }

    /// Drops a frame, and answers its sender with an ICMP error within the rate limit.
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
        if !self.icmp_errors.try_take(&ICMP_ERROR_RATE, turn.now) {
            return Ok(());
        }
        let piece = [IoSlice::new(&self.answer[..VNET_HEADER_LEN + length])];
        let delivery = TunWrite { queue: turn.worker, pieces: 0..1 };
        turn.io.write(&[delivery], &piece, &mut self.outcomes)
    }
}

/// Whether a packet is a datagram that we sent ourselves: UDP from our port to a recent destination
/// of ours, with a WireGuard message in it.
fn is_own_datagram(packet: &[u8], header: &Packet, turn: &Turn<'_>) -> bool {
    if header.protocol != ip::UDP {
        return false;
    }
    let Some(udp) = packet.get(header.header_len..header.header_len + 12) else { return false };
    let port_at = |offset: usize| u16::from_be_bytes([udp[offset], udp[offset + 1]]);
    let is_message = matches!(udp[8..12], [INITIATION..=DATA, 0, 0, 0]);
    port_at(0) == turn.snapshot.listen_port
        && is_message
        && turn.loop_guard.contains(&SocketAddr::new(header.destination, port_at(2)))
}
