//! The symmetric state of the handshake: chaining key, hash, and the keys derived from them
//! (§5.4; Noise specification, section 5.2, as IKpsk2 uses it).

use std::sync::LazyLock;

use blake2::{Blake2s256, Digest};
use hmac::{KeyInit, Mac, SimpleHmac};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use wg_bounce_dataplane::wire::TAG_LEN;

const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";

/// Bytes of the longest sealed field: the static key of the initiator.
const FIELD_LEN_MAX: usize = 32 + TAG_LEN;

/// 32 secret bytes; zeroed on drop.
pub type Secret = Zeroizing<[u8; 32]>;

static INITIAL_CHAINING_KEY: LazyLock<[u8; 32]> = LazyLock::new(|| hash(&[CONSTRUCTION]));
static INITIAL_HASH: LazyLock<[u8; 32]> =
    LazyLock::new(|| hash(&[&*INITIAL_CHAINING_KEY, IDENTIFIER]));

/// Chaining key and hash of one handshake so far.
#[derive(Clone)]
pub(super) struct Symmetric {
    chaining_key: Secret,
    hash: [u8; 32],
}

impl Symmetric {
    /// The state before the first message to the responder with this static public key.
    pub(super) fn new(responder: &[u8; 32]) -> Symmetric {
        let hash = hash(&[&*INITIAL_HASH, responder]);
        Symmetric { chaining_key: Zeroizing::new(*INITIAL_CHAINING_KEY), hash }
    }

    pub(super) fn mix_hash(&mut self, data: &[u8]) {
        self.hash = hash(&[&self.hash, data]);
    }

    /// Mixes an ephemeral public key into both (the `e` token with a PSK).
    pub(super) fn mix_ephemeral(&mut self, public: &[u8; 32]) {
        self.mix_hash(public);
        let [chaining_key] = kdf(&self.chaining_key, public);
        self.chaining_key = chaining_key;
    }

    /// Mixes in a DH result; its message key is not needed.
    pub(super) fn mix_dh(&mut self, shared: &Secret) {
        let [chaining_key] = kdf(&self.chaining_key, &**shared);
        self.chaining_key = chaining_key;
    }

    /// Mixes in a DH result; returns the key of the next encryption.
    pub(super) fn mix_dh_for_key(&mut self, shared: &Secret) -> Secret {
        let [chaining_key, key] = kdf(&self.chaining_key, &**shared);
        self.chaining_key = chaining_key;
        key
    }

    /// Mixes in the preshared key (the `psk` token); returns the key of the next encryption.
    pub(super) fn mix_psk(&mut self, psk: &Secret) -> Secret {
        let [chaining_key, temporary, key] = kdf(&self.chaining_key, &**psk);
        self.chaining_key = chaining_key;
        self.mix_hash(&*temporary);
        key
    }

    /// Encrypts `plaintext` into `sealed`, which is longer by [`TAG_LEN`], and hashes the result.
    pub(super) fn encrypt(&mut self, key: &Secret, plaintext: &[u8], sealed: &mut [u8]) {
        let (body, tag) = sealed.split_at_mut(plaintext.len());
        body.copy_from_slice(plaintext);
        let made = cipher(key)
            .seal_in_place_separate_tag(nonce(), Aad::from(&self.hash), body)
            .expect("a handshake field is far below the AEAD's length limit");
        tag.copy_from_slice(made.as_ref());
        self.mix_hash(sealed);
    }

    /// Decrypts `sealed`, whose tag is the last [`TAG_LEN`] bytes; none if it is not authentic.
    pub(super) fn decrypt<const N: usize>(
        &mut self,
        key: &Secret,
        sealed: &[u8],
    ) -> Option<[u8; N]> {
        let mut copy = [0; FIELD_LEN_MAX];
        let copy = &mut copy[..sealed.len()];
        copy.copy_from_slice(sealed);
        let plaintext = cipher(key).open_in_place(nonce(), Aad::from(&self.hash), copy).ok()?;
        let plaintext = (*plaintext).try_into().expect("the caller names the field's length");
        self.mix_hash(sealed);
        Some(plaintext)
    }

    /// The two transport keys: initiator to responder first (§5.4.5).
    pub(super) fn split(&self) -> [Secret; 2] {
        kdf(&self.chaining_key, &[])
    }
}

/// BLAKE2s over the concatenation of `parts`.
pub(crate) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut state = Blake2s256::new();
    for part in parts {
        state.update(part);
    }
    state.finalize().into()
}

/// KDF_n (§5.4): HKDF with HMAC-BLAKE2s.
fn kdf<const N: usize>(chaining_key: &Secret, input: &[u8]) -> [Secret; N] {
    let extracted = finish(keyed(chaining_key).chain_update(input));
    // Its pads are hashed once for all outputs.
    let keyed = keyed(&extracted);
    let mut outputs: [Secret; N] = std::array::from_fn(|_| Secret::default());
    for index in 0..N {
        let mut state = keyed.clone();
        if index != 0 {
            state.update(&*outputs[index - 1]);
        }
        outputs[index] = finish(state.chain_update([index as u8 + 1]));
    }
    outputs
}

fn keyed(key: &Secret) -> SimpleHmac<Blake2s256> {
    SimpleHmac::new_from_slice(&**key).expect("an HMAC takes a key of any length")
}

fn finish(state: SimpleHmac<Blake2s256>) -> Secret {
    Zeroizing::new(state.finalize().into_bytes().into())
}

fn cipher(key: &Secret) -> LessSafeKey {
    let key = UnboundKey::new(&CHACHA20_POLY1305, &**key);
    LessSafeKey::new(key.expect("a key of its length"))
}

/// Every key of the handshake encrypts one message, so the nonce is always zero.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}
