//! The options that are one of a few words.

use clap::ValueEnum;
use wg_bounce_dataplane::engine::IoChoice;

/// `--io`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Io {
    /// io_uring if available, else epoll
    Auto,
    /// io_uring; fail to start if unavailable
    Uring,
    /// epoll with recvmmsg and sendmmsg
    Mmsg,
}

/// `--tun`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TunChoice {
    /// Create a TUN interface
    On,
    /// None
    Off,
}

/// `--aead`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AeadChoice {
    /// Fastest supported by this CPU, chosen per batch
    Auto,
    /// AVX-512, vectorized across packets; fail to start if unsupported
    Avx512,
    /// AVX2, vectorized across packets; fail to start if unsupported
    Avx2,
    /// ring, one packet at a time
    Ring,
}

impl From<AeadChoice> for wg_bounce_aead::Choice {
    fn from(choice: AeadChoice) -> Self {
        match choice {
            AeadChoice::Auto => wg_bounce_aead::Choice::Auto,
            AeadChoice::Avx512 => wg_bounce_aead::Choice::Avx512,
            AeadChoice::Avx2 => wg_bounce_aead::Choice::Avx2,
            AeadChoice::Ring => wg_bounce_aead::Choice::Ring,
        }
    }
}

impl From<Io> for IoChoice {
    fn from(io: Io) -> Self {
        match io {
            Io::Auto => IoChoice::Auto,
            Io::Uring => IoChoice::Uring,
            Io::Mmsg => IoChoice::Mmsg,
        }
    }
}

/// An option that is on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Use it if the kernel supports it
    On,
    /// Never use it
    Off,
}
