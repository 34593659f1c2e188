//! The arithmetic of trains: the datagrams in a received buffer, and the messages to one
//! destination that may leave in one send.
//!
//! UDP_GRO delivers several datagrams of one flow as one buffer, with their common length;
//! UDP_SEGMENT sends such a buffer. All segments of a train have the same length, the last may be
//! shorter (Documentation/networking/segmentation-offloads.rst of Linux).

use std::ops::Range;

use crate::limits::{RECEIVE_SEGMENTS_MAX, SEND_BYTES_MAX, SEND_SEGMENTS_MAX};

/// The datagrams of one received buffer, in order, as ranges of its bytes.
#[derive(Clone, Debug)]
pub struct Datagrams {
    next: usize,
    end: usize,
    segment_size: usize,
    total: usize,
}

/// Splits a buffer of `total` bytes into datagrams of `segment` bytes, the last may be shorter.
/// A segment size of zero means that the kernel gave none: one datagram. An empty buffer has no
/// datagrams. At most [`RECEIVE_SEGMENTS_MAX`] are yielded, see [`Datagrams::excess`].
#[must_use]
pub fn datagrams(total: usize, segment_size: usize) -> Datagrams {
    let segment_size = if segment_size == 0 { total } else { segment_size };
    let end = segment_size.saturating_mul(RECEIVE_SEGMENTS_MAX).min(total);
    Datagrams { next: 0, end, segment_size, total }
}

impl Datagrams {
    /// Bytes past the last datagram that is yielded; nonzero only if the kernel delivered a longer
    /// train than it is known to.
    #[must_use]
    pub fn excess(&self) -> usize {
        self.total - self.end
    }
}

impl Iterator for Datagrams {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        if self.next >= self.end {
            return None;
        }
        let start = self.next;
        self.next = start.saturating_add(self.segment_size).min(self.end);
        Some(start..self.next)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.end - self.next).div_ceil(self.segment_size.max(1));
        (left, Some(left))
    }
}

impl ExactSizeIterator for Datagrams {}

/// One train to send: consecutive messages that leave with one UDP_SEGMENT send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainBuilder {
    /// Length of all messages at most (bytes).
    max: usize,
    /// Messages in it.
    pub count: usize,
    /// Length of every message but the last (bytes), the value for UDP_SEGMENT; the last is not
    /// longer.
    pub segment_size: usize,
    /// Length of all messages (bytes).
    pub bytes: usize,
}

impl TrainBuilder {
    /// An empty train that gets at most `max` bytes, and never more than [`SEND_BYTES_MAX`].
    #[must_use]
    pub fn new(max: usize) -> TrainBuilder {
        TrainBuilder { max: max.min(SEND_BYTES_MAX), count: 0, segment_size: 0, bytes: 0 }
    }

    /// Adds a message of `length` bytes if it may follow in this train; if not, returns false and
    /// leaves the train as it is: the message begins the next one. An empty train accepts any
    /// message.
    #[must_use]
    pub fn push(&mut self, length: usize) -> bool {
        let is_first = self.count == 0;
        // After a shorter message the bytes are not a multiple of the segment size: it is closed.
        let may_follow = length > 0
            && length <= self.segment_size
            && self.bytes == self.count * self.segment_size
            && self.count < SEND_SEGMENTS_MAX
            && self.bytes + length <= self.max;
        if !is_first && !may_follow {
            return false;
        }
        if is_first {
            self.segment_size = length;
        }
        self.count += 1;
        self.bytes += length;
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The trains of consecutive messages of these lengths, as the send batch builds them.
    fn split_into_trains(lengths: &[usize]) -> Vec<TrainBuilder> {
        split_by(usize::MAX, lengths)
    }

    fn split_by(max: usize, lengths: &[usize]) -> Vec<TrainBuilder> {
        let mut trains: Vec<TrainBuilder> = Vec::new();
        for &length in lengths {
            if !trains.last_mut().is_some_and(|train| train.push(length)) {
                let mut train = TrainBuilder::new(max);
                assert!(train.push(length), "an empty train accepts any message");
                trains.push(train);
            }
        }
        trains
    }

    #[test]
    fn received_trains() {
        let lengths =
            |total, segment_size| datagrams(total, segment_size).map(|one| one.len()).collect();
        let table: &[(usize, usize, &[usize])] = &[
            /* 1 */ (0, 0, &[]),
            /* 2 */ (0, 100, &[]),
            /* 3 */ (100, 0, &[100]),
            /* 4 */ (100, 100, &[100]),
            /* 5 */ (99, 100, &[99]),
            /* 6 */ (101, 100, &[100, 1]),
            /* 7 */ (300, 100, &[100, 100, 100]),
            /* 8 */ (65_535, usize::MAX, &[65_535]),
        ];
        for (number, (total, segment_size, expected)) in table.iter().enumerate() {
            let found: Vec<usize> = lengths(*total, *segment_size);
            assert_eq!(found, *expected, "case {}", number + 1);
        }
        let long = datagrams(1_000, 5);
        assert_eq!((long.len(), long.excess()), (RECEIVE_SEGMENTS_MAX, 1_000 - 5 * 128));
        assert_eq!(datagrams(640, 5).excess(), 0);
    }

    #[test]
    fn sent_trains() {
        let split = |lengths: &[usize]| {
            let trains = split_into_trains(lengths);
            trains
                .into_iter()
                .map(|train| (train.count, train.segment_size, train.bytes))
                .collect::<Vec<_>>()
        };
        assert_eq!(split(&[]), []);
        assert_eq!(split(&[0, 0]), [(1, 0, 0), (1, 0, 0)], "an empty message goes alone");
        assert_eq!(split(&[32]), [(1, 32, 32)]);
        assert_eq!(split(&[100, 100, 40, 40, 100]), [(3, 100, 240), (1, 40, 40), (1, 100, 100)]);
        assert_eq!(split(&[40, 100]), [(1, 40, 40), (1, 100, 100)]);
        assert_eq!(split(&[32; 65]), [(64, 32, 2_048), (1, 32, 32)]);
        assert_eq!(split(&[1_452; 45]), [(44, 1_452, 63_888), (1, 1_452, 1_452)]);
        assert_eq!(split(&[70_000, 70_000]), [(1, 70_000, 70_000), (1, 70_000, 70_000)]);
        let short: Vec<_> = split_by(250, &[100; 5]).iter().map(|train| train.count).collect();
        assert_eq!(short, [2, 2, 1]);
        assert_eq!(split_by(50, &[100; 2]).len(), 2, "at least one message");
    }

    proptest! {
        #[test]
        fn datagrams_tile_the_buffer(total in 0..70_000usize, segment_size in 0..70_000usize) {
            let all = datagrams(total, segment_size);
            let taken = total - all.excess();
            prop_assert_eq!(all.len(), all.clone().count());
            let mut end = 0;
            for one in all {
                prop_assert_eq!(one.start, end);
                prop_assert!(!one.is_empty());
                prop_assert!(one.len() == segment_size || one.end == taken);
                end = one.end;
            }
            prop_assert_eq!(end, taken);
        }

        #[test]
        fn trains_keep_the_rules_and_are_as_long_as_they_may(
            lengths in prop::collection::vec(
                prop_oneof![4 => Just(1_452usize), 1 => Just(32usize), 2 => 0..3_000usize],
                0..300,
            ),
        ) {
            let mut rest = lengths.as_slice();
            for train in split_into_trains(&lengths) {
                let (own, after) = rest.split_at(train.count);
                rest = after;
                let (last, others) = own.split_last().unwrap();
                prop_assert!(others.iter().all(|length| *length == train.segment_size));
                prop_assert!(*last <= train.segment_size);
                prop_assert_eq!(own.iter().sum::<usize>(), train.bytes);
                prop_assert!(own.len() <= SEND_SEGMENTS_MAX && train.bytes <= SEND_BYTES_MAX);
                if let Some(next) = rest.first() {
                    let may_follow = *next > 0
                        && *last == train.segment_size
                        && *next <= train.segment_size
                        && own.len() < SEND_SEGMENTS_MAX
                        && train.bytes + next <= SEND_BYTES_MAX;
                    prop_assert!(!may_follow, "the train could be longer");
                }
            }
            prop_assert!(rest.is_empty());
        }
    }
}
