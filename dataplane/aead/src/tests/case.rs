//! One batch through the public interface, compared with an independent implementation. Also
//! included by `tests/fuzz.rs`.

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use wg_bounce_fuzz::Random;

use super::{Aead, Choice, Key, Open, Seal};

const HEADER_LEN: usize = 16;
const TAG_LEN: usize = 16;
/// Number of distinct alignments: within a cache line.
pub const ALIGNMENTS: usize = 64;
/// Upper limit of the random gap before a message, in addition to its alignment (bytes).
const GAP: usize = 5;

/// A message of a batch.
#[derive(Clone, Debug)]
pub struct Message {
    /// Bytes of plaintext.
    pub length: usize,
    /// The address of the plaintext modulo [`ALIGNMENTS`].
    pub alignment: usize,
    /// Index of its key.
    pub key: usize,
    /// Its nonce.
    pub counter: u64,
    /// The bit of ciphertext and tag that is flipped before opening.
    pub flipped: Option<usize>,
}

impl Message {
    /// A random message of this length, under one of `keys` keys.
    pub fn random(random: &mut Random, length: usize, keys: usize) -> Message {
        Message {
            length,
            alignment: random.below(ALIGNMENTS),
            key: random.below(keys),
            // Counters with few and with many bits.
            counter: random.number() >> random.below(64),
            flipped: (random.below(8) == 0).then(|| random.below(8 * (length + TAG_LEN))),
        }
    }
}

/// A batch.
#[derive(Debug)]
pub struct Case {
    /// Seed of the bytes and the keys.
    pub seed: u64,
    /// The messages, in the order of the batch and of memory.
    pub messages: Vec<Message>,
}

impl Case {
    /// Seals and opens the batch and compares with `ring` (with RustCrypto if `path` is `ring`).
    /// Panics if a verdict or a byte differs, including the bytes around messages.
    pub fn check(&self, path: Choice, aead: Aead) {
        let mut random = Random::new(self.seed);
        let keys = 1 + self.messages.iter().map(|message| message.key).max().unwrap_or(0);
        let secrets: Vec<[u8; 32]> = (0..keys)
            .map(|_| {
                let mut secret = [0; 32];
                random.fill(&mut secret);
                secret
            })
            .collect();
        let keys: Vec<Key> = secrets.iter().map(Key::new).collect();
        let (bodies, total) = self.layout(&mut random);
        let mut arena = vec![0; total + ALIGNMENTS];
        let base = arena.as_ptr().align_offset(ALIGNMENTS);
        let memory = &mut arena[base..][..total];
        random.fill(memory);

        let plain = memory.to_vec();
        let mut sealed = plain.clone();
        for (message, &body) in self.messages.iter().zip(&bodies) {
            let (text, tag) = sealed[body..].split_at_mut(message.length);
            let reference = if path == Choice::Ring { with_rust_crypto } else { with_ring };
            let computed = reference(&secrets[message.key], message.counter, text);
            tag[..TAG_LEN].copy_from_slice(&computed);
        }
        let mut batch: Vec<Seal<'_>> = self
            .split(memory, &bodies)
            .map(|(it, bytes)| Seal { key: &keys[it.key], counter: it.counter, message: bytes })
            .collect();
        aead.seal(&mut batch);
        self.compare(path, "sealed", memory, &sealed);

        for (message, &body) in self.messages.iter().zip(&bodies) {
            if let Some(bit) = message.flipped {
                memory[body + bit / 8] ^= 1 << (bit % 8);
            }
        }
        let mut opened = memory.to_vec();
        for (message, &body) in self.messages.iter().zip(&bodies) {
            if message.flipped.is_none() {
                let text = body..body + message.length;
                opened[text.clone()].copy_from_slice(&plain[text]);
            }
        }
        let mut batch: Vec<Open<'_>> = self
            .split(memory, &bodies)
            .map(|(it, message)| Open {
                key: &keys[it.key],
                counter: it.counter,
                message,
                // The opposite of the expected verdict.
                authentic: it.flipped.is_some(),
            })
            .collect();
        aead.open(&mut batch);
        for (number, (verdict, message)) in batch.iter().zip(&self.messages).enumerate() {
            let expected = message.flipped.is_none();
            assert_eq!(verdict.authentic, expected, "{path:?}: verdict on {number} of {self:?}");
        }
        // `ring` zeroes a forged message, vector units leave it unchanged.
        for (message, &body) in self.messages.iter().zip(&bodies) {
            let text = body..body + message.length;
            let may_be_zeroed = matches!(path, Choice::Ring | Choice::Auto);
            let are_zeros = memory[text.clone()].iter().all(|&byte| byte == 0);
            if message.flipped.is_some() && may_be_zeroed && are_zeros {
                opened[text].fill(0);
            }
        }
        self.compare(path, "opened", memory, &opened);
    }

    /// The offset of each body, and the total length.
    fn layout(&self, random: &mut Random) -> (Vec<usize>, usize) {
        let mut end = 0;
        let bodies = self.messages.iter().map(|message| {
            let earliest = end + random.below(GAP) + HEADER_LEN;
            let body = earliest + (message.alignment + ALIGNMENTS - earliest % ALIGNMENTS) % 64;
            end = body + message.length + TAG_LEN;
            body
        });
        let bodies = bodies.collect();
        (bodies, end + random.below(GAP))
    }

    /// The bytes of each message.
    fn split<'a>(
        &'a self,
        memory: &'a mut [u8],
        bodies: &'a [usize],
    ) -> impl Iterator<Item = (&'a Message, &'a mut [u8])> {
        let (mut rest, mut start) = (memory, 0);
        self.messages.iter().zip(bodies).map(move |(message, body)| {
            let (from, to) = (body - HEADER_LEN, body + message.length + TAG_LEN);
            let (before, after) = std::mem::take(&mut rest).split_at_mut(to - start);
            let bytes = &mut before[from - start..];
            (rest, start) = (after, to);
            (message, bytes)
        })
    }

    fn compare(&self, path: Choice, step: &str, found: &[u8], expected: &[u8]) {
        if let Some(offset) = found.iter().zip(expected).position(|(a, b)| a != b) {
            panic!("{path:?}: {step}: byte {offset} of the arena differs: {self:?}");
        }
    }
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

fn with_ring(secret: &[u8; 32], counter: u64, text: &mut [u8]) -> [u8; TAG_LEN] {
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, secret).unwrap());
    let nonce = Nonce::assume_unique_for_key(nonce(counter));
    let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), text).unwrap();
    tag.as_ref().try_into().unwrap()
}

fn with_rust_crypto(secret: &[u8; 32], counter: u64, text: &mut [u8]) -> [u8; TAG_LEN] {
    let key = ChaCha20Poly1305::new(secret.into());
    key.encrypt_inout_detached(&nonce(counter).into(), &[], text.into()).unwrap().into()
}
