//! Time as the packet path sees it: milliseconds of the boot clock, passed in as an argument.
//!
//! Only `worker` and the control crate's `runtime` read a clock (`sys::clock`).

use std::ops::{Add, Sub};

/// A point in time or a span, in milliseconds. Points count from an arbitrary origin that is
/// never reached, so that zero can mean "never" in the atomics of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// No time at all; as a point: never.
    pub const ZERO: Millis = Millis(0);

    /// A span of whole seconds.
    pub const fn from_secs(seconds: u64) -> Millis {
        Millis(seconds * 1000)
    }

    /// The span from `earlier` to `self`; zero if `earlier` lies ahead.
    pub const fn since(self, earlier: Millis) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add for Millis {
    type Output = Millis;
    fn add(self, span: Millis) -> Millis {
        Millis(self.0.saturating_add(span.0))
    }
}

impl Sub for Millis {
    type Output = Millis;
    fn sub(self, span: Millis) -> Millis {
        Millis(self.0.saturating_sub(span.0))
    }
}
