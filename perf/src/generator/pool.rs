//! Messages that are sealed before the clock starts.
//!
//! Counters cannot be reused, so a pool can be sent only once. It is a ring of trains: those that
//! have been sent are replaced, with new counters, while the relay's clock is stopped.

use std::time::Duration;

use super::packet::Flow;
use super::plan::GroupPlan;
use super::session::{HEADER_LEN, OVERHEAD, PADDING, Session, TAG_LEN};

/// Messages of a pool at most, however small they are: sealing them takes a while.
const MESSAGES_MAX: usize = 1_000_000;

/// The same for a direct path, whose rate is low.
const DIRECT_MESSAGES_MAX: usize = 100_000;

/// Sealed trains, those of different senders interleaved round robin.
///
/// Train `n` belongs to sender `n` modulo their number, and lies in slot `n` modulo the capacity.
pub struct Pool {
    /// Flow and session of each sender. Counter 0 has confirmed the session.
    sources: Vec<(Flow, Session)>,
    /// Messages of each train.
    pub train: usize,
    /// Bytes of each message: a packet with its padding, sealed.
    pub message_len: usize,
    bytes: Vec<u8>,
    /// When the train in each slot was sent.
    sent_at: Vec<Duration>,
    /// Trains sealed, and trains sent, from the beginning.
    sealed: usize,
    sent: usize,
    /// Routers on the path.
    hops: u8,
}

impl Pool {
    /// An empty pool for a group, whose packets pass one router unless the path `is_direct`.
    pub fn new(
        sources: Vec<(Flow, Session)>,
        plan: &GroupPlan,
        is_padded: bool,
        is_direct: bool,
    ) -> Pool {
        let (train, size) = (plan.train, plan.size);
        let message_len = OVERHEAD + if is_padded { size.next_multiple_of(PADDING) } else { size };
        let most = if is_direct { DIRECT_MESSAGES_MAX } else { MESSAGES_MAX };
        let trains = ((plan.pool / message_len).min(most) / train).max(2 * sources.len());
        let bytes = vec![0; trains * train * message_len];
        let sent_at = vec![Duration::ZERO; trains];
        let hops = u8::from(!is_direct);
        Pool { sources, train, message_len, bytes, sent_at, sealed: 0, sent: 0, hops }
    }

    /// Seals until the pool is full.
    pub fn refill(&mut self) {
        let length = self.train * self.message_len;
        while self.sealed - self.sent < self.sent_at.len() {
            let (flow, session) = &self.sources[self.sealed % self.sources.len()];
            let first = self.sealed / self.sources.len() * self.train;
            let train = &mut self.bytes[self.sealed % self.sent_at.len() * length..][..length];
            for (message, number) in train.chunks_exact_mut(self.message_len).zip(first as u64..) {
                let sequence = u32::try_from(number).expect("a run is far below 2^32 packets");
                let plaintext = &mut message[HEADER_LEN..self.message_len - TAG_LEN];
                let (packet, padding) = plaintext.split_at_mut(flow.size());
                flow.write(sequence, packet);
                padding.fill(0);
                session.seal(1 + number, message);
            }
            self.sealed += 1;
        }
    }

    /// Takes the next train, to be sent `now`: its sender and bytes. None if the pool is empty.
    pub fn take(&mut self, now: Duration) -> Option<(usize, &[u8])> {
        if self.sent == self.sealed {
            return None;
        }
        let (slot, sender) = (self.sent % self.sent_at.len(), self.sent % self.sources.len());
        self.sent += 1;
        self.sent_at[slot] = now;
        let length = self.train * self.message_len;
        Some((sender, &self.bytes[slot * length..][..length]))
    }

    /// Checks a packet of `sender` that has arrived. Returns its sequence number and the time it
    /// was sent, or what is wrong with it. Only packets since the last refill are known.
    pub fn check_arrived(
        &self,
        sender: usize,
        plaintext: &[u8],
    ) -> Result<(u32, Duration), String> {
        let sequence = self.sources[sender].0.check_arrived(plaintext, self.hops)?;
        let train = sequence as usize / self.train * self.sources.len() + sender;
        if train >= self.sent {
            return Err(format!("packet {sequence} has not been sent yet"));
        }
        Ok((sequence, self.sent_at[train % self.sent_at.len()]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::network::Path;
    use super::super::packet::Kind;
    use super::*;

    fn pool(senders: u8, train: usize, is_padded: bool) -> Pool {
        let source = |number| {
            let (from, to) = ([10, 80, 0, number].into(), [10, 96, 0, number].into());
            (Flow::new(Kind::Udp, from, to, 100), Session::shared([number; 32]))
        };
        let pairs = usize::from(senders);
        let plan = GroupPlan { pairs, path: Path::Receivers, size: 100, train, pool: 10_000 };
        Pool::new((0..senders).map(source).collect(), &plan, is_padded, false)
    }

    #[test]
    fn trains_take_turns_and_counters_follow_each_other() {
        let mut pool = pool(3, 4, true);
        let mut next = [1; 3];
        let mut turn = 0;
        // Twice around the ring and more.
        for _ in 0..5 {
            pool.refill();
            for _ in 0..pool.sent_at.len() {
                let message_len = pool.message_len;
                let (sender, train) = pool.take(Duration::ZERO).expect("it is full");
                assert_eq!(sender, turn % 3);
                turn += 1;
                for message in train.chunks(message_len) {
                    let mut message = message.to_vec();
                    let session = Session::shared([sender as u8; 32]);
                    let (counter, plaintext) = session.open(&mut message).expect("authentic");
                    assert_eq!((counter, plaintext.len()), (next[sender], 112));
                    next[sender] += 1;
                }
            }
            assert!(pool.take(Duration::ZERO).is_none());
        }
    }

    #[test]
    fn an_arrived_packet_has_the_time_it_was_sent() {
        let mut pool = pool(2, 4, false);
        assert_eq!(pool.message_len, 132, "not padded");
        pool.refill();
        let flow = Flow::new(Kind::Udp, [10, 80, 0, 1].into(), [10, 96, 0, 1].into(), 100);
        let mut packet = vec![0; 100];
        flow.write(6, &mut packet);
        packet[8] -= 1; // one hop
        packet[10] += 1; // and the checksum over it (RFC 1141)
        assert!(pool.check_arrived(1, &packet).is_err(), "not sent yet");
        for millis in 0..4 {
            pool.take(Duration::from_millis(millis)).expect("it is full");
        }
        // Packet 6 of the second sender is in its second train, the fourth of all.
        assert_eq!(pool.check_arrived(1, &packet), Ok((6, Duration::from_millis(3))));
        assert!(pool.check_arrived(0, &packet).is_err(), "another sender's");
    }
}
