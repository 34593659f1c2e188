//! The way out: from frames of the TUN to sealed messages.
//!
//! 1. [`TransmitPath::run`] checks and cuts each frame, and drops what has no business in the tunnel.
//! 2. The destination's owner by allowed IPs is its peer; without one, or without an endpoint,
//!    the sender is told (ICMP), as the kernel module does.
//! 3. [`Sender::send`] writes each packet into a message under a nonce of the peer's session,
//!    or stages it.

use std::io::{self, IoSlice};
use std::net::SocketAddr;

use wg_bounce_sys::{Delivery, Errno, Frame};

use crate::counters::DropReason;
use crate::icmp;
use crate::ip::{self, Packet};
use crate::ip_forward::is_link_chatter;
use crate::offload::{Cut, VNET_HEADER_LEN};
use crate::send::Sender;
use crate::turn::Turn;
use crate::wire::{DATA, INITIATION};

/// ICMP errors that may be sent in one burst, and per second afterwards (messages).
const UNREACHABLE_BURST: u64 = 50;
const UNREACHABLE_PER_SECOND: u64 = 1000;

/// The way out of one worker.
pub struct TransmitPath {
    answer: Box<[u8; VNET_HEADER_LEN + icmp::ERROR_LEN_MAX]>,
    outcomes: Vec<Errno>,
    bucket: Bucket,
}

impl Default for TransmitPath {
    /// Takes its memory here.
    fn default() -> Self {
        TransmitPath {
            answer: Box::new([0; VNET_HEADER_LEN + icmp::ERROR_LEN_MAX]),
            outcomes: Vec::with_capacity(1),
            bucket: Bucket::default(),
        }
    }
}

impl TransmitPath {
    /// Takes all frames of a turn through the stages.
    pub fn run(
        &mut self,
        frames: &[Frame],
        dispatch: &mut Sender,
        turn: &mut Turn<'_>,
    ) -> io::Result<()> {
        for frame in frames {
            turn.counters.tun_frames_read.add(1);
            if !turn.snapshot.is_up {
                turn.counters.dropped(DropReason::InterfaceDown, 1);
                continue;
            }
            match Cut::new(&frame.slot[..frame.length]) {
                Ok(cut) => self.route(&cut, dispatch, turn)?,
                Err(_) => turn.counters.dropped(DropReason::BadFrame, 1),
            }
        }
        Ok(())
    }

    fn route(
        &mut self,
        cut: &Cut<'_>,
        dispatch: &mut Sender,
        turn: &mut Turn<'_>,
    ) -> io::Result<()> {
        let packet = cut.ip();
        if is_link_chatter(cut.packet(), packet) {
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
            peer.counters.dropped(DropReason::NoEndpoint, cut.segments() as u64);
            return self.answer_unreachable(cut, DropReason::NoEndpoint, turn);
        };
        dispatch.send(peer, path, cut, turn)
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
