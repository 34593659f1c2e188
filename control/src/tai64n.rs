//! TAI64N timestamps: twelve bytes that never decrease, so that initiations cannot be replayed
//! (§5.1; <https://cr.yp.to/libtai/tai64.html>).

use std::time::Duration;

use crate::limits::TIMESTAMP_STEP;

/// Bytes of a timestamp.
pub const TIMESTAMP_LEN: usize = 12;

/// TAI64 label of the Unix epoch, with the ten leap seconds that the kernel module adds.
const EPOCH: u64 = 0x4000_0000_0000_000a;

/// A timestamp as sent: big-endian seconds, then nanoseconds. Ordered like its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub [u8; TIMESTAMP_LEN]);

impl Timestamp {
    /// The timestamp of `wall` (since the Unix epoch), rounded down to [`TIMESTAMP_STEP`].
    pub fn whitened(wall: Duration) -> Timestamp {
        let step = TIMESTAMP_STEP.subsec_nanos();
        Timestamp::from_parts(EPOCH.wrapping_add(wall.as_secs()), wall.subsec_nanos() / step * step)
    }

    /// The next timestamp for a receiver that was sent this one last: that of `wall`, or the next
    /// greater one if the clock stands still or has been set back.
    ///
    /// Each receiver has its own. One for all would send every receiver into the future once the
    /// wall clock has jumped forward, and after a restart they would reject us until it catches up.
    #[must_use]
    pub fn next(self, wall: Duration) -> Timestamp {
        let next = Timestamp::whitened(wall);
        if next > self { next } else { self.successor() }
    }

    /// The span from `earlier` to `self`, in whole milliseconds; zero if `earlier` is later.
    pub fn since(self, earlier: Timestamp) -> Duration {
        let millis = |(seconds, nanos): (u64, u32)| {
            seconds.saturating_mul(1000).saturating_add(u64::from(nanos) / 1_000_000)
        };
        let (seconds, nanos) = self.parts();
        let (earlier_seconds, earlier_nanos) = earlier.parts();
        // Seconds since the epoch, so that the products fit.
        let (now, then) = (seconds.saturating_sub(EPOCH), earlier_seconds.saturating_sub(EPOCH));
        let span = millis((now, nanos)).saturating_sub(millis((then, earlier_nanos)));
        Duration::from_millis(span)
    }

    /// The next whitened timestamp.
    fn successor(self) -> Timestamp {
        let (seconds, nanos) = self.parts();
        let next = nanos + TIMESTAMP_STEP.subsec_nanos();
        if next < 1_000_000_000 {
            Timestamp::from_parts(seconds, next)
        } else {
            Timestamp::from_parts(seconds.wrapping_add(1), 0)
        }
    }

    fn from_parts(seconds: u64, nanos: u32) -> Timestamp {
        let mut bytes = [0; TIMESTAMP_LEN];
        bytes[..8].copy_from_slice(&seconds.to_be_bytes());
        bytes[8..].copy_from_slice(&nanos.to_be_bytes());
        Timestamp(bytes)
    }

    fn parts(self) -> (u64, u32) {
        let (seconds, nanos) = self.0.split_at(8);
        (
            u64::from_be_bytes(seconds.try_into().expect("eight bytes")),
            u32::from_be_bytes(nanos.try_into().expect("four bytes")),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_has_its_label() {
        let expected = [0x40, 0, 0, 0, 0, 0, 0, 0x0a, 0, 0, 0, 0];
        assert_eq!(Timestamp::whitened(Duration::ZERO).0, expected);
    }

    #[test]
    fn nanoseconds_are_whitened() {
        let stamp = Timestamp::whitened(Duration::new(5, 999_999_999));
        let (seconds, nanos) = stamp.parts();
        assert_eq!(seconds, EPOCH + 5);
        assert_eq!(nanos, 59 << 24);
        assert_eq!(stamp.successor().parts(), (EPOCH + 6, 0));
    }

    #[test]
    fn timestamps_grow_though_the_clock_stands_or_jumps_back() {
        let mut previous = Timestamp::default();
        for wall in [100, 100, 100, 7, 8, 100, 101] {
            let next = previous.next(Duration::from_secs(wall));
            assert!(next > previous);
            previous = next;
        }
    }

    #[test]
    fn a_later_clock_is_followed() {
        let wall = Duration::from_secs(1000);
        assert_eq!(Timestamp::default().next(wall), Timestamp::whitened(wall));
    }

    #[test]
    fn spans_are_in_milliseconds_and_never_negative() {
        let at = |millis| Timestamp::whitened(Duration::from_millis(millis));
        assert_eq!(at(65_000).since(at(5000)), Duration::from_secs(60));
        assert_eq!(at(5000).since(at(65_000)), Duration::ZERO);
        // A peer may send any bytes.
        let (least, greatest) = (Timestamp([0; TIMESTAMP_LEN]), Timestamp([0xff; TIMESTAMP_LEN]));
        assert_eq!(least.since(greatest), Duration::ZERO);
        assert!(greatest.since(least) > Duration::from_secs(1 << 50));
    }
}
