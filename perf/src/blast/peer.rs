//! A WireGuard peer that the generator plays: a socket of its own, a handshake over the real
//! protocol, and the keys that it gives.

use std::fs::File;
use std::io::Read;
use std::net::UdpSocket;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use wg_bounce_control::cookie::Jar;
use wg_bounce_control::noise::{Identity, Initiated, Invitation, Secret, SessionKeys, initiate};
use wg_bounce_control::tai64n::Timestamp;

use crate::failure::{Failure, while_doing};

/// Message types, and bytes of the messages of a fixed length (whitepaper, section 5.4).
const INITIATION_LEN: usize = 148;
const RESPONSE: u8 = 2;
const RESPONSE_LEN: usize = 92;
const COOKIE_REPLY: u8 = 3;
const COOKIE_REPLY_LEN: usize = 64;
const DATA: u8 = 4;

/// Bytes before the ciphertext of a data message: type, receiver's index, counter.
pub const HEADER_LEN: usize = 16;
/// Bytes of the tag after it.
pub const TAG_LEN: usize = 16;
/// Bytes that a data message adds to its plaintext; also the length of a keepalive.
pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;

/// How long a peer waits for an answer to its initiation before it sends a new one: far longer
/// than any daemon takes, and longer than a step of the timestamps.
const ANSWER_LIMIT: Duration = Duration::from_millis(250);

/// Initiations before a handshake has failed. A daemon that limits the rate answers again within
/// a second.
const ATTEMPTS_MAX: usize = 40;

/// Random bytes for keys.
pub struct Randomness(File);

impl Randomness {
    /// The kernel's.
    pub fn open() -> Result<Randomness, Failure> {
        File::open("/dev/urandom").map(Randomness).map_err(while_doing("opening /dev/urandom"))
    }

    fn key(&mut self) -> Result<[u8; 32], Failure> {
        let mut key = [0; 32];
        self.0.read_exact(&mut key).map_err(while_doing("reading /dev/urandom"))?;
        Ok(key)
    }
}

/// A key pair, in the form that handshakes take and in that which `wg` takes.
pub struct Keys {
    identity: Identity,
    /// In base64.
    pub public: String,
    /// In base64.
    pub private: String,
}

impl Keys {
    /// A new pair.
    pub fn new(randomness: &mut Randomness) -> Result<Keys, Failure> {
        let identity = Identity::new(&randomness.key()?);
        let public = STANDARD.encode(identity.public());
        let private = STANDARD.encode(*identity.private());
        Ok(Keys { identity, public, private })
    }
}

/// A session with the relay.
pub struct Session {
    sending: LessSafeKey,
    receiving: LessSafeKey,
    /// The index that the relay chose for this session.
    relay_index: u32,
}

impl Session {
    /// Seals the plaintext that lies in `message` after the header, before room for the tag.
    pub fn seal(&self, counter: u64, message: &mut [u8]) {
        let (header, rest) = message.split_at_mut(HEADER_LEN);
        header[..4].copy_from_slice(&[DATA, 0, 0, 0]);
        header[4..8].copy_from_slice(&self.relay_index.to_le_bytes());
        header[8..].copy_from_slice(&counter.to_le_bytes());
        let (plaintext, tag) = rest.split_at_mut(rest.len() - TAG_LEN);
        let made = self
            .sending
            .seal_in_place_separate_tag(nonce(counter), Aad::empty(), plaintext)
            .expect("a packet is far below the AEAD's length limit");
        tag.copy_from_slice(made.as_ref());
    }

    /// Opens a data message in place; its counter and plaintext, or none if it is not authentic.
    pub fn open<'a>(&self, message: &'a mut [u8]) -> Option<(u64, &'a [u8])> {
        let counter = counter_of(message)?;
        let ciphertext = &mut message[HEADER_LEN..];
        let plaintext =
            self.receiving.open_in_place(nonce(counter), Aad::empty(), ciphertext).ok()?;
        Some((counter, plaintext))
    }
}

#[cfg(test)]
impl Session {
    /// One whose peer uses the same key, so that it opens what it seals.
    pub fn for_tests(key: [u8; 32]) -> Session {
        let (send, receive) = (Secret::new(key), Secret::new(key));
        session(&SessionKeys { send, receive, remote_index: 0x0403_0201 })
    }
}

/// The counter of a data message; none for anything else.
pub fn counter_of(message: &[u8]) -> Option<u64> {
    let (header, _) = message.split_first_chunk::<HEADER_LEN>()?;
    let is_data = header[..4] == [DATA, 0, 0, 0] && message.len() >= OVERHEAD;
    is_data.then(|| u64::from_le_bytes(header[8..].try_into().expect("eight bytes")))
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// Shakes hands with the relay over `socket`, which is connected with it, and confirms the
/// session with a keepalive of counter 0. Our index is `index`.
pub fn connect(
    socket: &UdpSocket,
    keys: &Keys,
    relay: &Keys,
    index: u32,
    randomness: &mut Randomness,
) -> Result<Session, Failure> {
    socket.set_read_timeout(Some(ANSWER_LIMIT)).map_err(while_doing("setting a timeout"))?;
    let identity = &keys.identity;
    let remote_static = relay.identity.public();
    let static_static = identity.static_static(remote_static).expect("both are good keys");
    let mut jar = Jar::new(remote_static);
    for _ in 0..ATTEMPTS_MAX {
        let invitation = Invitation {
            remote_static,
            static_static: &static_static,
            ephemeral: Secret::new(randomness.key()?),
            timestamp: Timestamp::whitened(wall_clock()),
            local_index: index,
        };
        let mut message = [0; INITIATION_LEN];
        let initiated = initiate(identity, &invitation, &mut message).expect("good keys");
        // The time of cookies does not matter: they outlive the set-up by far.
        jar.sign(&mut message, Default::default());
        // A daemon that still opens its socket refuses; a later attempt finds it.
        if socket.send(&message).is_ok()
            && let Some(keys) = await_answer(socket, &initiated, identity, &mut jar)
        {
            let session = session(&keys);
            let mut keepalive = [0; OVERHEAD];
            session.seal(0, &mut keepalive);
            socket.send(&keepalive).map_err(while_doing("sending a keepalive"))?;
            return Ok(session);
        }
    }
    Err(Failure::step(format!("the relay did not answer {ATTEMPTS_MAX} handshakes of a peer")))
}

/// Waits for the response. None when it does not come, also when a cookie comes instead.
fn await_answer(
    socket: &UdpSocket,
    initiated: &Initiated,
    identity: &Identity,
    jar: &mut Jar,
) -> Option<SessionKeys> {
    let mut buffer = [0; INITIATION_LEN];
    while let Ok(length) = socket.recv(&mut buffer) {
        match (buffer[0], length) {
            (RESPONSE, RESPONSE_LEN) => {
                let response = buffer.first_chunk().expect("it is longer");
                let keys = initiated.finish(identity, &Secret::default(), response);
                if keys.is_some() {
                    return keys;
                }
            }
            (COOKIE_REPLY, COOKIE_REPLY_LEN) => {
                jar.consume(buffer.first_chunk().expect("it is longer"), Default::default());
                return None;
            }
            _ => {}
        }
    }
    None
}

fn session(keys: &SessionKeys) -> Session {
    let key = |secret: &Secret| {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &**secret).expect("32 bytes");
        LessSafeKey::new(key)
    };
    Session {
        sending: key(&keys.send),
        receiving: key(&keys.receive),
        relay_index: keys.remote_index,
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
    use super::*;

    #[test]
    fn what_is_sealed_opens_once_it_is_untouched() {
        let session = Session::for_tests([1; 32]);
        let mut message = vec![7; OVERHEAD + 64];
        session.seal(9, &mut message);
        assert_eq!(message[..8], [4, 0, 0, 0, 1, 2, 3, 4]);
        assert_eq!(counter_of(&message), Some(9));
        let mut copy = message.clone();
        assert_eq!(session.open(&mut copy), Some((9, &[7; 64][..])));
        message[40] ^= 1;
        assert_eq!(session.open(&mut message), None);
    }

    #[test]
    fn only_data_has_a_counter() {
        assert_eq!(counter_of(&[4; 32]), None, "reserved bytes are zero");
        assert_eq!(counter_of(&[4, 0, 0, 0, 0, 0, 0, 0]), None);
        let mut message = [0; 148];
        message[0] = 1;
        assert_eq!(counter_of(&message), None);
    }
}
