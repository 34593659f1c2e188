//! A message in the form that the vector units process.

/// One packet of a batch.
pub struct Packet<'a> {
    /// Words of the key (RFC 8439 §2.3).
    pub key: &'a [u32; 8],
    /// Words of the nonce.
    pub nonce: [u32; 3],
    /// Plaintext or ciphertext, processed in place.
    pub body: &'a mut [u8],
    /// Its tag: written by sealing, verified by opening.
    pub tag: &'a mut Tag,
    /// Additional data. WireGuard has none, but the test vectors do.
    #[cfg(test)]
    pub aad: &'a [u8],
}

impl Packet<'_> {
    /// Additional data.
    #[cfg(test)]
    pub fn aad(&self) -> &[u8] {
        self.aad
    }

    /// Additional data: none.
    #[cfg(not(test))]
    pub fn aad(&self) -> &[u8] {
        &[]
    }
}

/// A Poly1305 key: `r`, then `s`, two little-endian words each (RFC 8439 §2.6).
pub type OneTimeKey = [u64; 4];
/// A Poly1305 tag.
pub type Tag = [u8; 16];
