//! `wg-bounce genkey`, `genpsk` and `pubkey`, as those of wg(8).

use std::io::{self, Read as _};

use base64ct::{Base64, Encoding as _};
use nix::sys::stat::{SFlag, fstat};
use wg_bounce_uapi::types::SecretKey;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::answer::Failure;
use crate::config_file::value;

/// Bytes of standard input at most.
const INPUT_MAX: u64 = 4096;

/// A new private key, as a line.
pub(super) fn private() -> Result<String, Failure> {
    Ok(secret_line(&new_private()?))
}

/// A new private key.
pub(super) fn new_private() -> Result<SecretKey, Failure> {
    let mut key = random()?;
    // As in RFC 7748, section 5: others read keys that were clamped.
    key[0] &= 248;
    key[31] = key[31] & 127 | 64;
    Ok(key)
}

/// A new preshared key.
pub(super) fn preshared() -> Result<String, Failure> {
    Ok(secret_line(&random()?))
}

/// The public key of the private key on standard input.
pub(super) fn public() -> Result<String, Failure> {
    let mut text = Zeroizing::new(String::new());
    let read = io::stdin().take(INPUT_MAX).read_to_string(&mut text);
    read.map_err(|error| format!("cannot read standard input: {error}"))?;
    let key = value::key(text.trim()).map_err(|error| format!("on standard input: {error}"))?;
    Ok(Base64::encode_string(&public_of(&key)) + "\n")
}

/// The public key of a private key.
pub(super) fn public_of(key: &SecretKey) -> [u8; 32] {
    PublicKey::from(&StaticSecret::from(**key)).to_bytes()
}

/// 32 random bytes.
pub(super) fn random() -> Result<SecretKey, Failure> {
    let mut key = Zeroizing::new([0; 32]);
    getrandom::fill(key.as_mut_slice()).map_err(|error| format!("no randomness: {error}"))?;
    Ok(key)
}

fn secret_line(key: &SecretKey) -> String {
    warn_of_output();
    Base64::encode_string(key.as_slice()) + "\n"
}

/// Warns if others can read the file that standard output is.
pub(super) fn warn_of_output() {
    if others_can_read_output() {
        eprintln!("wg-bounce: warning: others can read the key in the output file: set umask 077");
    }
}

fn others_can_read_output() -> bool {
    fstat(io::stdout()).is_ok_and(|about| {
        let is_file = SFlag::from_bits_truncate(about.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
        is_file && about.st_mode & 0o007 != 0
    })
}
