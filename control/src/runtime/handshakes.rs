//! The order in which handshake messages reach the device.
//!
//! 1. Every turn empties the workers' lanes into queues that are fair to each source.
//! 2. A few messages of each kind are handled. Those that wait decide whether the daemon is under
//!    load.
//! 3. While many wait, helpers compute all responses, and messages wait for these.
//! 4. Under load, strangers must prove their address: senders of initiations that were not seen
//!    some seconds before. They wait for the thread that sends the cookies.
//! 5. Responses to an initiation that has received too many forged ones come last and at a bounded
//!    rate, those from the endpoint of the peer in turn with all others. If the endpoint is forged
//!    as well, those that find no place must prove it, so that the peer's next response is tried
//!    at once.

use std::sync::atomic::Ordering;

use wg_bounce_dataplane::messages::HandshakeMessage;
use wg_bounce_dataplane::wire;
use wg_bounce_sys::clock;

use super::handshake_queues::Next;
use super::state::Runtime;
use crate::device::{Input, Standing};
use crate::limits::{
    COOKIE_REPLIES_PER_TURN, DOUBTFUL_COOKIES_PER_TURN, MESSAGES_PER_TURN, STRANGER_WAIT_MAX,
    TRIES_PER_TURN, UNDER_LOAD_TIME,
};

impl Runtime {
    /// Handles a bounded number of handshake messages of each kind.
    pub(super) fn process_handshakes(&mut self) {
        let under_load = self.drain_handshakes();
        for _ in 0..COOKIE_REPLIES_PER_TURN {
            let Ok(message) = self.components.events.cookie_replies.try_recv() else { break };
            self.handshake(&message, false);
        }
        let (tries, start) = (self.tries(), self.micros());
        // Results from now on wake this thread.
        self.components.pool.listen();
        for _ in 0..MESSAGES_PER_TURN {
            self.continue_responses();
            if self.tries() >= tries + TRIES_PER_TURN || self.waits_for_helpers() {
                break;
            }
            let may_ask = self.may_ask_strangers();
            let Some(next) = self.handshakes.pop(may_ask) else { break };
            let Next { message, since, is_stranger } = next;
            let (now, needs_proof) = (clock::boot_time(), under_load && is_stranger);
            let wait = now.since(since);
            // A cookie must reach the sender before its next attempt. Strangers wait for each other
            // under load, which says nothing about the load.
            let is_late = match needs_proof {
                true => wait >= STRANGER_WAIT_MAX,
                false => self.handshakes.load.waited(wait, now),
            };
            if is_late {
                self.handshakes.dropped += 1;
                continue;
            }
            self.try_message(message, needs_proof);
        }
        // With the answers, which leave now.
        self.flush();
        let (took, tried) = (self.micros() - start, self.tries() - tries);
        if tried != 0 {
            self.handshakes.load.measured(took, tried);
        }
        // At least one, so that a flood of initiations does not lock them out.
        for _ in 0..TRIES_PER_TURN {
            let Some(message) = self.handshakes.pop_doubtful(clock::boot_time()) else { break };
            self.handshake(&message, under_load);
            if self.handshakes.waiting() != 0 {
                break;
            }
        }
    }

    /// Moves the workers' lanes into the queues; returns whether the daemon is under load.
    fn drain_handshakes(&mut self) -> bool {
        let per_source_max = self.handshakes.load.per_source_max();
        let now = clock::boot_time();
        let mut is_full = false;
        let lane = &self.components.events.initiations;
        // What has no place stays in the lane, and when that is full, a worker drops what comes
        // without a look at it.
        for message in lane.try_iter().take(lane.len().min(self.handshakes.initiations.places())) {
            let pushed = self.handshakes.initiations.push(message, per_source_max, now);
            is_full |= self.handshakes.count(pushed);
        }
        is_full |= self.handshakes.initiations.places() == 0;
        let lane = &self.components.events.returning;
        for message in lane.try_iter().take(lane.len()) {
            let pushed = self.handshakes.returning.push(message, per_source_max, now);
            is_full |= self.handshakes.count(pushed);
        }
        let mut cookies = DOUBTFUL_COOKIES_PER_TURN;
        for _ in 0..self.components.events.responses.len() {
            let Ok(message) = self.components.events.responses.try_recv() else { break };
            match self.components.device.standing(&message) {
                Standing::Doubtful { is_from_endpoint } => {
                    self.queue_doubtful(message, is_from_endpoint, &mut cookies);
                }
                // The device counts it.
                Standing::Unexpected => self.handshake(&message, false),
                Standing::Expected => {
                    let pushed = self.handshakes.responses.push(message, per_source_max, now);
                    is_full |= self.handshakes.count(pushed);
                }
            }
        }
        let under_load = self.handshakes.load.sample(self.handshakes.waiting(), is_full, now);
        self.handshakes.under_load = under_load;
        if under_load {
            let until = now + UNDER_LOAD_TIME;
            self.components.events.under_load_until.store(until.0, Ordering::Relaxed);
        }
        under_load
    }

    fn try_message(&mut self, message: HandshakeMessage, under_load: bool) {
        // Responses that arrived before it may have used up the budget.
        if message.bytes[0] == wire::RESPONSE
            && let Standing::Doubtful { is_from_endpoint } =
                self.components.device.standing(&message)
        {
            return self.queue_doubtful(message, is_from_endpoint, &mut 0);
        }
        self.handshake(&message, under_load);
    }

    /// Queues a response to an initiation that has received too many forged ones. One from the
    /// endpoint of the peer that finds no place must have a mac2; `cookies` of those that lack it
    /// are answered with a cookie reply.
    fn queue_doubtful(
        &mut self,
        message: HandshakeMessage,
        is_from_endpoint: bool,
        cookies: &mut usize,
    ) {
        let now = clock::boot_time();
        let Some(message) = self.handshakes.push_doubtful(message, is_from_endpoint, now) else {
            return;
        };
        if is_from_endpoint && *cookies != 0 && self.components.pool.has_room_for_cookie() {
            *cookies -= 1;
            self.handshake(&message, true);
        } else {
            self.handshakes.dropped += 1;
        }
    }

    fn handshake(&mut self, message: &HandshakeMessage, under_load: bool) {
        self.handle(Input::Handshake { message, under_load });
    }

    /// Continues the responses of which helpers have computed a step.
    fn continue_responses(&mut self) {
        while let Some(response) = self.components.pool.take() {
            self.handle(Input::Computed(response));
        }
    }

    /// Whether handshake messages wait for the helpers, whose results wake this thread.
    fn waits_for_helpers(&self) -> bool {
        self.handshakes.need_help() && !self.components.pool.has_room()
    }

    /// Whether there is room to ask strangers for a proof of their address, if they need one.
    fn may_ask_strangers(&self) -> bool {
        !self.handshakes.under_load || self.components.pool.has_room_for_cookie()
    }

    /// Whether handshake messages wait for this thread.
    pub(super) fn has_handshakes(&self) -> bool {
        let lanes = &self.components.events;
        let may_ask = self.may_ask_strangers();
        let is_queued = self.handshakes.has_next(may_ask) && !self.waits_for_helpers();
        let can_queue = !lanes.initiations.is_empty() && self.handshakes.initiations.places() != 0;
        let others = [&lanes.returning, &lanes.responses, &lanes.cookie_replies];
        is_queued || can_queue || others.iter().any(|lane| !lane.is_empty())
    }

    /// CPU time of this thread and of its helpers.
    fn micros(&self) -> u64 {
        clock::thread_micros() + self.components.pool.micros()
    }

    /// Messages that have cost a DH so far.
    fn tries(&self) -> u64 {
        self.components.device.counters().messages_tried
    }
}
