//! The path to a peer: its endpoint, and what was learnt about the way there.
//!
//! Replies leave from the address that the peer sent to. When routes, links or addresses have
//! changed since, that address may be wrong: it was removed, or the way now leads through another
//! uplink, where providers drop foreign sources. The module `source_check` then asks the kernel,
//! and the answer is kept here.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use wg_bounce_sys::Endpoint;

/// A published endpoint, with what was learnt about the path to it.
#[derive(Debug)]
pub struct Path {
    /// The peer's endpoint, as configured or learnt from its last message.
    pub endpoint: Endpoint,
    /// The time until which trains to this endpoint are sent one datagram at a time (milliseconds;
    /// zero: segmentation offload was never refused).
    pub gso_refused_until: AtomicU64,
    /// A [`SourceState`]: epoch (32 bits), device (31 bits), whether the source is unfit.
    source: AtomicU64,
}

/// The kernel's answer about the source address of a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceState {
    /// The epoch of the answer; zero: never asked.
    pub epoch: u32,
    /// The device that the path led through when the address was learnt; zero: not known.
    pub device: u32,
    /// The address must not be used: the kernel chooses one.
    pub is_unfit: bool,
}

impl Path {
    /// A path about which nothing is known yet.
    pub fn new(endpoint: Endpoint) -> Path {
        let (gso_refused_until, source) = (AtomicU64::new(0), AtomicU64::new(0));
        Path { endpoint, gso_refused_until, source }
    }

    /// The endpoint to send to: without its source address if that is wrong by now.
    pub fn destination(&self) -> Endpoint {
        let source: Option<IpAddr> = self.endpoint.source.filter(|_| !self.source_state().is_unfit);
        Endpoint { source, ..self.endpoint }
    }

    /// The last answer about the source address.
    pub fn source_state(&self) -> SourceState {
        let bits = self.source.load(Ordering::Relaxed);
        SourceState {
            epoch: (bits >> 32) as u32,
            device: (bits >> 1) as u32 & (u32::MAX >> 1),
            is_unfit: bits & 1 != 0,
        }
    }

    /// Keeps an answer. A slower one of an older epoch does no harm: the next look asks again.
    pub fn set_source_state(&self, state: SourceState) {
        let SourceState { epoch, device, is_unfit } = state;
        let bits = u64::from(epoch) << 32 | u64::from(device) << 1 | u64::from(is_unfit);
        self.source.store(bits, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfit_source_is_not_sent_from() {
        let remote = "192.0.2.2:7".parse().expect("an address");
        let source = Some("192.0.2.1".parse().expect("an address"));
        let path = Path::new(Endpoint { remote, source });
        assert_eq!(path.source_state(), SourceState::default());
        for is_unfit in [true, false] {
            let state = SourceState { epoch: u32::MAX, device: i32::MAX as u32, is_unfit };
            path.set_source_state(state);
            assert_eq!(path.source_state(), state);
            let expected = source.filter(|_| !is_unfit);
            assert_eq!(path.destination(), Endpoint { remote, source: expected });
        }
    }
}
