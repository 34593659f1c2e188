//! ChaCha20-Poly1305 for transport data, over batches of packets (RFC 8439; §5.4.6).
//!
//! A relay has many packets at a time, but public implementations process them one by one. Here
//! vector units work **across packets**: their lanes hold blocks of different packets, under
//! different keys if need be, so that short packets fill the lanes as well as long ones.
//!
//! # Lanes
//!
//! *ChaCha20* (`chacha`): a stripe is the set of blocks that the unit computes at once. Each of
//! its sixteen vectors holds one word of the state, with one block per lane:
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
//! rounds the sixteen vectors are transposed, and the 64 bytes of each lane are XORed onto their
//! packet.
//!
//! *Poly1305* (`poly`): a 64-bit lane holds a limb of one packet's accumulator. Packets of
//! similar length share a vector. Powers of `r` are not used, so that short packets cost little.
//! Sums are carried lazily, and `const` assertions in each unit prove the bounds of its limbs.
//!
//! # Verification before decryption
//!
//! Vector units compute one-time keys and tags first, and decrypt only authentic packets: a forged
//! packet costs no decryption and stays unchanged. (`ring` decrypts while it verifies, and zeroes
//! a forged packet.)
//!
//! # Constant time
//!
//! Branches and addresses depend on lengths, counters and packet indices, never on keys, plaintext
//! or tags. Secret words stay in vectors, and integer vector instructions take the same time for
//! all values. The only bit that decides a branch is the verdict on a packet.
//! `scripts/constant-time` checks the machine code (`tests/constant_time`), and runs a test under
//! Valgrind's memcheck.
//!
//! # Wiping
//!
//! Each batch on a vector unit ends by zeroing one-time keys, computed tags, the stack to which
//! vectors may have been spilled, and the registers (`wipe`). A [`Key`] is zeroed when it is
//! dropped. `ring` is not covered: what it leaves on the stack is not wiped.
//!
//! # Choice of implementation
//!
//! [`Choice::Auto`] picks the fastest for each batch: AVX-512 for packets of any length; AVX2 for
//! short packets (for long ones `ring`, which uses AVX2 too, is as fast); `ring` elsewhere and for
//! batches that are too small. An explicit choice applies to all packets.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod batch;
#[cfg(target_arch = "x86_64")]
mod chacha;
mod key;
mod limits;
#[cfg(all(test, target_arch = "x86_64"))]
mod memcheck;
#[cfg(target_arch = "x86_64")]
mod packet;
#[cfg(target_arch = "x86_64")]
mod poly;
#[cfg(all(test, target_arch = "x86_64"))]
mod tests;
mod wipe;

use std::fmt;

#[cfg(target_arch = "x86_64")]
use arrayvec::ArrayVec;

#[cfg(target_arch = "x86_64")]
use self::{avx2::Avx2, avx512::Avx512, batch::Unit, packet::Packet};
pub use self::{
    key::Key,
    limits::{BATCH, HEADER_LEN, TAG_LEN},
    wipe::stack as wipe_stack,
};

/// One message to seal.
pub struct Seal<'a> {
    /// The session's key.
    pub key: &'a Key,
    /// The nonce: the message's counter.
    pub counter: u64,
    /// [`HEADER_LEN`] bytes of header, which stay unchanged; the plaintext; [`TAG_LEN`] bytes for
    /// the tag.
    pub message: &'a mut [u8],
}

/// One message to open.
pub struct Open<'a> {
    /// The session's key.
    pub key: &'a Key,
    /// The nonce: the message's counter.
    pub counter: u64,
    /// [`HEADER_LEN`] bytes of header, which stay unchanged; the ciphertext, which becomes the
    /// plaintext; the tag.
    pub message: &'a mut [u8],
    /// Set by [`Aead::open`]: whether the message was authentic and has been decrypted.
    pub authentic: bool,
}

/// The requested implementation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The fastest supported by this CPU, for each batch.
    #[default]
    Auto,
    /// AVX-512 for every packet.
    Avx512,
    /// AVX2 for every packet.
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

/// The CPU does not support the requested implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable(Choice);

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this CPU does not support {}", self.0)
    }
}

impl std::error::Error for Unavailable {}

/// An implementation supported by this CPU.
#[derive(Clone, Copy, Debug)]
pub struct Aead {
    implementation: Implementation,
    /// Requested explicitly: applies to packets for which another one is faster, too.
    #[cfg(target_arch = "x86_64")]
    is_forced: bool,
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
    /// Selects an implementation.
    ///
    /// # Errors
    /// Unsupported by the CPU or not enabled by the operating system.
    pub fn new(choice: Choice) -> Result<Aead, Unavailable> {
        let implementation = Implementation::new(choice).ok_or(Unavailable(choice))?;
        Ok(Aead {
            implementation,
            #[cfg(target_arch = "x86_64")]
            is_forced: choice != Choice::Auto,
        })
    }

    /// The fastest implementation supported by this CPU.
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
            Implementation::Ring => batch.iter_mut().for_each(Seal::with_ring),
        }
    }

    /// Verifies every message of the batch, and decrypts the authentic ones in place. The body of a
    /// message that is not authentic must not be read: it is unchanged, or zeros after `ring`.
    pub fn open(self, batch: &mut [Open<'_>]) {
        match self.implementation {
            #[cfg(target_arch = "x86_64")]
            Implementation::Avx512(unit) => self.open_on(unit, batch),
            #[cfg(target_arch = "x86_64")]
            Implementation::Avx2(unit) => self.open_on(unit, batch),
            Implementation::Ring => batch.iter_mut().for_each(Open::with_ring),
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Aead {
    /// Seals on a vector unit the messages for which it is faster, the others with `ring`.
    fn seal_on<const L: usize, U: Unit<L>>(self, unit: U, batch: &mut [Seal<'_>]) {
        for part in batch.chunks_mut(BATCH) {
            let length_max = self.length_max_on::<L, U>(part.iter().map(|it| it.message.len()));
            let mut packets = ArrayVec::<_, BATCH>::new();
            for it in part {
                if it.message.len() <= length_max {
                    packets.push(packet(it.key, it.counter, it.message));
                } else {
                    it.with_ring();
                }
            }
            batch::seal(unit, &mut packets);
        }
    }

    /// Opens on a vector unit the messages for which it is faster, the others with `ring`.
    fn open_on<const L: usize, U: Unit<L>>(self, unit: U, batch: &mut [Open<'_>]) {
        for part in batch.chunks_mut(BATCH) {
            let length_max = self.length_max_on::<L, U>(part.iter().map(|it| it.message.len()));
            let mut packets = ArrayVec::<_, BATCH>::new();
            let mut verdicts = ArrayVec::<_, BATCH>::new();
            for it in part {
                if it.message.len() <= length_max {
                    packets.push(packet(it.key, it.counter, it.message));
                    verdicts.push(&mut it.authentic);
                } else {
                    it.with_ring();
                }
            }
            let authentic = batch::open(unit, &mut packets);
            for (number, verdict) in verdicts.into_iter().enumerate() {
                *verdict = authentic >> number & 1 == 1;
            }
        }
    }

    /// Length of the longest message for the vector unit (bytes), in a batch of messages of these
    /// lengths; zero if there is none.
    fn length_max_on<const L: usize, U: Unit<L>>(
        self,
        lengths: impl Iterator<Item = usize>,
    ) -> usize {
        if self.is_forced {
            return usize::MAX;
        }
        let length_max = U::BODY_LEN_MAX.saturating_add(HEADER_LEN + TAG_LEN);
        let count = lengths.filter(|&length| length <= length_max).count();
        if count >= U::PACKETS_MIN { length_max } else { 0 }
    }
}

/// The name of the implementation, for the log.
impl fmt::Display for Aead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.implementation {
            #[cfg(target_arch = "x86_64")]
            Implementation::Avx512(_) => Choice::Avx512.fmt(f),
            #[cfg(target_arch = "x86_64")]
            Implementation::Avx2(_) if self.is_forced => Choice::Avx2.fmt(f),
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
    fn with_ring(&mut self) {
        let body = &mut self.message[HEADER_LEN..];
        let (plaintext, tag) = body.split_at_mut(body.len() - TAG_LEN);
        tag.copy_from_slice(&self.key.seal(self.counter, plaintext));
    }
}

impl Open<'_> {
    fn with_ring(&mut self) {
        let body = &mut self.message[HEADER_LEN..];
        self.authentic = self.key.open(self.counter, body);
    }
}

/// A message in the form of the vector units. WireGuard's nonce is four zero bytes, then the
/// counter, little-endian (§5.4.6).
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
