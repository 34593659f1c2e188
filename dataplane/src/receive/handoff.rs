//! What arrives here and is another's business: handshake messages are control's, data of another
//! worker's session is that worker's.

use arrayvec::ArrayVec;
use blake2::Blake2sMac;
use blake2::digest::consts::U16;
use blake2::digest::{KeyInit, Mac};
use wg_bounce_sys::Train;
use wg_bounce_sys::memory::Buffer;
use wg_bounce_sys::message::PAYLOAD_AT;

use crate::channels::HandOff;
use crate::counters::DropReason;
use crate::messages::HandshakeMessage;
use crate::turn::Turn;
use crate::wire::{self, MAC_LEN};

/// A response or cookie reply: control's if it is awaited here, perhaps another worker's if not.
pub(super) fn sort_answer(
    is_awaited: bool,
    index: u32,
    train: &Train,
    datagram: &[u8],
    turn: &mut Turn<'_>,
) {
    if is_awaited {
        queue_handshake(datagram, train, false, turn);
    } else {
        hand_off(index, train, datagram, turn);
    }
}

/// Queues a handshake message for control if its mac1 is right (§5.4.4).
pub(super) fn queue_handshake(
    datagram: &[u8],
    train: &Train,
    is_initiation: bool,
    turn: &mut Turn<'_>,
) {
    let Some(mac1_key) = &turn.snapshot.mac1_key else {
        turn.counters.dropped(DropReason::NoPrivateKey, 1);
        return;
    };
    // A cookie reply has no mac1: its AEAD binds it to the mac1 that we sent.
    if datagram[0] != wire::COOKIE_REPLY && !has_right_mac1(datagram, mac1_key) {
        turn.counters.dropped(DropReason::BadMac1, 1);
        return;
    }
    let bytes = ArrayVec::try_from(datagram).expect("classified by its length");
    let message = HandshakeMessage { bytes, from: train.from };
    if !turn.post.handshake(message, is_initiation) {
        turn.counters.dropped(DropReason::HandshakeQueueFull, 1);
    }
}

fn has_right_mac1(message: &[u8], mac1_key: &[u8; 32]) -> bool {
    let (covered, macs) = message.split_at(message.len() - 2 * MAC_LEN);
    let mut mac = Blake2sMac::<U16>::new_from_slice(mac1_key).expect("32 bytes are a valid key");
    mac.update(covered);
    mac.verify_slice(&macs[..MAC_LEN]).is_ok()
}

/// The rest of a mixed train, or a datagram that came while the sockets changed: its index may
/// belong to another worker.
pub(super) fn hand_off(index: u32, train: &Train, datagram: &[u8], turn: &mut Turn<'_>) {
    let owner = (index & 0xff) as usize;
    let is_ours = owner == turn.worker || owner >= turn.post.neighbours.len();
    if is_ours || matches!(train.buffer, Buffer::Heap(_)) {
        turn.counters.dropped(DropReason::UnknownIndex, 1);
        return;
    }
    let mut buffer = vec![0u8; PAYLOAD_AT + datagram.len()].into_boxed_slice();
    buffer[PAYLOAD_AT..].copy_from_slice(datagram);
    let datagram = HandOff { buffer, from: train.from, traffic_class: train.traffic_class };
    if turn.post.hand_off(owner, datagram) {
        turn.counters.handed_off.add(1);
    } else {
        turn.counters.dropped(DropReason::HandOffFull, 1);
    }
}
