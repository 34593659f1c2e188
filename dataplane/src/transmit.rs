//! The transmit path: from TUN frames to sealed messages.
//!
//! 1. [`TransmitPath::run`] checks each frame and cuts it into packets.
//! 2. [`TransmitPath::route`] drops packets that must not enter the tunnel, and finds the peer that
//!    owns the destination by allowed IPs. Without one, or without an endpoint, the sender gets an
//!    ICMP error, as from the kernel module (`wg_xmit`, drivers/net/wireguard/device.c). Messages
//!    that would be encapsulated forever are dropped ([`crate::nesting`]).
//! 3. [`Sender::send`] writes each packet into a message under a nonce of the peer's session, or
//!    stages it.

use std::io::{self, IoSlice};

use wg_bounce_sys::clock::Millis;
use wg_bounce_sys::{Errno, Frame, TunWrite};

use crate::counters::DropReason;
use crate::icmp;
use crate::ip_forward::is_link_local_control;
use crate::limits::{ICMP_ERROR_BURST, ICMP_ERRORS_PER_SECOND};
use crate::nesting::Nested;
use crate::offload::{Cut, VNET_HEADER_LEN};
use crate::peer::{Path, Peer};
use crate::send::Sender;
use crate::token_bucket::{Rate, TokenBucket};
use crate::turn::Turn;

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
}

impl Default for TransmitPath {
    /// Allocates its memory here.
    fn default() -> Self {
        TransmitPath {
            answer: Box::new([0; VNET_HEADER_LEN + icmp::ERROR_LEN_MAX]),
            outcomes: Vec::with_capacity(1),
            icmp_errors: TokenBucket::full(&ICMP_ERROR_RATE, Millis::ZERO),
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
        for frame in frames {
            turn.counters.tun_frames_read.add(1);
            if !turn.snapshot.is_up {
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
        let snapshot = turn.snapshot;
        let Some(peer) = snapshot.routes.lookup(packet.destination) else {
            return self.answer_unreachable(cut, DropReason::NoPeer, turn);
        };
        let path = peer.path();
        let Some(path) = path.as_ref() else {
            peer.counters.dropped(DropReason::NoEndpoint, cut.segments() as u64);
            return self.answer_unreachable(cut, DropReason::NoEndpoint, turn);
        };
        if let Some(nested) = Nested::read(cut.packet(), packet)
            && let Some(circle) = circle_of(&nested, peer, path)
        {
            turn.dropped(peer, DropReason::RoutingLoop, cut.segments() as u64);
            if peer.note_loop(turn.now) {
                log::warn!("routing loop: messages to {} {circle}; dropping", nested.to);
            }
            return Ok(());
        }
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

/// The reason why a message that goes to `peer` loops; none if it does not.
fn circle_of(nested: &Nested, peer: &Peer, path: &Path) -> Option<&'static str> {
    if nested.is_for(peer, path) {
        Some("are routed into the interface, and the peer itself has that address as an allowed IP")
    } else if nested.is_too_deep() {
        Some("have passed too many tunnels: their endpoints lie behind each other")
    } else {
        None
    }
}
