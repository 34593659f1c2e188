//! ChaCha20-Poly1305 for transport data, over batches of packets (RFC 8439; §5.4.6).
//!
//! A relay always has many packets at a time, and public implementations take them one by one. Here
//! vector units work **across packets**: their lanes hold blocks of different packets, under
//! different keys if need be, so that short packets fill them as well as long ones do.
//!
//! # Lanes
//!
//! *ChaCha20* ([`chacha`]): a stripe is as many blocks as the unit computes at once. A vector holds
//! one of the sixteen words of the state, of a block in each lane:
//!
//! ```text
//!             lane 0     lane 1     lane 2     lane 3     ...
//!             packet 0   packet 0   packet 1   packet 1
//! word 4      key 0      key 0      key 1      key 1
//! word 12     block 0    block 1    block 0    block 1
//! word 14     nonce 0    nonce 0    nonce 1    nonce 1
//! ```
//!
//! Block 0 of each packet is its one-time key for Poly1305, the others are key stream. After the
//! rounds the sixteen vectors are transposed, and each lane's 64 bytes go to their packet.
//!
//! *Poly1305* ([`poly`]): a lane of 64 bits holds a limb of one packet's sum. Packets of like
//! length share a vector; no packet waits for powers of its `r`, so that short ones cost little.
//! Sums are carried lazily; each unit proves the bounds of its limbs by `const` assertions.
//!
//! # Open verifies first
//!
//! On vector units, one-time keys and tags come first, and only what is authentic is decrypted:
//! what is forged costs no decryption, and stays as it came. (`ring` decrypts while it verifies,
//! and zeroes what is forged.)
//!
//! # Constant time
//!
//! Branches and addresses depend on lengths, counters and numbers of packets, never on keys,
//! plaintext or tags. Words that are secret stay in vectors, which have no instruction that could
//! take longer for one value than for another; the only bit that decides anything is the verdict.
//! `scripts/constant-time` checks the machine code.
//!
//! # What stays behind
//!
//! Nothing of a batch on vector units: one-time keys and computed tags are zeroed at its end, with
//! the part of the stack where vectors may have been put aside, and the registers ([`wipe`]); keys
//! when their session ends ([`Key`]). `ring`, which takes single packets, keeps its own house.
//!
//! # Which implementation
//!
//! [`Choice::Auto`] takes for each batch what is fastest: AVX-512 across packets of any length,
//! AVX2 across short packets (for long ones `ring`, which has AVX2 too, is as fast), `ring`
//! elsewhere and for batches that are too small. Each can be demanded, and then takes all packets.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod batch;
#[cfg(target_arch = "x86_64")]
mod chacha;
mod key;
#[cfg(target_arch = "x86_64")]
mod poly;
#[cfg(all(test, target_arch = "x86_64"))]
mod tests;
mod wipe;

use std::fmt;

#[cfg(target_arch = "x86_64")]
use arrayvec::ArrayVec;

#[cfg(target_arch = "x86_64")]
use self::{
    avx2::Avx2,
    avx512::Avx512,
    batch::{Packet, Unit},
};
pub use key::Key;

/// Bytes before the ciphertext of a message: left alone, and not authenticated (§5.4.6).
pub const HEADER_LEN: usize = 16;
/// Bytes of the Poly1305 tag that ends every message.
pub const TAG_LEN: usize = 16;

/// Messages that are worked on at once: who hands over as many at a time fills the lanes best.
pub const BATCH: usize = 64;

/// One message to seal: 16 bytes of header (left alone), plaintext, and 16 bytes for the tag.
pub struct Seal<'a> {
    /// The session's key.
    pub key: &'a Key,
    /// The nonce: the message's counter.
    pub counter: u64,
    /// Header, plaintext and room for the tag: at least 32 bytes.
    pub message: &'a mut [u8],
}

/// One message to open: 16 bytes of header (left alone), ciphertext and tag.
pub struct Open<'a> {
    /// The session's key.
    pub key: &'a Key,
    /// The nonce: the message's counter.
    pub counter: u64,
    /// The whole message, at least 32 bytes; on success the plaintext stands at
    /// [`HEADER_LEN`].
    pub message: &'a mut [u8],
    /// Set by [`Aead::open`]: the message is authentic and has been decrypted.
    pub authentic: bool,
}

/// Which implementation is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The fastest that this processor can, for each batch.
    #[default]
    Auto,
    /// AVX-512 for every packet, or nothing.
    Avx512,
    /// AVX2 for every packet, or nothing.
    Avx2,
    /// `ring`, one packet at a time.
    Ring,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Choice::Auto => "auto",
            Choice::Avx512 => "AVX-512",
            Choice::Avx2 => "AVX2",
            Choice::Ring => "ring",
        })
    }
}

/// This processor lacks what was demanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable(Choice);

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this CPU does not support {}", self.0)
    }
}

impl std::error::Error for Unavailable {}

/// An implementation that this processor can.
#[derive(Clone, Copy, Debug)]
pub struct Aead {
    implementation: Implementation,
    /// Whether it takes packets for which another one would be faster.
    #[cfg(target_arch = "x86_64")]
    takes_all: bool,
}

#[derive(Clone, Copy, Debug)]
enum Implementation {
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    Ring,
}

impl Aead {
    /// The implementation that is wanted.
    ///
    /// # Errors
    /// This processor, or its operating system, has not what it takes.
    pub fn new(choice: Choice) -> Result<Aead, Unavailable> {
        let implementation = Implementation::new(choice).ok_or(Unavailable(choice))?;
        Ok(Aead {
            implementation,
            #[cfg(target_arch = "x86_64")]
            takes_all: choice != Choice::Auto,
        })
    }

    /// The fastest implementation that this processor can.
    pub fn best() -> Aead {
        Aead::new(Choice::Auto).expect("ring runs everywhere")
    }

    /// Encrypts every message of the batch in place.
    pub fn seal(self, batch: &mut [Seal<'_>]) {
        match self.implementation {
            #[cfg(target_arch = "x86_64")]
            Implementation::Avx512(unit) => self.seal_on(unit, batch),
            #[cfg(target_arch = "x86_64")]
            Implementation::Avx2(unit) => self.seal_on(unit, batch),
            Implementation::Ring => batch.iter_mut().for_each(Seal::by_ring),
        }
    }

    /// Verifies and decrypts every message of the batch in place. What is not authentic is never
    /// to be read: its body is as it came, or zeros where `ring` took it.
    pub fn open(self, batch: &mut [Open<'_>]) {
        match self.implementation {
            #[cfg(target_arch = "x86_64")]
            Implementation::Avx512(unit) => self.open_on(unit, batch),
            #[cfg(target_arch = "x86_64")]
            Implementation::Avx2(unit) => self.open_on(unit, batch),
            Implementation::Ring => batch.iter_mut().for_each(Open::by_ring),
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Aead {
    /// Seals on a vector unit what is faster there.
    fn seal_on<const L: usize, U: Unit<L>>(self, unit: U, batch: &mut [Seal<'_>]) {
        for part in batch.chunks_mut(BATCH) {
            let longest = self.longest_on::<L, U>(part.iter().map(|it| it.message.len()));
            let mut packets = ArrayVec::<_, BATCH>::new();
            for it in part {
                if it.message.len() <= longest {
                    packets.push(packet(it.key, it.counter, it.message));
                } else {
                    it.by_ring();
                }
            }
            batch::seal(unit, &mut packets);
        }
    }

    /// Opens on a vector unit what is faster there.
    fn open_on<const L: usize, U: Unit<L>>(self, unit: U, batch: &mut [Open<'_>]) {
        for part in batch.chunks_mut(BATCH) {
            let longest = self.longest_on::<L, U>(part.iter().map(|it| it.message.len()));
            let mut packets = ArrayVec::<_, BATCH>::new();
            let mut verdicts = ArrayVec::<_, BATCH>::new();
            for it in part {
                if it.message.len() <= longest {
                    packets.push(packet(it.key, it.counter, it.message));
                    verdicts.push(&mut it.authentic);
                } else {
                    it.by_ring();
                }
            }
            let authentic = batch::open(unit, &mut packets);
            for (number, verdict) in verdicts.into_iter().enumerate() {
                *verdict = authentic >> number & 1 == 1;
            }
        }
    }

    /// Up to which length messages go to the vector unit (bytes), in a batch of messages of these
    /// lengths; zero if none does.
    fn longest_on<const L: usize, U: Unit<L>>(self, lengths: impl Iterator<Item = usize>) -> usize {
        if self.takes_all {
            return usize::MAX;
        }
        let longest = U::LONGEST.saturating_add(HEADER_LEN + TAG_LEN);
        let is_worth_it = lengths.filter(|&length| length <= longest).count() >= U::FEWEST;
        if is_worth_it { longest } else { 0 }
    }
}

/// What it works by, for the log.
impl fmt::Display for Aead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.implementation {
            #[cfg(target_arch = "x86_64")]
            Implementation::Avx512(_) => Choice::Avx512.fmt(f),
            #[cfg(target_arch = "x86_64")]
            Implementation::Avx2(_) if self.takes_all => Choice::Avx2.fmt(f),
            #[cfg(target_arch = "x86_64")]
            Implementation::Avx2(_) => f.write_str("AVX2 for short packets, ring for long ones"),
            Implementation::Ring => Choice::Ring.fmt(f),
        }
    }
}

impl Implementation {
    #[cfg(target_arch = "x86_64")]
    fn new(choice: Choice) -> Option<Implementation> {
        match choice {
            Choice::Auto => [Choice::Avx512, Choice::Avx2, Choice::Ring]
                .into_iter()
                .find_map(Implementation::new),
            Choice::Avx512 => Avx512::detect().map(Implementation::Avx512),
            Choice::Avx2 => Avx2::detect().map(Implementation::Avx2),
            Choice::Ring => Some(Implementation::Ring),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn new(choice: Choice) -> Option<Implementation> {
        matches!(choice, Choice::Auto | Choice::Ring).then_some(Implementation::Ring)
    }
}

impl Seal<'_> {
    fn by_ring(&mut self) {
        let body = &mut self.message[HEADER_LEN..];
        let (plaintext, tag) = body.split_at_mut(body.len() - TAG_LEN);
        tag.copy_from_slice(&self.key.seal(self.counter, plaintext));
    }
}

impl Open<'_> {
    fn by_ring(&mut self) {
        let body = &mut self.message[HEADER_LEN..];
        self.authentic = self.key.open(self.counter, body);
    }
}

/// A message as the vector units see it: WireGuard's nonce is four zero bytes, then the counter,
/// little-endian (§5.4.6).
#[cfg(target_arch = "x86_64")]
fn packet<'a>(key: &'a Key, counter: u64, message: &'a mut [u8]) -> Packet<'a> {
    let (body, tag) =
        message[HEADER_LEN..].split_last_chunk_mut().expect("a message has room for its tag");
    // Block counters have 32 bits.
    assert!(u32::try_from(body.len()).is_ok(), "a message is far below 4 GiB");
    Packet {
        key: key.words(),
        nonce: [0, counter as u32, (counter >> 32) as u32],
        body,
        tag,
        #[cfg(test)]
        aad: &[],
    }
}
