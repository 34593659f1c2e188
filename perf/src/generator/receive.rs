//! Arrivals: counted by receiver, and sampled.

use std::time::Duration;

use super::session::{OVERHEAD, counter_of};

/// Arrivals at one receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets: data messages of the size that was sent.
    pub messages: u64,
    /// Trains: packets returned by one system call.
    pub trains: u64,
    /// Messages that arrived after a higher counter.
    pub reordered: u64,
    /// Messages of another type or size, except keepalives.
    pub foreign: u64,
    /// Samples that arrived after a later one, by the sequence number inside: reordered by the
    /// relay before it assigned the counters.
    pub late_samples: u64,
    /// Above every counter so far.
    next_counter: u64,
}

impl Tally {
    /// Counts from zero.
    pub fn restart(&mut self) {
        *self = Tally { next_counter: self.next_counter, ..Tally::default() };
    }

    /// Adds another receiver's.
    pub fn add(&mut self, other: &Tally) {
        self.messages += other.messages;
        self.trains += other.trains;
        self.reordered += other.reordered;
        self.foreign += other.foreign;
        self.late_samples += other.late_samples;
    }

    /// Counts a train of messages of `segment` bytes each; the last may be shorter. Packets have
    /// `shortest` bytes and up to 15 bytes of padding. Returns the number of packets.
    pub fn count(&mut self, train: &[u8], segment: usize, shortest: usize) -> usize {
        let mut packets = 0;
        for message in train.chunks(segment) {
            let Some(counter) = counter_of(message) else {
                self.foreign += 1;
                continue;
            };
            self.reordered += u64::from(counter < self.next_counter);
            self.next_counter = self.next_counter.max(counter + 1);
            if (shortest..shortest + 16).contains(&message.len()) {
                packets += 1;
            } else if message.len() != OVERHEAD {
                self.foreign += 1;
            }
        }
        self.messages += packets as u64;
        self.trains += u64::from(packets > 0);
        packets
    }
}

/// A message to be decrypted when the clock is stopped.
pub struct Sample {
    /// Its pair.
    pub pair: usize,
    /// The whole message.
    pub message: Vec<u8>,
    /// Arrival of its train.
    pub arrived_at: Duration,
}

/// Samples one message of every n-th train.
pub struct Sampler {
    every: usize,
    /// A pair of which every train is sampled.
    whole_pair: Option<usize>,
    trains: usize,
    /// The samples.
    pub kept: Vec<Sample>,
}

impl Sampler {
    /// Samples one in `every` trains.
    pub fn new(every: usize) -> Sampler {
        Sampler { every, whole_pair: None, trains: 0, kept: Vec::new() }
    }

    /// Also samples every train of this pair.
    pub fn with_every_train_of(self, pair: usize) -> Sampler {
        Sampler { whole_pair: Some(pair), ..self }
    }

    /// Offers the next train. If it is sampled, the position of the message in the train rotates.
    pub fn offer(&mut self, pair: usize, train: &[u8], segment: usize, now: Duration) {
        self.trains += 1;
        if !self.trains.is_multiple_of(self.every) && self.whole_pair != Some(pair) {
            return;
        }
        let messages = train.len().div_ceil(segment);
        let which = self.trains / self.every % messages;
        let message = train.chunks(segment).nth(which).expect("below their number");
        if message.len() > OVERHEAD {
            self.kept.push(Sample { pair, message: message.to_vec(), arrived_at: now });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(counter: u64, length: usize) -> Vec<u8> {
        let mut message = vec![0; length];
        message[0] = 4;
        message[8..16].copy_from_slice(&counter.to_le_bytes());
        message
    }

    fn train(counters: &[u64]) -> Vec<u8> {
        counters.iter().flat_map(|counter| message(*counter, 132)).collect()
    }

    #[test]
    fn messages_and_trains_are_counted() {
        let mut tally = Tally::default();
        assert_eq!(tally.count(&train(&[0, 1, 2]), 132, 132), 3);
        assert_eq!(tally.count(&train(&[3]), 132, 132), 1);
        assert_eq!((tally.messages, tally.trains, tally.reordered), (4, 2, 0));
    }

    #[test]
    fn a_gap_is_not_reordering_but_a_late_message_is() {
        let mut tally = Tally::default();
        tally.count(&train(&[0, 5, 6]), 132, 132);
        assert_eq!(tally.reordered, 0);
        tally.count(&train(&[3, 4, 7]), 132, 132);
        assert_eq!((tally.messages, tally.reordered), (6, 2));
        tally.count(&train(&[7]), 132, 132);
        assert_eq!(tally.reordered, 3, "a duplicate");
    }

    #[test]
    fn only_packets_count_as_packets() {
        let mut tally = Tally::default();
        assert_eq!(tally.count(&message(0, OVERHEAD), OVERHEAD, 132), 0, "a keepalive");
        assert_eq!((tally.trains, tally.foreign), (0, 0));
        assert_eq!(tally.count(&message(1, 148), 148, 132), 0, "padded by too much");
        let mut initiation = message(0, 148);
        initiation[0] = 1;
        assert_eq!(tally.count(&initiation, 148, 132), 0);
        assert_eq!(tally.foreign, 2);
        assert_eq!(tally.count(&message(2, 144), 144, 133), 1, "padded");
    }

    #[test]
    fn the_short_end_of_a_train_counts() {
        let mut tally = Tally::default();
        let bytes = [message(0, 144), message(1, 133)].concat();
        assert_eq!(tally.count(&bytes, 144, 133), 2);
    }

    #[test]
    fn samples_come_from_every_place_in_a_train() {
        let mut sampler = Sampler::new(2);
        for first in 0..8 {
            sampler.offer(1, &train(&[10 * first, 10 * first + 1]), 132, Duration::ZERO);
        }
        let kept = sampler.kept.iter().map(|sample| counter_of(&sample.message));
        let counters: Vec<u64> = kept.map(|counter| counter.expect("data")).collect();
        assert_eq!(counters, [11, 30, 51, 70]);
    }

    #[test]
    fn every_train_of_one_pair_is_sampled() {
        let mut sampler = Sampler::new(4).with_every_train_of(1);
        for pair in [0, 1, 0, 0, 0, 1, 1, 0] {
            sampler.offer(pair, &train(&[0]), 132, Duration::ZERO);
        }
        let pairs: Vec<usize> = sampler.kept.iter().map(|sample| sample.pair).collect();
        assert_eq!(pairs, [1, 0, 1, 1, 0]);
    }
}
