//! The queues of handshake messages, and whose turn it is.

use wg_bounce_dataplane::messages::HandshakeMessage;
use wg_bounce_dataplane::token_bucket::TokenBucket;
use wg_bounce_sys::clock::Millis;

use super::fair_queue::{FairQueue, Full, Waiting};
use super::under_load::UnderLoad;
use crate::limits::{
    DOUBTFUL_MAX, DOUBTFUL_PER_SOURCE_MAX, DOUBTFUL_RATE, RETURNING_MAX, RETURNING_SOURCES_MAX,
    WAITING_ALONE_MAX, WAITING_MAX,
};
use crate::source_prefix::SourcePrefix;

/// Handshake messages that the device has not seen yet.
pub(super) struct Handshakes {
    pub(super) initiations: FairQueue,
    /// Initiations whose senders have returned during a flood.
    pub(super) returning: FairQueue,
    pub(super) responses: FairQueue,
    /// Responses beyond the budget of forged ones, from the endpoint of the peer.
    doubtful_from_endpoint: FairQueue,
    /// The same, from elsewhere.
    doubtful: FairQueue,
    doubtful_rate: TokenBucket,
    pub(super) load: UnderLoad,
    /// Under load, as far as known; see `load`.
    pub(super) under_load: bool,
    /// Messages that found no place.
    pub(super) dropped: u64,
    /// Whose turn it is: of initiations, those that return, and responses.
    turn: usize,
    /// The same for doubtful responses.
    doubtful_turn: bool,
}

/// A message whose turn it is.
pub(super) struct Next {
    pub(super) message: HandshakeMessage,
    /// The time from which on it has waited.
    pub(super) since: Millis,
    /// It is an initiation whose sender must prove its address with a cookie under load.
    pub(super) is_stranger: bool,
}

impl Handshakes {
    /// Empty queues; `threads` compute what they hold.
    pub(super) fn new(threads: usize, now: Millis) -> Handshakes {
        Handshakes {
            initiations: FairQueue::new(WAITING_MAX),
            returning: FairQueue::new(RETURNING_MAX),
            responses: FairQueue::new(WAITING_MAX),
            doubtful_from_endpoint: FairQueue::new(DOUBTFUL_MAX),
            doubtful: FairQueue::new(DOUBTFUL_MAX),
            doubtful_rate: TokenBucket::full(&DOUBTFUL_RATE, now),
            load: UnderLoad::new(threads),
            under_load: false,
            dropped: 0,
            turn: 0,
            doubtful_turn: false,
        }
    }

    /// Messages that can be handled at once.
    pub(super) fn waiting(&self) -> usize {
        self.initiations.len() + self.returning.len() + self.responses.len()
    }

    /// Whether so many wait that helpers should compute.
    pub(super) fn need_help(&self) -> bool {
        self.waiting() >= WAITING_ALONE_MAX
    }

    /// Time until doubtful responses may be tried again; none if there are none.
    pub(super) fn pause(&self) -> Option<Millis> {
        let waiting = self.doubtful.len() + self.doubtful_from_endpoint.len();
        (waiting != 0).then_some(DOUBTFUL_RATE.cost)
    }

    /// Counts a message that has arrived, and whether it found a place; returns whether the memory
    /// is full.
    pub(super) fn count(&mut self, pushed: Result<(), Full>) -> bool {
        self.load.arrived();
        self.dropped += u64::from(pushed.is_err());
        pushed == Err(Full::Memory)
    }

    /// Removes the next initiation or response, in turn; no initiation of a new sender unless it
    /// `may_ask` these for a proof. Those that return may have it.
    pub(super) fn pop(&mut self, may_ask: bool) -> Option<Next> {
        self.turn = (self.turn + 1) % 3;
        let all_are_strangers = self.returns_a_flood();
        (self.turn..self.turn + 3).find_map(|number| {
            let (queue, is_stranger) = match number % 3 {
                0 if may_ask => (&mut self.initiations, true),
                0 => return None,
                1 => (&mut self.returning, all_are_strangers),
                _ => (&mut self.responses, false),
            };
            queue.pop().map(|Waiting { message, since }| Next { message, since, is_stranger })
        })
    }

    /// Whether [`Handshakes::pop`] has a message.
    pub(super) fn has_next(&self, may_ask: bool) -> bool {
        self.responses.len() + self.returning.len() != 0 || may_ask && self.waiting() != 0
    }

    /// Whether so many senders return that they are a flood as well.
    fn returns_a_flood(&self) -> bool {
        self.returning.sources() > RETURNING_SOURCES_MAX
    }

    /// Removes the next doubtful response, unless its rate forbids it.
    pub(super) fn pop_doubtful(&mut self, now: Millis) -> Option<HandshakeMessage> {
        if self.pause().is_none() || !self.doubtful_rate.try_take(&DOUBTFUL_RATE, now) {
            return None;
        }
        self.doubtful_turn = !self.doubtful_turn;
        let Handshakes { doubtful, doubtful_from_endpoint, .. } = self;
        let (first, second) = if self.doubtful_turn {
            (doubtful, doubtful_from_endpoint)
        } else {
            (doubtful_from_endpoint, doubtful)
        };
        first.pop().or_else(|| second.pop()).map(|waiting| waiting.message)
    }

    /// Queues a doubtful response; gives it back if there is no place.
    pub(super) fn push_doubtful(
        &mut self,
        message: HandshakeMessage,
        is_from_endpoint: bool,
        now: Millis,
    ) -> Option<HandshakeMessage> {
        let Handshakes { doubtful, doubtful_from_endpoint, .. } = self;
        let queue = if is_from_endpoint { doubtful_from_endpoint } else { doubtful };
        let source = SourcePrefix::of(message.from.remote.ip());
        if queue.room(source, DOUBTFUL_PER_SOURCE_MAX).is_err() {
            return Some(message);
        }
        let _is_queued = queue.push(message, DOUBTFUL_PER_SOURCE_MAX, now);
        None
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use arrayvec::ArrayVec;
    use wg_bounce_sys::Endpoint;

    use super::*;

    fn from(source: u32) -> HandshakeMessage {
        let remote = (Ipv4Addr::from_bits(source), 51820).into();
        HandshakeMessage { bytes: ArrayVec::new(), from: Endpoint { remote, source: None } }
    }

    #[test]
    fn senders_that_return_wait_for_no_stranger_and_prove_nothing() {
        let mut handshakes = Handshakes::new(1, Millis(1));
        for source in 0..1000 {
            handshakes.initiations.push(from(source), 1, Millis(1)).expect("a place");
        }
        handshakes.returning.push(from(5000), 1, Millis(1)).expect("a place");
        let first_two: Vec<Next> = (0..2).filter_map(|_| handshakes.pop(true)).collect();
        let returned = first_two.iter().find(|next| !next.is_stranger).expect("among the first");
        assert_eq!(returned.message.from, from(5000).from);
        assert!(handshakes.pop(true).expect("a stranger").is_stranger);
        assert!(handshakes.has_next(true) && !handshakes.has_next(false));
        assert!(handshakes.pop(false).is_none(), "strangers wait until they can be asked");
    }

    #[test]
    fn a_flood_that_returns_must_prove_its_addresses() {
        let mut handshakes = Handshakes::new(1, Millis(1));
        for source in 0..=RETURNING_SOURCES_MAX as u32 {
            handshakes.returning.push(from(source), 1, Millis(1)).expect("a place");
        }
        assert!(handshakes.pop(true).expect("waits").is_stranger);
        assert!(!handshakes.pop(true).expect("waits").is_stranger, "as many as need none");
    }

    #[test]
    fn peers_behind_one_address_that_return_prove_nothing() {
        let mut handshakes = Handshakes::new(1, Millis(1));
        for _ in 0..2000 {
            handshakes.returning.push(from(7), 2048, Millis(1)).expect("a place");
        }
        assert!(!handshakes.pop(true).expect("waits").is_stranger);
    }
}
