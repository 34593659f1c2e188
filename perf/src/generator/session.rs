//! A peer's session with the relay: the handshake over a socket of its own, and data messages.

use std::io;
use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
use std::net::UdpSocket;
use std::time::Duration;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use wg_bounce_control::noise::{Secret, SessionKeys};

use super::initiator::{Answer, INITIATION_LEN, Initiator};
use super::keys::Keys;
use crate::failure::{Failure, while_doing};

/// Type of data messages (whitepaper, section 5.4.6).
const DATA: u8 = 4;

/// Bytes before the ciphertext of a data message: type, receiver's index, counter.
pub const HEADER_LEN: usize = 16;
/// Bytes of the tag after it.
pub const TAG_LEN: usize = 16;
/// Multiple to which WireGuard pads plaintexts (whitepaper, section 5.4.6).
pub const PADDING: usize = 16;

/// Bytes that a data message adds to its plaintext; also the length of a keepalive.
pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;

/// Time from an initiation to the next one if there is no answer: far longer than any daemon
/// takes, and longer than a step of the timestamps.
const ANSWER_LIMIT: Duration = Duration::from_millis(250);

/// Initiations before a handshake has failed. A daemon that limits the rate answers again within
/// a second.
const ATTEMPTS_MAX: usize = 40;

/// A session with the relay.
pub struct Session {
    sending: LessSafeKey,
    receiving: LessSafeKey,
    /// The index that the relay chose for this session.
    relay_index: u32,
}

impl Session {
    /// A session whose ends share one key, without a handshake.
    pub fn shared(key: [u8; 32]) -> Session {
        let (send, receive) = (Secret::new(key), Secret::new(key));
        Session::new(&SessionKeys { send, receive, remote_index: 0x0403_0201 })
    }

    fn new(keys: &SessionKeys) -> Session {
        let key = |secret: &Secret| {
            UnboundKey::new(&CHACHA20_POLY1305, &**secret).map(LessSafeKey::new).expect("32 bytes")
        };
        Session {
            sending: key(&keys.send),
            receiving: key(&keys.receive),
            relay_index: keys.remote_index,
        }
    }

    /// Encrypts the plaintext in `message`, which follows the header and precedes space for the
    /// tag.
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

    /// Decrypts a data message in place; its counter and plaintext, or none if it is forged.
    pub fn open<'a>(&self, message: &'a mut [u8]) -> Option<(u64, &'a [u8])> {
        let counter = counter_of(message)?;
        let ciphertext = &mut message[HEADER_LEN..];
        let plaintext =
            self.receiving.open_in_place(nonce(counter), Aad::empty(), ciphertext).ok()?;
        Some((counter, plaintext))
    }
}

/// The counter of a data message; none of other messages.
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

/// Shakes hands with the relay over a connected `socket`, with our `index`, and confirms the
/// session with a keepalive of counter 0.
pub fn connect(
    socket: &UdpSocket,
    keys: &Keys,
    relay_public: &[u8; 32],
    index: u32,
) -> Result<Session, Failure> {
    socket.set_read_timeout(Some(ANSWER_LIMIT)).map_err(while_doing("cannot set a timeout"))?;
    let mut initiator = Initiator::new(&keys.identity, relay_public, index);
    let mut refusal = String::new();
    for _ in 0..ATTEMPTS_MAX {
        match attempt(socket, &mut initiator) {
            Ok(Some(keys)) => {
                let session = Session::new(&keys);
                let mut keepalive = [0; OVERHEAD];
                session.seal(0, &mut keepalive);
                socket.send(&keepalive).map_err(while_doing("cannot send a keepalive"))?;
                return Ok(session);
            }
            Ok(None) => {}
            // Timed out, or interrupted by a signal.
            Err(error) if matches!(error.kind(), WouldBlock | TimedOut | Interrupted) => {}
            // The daemon may not have opened its socket yet; a later attempt succeeds.
            Err(error) => refusal = format!(" ({error})"),
        }
    }
    Err(Failure::step(format!(
        "the relay did not answer {ATTEMPTS_MAX} handshakes of a peer{refusal}"
    )))
}

/// Sends an initiation and waits for the response. None if a cookie arrives instead. An error is a
/// timeout, or from the network: the port is closed, or there is no route.
fn attempt(socket: &UdpSocket, initiator: &mut Initiator<'_>) -> io::Result<Option<SessionKeys>> {
    initiator.prepare();
    socket.send(initiator.signed())?;
    let mut buffer = [0; INITIATION_LEN];
    loop {
        let length = socket.recv(&mut buffer)?;
        let keys = match initiator.read(&buffer[..length]) {
            Some(Answer::Response(response)) => initiator.finish(&response),
            Some(Answer::Cookie) => return Ok(None),
            None => None,
        };
        if keys.is_some() {
            return Ok(keys);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_message_opens_if_it_is_unchanged() {
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
