//! Seals and opens random batches for a given time, beside `ring`, on stable Rust:
//! `cargo run --release -p wg-bounce-aead --example fuzz_aead -- [SECONDS] [SEED]`.
//!
//! Every path that this processor has takes every batch: any number of messages of any lengths, at
//! any address, under few keys, some of them tampered with. The paths take turns, so that each has
//! seen the same batches. Beside `ring` stands RustCrypto.
//!
//! A failure prints the seed and the round, which replay it: with SECONDS 0 and the round as a
//! third argument, that round alone is run.

#![forbid(unsafe_code)]

#[path = "../src/tests/case.rs"]
mod case;
#[path = "../src/tests/random.rs"]
mod random;

use std::time::{Duration, Instant};

use case::{Case, Message};
use random::Random;
use wg_bounce_aead::{Aead, Choice, Key, Open, Seal};

/// The most messages of a batch: more than two that are worked on at once.
const MOST_MESSAGES: usize = 140;
/// The longest plaintext (bytes): beyond a jumbo frame.
const LONGEST: usize = 9_100;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = || {
        arguments.next().map(|text| {
            text.parse::<u64>().expect("usage: fuzz_aead [SECONDS] [SEED] [ROUND], all numbers")
        })
    };
    let (seconds, seed, only) = (number().unwrap_or(10), number().unwrap_or(1), number());
    let paths: Vec<(Choice, Aead)> = [Choice::Auto, Choice::Avx512, Choice::Avx2, Choice::Ring]
        .into_iter()
        .filter_map(|choice| Some((choice, Aead::new(choice).ok()?)))
        .collect();
    #[expect(clippy::disallowed_methods, reason = "a run's length is all that it measures")]
    let now = Instant::now;
    let end = now() + Duration::from_secs(seconds);
    let mut round = only.unwrap_or(0);
    loop {
        let case = any_case(seed, round);
        let check = || paths.iter().for_each(|(path, aead)| case.check(*path, *aead));
        if std::panic::catch_unwind(check).is_err() {
            eprintln!("replay: fuzz_aead 0 {seed} {round}");
            std::process::exit(1);
        }
        round += 1;
        if now() >= end {
            break;
        }
    }
    let names: Vec<String> = paths.iter().map(|(path, _)| path.to_string()).collect();
    let rounds = round - only.unwrap_or(0);
    println!("aead fuzz: {rounds} batches by {}, seed {seed}: no fault", names.join(", "));
}

/// The batch of one round; depends on nothing but its arguments.
fn any_case(seed: u64, round: u64) -> Case {
    let mut random = Random::new(seed.wrapping_mul(0x9e37_79b9) ^ round.rotate_left(32));
    let count = match random.below(4) {
        0 => 1 + random.below(MOST_MESSAGES),
        1 => 1 + random.below(3),
        _ => 1 + random.below(24),
    };
    let keys = 1 + random.below(5);
    // Trains have messages of one length; others are mixed.
    let common = any_length(&mut random);
    let mix = random.below(3);
    let messages = (0..count)
        .map(|_| {
            let is_alike = mix == 0 || (mix == 1 && random.below(4) != 0);
            let length = if is_alike { common } else { any_length(&mut random) };
            Message::random(&mut random, length, keys)
        })
        .collect();
    Case { seed: random.next(), messages }
}

/// Any length, more often a short one or one near the end of a block.
fn any_length(random: &mut Random) -> usize {
    match random.below(16) {
        0 => random.below(LONGEST),
        1..5 => random.below(2_000),
        5..9 => (16 * random.below(100) + random.below(3)).saturating_sub(1),
        _ => random.below(200),
    }
}
