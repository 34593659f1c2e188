//! The initiator's side of handshakes with one relay, in steps: what costs much, and is not to be
//! measured, can be done before the clock starts and after it has stopped.
//!
//! 1. [`Initiator::prepare`] makes an initiation: two DH.
//! 2. [`Initiator::signed`] writes its macs, mac2 if the relay has given a cookie.
//! 3. [`Initiator::read`] tells what came back, and takes a cookie.
//! 4. [`Initiator::finish`] derives the session from a response: two DH.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wg_bounce_control::cookie::CookieSigner;
use wg_bounce_control::noise::{
    Identity, Initiated, InitiationParams, Secret, SessionKeys, initiate,
};
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

/// Bits of an index that say which initiator it is; the others say which of its initiations.
const INITIATOR_BITS: u32 = 24;

/// What a relay sends to an initiator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A response to the last initiation, not yet known to be authentic.
    Response([u8; RESPONSE_LEN]),
    /// An authentic cookie, which is kept for later initiations.
    Cookie,
}

/// One initiator, which knows its relay.
pub struct Initiator<'a> {
    identity: &'a Identity,
    relay_public: &'a [u8; 32],
    static_static: Secret,
    jar: CookieSigner,
    timestamps: TimestampSource,
    last: Timestamp,
    number: u32,
    prepared: Option<Initiation>,
    /// What was signed last.
    sent: Option<Initiation>,
    initiations: u32,
}

struct Initiation {
    message: [u8; INITIATION_LEN],
    initiated: Initiated,
}

impl<'a> Initiator<'a> {
    /// Initiator number `number`, below 2^24, with nothing prepared. Costs one DH.
    pub fn new(identity: &'a Identity, relay_public: &'a [u8; 32], number: u32) -> Initiator<'a> {
        Initiator {
            identity,
            relay_public,
            static_static: identity.static_static(relay_public).expect("both are good keys"),
            jar: CookieSigner::new(relay_public),
            timestamps: TimestampSource::default(),
            last: Timestamp::default(),
            number,
            prepared: None,
            sent: None,
            initiations: 0,
        }
    }

    /// Makes a new initiation, later than any before, unless one is ready.
    pub fn prepare(&mut self, randomness: &mut Randomness) -> Result<(), Failure> {
        if self.prepared.is_some() {
            return Ok(());
        }
        self.last = self.timestamps.next(wall_clock(), self.last);
        let invitation = InitiationParams {
            remote_static: self.relay_public,
            static_static: &self.static_static,
            ephemeral: Secret::new(randomness.key()?),
            timestamp: self.last,
            local_index: self.number | self.initiations << INITIATOR_BITS,
        };
        self.initiations += 1;
        let mut message = [0; INITIATION_LEN];
        let initiated = initiate(self.identity, &invitation, &mut message).expect("good keys");
        self.prepared = Some(Initiation { message, initiated });
        Ok(())
    }

    /// The initiation that was prepared, or else the last one again, with what macs it can have
    /// now.
    pub fn signed(&mut self) -> &[u8; INITIATION_LEN] {
        if let Some(prepared) = self.prepared.take() {
            self.sent = Some(prepared);
        }
        let Initiation { message, .. } = self.sent.as_mut().expect("one was prepared");
        // The time of cookies does not matter: a measurement is shorter than their lives.
        self.jar.sign(message, Default::default());
        message
    }

    /// Gives up waiting for an answer: one that still comes is late, and none to the next
    /// initiation, which has an index of its own.
    pub fn give_up(&mut self) {
        self.sent = None;
    }

    /// Forgets the cookie, as after a restart.
    pub fn forget_cookie(&mut self) {
        self.jar = CookieSigner::new(self.relay_public);
    }

    /// What the relay has sent; none if that does not answer the last initiation.
    pub fn read(&mut self, message: &[u8]) -> Option<Answer> {
        if receiver_of(message)? != self.sent.as_ref()?.initiated.local_index {
            return None;
        }
        if let Ok(response) = message.try_into() {
            return Some(Answer::Response(response));
        }
        let reply = message.try_into().ok()?;
        self.jar.consume(reply, Default::default()).then_some(Answer::Cookie)
    }

    /// The session that a response gives; none if it does not answer the last initiation.
    pub fn finish(&self, response: &[u8; RESPONSE_LEN]) -> Option<SessionKeys> {
        self.sent.as_ref()?.initiated.finish(self.identity, &Secret::default(), response)
    }
}

/// The number of the initiator to which a message is addressed; none if it is neither a response
/// nor a cookie reply.
pub fn addressee(message: &[u8]) -> Option<u32> {
    receiver_of(message).map(|index| index & ((1 << INITIATOR_BITS) - 1))
}

/// The receiver's index in a response or a cookie reply.
fn receiver_of(message: &[u8]) -> Option<u32> {
    let index = match (message.first()?, message.len()) {
        (&RESPONSE, RESPONSE_LEN) => &message[8..12],
        (&COOKIE_REPLY, COOKIE_REPLY_LEN) => &message[4..8],
        _ => return None,
    };
    Some(u32::from_le_bytes(index.try_into().expect("four bytes")))
}

/// Since the Unix epoch.
fn wall_clock() -> Duration {
    // Handshakes carry the wall clock; nothing is measured with it.
    #[allow(clippy::disallowed_methods)]
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set")
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;
    use wg_bounce_control::cookie::{Checker, MacState};
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
        assert_eq!(addressee(&response), Some(7));
        initiator.prepare(&mut randomness).expect("randomness");
        // The next is prepared, but not sent.
        assert_eq!(initiator.read(&response), Some(Answer::Response(response)));
        assert_eq!(initiator.finish(&response).expect("authentic").remote_index, 5);
        let (next_response, second) = respond(&relay, initiator.signed());
        assert!(second > first, "timestamps grow");
        assert_eq!(addressee(&next_response), Some(7));
        assert_eq!(initiator.read(&response), None, "to an earlier one");
        assert!(initiator.finish(&response).is_none(), "to an earlier one");
    }

    #[test]
    fn who_has_given_up_takes_no_answer() {
        let (relay, peer) = (Identity::new(&[1; 32]), Identity::new(&[2; 32]));
        let mut randomness = Randomness::open().expect("every Linux has it");
        let mut initiator = Initiator::new(&peer, relay.public(), 7);
        initiator.prepare(&mut randomness).expect("randomness");
        let (late, _) = respond(&relay, initiator.signed());
        initiator.give_up();
        assert_eq!(initiator.read(&late), None, "before the next initiation");
        initiator.prepare(&mut randomness).expect("randomness");
        let (response, _) = respond(&relay, initiator.signed());
        assert_eq!(initiator.read(&late), None, "after it");
        assert_eq!(initiator.read(&response), Some(Answer::Response(response)));
        assert!(initiator.finish(&response).is_some());
    }

    #[test]
    fn with_a_cookie_the_same_initiation_proves_its_address() {
        let (relay, peer) = (Identity::new(&[1; 32]), Identity::new(&[2; 32]));
        let mut randomness = Randomness::open().expect("every Linux has it");
        let mut initiator = Initiator::new(&peer, relay.public(), 7);
        initiator.prepare(&mut randomness).expect("randomness");
        let first = *initiator.signed();
        assert_eq!(first[132..], [0; 16], "no mac2");
        let mut checker = Checker::new(relay.public());
        let (source, now) = (([192, 0, 2, 1], 1).into(), Default::default());
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let reply = checker.reply(&first, 7, source, now, &mut rng);
        assert_eq!(initiator.read(&reply), Some(Answer::Cookie));
        assert_eq!(initiator.read(&reply), None, "once");
        let second = *initiator.signed();
        assert_eq!(first[..132], second[..132]);
        let verdict = checker.judge(&second, source, true, now, &mut rng);
        assert_eq!(verdict, MacState::ValidMac1And2);
    }

    #[test]
    fn what_is_no_answer_has_no_addressee() {
        for message in [&[][..], &[2], &[3; 92], &[2; 64], &[4; 32]] {
            assert_eq!(addressee(message), None, "{message:?}");
        }
        let mut reply = [0; 64];
        (reply[0], reply[4], reply[7]) = (3, 6, 9);
        assert_eq!(addressee(&reply), Some(6));
    }
}
