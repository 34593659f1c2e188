//! X25519 (RFC 7748, section 5) by one of two implementations: graviola, whose assembly is formally
//! verified and takes half the time, or x25519-dalek, which runs on every CPU.

use std::fmt;

use clap::ValueEnum;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::symmetric::Secret;

/// The requested implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DhChoice {
    /// Fastest supported by this CPU
    Auto,
    /// graviola; fail to start if unsupported
    Graviola,
    /// x25519-dalek
    Dalek,
}

/// The CPU lacks an instruction that graviola needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable;

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this CPU does not support graviola")
    }
}

impl std::error::Error for Unavailable {}

/// An implementation supported by this CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dh(Implementation);

/// The value is proof that the CPU has what the implementation needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Implementation {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    Graviola,
    Dalek,
}

impl Dh {
    /// Selects an implementation.
    ///
    /// # Errors
    /// Unsupported by the CPU.
    pub fn new(choice: DhChoice) -> Result<Dh, Unavailable> {
        match choice {
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            DhChoice::Auto | DhChoice::Graviola if graviola::is_supported() => {
                Ok(Dh(Implementation::Graviola))
            }
            DhChoice::Graviola => Err(Unavailable),
            DhChoice::Auto | DhChoice::Dalek => Ok(Dh(Implementation::Dalek)),
        }
    }

    /// The fastest implementation supported by this CPU.
    pub fn best() -> Dh {
        Dh::new(DhChoice::Auto).expect("x25519-dalek runs everywhere")
    }

    /// The public key of `secret`.
    pub(super) fn public_key(self, secret: &StaticSecret) -> [u8; 32] {
        match self.0 {
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            Implementation::Graviola => graviola::public_key(secret.as_bytes()),
            Implementation::Dalek => PublicKey::from(secret).to_bytes(),
        }
    }

    /// The shared secret. None if it does not depend on `secret`: `public` is of low order (RFC
    /// 7748, section 6.1).
    pub(super) fn shared_secret(self, secret: &StaticSecret, public: &[u8; 32]) -> Option<Secret> {
        match self.0 {
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            Implementation::Graviola => graviola::shared_secret(secret.as_bytes(), public),
            Implementation::Dalek => {
                let shared = secret.diffie_hellman(&PublicKey::from(*public));
                shared.was_contributory().then(|| Zeroizing::new(shared.to_bytes()))
            }
        }
    }
}

impl fmt::Display for Dh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            Implementation::Graviola => "graviola",
            Implementation::Dalek => "x25519-dalek",
        })
    }
}

/// graviola 0.4. Its calls panic where the CPU lacks an instruction that they need, and its keys
/// are zeroed when they are dropped.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod graviola {
    use graviola::key_agreement::x25519::{PublicKey, StaticPrivateKey};
    use zeroize::Zeroizing;

    use crate::noise::symmetric::Secret;

    /// Whether the CPU has all that its X25519 needs: what each call asserts (`is_cpu_supported` in
    /// src/low/x86_64/cpu.rs), and BMI2 and SSSE3, which the assembly uses besides.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn is_supported() -> bool {
        is_x86_feature_detected!("adx")
            && is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("avx")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("ssse3")
    }

    /// Whether the CPU has what each call asserts (`is_cpu_supported` in src/low/aarch64/cpu.rs).
    #[cfg(target_arch = "aarch64")]
    pub(super) fn is_supported() -> bool {
        use std::arch::is_aarch64_feature_detected;
        is_aarch64_feature_detected!("neon")
            && is_aarch64_feature_detected!("aes")
            && is_aarch64_feature_detected!("pmull")
            && is_aarch64_feature_detected!("sha2")
    }

    pub(super) fn public_key(secret: &[u8; 32]) -> [u8; 32] {
        StaticPrivateKey::from_array(secret).public_key().as_bytes()
    }

    pub(super) fn shared_secret(secret: &[u8; 32], public: &[u8; 32]) -> Option<Secret> {
        let secret = StaticPrivateKey::from_array(secret);
        let shared = secret.diffie_hellman(&PublicKey::from_array(public)).ok()?;
        Some(Zeroizing::new(shared.0))
    }
}

#[cfg(test)]
mod tests;
