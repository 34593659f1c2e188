//! The transmit path: from TUN frames to sealed messages.
//!
//! 1. [`run`] checks each frame and cuts it into packets.
//! 2. [`route`] drops packets that must not enter the tunnel, and finds the peer that
//!    owns the destination by allowed IPs. Without one, or without an endpoint, the sender gets an
//!    ICMP error, as from the kernel module (`wg_xmit`, drivers/net/wireguard/device.c).
//! 3. [`Sender::send`] writes each packet into a message under a nonce of the peer's session, or
//!    stages it.

use std::io;
use std::net::SocketAddr;

use wg_bounce_sys::Frame;

use crate::counters::DropReason;
use crate::ip::{self, Packet};
use crate::ip_forward::is_link_local_control;
use crate::offload::Cut;
use crate::receive::ReceivePath;
use crate::send::Sender;
use crate::turn::Turn;
use crate::wire::{DATA, INITIATION};

/// Takes all frames of a turn through the stages; `receive` has the means to answer their senders.
///
/// # Errors
/// EBADFD: the TUN device was deleted.
pub fn run(
    frames: &[Frame],
    receive: &mut ReceivePath,
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
            Ok(cut) => route(&cut, receive, sender, turn)?,
            Err(_) => turn.counters.dropped(DropReason::BadFrame, 1),
        }
    }
    Ok(())
}

fn route(
    cut: &Cut<'_>,
    receive: &mut ReceivePath,
    sender: &mut Sender,
    turn: &mut Turn<'_>,
) -> io::Result<()> {
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
        return answer_unreachable(cut, DropReason::NoPeer, receive, sender, turn);
    };
    let path = peer.path();
    let Some(path) = path.as_ref() else {
        peer.counters.dropped(DropReason::NoEndpoint, cut.segments() as u64);
        return answer_unreachable(cut, DropReason::NoEndpoint, receive, sender, turn);
    };
    sender.send(peer, path, cut, turn)
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
