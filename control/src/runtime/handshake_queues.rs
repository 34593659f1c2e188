//! The queues of handshake messages, and whose turn it is.

use wg_bounce_dataplane::messages::HandshakeMessage;
use wg_bounce_dataplane::token_bucket::TokenBucket;
use wg_bounce_sys::clock::Millis;

use super::fair_queue::{FairQueue, Full, Waiting};
use super::under_load::UnderLoad;
use crate::limits::{
    DOUBTFUL_MAX, DOUBTFUL_PER_SOURCE_MAX, DOUBTFUL_RATE, WAITING_ALONE_MAX, WAITING_MAX,
};
use crate::source_prefix::SourcePrefix;

/// Handshake messages that the device has not seen yet.
pub(super) struct Handshakes {
    pub(super) initiations: FairQueue,
    pub(super) responses: FairQueue,
    /// Responses beyond the budget of forged ones, from the endpoint of the peer.
    doubtful_from_endpoint: FairQueue,
    /// The same, from elsewhere.
    doubtful: FairQueue,
    doubtful_rate: TokenBucket,
    pub(super) load: UnderLoad,
    /// Messages that found no place.
    pub(super) dropped: u64,
    /// Whose turn it is where two queues take turns.
    turn: bool,
}

impl Handshakes {
    /// Empty queues; `threads` compute what they hold.
    pub(super) fn new(threads: usize, now: Millis) -> Handshakes {
        Handshakes {
            initiations: FairQueue::new(WAITING_MAX),
            responses: FairQueue::new(WAITING_MAX),
            doubtful_from_endpoint: FairQueue::new(DOUBTFUL_MAX),
            doubtful: FairQueue::new(DOUBTFUL_MAX),
            doubtful_rate: TokenBucket::full(&DOUBTFUL_RATE, now),
            load: UnderLoad::new(threads),
            dropped: 0,
            turn: false,
        }
    }

    /// Messages that can be handled at once.
    pub(super) fn waiting(&self) -> usize {
        self.initiations.len() + self.responses.len()
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

    /// Removes the next initiation or response, in turn.
    pub(super) fn pop(&mut self) -> Option<Waiting> {
        self.turn = !self.turn;
        let Handshakes { initiations, responses, .. } = self;
        let (first, second) =
            if self.turn { (initiations, responses) } else { (responses, initiations) };
        first.pop().or_else(|| second.pop())
    }

    /// Removes the next doubtful response, unless its rate forbids it.
    pub(super) fn pop_doubtful(&mut self, now: Millis) -> Option<HandshakeMessage> {
        if self.pause().is_none() || !self.doubtful_rate.try_take(&DOUBTFUL_RATE, now) {
            return None;
        }
        self.turn = !self.turn;
        let Handshakes { doubtful, doubtful_from_endpoint, .. } = self;
        let (first, second) = if self.turn {
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
