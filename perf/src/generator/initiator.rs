//! The initiator's side of handshakes with one relay, in steps: the expensive ones can run before
//! the clock starts and after it has stopped.
//!
//! 1. [`Initiator::prepare`] creates an initiation: two DH.
//! 2. [`Initiator::signed`] writes its macs, with mac2 if the relay has sent a cookie.
//! 3. [`Initiator::read`] reads an answer, and keeps a cookie.
//! 4. [`Initiator::finish`] derives the session from a response: two DH.

use std::time::{SystemTime, UNIX_EPOCH};

use wg_bounce_control::cookie::CookieSigner;
use wg_bounce_control::noise::{
    Identity, Initiated, InitiationParams, Secret, SessionKeys, initiate,
};
use wg_bounce_control::tai64n::Timestamp;

use super::keys::random_key;

/// Message types, and bytes of the messages of a fixed length (whitepaper, section 5.4).
const RESPONSE: u8 = 2;
const COOKIE_REPLY: u8 = 3;
/// Bytes of an initiation.
pub const INITIATION_LEN: usize = 148;
/// Bytes of a response.
pub const RESPONSE_LEN: usize = 92;
const COOKIE_REPLY_LEN: usize = 64;

/// Bits of an index that hold the initiator's number; the others count its initiations.
const INITIATOR_BITS: u32 = 24;

/// An answer to an initiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A response to the last initiation, not yet authenticated.
    Response([u8; RESPONSE_LEN]),
    /// An authentic cookie, kept for later initiations.
    Cookie,
}

/// An initiator with its relay.
pub struct Initiator<'a> {
    identity: &'a Identity,
    relay_public: &'a [u8; 32],
    static_static: Secret,
    jar: CookieSigner,
    last: Timestamp,
    number: u32,
    prepared: Option<Initiation>,
    /// The initiation signed last.
    sent: Option<Initiation>,
    initiations: u32,
}

type Initiation = ([u8; INITIATION_LEN], Initiated);

impl<'a> Initiator<'a> {
    /// Initiator number `number`, below 2^24, with nothing prepared. Costs one DH.
    pub fn new(identity: &'a Identity, relay_public: &'a [u8; 32], number: u32) -> Initiator<'a> {
        Initiator {
            identity,
            relay_public,
            static_static: identity.static_static(relay_public).expect("both are good keys"),
            jar: CookieSigner::new(relay_public),
            last: Timestamp::default(),
            number,
            prepared: None,
            sent: None,
            initiations: 0,
        }
    }

    /// Creates a new initiation, with a later timestamp than any before, unless one is prepared.
    pub fn prepare(&mut self) {
        if self.prepared.is_some() {
            return;
        }
        // Handshakes carry wall-clock time; measurements do not use it.
        #[allow(clippy::disallowed_methods)]
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set");
        self.last = self.last.next(now);
        let invitation = InitiationParams {
            remote_static: self.relay_public,
            static_static: &self.static_static,
            ephemeral: &Secret::new(random_key()),
            timestamp: self.last,
            local_index: self.number | self.initiations << INITIATOR_BITS,
        };
        self.initiations += 1;
        let mut message = [0; INITIATION_LEN];
        let initiated = initiate(self.identity, &invitation, &mut message).expect("good keys");
        self.prepared = Some((message, initiated));
    }

    /// The prepared initiation, or else the last one again, with mac1, and mac2 if there is a
    /// cookie.
    pub fn signed(&mut self) -> &[u8; INITIATION_LEN] {
        self.sent = self.prepared.take().or(self.sent.take());
        let (message, _) = self.sent.as_mut().expect("one was prepared");
        // Time does not matter: a measurement is shorter than the lifetime of a cookie.
        self.jar.sign(message, Default::default());
        message
    }

    /// Gives up the pending initiation: a late answer does not match the next one, which has an
    /// index of its own.
    pub fn give_up(&mut self) {
        self.sent = None;
    }

    /// Forgets the cookie, as after a restart.
    pub fn forget_cookie(&mut self) {
        self.jar = CookieSigner::new(self.relay_public);
    }

    /// Reads a message; none if it does not answer the last initiation.
    pub fn read(&mut self, message: &[u8]) -> Option<Answer> {
        if receiver_of(message)? != self.sent.as_ref()?.1.local_index {
            return None;
        }
        if let Ok(response) = message.try_into() {
            return Some(Answer::Response(response));
        }
        let reply = message.try_into().ok()?;
        self.jar.consume(reply, Default::default()).then_some(Answer::Cookie)
    }

    /// Derives the session from a response; none if it does not answer the last initiation.
    pub fn finish(&self, response: &[u8; RESPONSE_LEN]) -> Option<SessionKeys> {
        self.sent.as_ref()?.1.finish(self.identity, &Secret::default(), response)
    }
}

/// The number of the initiator to which a response or a cookie reply is addressed; none for other
/// messages.
pub fn addressee(message: &[u8]) -> Option<u32> {
    receiver_of(message).map(|index| index & ((1 << INITIATOR_BITS) - 1))
}

/// The receiver index in a response or a cookie reply.
fn receiver_of(message: &[u8]) -> Option<u32> {
    let index = match (message.first()?, message.len()) {
        (&RESPONSE, RESPONSE_LEN) => &message[8..12],
        (&COOKIE_REPLY, COOKIE_REPLY_LEN) => &message[4..8],
        _ => return None,
    };
    Some(u32::from_le_bytes(index.try_into().expect("four bytes")))
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;
    use wg_bounce_control::cookie::{Checker, MacState};
    use wg_bounce_control::noise::open_initiation;

    use super::*;

    /// The relay's response to an initiation, and the initiation's timestamp.
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
        let mut initiator = Initiator::new(&peer, relay.public(), 7);
        initiator.prepare();
        let (response, first) = respond(&relay, initiator.signed());
        assert_eq!(addressee(&response), Some(7));
        initiator.prepare();
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
    fn an_initiation_that_was_given_up_takes_no_answer() {
        let (relay, peer) = (Identity::new(&[1; 32]), Identity::new(&[2; 32]));
        let mut initiator = Initiator::new(&peer, relay.public(), 7);
        initiator.prepare();
        let (late, _) = respond(&relay, initiator.signed());
        initiator.give_up();
        assert_eq!(initiator.read(&late), None, "before the next initiation");
        initiator.prepare();
        let (response, _) = respond(&relay, initiator.signed());
        assert_eq!(initiator.read(&late), None, "after it");
        assert_eq!(initiator.read(&response), Some(Answer::Response(response)));
        assert!(initiator.finish(&response).is_some());
    }

    #[test]
    fn with_a_cookie_the_same_initiation_proves_its_address() {
        let (relay, peer) = (Identity::new(&[1; 32]), Identity::new(&[2; 32]));
        let mut initiator = Initiator::new(&peer, relay.public(), 7);
        initiator.prepare();
        let first = *initiator.signed();
        assert_eq!(first[132..], [0; 16], "no mac2");
        let mut checker = Checker::new(relay.public());
        let (source, now) = (([192, 0, 2, 1], 1).into(), Default::default());
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let reply = checker.reply(&first, source, now, &mut rng).seal(&mut rng);
        assert_eq!(initiator.read(&reply), Some(Answer::Cookie));
        assert_eq!(initiator.read(&reply), None, "once");
        let second = *initiator.signed();
        assert_eq!(first[..132], second[..132]);
        let verdict = checker.judge(&second, source, true, now, &mut rng);
        assert_eq!(verdict, MacState::ValidMac1And2);
    }

    #[test]
    fn only_answers_have_an_addressee() {
        for message in [&[][..], &[2], &[3; 92], &[2; 64], &[4; 32]] {
            assert_eq!(addressee(message), None, "{message:?}");
        }
        let mut reply = [0; 64];
        (reply[0], reply[4], reply[7]) = (3, 6, 9);
        assert_eq!(addressee(&reply), Some(6));
    }
}
