//! The expanded key of one direction of one session.

use std::mem::ManuallyDrop;
use std::sync::atomic::{Ordering, compiler_fence};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use crate::limits::TAG_LEN;
use crate::wipe;

/// A ChaCha20-Poly1305 key, expanded for use. Dropping it zeroes its memory.
pub struct Key {
    // Boxed, so that moving a `Key` leaves no copy of the secret behind.
    expanded: Box<ManuallyDrop<Expanded>>,
}

/// A key in the forms that the implementations use. It owns no heap memory and contains no `Drop`.
struct Expanded {
    /// Words of the key (RFC 8439 §2.3).
    #[cfg(target_arch = "x86_64")]
    words: [u32; 8],
    ring: LessSafeKey,
}

impl Key {
    /// Expands a transport key, as derived at the end of the handshake (§5.4.5).
    pub fn new(secret: &[u8; 32]) -> Key {
        let key = Key::expand(secret);
        // Zero the stack on which it was expanded.
        wipe::stack();
        key
    }

    #[inline(never)]
    fn expand(secret: &[u8; 32]) -> Key {
        let unbound = UnboundKey::new(&CHACHA20_POLY1305, secret).expect("the key has 32 bytes");
        let expanded = Expanded {
            #[cfg(target_arch = "x86_64")]
            words: std::array::from_fn(|word| u32::from_le_bytes(secret.as_chunks().0[word])),
            ring: LessSafeKey::new(unbound),
        };
        Key { expanded: Box::new(ManuallyDrop::new(expanded)) }
    }

    /// The words of the key, for the vector units.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn words(&self) -> &[u32; 8] {
        &self.expanded.words
    }

    /// The memory of the expanded key.
    #[cfg(test)]
    pub(super) fn memory(&self) -> *const [u8] {
        std::ptr::from_ref(&**self.expanded).cast::<[u8; size_of::<Expanded>()]>()
    }

    /// Encrypts `plaintext` in place with `ring` and returns the tag.
    pub(super) fn seal(&self, counter: u64, plaintext: &mut [u8]) -> [u8; TAG_LEN] {
        let tag = self
            .expanded
            .ring
            .seal_in_place_separate_tag(nonce(counter), Aad::empty(), plaintext)
            .expect("a datagram is far below the AEAD's length limit");
        tag.as_ref().try_into().expect("a tag has sixteen bytes")
    }

    /// Verifies and decrypts ciphertext and tag in place with `ring`. Returns whether they were
    /// authentic.
    pub(super) fn open(&self, counter: u64, body: &mut [u8]) -> bool {
        self.expanded.ring.open_in_place(nonce(counter), Aad::empty(), body).is_ok()
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        let memory: *mut Expanded = &mut **self.expanded;
        for offset in 0..size_of::<Expanded>() {
            // SAFETY: the bytes are inside our box, and nothing reads them afterwards, because
            // `Expanded` contains no `Drop` and is wrapped in `ManuallyDrop`.
            unsafe { memory.cast::<u8>().add(offset).write_volatile(0) };
        }
        compiler_fence(Ordering::SeqCst);
    }
}

/// WireGuard's nonce: four zero bytes, then the counter, little-endian (§5.4.6).
fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0u8; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}
