//! A WireGuard peer that the generator plays: a socket of its own, a handshake over the real
//! protocol, and the keys that it gives.

use std::fs::File;
use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
use std::io::{self, Read};
use std::net::UdpSocket;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use wg_bounce_control::noise::{Identity, Secret, SessionKeys};

use super::initiator::{Answer, INITIATION_LEN, Initiator};
use crate::failure::{Failure, while_doing};

/// Type of data messages (whitepaper, section 5.4.6).
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

    /// 32 bytes: a private key, or any public one.
    pub fn key(&mut self) -> Result<[u8; 32], Failure> {
        let mut key = [0; 32];
        self.0.read_exact(&mut key).map_err(while_doing("reading /dev/urandom"))?;
        Ok(key)
    }
}

/// A key pair, in the form that handshakes take and in that which `wg` takes.
pub struct Keys {
    /// For handshakes.
    pub identity: Identity,
    /// In base64.
    pub public: String,
    /// In base64.
    pub private: String,
}

impl Keys {
    /// A new pair.
    pub fn new(randomness: &mut Randomness) -> Result<Keys, Failure> {
        Ok(Keys::of(&randomness.key()?))
    }

    /// The pair of this private key.
    pub fn of(private: &[u8; 32]) -> Keys {
        let identity = Identity::new(private);
        let public = encode(identity.public());
        let private = encode(&identity.private());
        Keys { identity, public, private }
    }
}

/// A key as `wg` takes it.
pub fn encode(key: &[u8; 32]) -> String {
    STANDARD.encode(key)
}

/// The key that `wg` would take; none if it would not.
pub fn decode(text: &str) -> Option<[u8; 32]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

/// A session with the relay.
pub struct Session {
    sending: LessSafeKey,
    receiving: LessSafeKey,
    /// The index that the relay chose for this session.
    relay_index: u32,
}

impl Session {
    /// One whose ends use the same key: they open what they seal, without a handshake.
    pub fn shared(key: [u8; 32]) -> Session {
        let (send, receive) = (Secret::new(key), Secret::new(key));
        Session::new(&SessionKeys { send, receive, remote_index: 0x0403_0201 })
    }

    fn new(keys: &SessionKeys) -> Session {
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
    relay_public: &[u8; 32],
    index: u32,
    randomness: &mut Randomness,
) -> Result<Session, Failure> {
    socket.set_read_timeout(Some(ANSWER_LIMIT)).map_err(while_doing("setting a timeout"))?;
    let mut initiator = Initiator::new(&keys.identity, relay_public, index);
    let mut refusal = String::new();
    for _ in 0..ATTEMPTS_MAX {
        initiator.prepare(randomness)?;
        // A daemon that still opens its socket refuses; a later attempt finds it.
        let sent = socket.send(initiator.signed());
        let answer =
            sent.and_then(|_| await_answer(socket, &mut initiator)).unwrap_or_else(|why| {
                refusal = format!(" ({why})");
                None
            });
        if let Some(keys) = answer {
            let session = Session::new(&keys);
            let mut keepalive = [0; OVERHEAD];
            session.seal(0, &mut keepalive);
            socket.send(&keepalive).map_err(while_doing("sending a keepalive"))?;
            return Ok(session);
        }
    }
    Err(Failure::step(format!(
        "the relay did not answer {ATTEMPTS_MAX} handshakes of a peer{refusal}"
    )))
}

/// Waits for the response. None when it does not come, also when a cookie comes instead. An error
/// is what the network says of why there is none: nobody listens, or no way leads there.
fn await_answer(
    socket: &UdpSocket,
    initiator: &mut Initiator<'_>,
) -> io::Result<Option<SessionKeys>> {
    let mut buffer = [0; INITIATION_LEN];
    loop {
        let length = match socket.recv(&mut buffer) {
            Ok(length) => length,
            // Late, or a signal has come.
            Err(error) if matches!(error.kind(), WouldBlock | TimedOut | Interrupted) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        match initiator.read(&buffer[..length]) {
            Some(Answer::Response(response)) => {
                let keys = initiator.finish(&response);
                if keys.is_some() {
                    return Ok(keys);
                }
            }
            Some(Answer::Cookie) => return Ok(None),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_once_it_is_untouched() {
        let session = Session::shared([1; 32]);
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
