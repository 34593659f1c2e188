//! Keys of the relay and its peers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SystemRandom, generate};
use wg_bounce_control::noise::Identity;

/// 32 random bytes: a private key, or any public key.
pub fn random_key() -> [u8; 32] {
    generate(&SystemRandom::new()).expect("the kernel has randomness").expose()
}

/// A key pair, for handshakes and in base64 for `wg`.
pub struct Keys {
    /// For handshakes.
    pub identity: Identity,
    /// In base64.
    pub public: String,
    /// In base64.
    pub private: String,
}

impl Keys {
    /// A new pair.
    pub fn new() -> Keys {
        Keys::of(&random_key())
    }

    /// The pair of this private key.
    pub fn of(private: &[u8; 32]) -> Keys {
        let identity = Identity::new(private);
        let public = encode(identity.public());
        let private = encode(&identity.private());
        Keys { identity, public, private }
    }
}

/// A public key from the command line, as `wg` prints it.
pub fn public_key(text: &str) -> Result<[u8; 32], String> {
    let key = decode(text).ok_or("expected 32 bytes in base64, as `wg` prints a key")?;
    // A point of low order is not a key: everyone would share the same secret with it.
    let secret = Identity::new(&[1; 32]).static_static(&key);
    secret.map(|_| key).ok_or_else(|| "not a valid public key".to_owned())
}

/// A key in base64.
pub fn encode(key: &[u8; 32]) -> String {
    STANDARD.encode(key)
}

/// A key from base64; none unless `wg` would accept it.
pub fn decode(text: &str) -> Option<[u8; 32]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}
