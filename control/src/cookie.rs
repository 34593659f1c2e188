//! mac1, mac2 and cookies (§5.4.4, §5.4.7; cookie.c).
//!
//! mac1 proves that the sender knows our public key; mac2, required under load, that it receives
//! at the address it sends from.

use std::net::{IpAddr, SocketAddr};

use blake2::Blake2sMac;
use blake2::digest::consts::U16;
use blake2::digest::{KeyInit, Mac};
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{Key, Tag, XChaCha20Poly1305, XNonce};
use rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use wg_bounce_dataplane::mac1;
use wg_bounce_dataplane::wire::{COOKIE_REPLY, COOKIE_REPLY_LEN, MAC_LEN};
use wg_bounce_sys::clock::Millis;
use zeroize::Zeroizing;

use crate::limits::{COOKIE_SECRET_AGE_MAX, COOKIE_SECRET_LATENCY};
use crate::noise::{Secret, hash};

/// Bytes of a cookie.
pub const COOKIE_LEN: usize = 16;

type Cookie = Zeroizing<[u8; COOKIE_LEN]>;

/// The key of mac1 in messages to the holder of `public_key`.
pub fn mac1_key(public_key: &[u8; 32]) -> [u8; 32] {
    hash(&[b"mac1----", public_key])
}

fn cookie_key(public_key: &[u8; 32]) -> [u8; 32] {
    hash(&[b"cookie--", public_key])
}

/// The result of checking the macs of a message to us (kernel: `enum cookie_mac_state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacState {
    /// mac1 is wrong: the message is ignored.
    Invalid,
    /// mac1 is right; mac2 is wrong or was not checked.
    ValidMac1,
    /// Both are right: the sender receives at its address.
    ValidMac1And2,
}

/// Checks the macs of messages to us and hands out cookies.
pub struct Checker {
    mac1_key: [u8; 32],
    cookie_key: [u8; 32],
    secret: Secret,
    /// Time at which the secret was drawn; none before the first.
    secret_born: Option<Millis>,
}

impl Checker {
    /// A checker of messages to the holder of `public_key`.
    pub fn new(public_key: &[u8; 32]) -> Checker {
        Checker {
            mac1_key: mac1_key(public_key),
            cookie_key: cookie_key(public_key),
            secret: Zeroizing::new([0; 32]),
            secret_born: None,
        }
    }

    /// The key of mac1 in messages to us.
    pub fn mac1_key(&self) -> [u8; 32] {
        self.mac1_key
    }

    /// Checks an initiation or response; `check_mac2` is set under load.
    pub fn judge(
        &mut self,
        message: &[u8],
        source: SocketAddr,
        check_mac2: bool,
        now: Millis,
        rng: &mut dyn CryptoRng,
    ) -> MacState {
        let (before_mac2, mac2) = message.split_at(message.len() - MAC_LEN);
        if !mac1::is_valid(message, &self.mac1_key) {
            return MacState::Invalid;
        }
        if !check_mac2 {
            return MacState::ValidMac1;
        }
        let cookie = self.cookie(source, now, rng);
        if bool::from(mac(&*cookie, &[before_mac2]).ct_eq(mac2)) {
            MacState::ValidMac1And2
        } else {
            MacState::ValidMac1
        }
    }

    /// The reply with a cookie to `message`, an initiation or response from `source`.
    pub fn reply(
        &mut self,
        message: &[u8],
        source: SocketAddr,
        now: Millis,
        rng: &mut dyn CryptoRng,
    ) -> CookieReply {
        let (_, macs) = message.split_at(message.len() - 2 * MAC_LEN);
        CookieReply {
            receiver: message[4..8].try_into().expect("four bytes"),
            mac1: macs[..MAC_LEN].try_into().expect("16 bytes"),
            cookie: self.cookie(source, now, rng),
            cookie_key: self.cookie_key,
        }
    }

    /// The cookie of an address and port: a sender behind a NAT is bound to its own port.
    fn cookie(&mut self, source: SocketAddr, now: Millis, rng: &mut dyn CryptoRng) -> Cookie {
        if self.secret_born.is_none_or(|born| now.since(born) >= COOKIE_SECRET_AGE_MAX) {
            rng.fill_bytes(&mut *self.secret);
            self.secret_born = Some(now);
        }
        let port = source.port().to_be_bytes();
        Zeroizing::new(match source.ip() {
            IpAddr::V4(v4) => mac(&*self.secret, &[&v4.octets(), &port]),
            IpAddr::V6(v6) => mac(&*self.secret, &[&v6.octets(), &port]),
        })
    }
}

/// A cookie for the sender of a message, still to be encrypted; any thread can do that.
pub struct CookieReply {
    /// The sender's index in that message.
    receiver: [u8; 4],
    mac1: [u8; MAC_LEN],
    cookie: Cookie,
    cookie_key: [u8; 32],
}

impl CookieReply {
    /// Encrypts the cookie into the message to send.
    pub fn seal(mut self, rng: &mut dyn CryptoRng) -> [u8; COOKIE_REPLY_LEN] {
        let mut nonce = [0; 24];
        rng.fill_bytes(&mut nonce);
        let cookie = self.cookie.as_mut_slice();
        let tag = XChaCha20Poly1305::new(&Key::from(self.cookie_key))
            .encrypt_inout_detached(&XNonce::from(nonce), &self.mac1, cookie.into())
            .expect("a cookie is far below the AEAD's length limit");
        let mut reply = [0; COOKIE_REPLY_LEN];
        reply[..4].copy_from_slice(&[COOKIE_REPLY, 0, 0, 0]);
        reply[4..8].copy_from_slice(&self.receiver);
        reply[8..32].copy_from_slice(&nonce);
        reply[32..48].copy_from_slice(&*self.cookie);
        reply[48..].copy_from_slice(&tag);
        reply
    }
}

/// Signs messages to one peer, and keeps the cookie received from it.
pub struct CookieSigner {
    mac1_key: [u8; 32],
    cookie_key: [u8; 32],
    /// mac1 of the last message, until a cookie reply to it arrives.
    outstanding: Option<[u8; MAC_LEN]>,
    cookie: Option<(Cookie, Millis)>,
}

impl CookieSigner {
    /// A signer of messages to the holder of `public_key`.
    pub fn new(public_key: &[u8; 32]) -> CookieSigner {
        let (mac1_key, cookie_key) = (mac1_key(public_key), cookie_key(public_key));
        CookieSigner { mac1_key, cookie_key, outstanding: None, cookie: None }
    }

    /// Writes mac1, and mac2 if there is a valid cookie, over the end of `message`.
    pub fn sign(&mut self, message: &mut [u8], now: Millis) {
        let (rest, mac2) = message.split_at_mut(message.len() - MAC_LEN);
        let (body, mac1) = rest.split_at_mut(rest.len() - MAC_LEN);
        let made = mac(&self.mac1_key, &[body]);
        mac1.copy_from_slice(&made);
        self.outstanding = Some(made);
        let age_max = COOKIE_SECRET_AGE_MAX - COOKIE_SECRET_LATENCY;
        self.cookie.take_if(|(_, born)| now.since(*born) >= age_max);
        match &self.cookie {
            Some((cookie, _)) => mac2.copy_from_slice(&mac(&**cookie, &[rest])),
            None => mac2.fill(0),
        }
    }

    /// Decrypts the cookie in a reply to our last message; returns whether it was authentic.
    pub fn consume(&mut self, reply: &[u8; COOKIE_REPLY_LEN], now: Millis) -> bool {
        let Some(mac1) = self.outstanding else { return false };
        let nonce: [u8; 24] = reply[8..32].try_into().expect("24 bytes");
        let mut cookie: Cookie = Zeroizing::new(reply[32..48].try_into().expect("16 bytes"));
        let tag: [u8; 16] = reply[48..].try_into().expect("16 bytes");
        let opened = XChaCha20Poly1305::new(&Key::from(self.cookie_key)).decrypt_inout_detached(
            &XNonce::from(nonce),
            &mac1,
            cookie.as_mut_slice().into(),
            &Tag::from(tag),
        );
        if opened.is_ok() {
            self.cookie = Some((cookie, now));
            self.outstanding = None;
        }
        opened.is_ok()
    }
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; MAC_LEN] {
    let mut state = Blake2sMac::<U16>::new_from_slice(key).expect("keys have 16 or 32 bytes");
    for part in parts {
        state.update(part);
    }
    state.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    const PUBLIC: [u8; 32] = [9; 32];
    const NOW: Millis = Millis(1_000_000);

    fn source(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn rng() -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(1)
    }

    fn signed(signer: &mut CookieSigner, now: Millis) -> [u8; 92] {
        let mut message = [3; 92];
        signer.sign(&mut message, now);
        message
    }

    #[test]
    fn a_cookie_proves_address_and_port() {
        let (mut signer, mut checker, mut rng) =
            (CookieSigner::new(&PUBLIC), Checker::new(&PUBLIC), rng());
        let first = signed(&mut signer, NOW);
        assert_eq!(checker.judge(&first, source(1), false, NOW, &mut rng), MacState::ValidMac1);
        assert_eq!(checker.judge(&first, source(1), true, NOW, &mut rng), MacState::ValidMac1);
        let reply = checker.reply(&first, source(1), NOW, &mut rng).seal(&mut rng);
        assert_eq!(reply[4..8], first[4..8]);
        assert!(signer.consume(&reply, NOW));
        assert!(!signer.consume(&reply, NOW), "one reply for one message");
        let second = signed(&mut signer, NOW);
        let mut judge = |port| checker.judge(&second, source(port), true, NOW, &mut rng);
        assert_eq!(judge(1), MacState::ValidMac1And2);
        assert_eq!(judge(2), MacState::ValidMac1);
    }

    #[test]
    fn wrong_macs_are_noticed() {
        let (mut signer, mut checker, mut rng) =
            (CookieSigner::new(&PUBLIC), Checker::new(&PUBLIC), rng());
        let message = signed(&mut signer, NOW);
        for byte in 0..76 {
            let mut flipped = message;
            flipped[byte] ^= 1;
            let verdict = checker.judge(&flipped, source(1), true, NOW, &mut rng);
            assert_eq!(verdict, MacState::Invalid, "byte {byte}");
        }
    }

    #[test]
    fn forged_and_foreign_replies_are_refused() {
        let (mut signer, mut checker, mut rng) =
            (CookieSigner::new(&PUBLIC), Checker::new(&PUBLIC), rng());
        let message = signed(&mut signer, NOW);
        let reply = checker.reply(&message, source(1), NOW, &mut rng).seal(&mut rng);
        for byte in 8..COOKIE_REPLY_LEN {
            let mut forged = reply;
            forged[byte] ^= 1;
            assert!(!signer.consume(&forged, NOW), "byte {byte}");
        }
        let mut other = [4; 92];
        signer.sign(&mut other, NOW);
        assert!(!signer.consume(&reply, NOW), "the reply answers an earlier message");
        assert!(!CookieSigner::new(&PUBLIC).consume(&reply, NOW), "nothing was sent");
    }

    #[test]
    fn cookies_and_secrets_grow_old() {
        let (mut signer, mut checker, mut rng) =
            (CookieSigner::new(&PUBLIC), Checker::new(&PUBLIC), rng());
        let message = signed(&mut signer, NOW);
        let reply = checker.reply(&message, source(1), NOW, &mut rng).seal(&mut rng);
        assert!(signer.consume(&reply, NOW));
        let soon = NOW + Millis::from_secs(114);
        let message = signed(&mut signer, soon);
        let verdict = checker.judge(&message, source(1), true, soon, &mut rng);
        assert_eq!(verdict, MacState::ValidMac1And2);
        let later = NOW + Millis::from_secs(120);
        let verdict = checker.judge(&message, source(1), true, later, &mut rng);
        assert_eq!(verdict, MacState::ValidMac1, "the secret was replaced");
        assert_eq!(signed(&mut signer, NOW + Millis::from_secs(115))[76..], [0; 16]);
    }
}
