//! ChaCha20-Poly1305 for transport data, over batches of packets (RFC 8439; §5.4.6).
//!
//! Callers hand over all packets of a turn at once: the vector kernels fill their lanes across
//! packets. Here every packet goes through `ring` by itself.

mod key;

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
    /// Set by [`open`]: the message is authentic and has been decrypted.
    pub authentic: bool,
}

/// Encrypts every message of the batch in place.
pub fn seal(batch: &mut [Seal<'_>]) {
    for packet in batch {
        let body = &mut packet.message[DATA_HEADER_LEN..];
        let (plaintext, tag) = body.split_at_mut(body.len() - TAG_LEN);
        tag.copy_from_slice(&packet.key.seal(packet.counter, plaintext));
    }
}

/// Verifies and decrypts every message of the batch in place. What is not authentic is never
/// to be read: its bytes are undefined afterwards.
pub fn open(batch: &mut [Open<'_>]) {
    for packet in batch {
        let body = &mut packet.message[DATA_HEADER_LEN..];
        packet.authentic = packet.key.open(packet.counter, body);
    }
}
