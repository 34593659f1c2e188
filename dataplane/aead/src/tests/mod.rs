//! Tests of the AEAD's paths (AVX-512, AVX2, `ring`) against published vectors and independent
//! implementations.
//!
//! On an emulated CPU, which is some hundred times slower, the environment variable [`EMULATED`]
//! selects the only path to test, and tests run fewer cases.

mod case;
mod differential;
mod guarded;
mod memcheck;
mod poly1305;
mod residue;
mod rfc8439;
mod wycheproof;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use wg_bounce_fuzz::Random;

use super::batch;
use super::packet::Tag;
use super::*;

/// The environment variable that names the path to test on an emulated CPU.
const EMULATED: &str = "WG_BOUNCE_TEST_EMULATED_AEAD";

/// All paths.
const PATHS: [Choice; 4] = [Choice::Auto, Choice::Avx512, Choice::Avx2, Choice::Ring];

/// The only path to test, on an emulated CPU.
fn emulated() -> Option<String> {
    std::env::var(EMULATED).ok()
}

/// The paths to test that this CPU supports.
fn paths() -> impl Iterator<Item = (Choice, Aead)> {
    let only = emulated();
    PATHS
        .into_iter()
        .filter(move |path| only.as_ref().is_none_or(|only| *only == name(*path)))
        .filter_map(|path| Some((path, Aead::new(path).ok()?)))
}

/// The name of the path, as in the option `--aead`.
fn name(path: Choice) -> String {
    format!("{path:?}").to_lowercase()
}

/// `scripts/aead-paths` reads the output.
#[test]
fn says_which_paths_are_tested() {
    for path in PATHS {
        let is_run = paths().any(|(run, _)| run == path);
        println!("AEAD path {}: {}", name(path), if is_run { "run" } else { "skipped" });
    }
    assert!(paths().next().is_some(), "this CPU does not support the path in {EMULATED}");
}

/// The number of cases: `few` on an emulated CPU, `many` elsewhere.
fn cases(many: usize, few: usize) -> usize {
    if emulated().is_some() { few } else { many }
}

/// A packet as in published vectors, with additional data and any nonce.
#[derive(Clone, Debug, PartialEq)]
struct Sample {
    key: [u32; 8],
    nonce: [u32; 3],
    aad: Vec<u8>,
    body: Vec<u8>,
    tag: Tag,
}

impl Sample {
    /// A plaintext packet.
    fn new(key: &[u8; 32], nonce: &[u8; 12], aad: &[u8], body: &[u8]) -> Sample {
        Sample {
            key: words(key),
            nonce: words(nonce),
            aad: aad.to_vec(),
            body: body.to_vec(),
            tag: [0; 16],
        }
    }

    /// A random plaintext packet.
    fn random(random: &mut Random, aad: usize, body: usize) -> Sample {
        let (mut key, mut nonce) = ([0; 32], [0; 12]);
        random.fill(&mut key);
        random.fill(&mut nonce);
        Sample::new(&key, &nonce, &random.bytes(aad), &random.bytes(body))
    }

    fn packet(&mut self) -> Packet<'_> {
        Packet {
            key: &self.key,
            nonce: self.nonce,
            body: &mut self.body,
            tag: &mut self.tag,
            aad: &self.aad,
        }
    }

    fn ring(&self) -> (LessSafeKey, Nonce, Aad<&[u8]>) {
        let unbound = UnboundKey::new(&CHACHA20_POLY1305, &bytes::<8, 32>(&self.key)).unwrap();
        let nonce = Nonce::assume_unique_for_key(bytes(&self.nonce));
        (LessSafeKey::new(unbound), nonce, Aad::from(&self.aad))
    }

    /// The packet, sealed with `ring`.
    fn sealed(&self) -> Sample {
        let mut body = self.body.clone();
        let (key, nonce, aad) = self.ring();
        let tag = key.seal_in_place_separate_tag(nonce, aad, &mut body).unwrap();
        Sample { body, tag: tag.as_ref().try_into().unwrap(), ..self.clone() }
    }
}

fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    let (words, _) = bytes.as_chunks();
    std::array::from_fn(|word| u32::from_le_bytes(words[word]))
}

fn bytes<const N: usize, const LEN: usize>(words: &[u32; N]) -> [u8; LEN] {
    words.map(u32::to_le_bytes).as_flattened().try_into().unwrap()
}

/// Decodes hexadecimal digits; ignores white space.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|digit| Some(digit.to_digit(16)? as u8)).collect();
    let (pairs, rest) = digits.as_chunks::<2>();
    assert!(rest.is_empty(), "odd number of hexadecimal digits");
    pairs.iter().map(|[high, low]| high << 4 | low).collect()
}

/// A batch to seal, under the keys in turn. The nonce of a message is the `counter` of its index.
fn to_seal<'a>(
    keys: &'a [Key],
    counter: impl Fn(usize) -> u64,
    messages: impl Iterator<Item = &'a mut [u8]>,
) -> Vec<Seal<'a>> {
    let seal = |(number, message): (usize, &'a mut [u8])| Seal {
        key: &keys[number % keys.len()],
        counter: counter(number),
        message,
    };
    messages.enumerate().map(seal).collect()
}

/// A batch to open; see [`to_seal`].
fn to_open<'a>(
    keys: &'a [Key],
    counter: impl Fn(usize) -> u64,
    messages: impl Iterator<Item = &'a mut [u8]>,
) -> Vec<Open<'a>> {
    let open = |(number, message): (usize, &'a mut [u8])| Open {
        key: &keys[number % keys.len()],
        counter: counter(number),
        message,
        authentic: false,
    };
    messages.enumerate().map(open).collect()
}

fn seal(aead: Aead, samples: &mut [Sample]) {
    let mut packets: Vec<Packet<'_>> = samples.iter_mut().map(Sample::packet).collect();
    match aead.implementation {
        Implementation::Avx2(unit) => batch::seal(unit, &mut packets),
        Implementation::Avx512(unit) => batch::seal(unit, &mut packets),
        Implementation::Ring => samples.iter_mut().for_each(|sample| *sample = sample.sealed()),
    }
}

/// Opens the samples and returns their verdicts; authentic ones are decrypted.
fn open(aead: Aead, samples: &mut [Sample]) -> Vec<bool> {
    let count = samples.len();
    let mut packets: Vec<Packet<'_>> = samples.iter_mut().map(Sample::packet).collect();
    let authentic = match aead.implementation {
        Implementation::Avx2(unit) => batch::open(unit, &mut packets),
        Implementation::Avx512(unit) => batch::open(unit, &mut packets),
        Implementation::Ring => {
            return samples.iter_mut().map(open_with_ring).collect();
        }
    };
    (0..count).map(|number| authentic >> number & 1 == 1).collect()
}

fn open_with_ring(sample: &mut Sample) -> bool {
    let mut body = [&sample.body[..], &sample.tag].concat();
    let (key, nonce, aad) = sample.ring();
    let Ok(plaintext) = key.open_in_place(nonce, aad, &mut body) else { return false };
    sample.body = plaintext.to_vec();
    true
}
