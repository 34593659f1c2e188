//! Seals and opens random batches on every path that this CPU supports, and compares with
//! independent implementations: any number of messages of any length and alignment, under a few
//! keys, some of them forged. All paths get the same batches.
//!
//! - `WG_BOUNCE_FUZZ_SECONDS`: duration (default 1).
//! - `WG_BOUNCE_FUZZ_SEED`: seed of all batches (default 1).
//! - `WG_BOUNCE_FUZZ_ROUND`: run only this batch. A failure prints the value that replays it.

#![forbid(unsafe_code)]

#[path = "../src/tests/case.rs"]
mod case;
#[path = "../src/tests/random.rs"]
mod random;

use std::time::{Duration, Instant};

use case::{Case, Message};
use random::Random;
use wg_bounce_aead::{Aead, Choice, Key, Open, Seal};

/// Upper limit of messages in a batch: more than two full batches.
const MESSAGES_MAX: usize = 140;
/// Upper limit of plaintext (bytes): beyond a jumbo frame.
const LENGTH_MAX: usize = 9_100;

/// The number in an environment variable, if it is set.
fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

#[test]
fn fuzz() {
    let seconds = variable("WG_BOUNCE_FUZZ_SECONDS").unwrap_or(1);
    let seed = variable("WG_BOUNCE_FUZZ_SEED").unwrap_or(1);
    let only = variable("WG_BOUNCE_FUZZ_ROUND");
    let paths: Vec<(Choice, Aead)> = [Choice::Auto, Choice::Avx512, Choice::Avx2, Choice::Ring]
        .into_iter()
        .filter_map(|choice| Some((choice, Aead::new(choice).ok()?)))
        .collect();
    #[expect(clippy::disallowed_methods, reason = "limits the duration of a run")]
    let now = Instant::now;
    let end = now() + Duration::from_secs(seconds);
    let first = only.unwrap_or(0);
    let mut round = first;
    loop {
        let case = random_case(seed, round);
        let check = || paths.iter().for_each(|(path, aead)| case.check(*path, *aead));
        if let Err(panic) = std::panic::catch_unwind(check) {
            eprintln!("replay: WG_BOUNCE_FUZZ_SEED={seed} WG_BOUNCE_FUZZ_ROUND={round}");
            std::panic::resume_unwind(panic);
        }
        round += 1;
        if only.is_some() || now() >= end {
            break;
        }
    }
    let names: Vec<String> = paths.iter().map(|(path, _)| path.to_string()).collect();
    println!("aead fuzz: {} batches with {}, seed {seed}", round - first, names.join(", "));
}

/// The batch of one round, which depends only on seed and round.
fn random_case(seed: u64, round: u64) -> Case {
    let mut random = Random::new(seed.wrapping_mul(0x9e37_79b9) ^ round.rotate_left(32));
    let count = match random.below(4) {
        0 => 1 + random.below(MESSAGES_MAX),
        1 => 1 + random.below(3),
        _ => 1 + random.below(24),
    };
    let keys = 1 + random.below(5);
    // Messages of one length, as in a train, or mixed.
    let common = random_length(&mut random);
    let mix = random.below(3);
    let messages = (0..count)
        .map(|_| {
            let is_alike = mix == 0 || (mix == 1 && random.below(4) != 0);
            let length = if is_alike { common } else { random_length(&mut random) };
            Message::random(&mut random, length, keys)
        })
        .collect();
    Case { seed: random.next(), messages }
}

/// A random length, more often short or near the end of a block.
fn random_length(random: &mut Random) -> usize {
    match random.below(16) {
        0 => random.below(LENGTH_MAX),
        1..5 => random.below(2_000),
        5..9 => (16 * random.below(100) + random.below(3)).saturating_sub(1),
        _ => random.below(200),
    }
}
