//! Batches compared with independent implementations. Each test takes every value of one axis and
//! random values of the others. A failure prints the whole case.

use super::case::{ALIGNMENTS, Case, Message};
use super::*;

/// Every length of plaintext up to this one is tested (bytes), and [`JUMBO`].
const LENGTHS: usize = 2100;
/// Plaintext on a link with jumbo frames (bytes).
const JUMBO: usize = 9000;
/// Largest number of messages: two full batches and a little more.
const BATCHES: usize = 2 * crate::BATCH + 2;

/// A random length, more often short or near the end of a block.
fn any_length(random: &mut Random) -> usize {
    match random.below(4) {
        0 => random.below(130),
        1 => (16 * random.below(100) + random.below(3)).saturating_sub(1),
        2 => 1420 + random.below(60),
        _ => random.below(LENGTHS),
    }
}

/// A batch of messages whose lengths `length` chooses.
fn any_case(
    random: &mut Random,
    count: usize,
    mut length: impl FnMut(&mut Random) -> usize,
) -> Case {
    let keys = 1 + random.below(4);
    let messages = (0..count)
        .map(|_| {
            let length = length(random);
            Message::random(random, length, keys)
        })
        .collect();
    Case { seed: random.number(), messages }
}

/// A random number of messages, more often few.
fn any_count(random: &mut Random) -> usize {
    if random.below(4) == 0 { 1 + random.below(BATCHES) } else { 2 + random.below(16) }
}

#[test]
fn every_length() {
    for (path, aead) in paths() {
        let mut random = Random::new(10);
        let lengths = (0..=LENGTHS).step_by(cases(1, 37)).chain([JUMBO]);
        for length in lengths {
            // All of this length, then one among others.
            let count = any_count(&mut random);
            any_case(&mut random, count, |_| length).check(path, aead);
            let count = any_count(&mut random);
            let mut case = any_case(&mut random, count, any_length);
            let place = random.below(count);
            case.messages[place] = Message::random(&mut random, length, 1);
            case.check(path, aead);
        }
    }
}

#[test]
fn every_batch() {
    for (path, aead) in paths() {
        let mut random = Random::new(11);
        for count in (1..=BATCHES).step_by(cases(1, 9)) {
            for _ in 0..cases(4, 1) {
                any_case(&mut random, count, any_length).check(path, aead);
            }
            let length = random.below(200);
            any_case(&mut random, count, |_| length).check(path, aead);
        }
    }
}

#[test]
fn every_alignment() {
    for (path, aead) in paths() {
        let mut random = Random::new(12);
        for alignment in (0..ALIGNMENTS).step_by(cases(1, 7)) {
            for are_all in [false, true] {
                let count = any_count(&mut random);
                let mut case = any_case(&mut random, count, any_length);
                let place = random.below(count);
                for (number, message) in case.messages.iter_mut().enumerate() {
                    if are_all || number == place {
                        message.alignment = alignment;
                    }
                }
                case.check(path, aead);
            }
        }
    }
}

#[test]
fn every_mix_of_keys() {
    for (path, aead) in paths() {
        let mut random = Random::new(13);
        for period in (1..=40).step_by(cases(1, 13)) {
            // Runs of packets under one key, then keys in turns.
            for in_turns in [false, true] {
                let count = any_count(&mut random);
                let mut case = any_case(&mut random, count, any_length);
                for (number, message) in case.messages.iter_mut().enumerate() {
                    message.key = if in_turns { number % period } else { number / period };
                }
                case.check(path, aead);
            }
        }
        // Every assignment of two keys to ten messages.
        for mix in (0..1 << 10).step_by(cases(1, 101)) {
            let mut case = any_case(&mut random, 10, |random| random.below(100));
            for (number, message) in case.messages.iter_mut().enumerate() {
                message.key = mix >> number & 1;
            }
            case.check(path, aead);
        }
    }
}

#[test]
fn forgery_at_every_byte() {
    for (path, aead) in paths() {
        let mut random = Random::new(14);
        for length in [0, 1, 15, 16, 17, 63, 64, 65, 127, 128, 576, 1420] {
            for byte in (0..length + 16).step_by(cases(1, 61)) {
                let count = 2 + random.below(8);
                let mut case = any_case(&mut random, count, |_| length);
                case.messages.iter_mut().for_each(|message| message.flipped = None);
                let place = random.below(count);
                case.messages[place].flipped = Some(8 * byte + random.below(8));
                case.check(path, aead);
            }
        }
    }
}

#[test]
fn forgery_in_every_position() {
    for (path, aead) in paths() {
        let mut random = Random::new(15);
        for place in (0..BATCHES).step_by(cases(1, 17)) {
            let mut case = any_case(&mut random, BATCHES, |random| random.below(200));
            case.messages.iter_mut().for_each(|message| message.flipped = None);
            case.messages[place].flipped = Some(8 * case.messages[place].length + place % 128);
            case.check(path, aead);
        }
        let mut case = any_case(&mut random, BATCHES, any_length);
        for message in &mut case.messages {
            message.flipped = Some(random.below(8 * (message.length + 16)));
        }
        case.check(path, aead);
    }
}
