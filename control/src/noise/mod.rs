//! Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s as WireGuard uses it (§5.4; noise.c).
//!
//! A handshake is a chain of values, each consumed by the next step:
//! initiator: [`initiate`] → [`Initiated`] → [`SessionKeys`];
//! responder: [`open_initiation`] → [`Claimed`] → [`Proven`] → [`SessionKeys`].
//! This module knows no peers, no indexes in use and no time. A step that fails changes no state.
//! Each step ends by zeroing the stack that it used: neither implementation of X25519 does.

mod dh;
mod symmetric;

use subtle::ConstantTimeEq;
use wg_bounce_aead::wipe_stack;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use wg_bounce_dataplane::wire::{INITIATION, INITIATION_LEN, RESPONSE, RESPONSE_LEN};

use crate::tai64n::{TIMESTAMP_LEN, Timestamp};
pub use dh::{Dh, DhChoice, Unavailable};
pub use symmetric::Secret;
use symmetric::Symmetric;
pub(crate) use symmetric::hash;

/// Field positions in an initiation (§5.4.2); mac1 and mac2 follow.
mod initiation {
    use std::ops::Range;
    pub(super) const SENDER: Range<usize> = 4..8;
    pub(super) const EPHEMERAL: Range<usize> = 8..40;
    pub(super) const STATIC: Range<usize> = 40..88;
    pub(super) const TIMESTAMP: Range<usize> = 88..116;
}

/// Field positions in a response (§5.4.3); mac1 and mac2 follow.
mod response {
    use std::ops::Range;
    pub(super) const SENDER: Range<usize> = 4..8;
    pub(super) const RECEIVER: Range<usize> = 8..12;
    pub(super) const EPHEMERAL: Range<usize> = 12..44;
    pub(super) const EMPTY: Range<usize> = 44..60;
}

/// Our static key pair.
pub struct Identity {
    dh: Dh,
    secret: StaticSecret,
    public: [u8; 32],
}

impl Identity {
    /// The identity with this private key, clamped as Curve25519 requires.
    pub fn new(private_key: &[u8; 32]) -> Identity {
        Identity::with(Dh::best(), private_key)
    }

    /// The same, whose handshakes use this implementation of X25519.
    pub fn with(dh: Dh, private_key: &[u8; 32]) -> Identity {
        wiping(|| {
            let secret = StaticSecret::from(clamp(private_key));
            let public = dh.public_key(&secret);
            Identity { dh, secret, public }
        })
    }

    /// Our static public key.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// Our static private key.
    pub fn private(&self) -> Secret {
        Zeroizing::new(self.secret.to_bytes())
    }

    /// Whether `private_key` equals ours; in constant time.
    pub fn is(&self, private_key: &[u8; 32]) -> bool {
        self.secret.as_bytes().ct_eq(&clamp(private_key)).into()
    }

    /// DH of both static keys. Every initiation needs it, so callers cache it. None for a public
    /// key of low order.
    pub fn static_static(&self, remote: &[u8; 32]) -> Option<Secret> {
        wiping(|| self.dh.shared_secret(&self.secret, remote))
    }
}

/// The transport keys derived by a complete handshake.
pub struct SessionKeys {
    /// For messages to the peer.
    pub send: Secret,
    /// For messages from the peer.
    pub receive: Secret,
    /// The index that the peer chose.
    pub remote_index: u32,
}

/// A handshake that awaits the response to its initiation.
pub struct Initiated {
    symmetric: Symmetric,
    ephemeral: StaticSecret,
    /// Our index, to which the response will be addressed.
    pub local_index: u32,
}

/// Inputs of an initiation besides the identity.
pub struct InitiationParams<'a> {
    /// The responder's static public key.
    pub remote_static: &'a [u8; 32],
    /// [`Identity::static_static`] with it.
    pub static_static: &'a Secret,
    /// 32 random bytes that are never used again.
    pub ephemeral: &'a Secret,
    /// Greater than any sent to this responder before.
    pub timestamp: Timestamp,
    /// Our index.
    pub local_index: u32,
}

/// Writes an initiation, all but its macs. None if the remote key is of low order.
pub fn initiate(
    identity: &Identity,
    invitation: &InitiationParams<'_>,
    message: &mut [u8; INITIATION_LEN],
) -> Option<Initiated> {
    wiping(|| write_initiation(identity, invitation, message))
}

fn write_initiation(
    identity: &Identity,
    invitation: &InitiationParams<'_>,
    message: &mut [u8; INITIATION_LEN],
) -> Option<Initiated> {
    let mut symmetric = Symmetric::new(invitation.remote_static);
    let ephemeral = StaticSecret::from(**invitation.ephemeral);
    let ephemeral_public = identity.dh.public_key(&ephemeral);
    message[..4].copy_from_slice(&[INITIATION, 0, 0, 0]);
    message[initiation::SENDER].copy_from_slice(&invitation.local_index.to_le_bytes());
    // e
    message[initiation::EPHEMERAL].copy_from_slice(&ephemeral_public);
    symmetric.mix_ephemeral(&ephemeral_public);
    // es
    let shared = identity.dh.shared_secret(&ephemeral, invitation.remote_static)?;
    let key = symmetric.mix_dh_for_key(&shared);
    // s
    symmetric.encrypt(&key, &identity.public, &mut message[initiation::STATIC]);
    // ss
    let key = symmetric.mix_dh_for_key(invitation.static_static);
    // {t}
    symmetric.encrypt(&key, &invitation.timestamp.0, &mut message[initiation::TIMESTAMP]);
    Some(Initiated { symmetric, ephemeral, local_index: invitation.local_index })
}

impl Initiated {
    /// Decrypts the response. None if it is not authentic; the handshake then keeps waiting.
    pub fn finish(
        &self,
        identity: &Identity,
        psk: &Secret,
        message: &[u8; RESPONSE_LEN],
    ) -> Option<SessionKeys> {
        wiping(|| self.open_response(identity, psk, message))
    }

    fn open_response(
        &self,
        identity: &Identity,
        psk: &Secret,
        message: &[u8; RESPONSE_LEN],
    ) -> Option<SessionKeys> {
        let mut symmetric = self.symmetric.clone();
        let ephemeral: [u8; 32] = field(&message[response::EPHEMERAL]);
        // e
        symmetric.mix_ephemeral(&ephemeral);
        // ee
        symmetric.mix_dh(&identity.dh.shared_secret(&self.ephemeral, &ephemeral)?);
        // se
        symmetric.mix_dh(&identity.dh.shared_secret(&identity.secret, &ephemeral)?);
        // psk
        let key = symmetric.mix_psk(psk);
        // {}
        let [] = symmetric.decrypt(&key, &message[response::EMPTY])?;
        let [send, receive] = symmetric.split();
        let remote_index = u32::from_le_bytes(field(&message[response::SENDER]));
        Some(SessionKeys { send, receive, remote_index })
    }
}

/// An initiation whose sender knows our public key and claims a static key.
pub struct Claimed {
    dh: Dh,
    symmetric: Symmetric,
    remote_ephemeral: [u8; 32],
    remote_index: u32,
    sealed_timestamp: [u8; TIMESTAMP_LEN + 16],
    /// The claimed static public key; the caller looks up the peer.
    pub remote_static: [u8; 32],
}

/// Decrypts an initiation up to the static key. Costs one DH.
pub fn open_initiation(identity: &Identity, message: &[u8; INITIATION_LEN]) -> Option<Claimed> {
    wiping(|| read_static(identity, message))
}

fn read_static(identity: &Identity, message: &[u8; INITIATION_LEN]) -> Option<Claimed> {
    let mut symmetric = Symmetric::new(&identity.public);
    let remote_ephemeral: [u8; 32] = field(&message[initiation::EPHEMERAL]);
    // e
    symmetric.mix_ephemeral(&remote_ephemeral);
    // es
    let shared = identity.dh.shared_secret(&identity.secret, &remote_ephemeral)?;
    let key = symmetric.mix_dh_for_key(&shared);
    // s
    let remote_static = symmetric.decrypt(&key, &message[initiation::STATIC])?;
    Some(Claimed {
        dh: identity.dh,
        symmetric,
        remote_ephemeral,
        remote_index: u32::from_le_bytes(field(&message[initiation::SENDER])),
        sealed_timestamp: field(&message[initiation::TIMESTAMP]),
        remote_static,
    })
}

impl Claimed {
    /// Proves that the initiator holds the static key, by decrypting its timestamp.
    pub fn prove(&self, static_static: &Secret) -> Option<Proven> {
        wiping(|| self.read_timestamp(static_static))
    }

    fn read_timestamp(&self, static_static: &Secret) -> Option<Proven> {
        let mut symmetric = self.symmetric.clone();
        // ss
        let key = symmetric.mix_dh_for_key(static_static);
        // {t}
        let timestamp = Timestamp(symmetric.decrypt(&key, &self.sealed_timestamp)?);
        Some(Proven {
            dh: self.dh,
            symmetric,
            remote_static: self.remote_static,
            remote_ephemeral: self.remote_ephemeral,
            remote_index: self.remote_index,
            timestamp,
        })
    }
}

/// An authentic initiation. Its timestamp tells whether it is new.
pub struct Proven {
    dh: Dh,
    symmetric: Symmetric,
    remote_static: [u8; 32],
    remote_ephemeral: [u8; 32],
    remote_index: u32,
    /// To be compared with the greatest one of this initiator.
    pub timestamp: Timestamp,
}

impl Proven {
    /// Writes the response, all but its macs, and derives the session. None if the initiator's
    /// keys are of low order. [`set_sender`] can still change the index.
    pub fn respond(
        self,
        psk: &Secret,
        ephemeral: &Secret,
        local_index: u32,
        message: &mut [u8; RESPONSE_LEN],
    ) -> Option<SessionKeys> {
        wiping(|| self.write_response(psk, ephemeral, local_index, message))
    }

    fn write_response(
        mut self,
        psk: &Secret,
        ephemeral: &Secret,
        local_index: u32,
        message: &mut [u8; RESPONSE_LEN],
    ) -> Option<SessionKeys> {
        let ephemeral = StaticSecret::from(**ephemeral);
        let ephemeral_public = self.dh.public_key(&ephemeral);
        message[..4].copy_from_slice(&[RESPONSE, 0, 0, 0]);
        set_sender(message, local_index);
        message[response::RECEIVER].copy_from_slice(&self.remote_index.to_le_bytes());
        // e
        message[response::EPHEMERAL].copy_from_slice(&ephemeral_public);
        self.symmetric.mix_ephemeral(&ephemeral_public);
        // ee
        self.symmetric.mix_dh(&self.dh.shared_secret(&ephemeral, &self.remote_ephemeral)?);
        // se
        self.symmetric.mix_dh(&self.dh.shared_secret(&ephemeral, &self.remote_static)?);
        // psk
        let key = self.symmetric.mix_psk(psk);
        // {}
        self.symmetric.encrypt(&key, &[], &mut message[response::EMPTY]);
        let [receive, send] = self.symmetric.split();
        Some(SessionKeys { send, receive, remote_index: self.remote_index })
    }
}

/// Writes our index into a response without macs. The handshake does not hash it.
pub fn set_sender(response: &mut [u8; RESPONSE_LEN], local_index: u32) {
    response[response::SENDER].copy_from_slice(&local_index.to_le_bytes());
}

/// Takes a step in a stack frame of its own, and zeroes that.
pub(crate) fn wiping<T>(step: impl FnOnce() -> T) -> T {
    #[inline(never)]
    fn below<T>(step: impl FnOnce() -> T) -> T {
        step()
    }
    let result = below(step);
    wipe_stack();
    result
}

/// RFC 7748, section 5: the bits that every private key has set and cleared.
fn clamp(private_key: &[u8; 32]) -> [u8; 32] {
    let mut clamped = *private_key;
    clamped[0] &= 248;
    clamped[31] = (clamped[31] & 127) | 64;
    clamped
}

fn field<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the range names the field's length")
}

#[cfg(test)]
mod tests;
