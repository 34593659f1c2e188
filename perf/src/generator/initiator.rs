//! The initiator's side of handshakes with one relay, in steps: what costs much, and is not to be
//! measured, can be done before the clock starts and after it has stopped.
//!
//! 1. [`Initiator::prepare`] makes an initiation: two DH.
//! 2. [`Initiator::signed`] writes its macs, mac2 if the relay has given a cookie.
//! 3. [`Initiator::read`] tells what came back, and takes a cookie.
//! 4. [`Initiator::finish`] derives the session from a response: two DH.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wg_bounce_control::cookie::Jar;
use wg_bounce_control::noise::{Identity, Initiated, Invitation, Secret, SessionKeys, initiate};
use wg_bounce_control::tai64n::{Timestamp, TimestampSource};

use super::peer::Randomness;
use crate::failure::Failure;

/// Message types, and bytes of the messages of a fixed length (whitepaper, section 5.4).
const RESPONSE: u8 = 2;
const COOKIE_REPLY: u8 = 3;
/// Bytes of an initiation.
pub const INITIATION_LEN: usize = 148;
/// Bytes of a response.
pub const RESPONSE_LEN: usize = 92;
const COOKIE_REPLY_LEN: usize = 64;

/// What a relay sends to an initiator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A response, not yet known to be authentic.
    Response([u8; RESPONSE_LEN]),
    /// An authentic cookie, which is kept for the next initiation.
    Cookie,
}

/// One initiator, which knows its relay.
pub struct Initiator<'a> {
    identity: &'a Identity,
    relay_public: &'a [u8; 32],
    static_static: Secret,
    jar: Jar,
    timestamps: TimestampSource,
    last: Timestamp,
    /// Its index in messages.
    index: u32,
    message: [u8; INITIATION_LEN],
    initiated: Option<Initiated>,
}

impl<'a> Initiator<'a> {
    /// One of this identity and index, with nothing prepared. Costs one DH.
    pub fn new(identity: &'a Identity, relay_public: &'a [u8; 32], index: u32) -> Initiator<'a> {
        Initiator {
            identity,
            relay_public,
            static_static: identity.static_static(relay_public).expect("both are good keys"),
            jar: Jar::new(relay_public),
            timestamps: TimestampSource::default(),
            last: Timestamp::default(),
            index,
            message: [0; INITIATION_LEN],
            initiated: None,
        }
    }

    /// Makes a new initiation, later than any before.
    pub fn prepare(&mut self, randomness: &mut Randomness) -> Result<(), Failure> {
        self.last = self.timestamps.next(wall_clock(), self.last);
        let invitation = Invitation {
            remote_static: self.relay_public,
            static_static: &self.static_static,
            ephemeral: Secret::new(randomness.key()?),
            timestamp: self.last,
            local_index: self.index,
        };
        let initiated = initiate(self.identity, &invitation, &mut self.message);
        self.initiated = Some(initiated.expect("good keys"));
        Ok(())
    }

    /// The initiation that was prepared, with what macs it can have now.
    pub fn signed(&mut self) -> &[u8; INITIATION_LEN] {
        // The time of cookies does not matter: a measurement is shorter than their lives.
        self.jar.sign(&mut self.message, Default::default());
        &self.message
    }

    /// What the relay has sent; none if that answers nothing.
    pub fn read(&mut self, message: &[u8]) -> Option<Answer> {
        match (message.first()?, message.len()) {
            (&RESPONSE, RESPONSE_LEN) => {
                Some(Answer::Response(message.try_into().expect("its length")))
            }
            (&COOKIE_REPLY, COOKIE_REPLY_LEN) => {
                let reply = message.try_into().expect("its length");
                self.jar.consume(reply, Default::default()).then_some(Answer::Cookie)
            }
            _ => None,
        }
    }

    /// The session that a response gives; none if it does not answer what was prepared last.
    pub fn finish(&self, response: &[u8; RESPONSE_LEN]) -> Option<SessionKeys> {
        self.initiated.as_ref()?.finish(self.identity, &Secret::default(), response)
    }
}

/// Since the Unix epoch.
fn wall_clock() -> Duration {
    // Handshakes carry the wall clock; nothing is measured with it.
    #[allow(clippy::disallowed_methods)]
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set")
}

#[cfg(test)]
mod tests {
    use wg_bounce_control::noise::open_initiation;

    use super::*;

    /// What the relay answers to an initiation; the timestamp in it.
    fn respond(relay: &Identity, initiation: &[u8; INITIATION_LEN]) -> ([u8; 92], Timestamp) {
        let claimed = open_initiation(relay, initiation).expect("to the relay");
        let static_static = relay.static_static(&claimed.remote_static).expect("a good key");
        let proven = claimed.prove(&static_static).expect("authentic");
        let timestamp = proven.timestamp;
        let mut response = [0; RESPONSE_LEN];
        let ephemeral = Secret::new([9; 32]);
        proven.respond(&Secret::default(), &ephemeral, 5, &mut response).expect("good keys");
        (response, timestamp)
    }

    #[test]
    fn a_response_finishes_the_last_initiation_only() {
        let (relay, peer) = (Identity::new(&[1; 32]), Identity::new(&[2; 32]));
        let mut randomness = Randomness::open().expect("every Linux has it");
        let mut initiator = Initiator::new(&peer, relay.public(), 7);
        initiator.prepare(&mut randomness).expect("randomness");
        let (response, first) = respond(&relay, initiator.signed());
        assert_eq!(initiator.read(&response), Some(Answer::Response(response)));
        assert_eq!(initiator.finish(&response).expect("authentic").remote_index, 5);
        initiator.prepare(&mut randomness).expect("randomness");
        assert!(initiator.finish(&response).is_none(), "to an earlier one");
        assert!(respond(&relay, initiator.signed()).1 > first, "timestamps grow");
    }
}
