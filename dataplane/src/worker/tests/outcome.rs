//! Checks of what a worker has sent and written.

use wg_bounce_aead::{Aead, Key, Open};

use super::{Testbed, index_of, key_of};
use crate::ip;
use crate::offload::{Cut, VNET_HEADER_LEN};
use crate::wire::{self, DATA_HEADER_LEN, DATA_OVERHEAD, Kind};

/// Everything that a worker has sent and written.
pub struct Outcome {
    /// Frames written to the TUN.
    pub frames: usize,
    /// Data messages to peers, as far as their sockets had room.
    pub messages: usize,
}

impl Testbed {
    /// Takes and checks the output: frames are valid and consistent, messages authentic, under
    /// counters that are used once and in order, and have IP packets padded with zeros.
    pub fn outcome(&mut self) -> Outcome {
        let frames = self.frames();
        for frame in &frames {
            let cut = Cut::new(frame).expect("a valid frame");
            let packet = &frame[VNET_HEADER_LEN..];
            assert_eq!(packet.len(), cut.packet().len(), "nothing behind the packet");
            let mut segment = vec![0; cut.max_segment_len()];
            for index in 0..cut.segments() {
                let length = cut.write_segment(index, &mut segment);
                let ip = ip::parse(&segment[..length]).expect("an IP packet");
                assert_eq!(ip.len, length);
            }
        }
        let (mut messages, mut next) = (0, [0; 2]);
        for socket in 0..self.sockets.len() {
            for mut datagram in self.datagrams(socket) {
                check_message(&mut datagram, &mut next);
                messages += 1;
            }
        }
        Outcome { frames: frames.len(), messages }
    }
}

/// Checks a message to a peer. `next` has the least counter of the next message of each session.
fn check_message(message: &mut [u8], next: &mut [u64; 2]) {
    let Some(Kind::Data(header)) = wire::classify(message) else { panic!("not data") };
    let peer = (0..2).find(|id| index_of(*id) == header.receiver).expect("an index of a peer");
    assert!(header.counter >= next[peer], "a counter is used once, and in order");
    next[peer] = header.counter + 1;
    let key = Key::new(&key_of(peer as u32));
    let length = message.len();
    let mut batch = [Open { key: &key, counter: header.counter, message, authentic: false }];
    Aead::best().open(&mut batch);
    assert!(batch[0].authentic, "sealed with the key of its session");
    if length == DATA_OVERHEAD {
        return;
    }
    let plaintext = &batch[0].message[DATA_HEADER_LEN..length - wire::TAG_LEN];
    let packet = ip::parse(plaintext).expect("an IP packet");
    assert!(plaintext[packet.len..].iter().all(|byte| *byte == 0), "padded with zeros");
}
