//! Times the AEAD with secrets of two classes, after "Dude, is my code constant time?" (Reparaz,
//! Balasch, Verbauwhede 2017):
//!
//!     cargo bench -p wg-bounce-benches --bench dudect -- SECONDS [SEED]
//!
//! Each experiment picks one of two classes of inputs at random for each measurement, and compares
//! their times with Welch's t-test. Beyond 4.5 (either sign) the classes differ. A smaller value
//! means that this many measurements show no difference, not that none exists. The second figure
//! leaves out the slowest tenth, which contains interrupts.
//!
//! - *seal*: one key and plaintext, against random ones.
//! - *open*: a tag that is wrong in its first byte, against one that is wrong in its last byte.
//!
//! Not a gate: it needs an otherwise idle machine, and a second run to confirm a difference. The
//! gate is `scripts/constant-time`. Without SECONDS it measures nothing, so that `cargo bench` does
//! not wait for it.

#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use wg_bounce_aead::{Aead, Choice, Key, Open, Seal};
use wg_bounce_fuzz::Random;

/// Messages of a batch.
const BATCH: usize = 16;
/// Bytes of each, header and tag included.
const MESSAGE_LEN: usize = 16 + 576 + 16;

fn main() {
    // Cargo adds `--bench`.
    let mut arguments = std::env::args().skip(1).filter(|it| it != "--bench");
    let mut number = || {
        let text = arguments.next()?;
        Some(text.parse::<u64>().expect("usage: dudect SECONDS [SEED], both numbers"))
    };
    let Some(seconds) = number() else {
        println!("dudect: not measured: give the seconds per experiment (-- SECONDS [SEED])");
        return;
    };
    let seed = number().unwrap_or(1);
    for choice in [Choice::Avx512, Choice::Avx2, Choice::Ring] {
        let Ok(aead) = Aead::new(choice) else {
            println!("{choice}: skipped: not supported by this CPU");
            continue;
        };
        for (name, experiment) in [("seal", seal as Experiment), ("open", open)] {
            let mut random = Random::new(seed);
            let samples = measure(Duration::from_secs(seconds), &mut random, |class, random| {
                experiment(aead, class, random)
            });
            println!(
                "{choice}, {name}: t = {:.2}, {:.2} without the slowest tenth; {} measurements",
                welch(&samples),
                welch(&without_slowest(&samples)),
                samples.len(),
            );
        }
    }
}

/// Processes an input of a class and returns the time it took.
type Experiment = fn(Aead, Class, &mut Random) -> Duration;

#[derive(Clone, Copy, PartialEq)]
enum Class {
    /// The fixed secret, or a wrong first byte.
    Fixed,
    /// A random secret, or a wrong last byte.
    Random,
}

/// A measurement (nanoseconds).
type Sample = (Class, f64);

#[expect(clippy::disallowed_methods, reason = "measures time")]
fn now() -> Instant {
    Instant::now()
}

fn measure(
    length: Duration,
    random: &mut Random,
    mut experiment: impl FnMut(Class, &mut Random) -> Duration,
) -> Vec<Sample> {
    let end = now() + length;
    // Warm the caches.
    for _ in 0..100 {
        experiment(Class::Fixed, random);
    }
    let mut samples = Vec::new();
    while now() < end {
        let class = if random.below(2) == 0 { Class::Fixed } else { Class::Random };
        samples.push((class, experiment(class, random).as_nanos() as f64));
    }
    samples
}

fn seal(aead: Aead, class: Class, random: &mut Random) -> Duration {
    // Both are generated and one is copied, so that the caches have the same state.
    let (mut secrets, mut contents) = ([[0; 32]; 2], [[0; BATCH * MESSAGE_LEN]; 2]);
    random.fill(&mut secrets[Class::Random as usize]);
    random.fill(&mut contents[Class::Random as usize]);
    let mut bytes = contents[class as usize];
    let key = Key::new(&secrets[class as usize]);
    let mut batch: Vec<Seal<'_>> = bytes
        .chunks_exact_mut(MESSAGE_LEN)
        .zip(0..)
        .map(|(message, counter)| Seal { key: &key, counter, message })
        .collect();
    let start = now();
    aead.seal(&mut batch);
    now() - start
}

fn open(aead: Aead, class: Class, random: &mut Random) -> Duration {
    let mut secret = [0; 32];
    random.fill(&mut secret);
    let key = Key::new(&secret);
    let mut bytes = vec![0; BATCH * MESSAGE_LEN];
    let mut batch: Vec<Seal<'_>> = bytes
        .chunks_exact_mut(MESSAGE_LEN)
        .zip(0..)
        .map(|(message, counter)| Seal { key: &key, counter, message })
        .collect();
    aead.seal(&mut batch);
    for message in bytes.chunks_exact_mut(MESSAGE_LEN) {
        let byte = if class == Class::Fixed { MESSAGE_LEN - 16 } else { MESSAGE_LEN - 1 };
        message[byte] ^= 1 << random.below(8);
    }
    let mut batch: Vec<Open<'_>> = bytes
        .chunks_exact_mut(MESSAGE_LEN)
        .zip(0..)
        .map(|(message, counter)| Open { key: &key, counter, message, authentic: false })
        .collect();
    let start = now();
    aead.open(&mut batch);
    let took = now() - start;
    assert!(batch.iter().all(|opened| !opened.authentic), "a forged message was accepted");
    took
}

/// The samples below the ninth decile of both classes together.
fn without_slowest(samples: &[Sample]) -> Vec<Sample> {
    let mut times: Vec<f64> = samples.iter().map(|(_, time)| *time).collect();
    times.sort_unstable_by(f64::total_cmp);
    let limit = times.get(times.len() * 9 / 10).copied().unwrap_or(f64::INFINITY);
    samples.iter().filter(|(_, time)| *time < limit).copied().collect()
}

/// Welch's t: the difference of the means, in units of its standard error.
fn welch(samples: &[Sample]) -> f64 {
    let [fixed, random] = [Class::Fixed, Class::Random].map(|class| {
        let times = samples.iter().filter(|(of, _)| *of == class).map(|(_, time)| *time);
        let count = times.clone().count() as f64;
        let mean = times.clone().sum::<f64>() / count;
        let variance = times.map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    });
    (fixed.0 - random.0) / (fixed.1 + random.1).sqrt()
}
