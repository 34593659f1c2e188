//! mac1 (§5.4.4; cookie.c of the kernel module): it shows that the sender of a handshake message
//! knows our public key.

use blake2::Blake2sMac;
use blake2::digest::consts::U16;
use blake2::digest::{KeyInit, Mac};

use crate::wire::MAC_LEN;

/// Whether an initiation or response, which ends with mac1 and mac2, has the mac1 that this key
/// gives. Compares in constant time.
///
/// # Panics
/// If the message is shorter than its two MACs: [`crate::wire::classify`] has checked its length.
#[must_use]
pub fn is_valid(message: &[u8], mac1_key: &[u8; 32]) -> bool {
    let (covered, macs) = message.split_at(message.len() - 2 * MAC_LEN);
    let mut mac = Blake2sMac::<U16>::new_from_slice(mac1_key).expect("32 bytes are a valid key");
    mac.update(covered);
    mac.verify_slice(&macs[..MAC_LEN]).is_ok()
}
