//! A WireGuard peer played by the test: a real UDP socket and a real handshake with the daemon,
//! but any plaintext. It sees what arrives byte for byte.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg, setsockopt, sockopt};
use wg_bounce_aead::{Aead, Key, Open, Seal};
use wg_bounce_control::cookie::CookieSigner;
use wg_bounce_control::noise::{Identity, InitiationParams, Secret, initiate, open_initiation};
use wg_bounce_control::tai64n::Timestamp;
use wg_bounce_dataplane::wire::{
    DATA_HEADER_LEN, DATA_OVERHEAD, DataHeader, INITIATION_LEN, Kind, RESPONSE_LEN, TAG_LEN,
    classify, write_data_header,
};
use wg_bounce_sys::clock::Millis;

use super::keys::{KeyPair, random_bytes};
use super::lab::Namespace;
use super::wait::seconds;

/// Room for all that a test lets wait in a socket (bytes).
const RECEIVE_BUFFER: usize = 64 << 20;
/// How long anything may take that must come.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest train that the kernel takes at once (segments, bytes).
const TRAIN_SEGMENTS_MAX: usize = 64;
const TRAIN_BYTES_MAX: usize = 65_000;

/// The keys of one finished handshake.
struct Session {
    local_index: u32,
    remote_index: u32,
    send: Key,
    receive: Key,
    counter: u64,
}

/// A peer of a hub.
pub struct Player {
    /// Its keys.
    pub key: KeyPair,
    socket: UdpSocket,
    hub: SocketAddr,
    hub_key: [u8; 32],
    identity: Identity,
    /// Plaintexts are sent in the last one.
    sessions: Vec<Session>,
    handshakes: u32,
    /// Plaintexts that arrived while something else was awaited.
    waiting: VecDeque<Vec<u8>>,
}

impl Player {
    /// A peer at `local` in `namespace`, which has not spoken yet.
    #[track_caller]
    pub fn new(namespace: &Namespace, local: &str, hub: SocketAddr, hub_key: &KeyPair) -> Player {
        let socket = namespace.udp_socket(local);
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).expect("root may");
        socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
        let key = KeyPair::new();
        Player {
            identity: Identity::new(&key.private_bytes()),
            key,
            socket,
            hub,
            hub_key: hub_key.public_bytes,
            sessions: Vec::new(),
            handshakes: 0,
            waiting: VecDeque::new(),
        }
    }

    /// Where it can be reached.
    pub fn endpoint(&self) -> SocketAddr {
        self.socket.local_addr().expect("it is bound")
    }

    /// Shakes hands with the hub, and confirms the session with a keepalive. An initiation may be
    /// lost, as when the hub has not noticed yet that its interface is up: another follows.
    #[track_caller]
    pub fn connect(&mut self) {
        self.socket.set_read_timeout(Some(seconds(1))).expect("not zero");
        let is_connected = (0..10).any(|_| self.try_connect());
        assert!(is_connected, "no response to ten initiations");
        self.socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
        self.send_exactly(&[]);
    }

    /// Sends one initiation; tells whether its response has come.
    fn try_connect(&mut self) -> bool {
        let mut message = [0; INITIATION_LEN];
        let timestamp = self.timestamp();
        let invitation = InitiationParams {
            remote_static: &self.hub_key,
            static_static: &self.static_static(),
            ephemeral: Secret::new(random_bytes()),
            timestamp,
            local_index: self.handshakes,
        };
        let initiated = initiate(&self.identity, &invitation, &mut message).expect("a good key");
        let mut jar = CookieSigner::new(&self.hub_key);
        jar.sign(&mut message, Millis(1));
        self.send_raw(&message);
        let keys = loop {
            let Some(datagram) = self.wait_for_datagram() else { return false };
            let Ok(response) = <&[u8; RESPONSE_LEN]>::try_from(&datagram[..]) else { continue };
            if classify(response) == Some(Kind::Response(initiated.local_index)) {
                let psk = Secret::default();
                break initiated.finish(&self.identity, &psk, response).expect("authentic");
            }
        };
        self.sessions.push(Session {
            local_index: initiated.local_index,
            remote_index: keys.remote_index,
            send: Key::new(&keys.send),
            receive: Key::new(&keys.receive),
            counter: 0,
        });
        true
    }

    /// Sends one packet, padded with zeros to a multiple of 16 bytes.
    pub fn send(&mut self, packet: &[u8]) {
        let mut padded = packet.to_vec();
        padded.resize(packet.len().next_multiple_of(16), 0);
        self.send_exactly(&padded);
    }

    /// Sends this plaintext as it is; empty: a keepalive.
    pub fn send_exactly(&mut self, plaintext: &[u8]) {
        let message = self.seal(plaintext);
        self.send_raw(&message);
    }

    /// Sends these plaintexts, all as long as the first but the last of each train, which may be
    /// shorter, as trains that the kernel takes and delivers whole (UDP_SEGMENT).
    #[track_caller]
    pub fn send_train(&mut self, plaintexts: &[Vec<u8>]) {
        let Some(first) = plaintexts.first() else { return };
        let segment = (first.len() + DATA_OVERHEAD) as u16;
        let count = TRAIN_SEGMENTS_MAX.min(TRAIN_BYTES_MAX / usize::from(segment));
        let to = SockaddrStorage::from(self.hub);
        for train in plaintexts.chunks(count) {
            let messages: Vec<_> = train.iter().map(|text| self.seal(text)).collect();
            let parts: Vec<_> = messages.iter().map(|message| IoSlice::new(message)).collect();
            let cut = [ControlMessage::UdpGsoSegments(&segment)];
            let flags = MsgFlags::empty();
            sendmsg(self.socket.as_raw_fd(), &parts, &cut, flags, Some(&to)).expect("it is taken");
        }
    }

    /// The next message of the session, with this plaintext.
    pub fn seal(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let session = self.sessions.last_mut().expect("hands were shaken");
        let mut message = vec![0; plaintext.len() + DATA_OVERHEAD];
        let counter = session.counter;
        session.counter += 1;
        let header = DataHeader { receiver: session.remote_index, counter };
        write_data_header(&mut message, header);
        message[DATA_HEADER_LEN..][..plaintext.len()].copy_from_slice(plaintext);
        Aead::best().seal(&mut [Seal { key: &session.send, counter, message: &mut message }]);
        message
    }

    /// Sends a datagram as it is.
    pub fn send_raw(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.hub).expect("the link has room");
    }

    /// The next plaintext from the hub with its padding; keepalives are passed over, and the
    /// hub's own handshakes answered. Panics after ten seconds.
    #[track_caller]
    pub fn receive(&mut self) -> Vec<u8> {
        loop {
            if let Some(plaintext) = self.waiting.pop_front() {
                return plaintext;
            }
            let datagram = self.wait_for_datagram();
            self.take(datagram.expect("something arrives within ten seconds"));
        }
    }

    /// The next datagram; none within the socket's patience.
    fn wait_for_datagram(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 65_536];
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(length) => {
                    buffer.truncate(length);
                    return Some(buffer);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => panic!("the socket fails: {error}"),
            }
        }
    }

    fn take(&mut self, mut datagram: Vec<u8>) {
        match classify(&datagram) {
            Some(Kind::Data(header)) => {
                let session = self.sessions.iter().find(|one| one.local_index == header.receiver);
                let session = session.expect("the hub uses an index of ours");
                let (key, counter) = (&session.receive, header.counter);
                let mut batch = [Open { key, counter, message: &mut datagram, authentic: false }];
                Aead::best().open(&mut batch);
                assert!(batch[0].authentic, "message {counter} is sealed with the session's key");
                let plaintext = &datagram[DATA_HEADER_LEN..datagram.len() - TAG_LEN];
                if !plaintext.is_empty() && !is_membership_report(plaintext) {
                    self.waiting.push_back(plaintext.to_vec());
                }
            }
            Some(Kind::Initiation) => {
                let message: &[u8; INITIATION_LEN] = datagram[..].try_into().expect("classified");
                self.respond(message);
            }
            other => panic!("the hub sends {other:?}"),
        }
    }

    /// Answers the hub's initiation; the new session is used at once.
    fn respond(&mut self, message: &[u8; INITIATION_LEN]) {
        let claimed = open_initiation(&self.identity, message).expect("it is for us");
        assert_eq!(claimed.remote_static, self.hub_key);
        let proven = claimed.prove(&self.static_static()).expect("the hub's own");
        self.handshakes += 1;
        let (mut response, local_index) = ([0; RESPONSE_LEN], self.handshakes);
        let ephemeral = Secret::new(random_bytes());
        let keys = proven
            .respond(&Secret::default(), &ephemeral, local_index, &mut response)
            .expect("good keys");
        CookieSigner::new(&self.hub_key).sign(&mut response, Millis(1));
        self.sessions.push(Session {
            local_index,
            remote_index: keys.remote_index,
            send: Key::new(&keys.send),
            receive: Key::new(&keys.receive),
            counter: 0,
        });
        self.send_raw(&response);
    }

    fn static_static(&self) -> Secret {
        self.identity.static_static(&self.hub_key).expect("the hub's key is a good one")
    }

    /// Grows with each handshake: all that a responder asks for.
    fn timestamp(&mut self) -> Timestamp {
        self.handshakes += 1;
        let mut timestamp = Timestamp::default();
        timestamp.0[..4].copy_from_slice(&self.handshakes.to_be_bytes());
        timestamp
    }
}

/// The hub's kernel tells of its multicast groups when its interface comes up (RFC 3810 §5.2: to
/// ff02::16); whoever owns that address hears it.
fn is_membership_report(plaintext: &[u8]) -> bool {
    plaintext[0] >> 4 == 6
        && plaintext.get(24..40) == Some(&[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x16])
}
