//! ChaCha20-Poly1305 for transport data, over batches of packets (RFC 8439; §5.4.6).

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod batch;
#[cfg(target_arch = "x86_64")]
mod chacha;
mod key;
#[cfg(target_arch = "x86_64")]
mod poly;

#[cfg(test)]
mod tests;

use std::fmt;

pub use key::Key;

use crate::wire::{DATA_HEADER_LEN, TAG_LEN};

/// One message to seal: 16 bytes of header (left alone), plaintext, and 16 bytes for the tag.
pub struct Seal<'a> {
    /// The session's key.
    pub key: &'a Key,
    /// The nonce: the message's counter.
    pub counter: u64,
    /// Header, plaintext and room for the tag.
    pub message: &'a mut [u8],
}

/// One message to open: 16 bytes of header (left alone), ciphertext and tag.
pub struct Open<'a> {
    /// The session's key.
    pub key: &'a Key,
    /// The nonce: the message's counter.
    pub counter: u64,
    /// The whole message; on success the plaintext stands at [`DATA_HEADER_LEN`].
    pub message: &'a mut [u8],
    /// Set by [`Aead::open`]: the message is authentic and has been decrypted.
    pub authentic: bool,
}

/// Which implementation is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The fastest that this processor can.
    #[default]
    Auto,
    /// AVX-512, or nothing.
    Avx512,
    /// AVX2, or nothing.
    Avx2,
    /// One packet at a time by `ring`.
    Ring,
}

/// This processor lacks what was demanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// What was demanded.
    pub choice: Choice,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this processor has no {:?}", self.choice)
    }
}

impl std::error::Error for Unavailable {}

/// An implementation that this processor can.
#[derive(Clone, Copy, Debug)]
pub struct Aead(Implementation);

impl fmt::Display for Aead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            #[cfg(target_arch = "x86_64")]
            Implementation::Avx2(_) => "AVX2",
            Implementation::Ring => "ring",
        })
    }
}

#[derive(Clone, Copy, Debug)]
enum Implementation {
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    Ring,
}

impl Aead {
    /// The implementation that is wanted, if this processor can.
    pub fn new(choice: Choice) -> Result<Aead, Unavailable> {
        match choice {
            Choice::Ring => Ok(Aead(Implementation::Ring)),
            Choice::Avx2 => avx2::Avx2::detect()
                .map(|unit| Aead(Implementation::Avx2(unit)))
                .ok_or(Unavailable { choice }),
            Choice::Avx512 => Err(Unavailable { choice }),
            Choice::Auto => {
                Aead::new(Choice::Avx512).or(Aead::new(Choice::Avx2)).or(Aead::new(Choice::Ring))
            }
        }
    }

    /// The fastest implementation that this processor can.
    pub fn best() -> Aead {
        Aead::new(Choice::Auto).expect("ring runs everywhere")
    }

    /// Encrypts every message of the batch in place.
    pub fn seal(self, batch: &mut [Seal<'_>]) {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Implementation::Avx2(unit) => seal_on(unit, batch),
            Implementation::Ring => batch.iter_mut().for_each(Seal::by_ring),
        }
    }

    /// Verifies and decrypts every message of the batch in place. What is not authentic is never
    /// to be read: its bytes are undefined afterwards.
    pub fn open(self, batch: &mut [Open<'_>]) {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Implementation::Avx2(unit) => open_on(unit, batch),
            Implementation::Ring => batch.iter_mut().for_each(Open::by_ring),
        }
    }
}

impl Seal<'_> {
    fn by_ring(&mut self) {
        let body = &mut self.message[DATA_HEADER_LEN..];
        let (plaintext, tag) = body.split_at_mut(body.len() - TAG_LEN);
        tag.copy_from_slice(&self.key.seal(self.counter, plaintext));
    }
}

impl Open<'_> {
    fn by_ring(&mut self) {
        let body = &mut self.message[DATA_HEADER_LEN..];
        self.authentic = self.key.open(self.counter, body);
    }
}

#[cfg(target_arch = "x86_64")]
fn packet<'a>(key: &'a Key, counter: u64, message: &'a mut [u8]) -> batch::Packet<'a> {
    let (body, tag) =
        message[DATA_HEADER_LEN..].split_last_chunk_mut().expect("a message has room for its tag");
    batch::Packet {
        key: key.words(),
        nonce: [0, counter as u32, (counter >> 32) as u32],
        body,
        tag,
        #[cfg(test)]
        aad: &[],
    }
}

#[cfg(target_arch = "x86_64")]
fn seal_on<const L: usize, U: batch::Unit<L>>(unit: U, batch: &mut [Seal<'_>]) {
    for part in batch.chunks_mut(batch::BATCH) {
        if let [one] = part {
            one.by_ring();
            continue;
        }
        let mut packets: arrayvec::ArrayVec<_, { batch::BATCH }> =
            part.iter_mut().map(|it| packet(it.key, it.counter, it.message)).collect();
        batch::seal(unit, &mut packets);
    }
}

#[cfg(target_arch = "x86_64")]
fn open_on<const L: usize, U: batch::Unit<L>>(unit: U, batch: &mut [Open<'_>]) {
    for part in batch.chunks_mut(batch::BATCH) {
        if let [one] = part {
            one.by_ring();
            continue;
        }
        let mut packets: arrayvec::ArrayVec<_, { batch::BATCH }> =
            part.iter_mut().map(|it| packet(it.key, it.counter, it.message)).collect();
        let authentic = batch::open(unit, &mut packets);
        drop(packets);
        for (number, message) in part.iter_mut().enumerate() {
            message.authentic = authentic >> number & 1 == 1;
        }
    }
}
