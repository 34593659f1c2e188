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

/// Issues timestamps that never run backwards, whatever the wall clock does.
///
/// Two peers may get the same timestamp. Otherwise many handshakes at once would drive timestamps
/// ahead of the clock, and after a restart peers would reject us until it has caught up.
#[derive(Debug, Default)]
pub struct TimestampSource {
    greatest: Timestamp,
}

impl TimestampSource {
    /// A timestamp not below any issued so far, and above `previous`, the peer's last one.
    pub fn next(&mut self, wall: Duration, previous: Timestamp) -> Timestamp {
        let mut next = Timestamp::whitened(wall).max(self.greatest);
        if next <= previous {
            next = previous.successor();
        }
        self.greatest = next;
        next
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
    fn one_peer_gets_growing_timestamps_though_the_clock_stands_or_jumps_back() {
        let mut source = TimestampSource::default();
        let mut previous = Timestamp::default();
        for wall in [100, 100, 100, 7, 8, 100, 101] {
            let next = source.next(Duration::from_secs(wall), previous);
            assert!(next > previous);
            previous = next;
        }
    }

    #[test]
    fn a_fresh_peer_is_not_given_less_than_was_given_before() {
        let mut source = TimestampSource::default();
        let before = source.next(Duration::from_secs(1000), Timestamp::default());
        let after = source.next(Duration::from_secs(10), Timestamp::default());
        assert!(after >= before, "the peer may be one that was removed and added again");
    }

    #[test]
    fn many_peers_at_once_do_not_drive_time_ahead() {
        let mut source = TimestampSource::default();
        let wall = Duration::from_secs(1000);
        for _ in 0..1000 {
            assert_eq!(source.next(wall, Timestamp::default()), Timestamp::whitened(wall));
        }
    }
}
