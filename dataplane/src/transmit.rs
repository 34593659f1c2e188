//! The transmit path: from TUN frames to sealed messages.
//!
//! 1. [`TransmitPath::run`] checks each frame and cuts it into packets.
//! 2. [`route`] drops packets that must not enter the tunnel, and finds the peer that
//!    owns the destination by allowed IPs. Without one, or without an endpoint, the sender gets an
//!    ICMP error, as from the kernel module (`wg_xmit`, drivers/net/wireguard/device.c). Messages
//!    that would be encapsulated forever are dropped ([`crate::nesting`]).
//! 3. [`Sender::send`] writes each packet into a message under a nonce of the peer's session, or
//!    stages it.

use std::io;

use wg_bounce_sys::Frame;

use crate::counters::DropReason;
use crate::ip_forward::is_link_local_control;
use crate::nesting::{self, Nested, outer_header};
use crate::offload::Cut;
use crate::path::Path;
use crate::peer::Peer;
use crate::receive::ReceivePath;
use crate::send::Sender;
use crate::turn::Turn;

/// The transmit path of one worker.
#[derive(Default)]
pub struct TransmitPath {
    /// Frames may still wait in the queue that the kernel sent before the link went down.
    has_stale_frames: bool,
}

impl TransmitPath {
    /// Takes all frames of a turn through the stages; `receive` has the means to answer their
    /// senders.
    ///
    /// # Errors
    /// EBADFD: the TUN device was deleted.
    pub fn run(
        &mut self,
        frames: &[Frame],
        receive: &mut ReceivePath,
        sender: &mut Sender,
        turn: &mut Turn<'_>,
    ) -> io::Result<()> {
        // The kernel sends frames as soon as the link is up, which control learns later. They are
        // staged, and control begins the handshakes: the first packet after link up is not lost.
        self.has_stale_frames = turn.snapshot.is_up || self.has_stale_frames && !frames.is_empty();
        for frame in frames {
            turn.counters.tun_frames_read.add(1);
            if !turn.snapshot.is_up && self.has_stale_frames {
                turn.counters.tun_packets_read.add(1);
                turn.counters.dropped(DropReason::InterfaceDown, 1);
                continue;
            }
            match Cut::new(&frame.slot[..frame.length]) {
                Ok(cut) => {
                    turn.counters.tun_packets_read.add(cut.segments() as u64);
                    route(&cut, receive, sender, turn)?;
                }
                Err(_) => {
                    turn.counters.tun_packets_read.add(1);
                    turn.counters.dropped(DropReason::BadFrame, 1);
                }
            }
        }
        Ok(())
    }
}

fn route(
    cut: &Cut<'_>,
    receive: &mut ReceivePath,
    sender: &mut Sender,
    turn: &mut Turn<'_>,
) -> io::Result<()> {
    let packet = cut.ip();
    if is_link_local_control(cut.packet(), packet) {
        turn.counters.dropped(DropReason::LinkLocalChatter, cut.segments() as u64);
        return Ok(());
    }
    let snapshot = turn.snapshot;
    let Some(peer) = snapshot.routes.lookup(packet.destination) else {
        return answer_unreachable(cut, DropReason::NoPeer, receive, sender, turn);
    };
    let path = peer.path();
    let Some(path) = path.as_ref() else {
        peer.counters.dropped(DropReason::NoEndpoint, cut.segments() as u64);
        return answer_unreachable(cut, DropReason::NoEndpoint, receive, sender, turn);
    };
    let nested = Nested::read(cut.packet(), packet);
    if let Some(nested) = &nested
        && let Some(reason) = circle_of(nested, peer, path)
    {
        turn.dropped_in_circle(peer, nested, reason, cut.segments() as u64);
        return Ok(());
    }
    let header = outer_header(cut.packet(), nested.as_ref());
    sender.send(peer, path, cut, header, turn)
}

/// Drops a frame, and answers its sender with an ICMP error within the rate limit.
fn answer_unreachable(
    cut: &Cut<'_>,
    reason: DropReason,
    receive: &mut ReceivePath,
    sender: &mut Sender,
    turn: &mut Turn<'_>,
) -> io::Result<()> {
    turn.counters.dropped(reason, cut.segments() as u64);
    let packet = (cut.packet(), cut.ip());
    receive.errors.answer_frame(packet, &mut receive.router, sender, turn)
}

/// The reason why a message that goes to `peer` loops; none if it does not.
fn circle_of(nested: &Nested, peer: &Peer, path: &Path) -> Option<&'static str> {
    if nested.is_for(peer, path) {
        Some("are routed into the interface, and the peer itself has that address as an allowed IP")
    } else if nested.is_too_deep() {
        Some(nesting::TOO_DEEP)
    } else {
        None
    }
}
