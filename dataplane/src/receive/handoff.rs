//! Datagrams that arrive here but are handled elsewhere: handshake messages by control, data of
//! another worker's session by that worker.

use arrayvec::ArrayVec;
use wg_bounce_sys::Train;
use wg_bounce_sys::memory::Buffer;
use wg_bounce_sys::message::PAYLOAD_AT;

use super::greylist::Greylist;
use crate::channels::{HandOff, HandshakeLane};
use crate::counters::DropReason;
use crate::mac1;
use crate::messages::HandshakeMessage;
use crate::turn::Turn;

/// Queues an initiation for control; during a flood, those of senders that return have a lane of
/// their own.
pub(super) fn sort_initiation(
    greylist: &mut Greylist,
    train: &Train,
    datagram: &[u8],
    turn: &mut Turn<'_>,
) {
    if turn.channels.is_under_load(turn.now) {
        greylist.note_load(turn.now);
    }
    let lane = if greylist.knows(train.from.remote, turn.now) {
        HandshakeLane::Returning
    } else {
        HandshakeLane::Initiations
    };
    queue_handshake(lane, datagram, train, turn);
}

/// Sorts a response or cookie reply: to control if its index is pending here, else perhaps to
/// another worker.
pub(super) fn sort_answer(
    lane: HandshakeLane,
    is_pending: bool,
    index: u32,
    train: &Train,
    datagram: &[u8],
    turn: &mut Turn<'_>,
) {
    if is_pending {
        queue_handshake(lane, datagram, train, turn);
    } else {
        hand_off(index, train, datagram, turn);
    }
}

/// Queues a handshake message for control if its mac1 is valid (§5.4.4).
fn queue_handshake(lane: HandshakeLane, datagram: &[u8], train: &Train, turn: &mut Turn<'_>) {
    let Some(mac1_key) = &turn.snapshot.mac1_key else {
        turn.counters.dropped(DropReason::NoPrivateKey, 1);
        return;
    };
    // Before mac1, which costs more than all else about a message that has no place.
    if turn.channels.is_full(lane) {
        turn.counters.dropped(DropReason::HandshakeQueueFull, 1);
        return;
    }
    // A cookie reply has no mac1: its AEAD binds it to the mac1 that we sent.
    if lane != HandshakeLane::CookieReplies && !mac1::is_valid(datagram, mac1_key) {
        turn.counters.dropped(DropReason::BadMac1, 1);
        return;
    }
    let bytes = ArrayVec::try_from(datagram).expect("classified by its length");
    let message = HandshakeMessage { bytes, from: train.from };
    if turn.channels.handshake(message, lane) {
        turn.counters.handshake_messages.add(1);
    } else {
        turn.counters.dropped(DropReason::HandshakeQueueFull, 1);
    }
}

/// Hands a datagram to the worker that its receiver index names: the rest of a mixed train, or one
/// that arrived while the sockets changed.
pub(super) fn hand_off(index: u32, train: &Train, datagram: &[u8], turn: &mut Turn<'_>) {
    let owner = (index & 0xff) as usize;
    let is_ours = owner == turn.worker || owner >= turn.channels.neighbours.len();
    if is_ours || matches!(train.buffer, Buffer::Heap(_)) {
        turn.counters.dropped(DropReason::UnknownIndex, 1);
        return;
    }
    let mut buffer = vec![0u8; PAYLOAD_AT + datagram.len()].into_boxed_slice();
    buffer[PAYLOAD_AT..].copy_from_slice(datagram);
    let datagram = HandOff { buffer, from: train.from, traffic_class: train.traffic_class };
    if turn.channels.hand_off(owner, datagram) {
        turn.counters.handed_off.add(1);
    } else {
        turn.counters.dropped(DropReason::HandOffFull, 1);
    }
}
