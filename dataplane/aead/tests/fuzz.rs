//! Fuzz target: batches on every path that this CPU supports, compared with independent
//! implementations. Any number of messages of any length and alignment, under a few keys, some of
//! them forged. All paths get the same batches.
//!
//! An input is the number of keys, and four bytes for each message: two of its length, one that
//! picks its key and whether it is forged, one for its alignment. The rest is random.

#![forbid(unsafe_code)]

#[path = "../src/tests/case.rs"]
mod case;

use case::{ALIGNMENTS, Case, Message};
use wg_bounce_aead::{Aead, Choice, Key, Open, Seal};
use wg_bounce_fuzz::{Random, Target};

/// Upper limit of messages in a batch: more than two full batches.
const MESSAGES_MAX: usize = 140;
/// Upper limit of plaintext (bytes): beyond a jumbo frame.
const LENGTH_MAX: usize = 9_100;
/// Upper limit of keys in a batch.
const KEYS_MAX: u8 = 5;
/// Bytes of an input for each message.
const MESSAGE_LEN: usize = 4;

#[test]
fn batches() {
    Target {
        test: concat!(module_path!(), "::batches"),
        corpus: &[concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus")],
        words: &[&[0; 4], &[0x8c, 5, 1, 16], &[0x40, 0, 0, 0], &[0x40, 0, 0x80, 1]],
        check: target,
    }
    .run();
}

fn target(data: &[u8]) {
    let case = batch(data);
    for choice in [Choice::Auto, Choice::Avx512, Choice::Avx2, Choice::Ring] {
        if let Ok(aead) = Aead::new(choice) {
            case.check(choice, aead);
        }
    }
}

/// The batch of an input.
fn batch(data: &[u8]) -> Case {
    let seed = Random::of_input(data).number();
    let mut random = Random::new(seed);
    let keys = usize::from(1 + data.first().copied().unwrap_or_default() % KEYS_MAX);
    let messages = data.get(1..).unwrap_or_default().chunks_exact(MESSAGE_LEN).take(MESSAGES_MAX);
    let messages = messages.map(|bytes| {
        let length = usize::from(u16::from_le_bytes([bytes[0], bytes[1]])) % (LENGTH_MAX + 1);
        let flips = bytes[2] & 0x80 != 0;
        let random = Message::random(&mut random, length, keys);
        Message {
            alignment: usize::from(bytes[3]) % ALIGNMENTS,
            key: usize::from(bytes[2] & 0x7f) % keys,
            flipped: flips.then_some(random.counter as usize % (8 * (length + 16))),
            ..random
        }
    });
    Case { messages: messages.collect(), seed }
}
