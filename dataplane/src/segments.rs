//! The arithmetic of trains: which datagrams a received buffer holds, and which messages to one
//! destination may leave in one send.
//!
//! UDP_GRO delivers several datagrams of one flow as one buffer and says their common length;
//! UDP_SEGMENT sends one so. All segments of a train have the same length, the last may be
//! shorter (Documentation/networking/segmentation-offloads.rst of Linux).

use std::ops::Range;

use crate::limits::{RECEIVE_SEGMENTS_MAX, SEND_BYTES_MAX, SEND_SEGMENTS_MAX};

/// The datagrams of one received buffer, in order, as ranges of its bytes.
#[derive(Clone, Debug)]
pub struct Datagrams {
    next: usize,
    end: usize,
    segment: usize,
    total: usize,
}

/// Splits a buffer of `total` bytes into datagrams of `segment` bytes, the last may be shorter.
/// A segment size of zero means that the kernel named none: one datagram. An empty buffer has no
/// datagrams. At most [`RECEIVE_SEGMENTS_MAX`] are given, see [`Datagrams::excess`].
#[must_use]
pub fn datagrams(total: usize, segment: usize) -> Datagrams {
    let segment = if segment == 0 { total } else { segment };
    let end = segment.saturating_mul(RECEIVE_SEGMENTS_MAX).min(total);
    Datagrams { next: 0, end, segment, total }
}

impl Datagrams {
    /// Bytes past the last datagram that is taken; not zero only if the kernel made a train that
    /// is longer than any it is known to make.
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
        self.next = start.saturating_add(self.segment).min(self.end);
        Some(start..self.next)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.end - self.next).div_ceil(self.segment.max(1));
        (left, Some(left))
    }
}

impl ExactSizeIterator for Datagrams {}

/// One train to send: consecutive messages that go out with one UDP_SEGMENT send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Train {
    /// Messages in it.
    pub count: usize,
    /// Length of every message but the last (bytes), the value for UDP_SEGMENT; the last is not
    /// longer.
    pub segment: usize,
    /// Length of all messages (bytes).
    pub bytes: usize,
}

impl Train {
    /// Takes one more message of `length` bytes if it may follow in this train; if not, the train
    /// stays as it is, and the message begins the next one. An empty train takes any message.
    #[must_use]
    pub fn push(&mut self, length: usize) -> bool {
        let is_first = self.count == 0;
        // After a shorter message the bytes are no multiple of the segment: the train is closed.
        let may_follow = length > 0
            && length <= self.segment
            && self.bytes == self.count * self.segment
            && self.count < SEND_SEGMENTS_MAX
            && self.bytes + length <= SEND_BYTES_MAX;
        if !is_first && !may_follow {
            return false;
        }
        if is_first {
            self.segment = length;
        }
        self.count += 1;
        self.bytes += length;
        true
    }
}

/// Splits consecutive messages to one destination, given by their lengths (bytes), into trains,
/// each as long as the rules allow; order is kept.
pub fn trains(lengths: impl IntoIterator<Item = usize>) -> impl Iterator<Item = Train> {
    let mut lengths = lengths.into_iter();
    let mut open = Train::default();
    std::iter::from_fn(move || {
        for length in lengths.by_ref() {
            if !open.push(length) {
                let full = std::mem::take(&mut open);
                let _first = open.push(length);
                return Some(full);
            }
        }
        let last = std::mem::take(&mut open);
        (last.count > 0).then_some(last)
    })
}
