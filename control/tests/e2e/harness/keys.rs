//! Key pairs, as bytes, base64 and hexadecimal.

use std::fs::File;
use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use x25519_dalek::{PublicKey, StaticSecret};

/// A private key and its public key.
#[derive(Clone)]
pub struct KeyPair {
    secret: [u8; 32],
    /// The public key's bytes.
    pub public_bytes: [u8; 32],
}

impl KeyPair {
    /// A new key pair; the private key is clamped, as by `wg genkey`.
    pub fn new() -> KeyPair {
        let mut bytes: [u8; 32] = random_bytes();
        bytes[0] &= 248;
        bytes[31] = bytes[31] & 127 | 64;
        let secret = StaticSecret::from(bytes);
        KeyPair { secret: secret.to_bytes(), public_bytes: PublicKey::from(&secret).to_bytes() }
    }

    /// The private key's bytes.
    pub fn private_bytes(&self) -> [u8; 32] {
        self.secret
    }

    /// The private key in base64.
    pub fn private(&self) -> String {
        base64(&self.secret)
    }

    /// The private key in hexadecimal, as in the UAPI.
    pub fn private_hex(&self) -> String {
        hex(&self.secret)
    }

    /// The public key in base64.
    pub fn public(&self) -> String {
        base64(&self.public_bytes)
    }

    /// The public key in hexadecimal, as in the UAPI.
    pub fn public_hex(&self) -> String {
        hex(&self.public_bytes)
    }
}

/// A key in base64.
pub fn base64(key: &[u8; 32]) -> String {
    STANDARD.encode(key)
}

/// Random bytes from the kernel.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut source = File::open("/dev/urandom").expect("every Linux has /dev/urandom");
    source.read_exact(&mut bytes).expect("/dev/urandom never ends");
    bytes
}

/// Bytes in hexadecimal, without separators.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
