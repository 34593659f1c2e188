//! A WireGuard peer that the test controls: real handshakes over a real UDP socket, but arbitrary
//! plaintexts, and access to every received byte.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use wg_bounce_aead::{Aead, Key, Open, Seal};
use wg_bounce_control::cookie::CookieSigner;
use wg_bounce_control::noise::{
    Identity, Initiated, InitiationParams, Secret, SessionKeys, initiate, open_initiation,
};
use wg_bounce_control::tai64n::Timestamp;
use wg_bounce_dataplane::wire::{
    DATA_HEADER_LEN, DATA_OVERHEAD, DataHeader, INITIATION_LEN, Kind, RESPONSE_LEN, TAG_LEN,
    classify, write_data_header,
};
use wg_bounce_sys::clock::Millis;

use super::flood::send_segments;
use super::keys::{KeyPair, random_bytes};
use super::lab::Namespace;
use super::wait::seconds;

/// Receive buffer of the socket (bytes); holds everything a test leaves unread.
const RECEIVE_BUFFER: usize = 64 << 20;
/// Timeout for an expected datagram.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest train that the kernel accepts in one call (segments, bytes).
const TRAIN_SEGMENTS_MAX: usize = 64;
const TRAIN_BYTES_MAX: usize = 65_000;

/// The keys of a completed handshake.
struct Session {
    local_index: u32,
    remote_index: u32,
    send: Key,
    receive: Key,
    counter: u64,
}

/// A peer of a hub.
pub struct FakePeer {
    /// Its key pair.
    pub key: KeyPair,
    socket: UdpSocket,
    hub: SocketAddr,
    hub_key: [u8; 32],
    identity: Identity,
    /// The last one is used for sending.
    sessions: Vec<Session>,
    handshakes: u32,
    /// The sender of the last datagram.
    last_from: Cell<Option<SocketAddr>>,
    /// Plaintexts received but not yet returned by `receive`.
    waiting: VecDeque<Vec<u8>>,
    /// Where datagrams arrive.
    buffer: Box<[u8]>,
}

impl FakePeer {
    /// A peer at `local` in `namespace`, without a session.
    #[track_caller]
    pub fn new(namespace: &Namespace, local: &str, hub: SocketAddr, hub_key: &KeyPair) -> FakePeer {
        let socket = namespace.udp_socket(local);
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).expect("root may");
        socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
        let key = KeyPair::new();
        FakePeer {
            identity: Identity::new(&key.private_bytes()),
            key,
            socket,
            hub,
            hub_key: hub_key.public_bytes,
            sessions: Vec::new(),
            handshakes: 0,
            last_from: Cell::new(None),
            waiting: VecDeque::new(),
            buffer: vec![0; 65_536].into(),
        }
    }

    /// The address of its socket.
    pub fn endpoint(&self) -> SocketAddr {
        self.socket.local_addr().expect("it is bound")
    }

    /// The sender of the last datagram that was received.
    #[track_caller]
    pub fn last_from(&self) -> SocketAddr {
        self.last_from.get().expect("something was received")
    }

    /// Completes a handshake with the hub and confirms the session with a keepalive. Retries, since
    /// the hub may not have noticed yet that its interface is up.
    #[track_caller]
    pub fn connect(&mut self) {
        self.socket.set_read_timeout(Some(seconds(1))).expect("not zero");
        let is_connected = (0..10).any(|_| self.try_connect());
        assert!(is_connected, "no response to ten initiations");
        self.socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
        self.send_exactly(&[]);
    }

    /// Sends one initiation; returns whether its response arrived within `limit`.
    pub fn connects_within(&mut self, limit: Duration) -> bool {
        self.socket.set_read_timeout(Some(limit)).expect("not zero");
        let is_connected = self.try_connect();
        self.socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
        is_connected
    }

    /// Sets its clock back by one second for each of its last `seconds` initiations.
    pub fn set_clock_back(&mut self, seconds: u32) {
        self.handshakes -= seconds.min(self.handshakes);
    }

    /// The next initiation from the hub, which [`FakePeer::respond`] may answer.
    #[track_caller]
    pub fn initiation(&mut self) -> [u8; INITIATION_LEN] {
        loop {
            let datagram = self.wait_for_datagram().expect("a datagram within ten seconds");
            if let (Some(Kind::Initiation), Ok(message)) =
                (classify(&datagram), datagram[..].try_into())
            {
                return message;
            }
        }
    }

    /// Sends one initiation, and does not wait for its response.
    pub fn initiate(&mut self) -> Initiated {
        let mut message = [0; INITIATION_LEN];
        let timestamp = self.timestamp();
        let invitation = InitiationParams {
            remote_static: &self.hub_key,
            static_static: &self.static_static(),
            ephemeral: &Secret::new(random_bytes()),
            timestamp,
            local_index: self.handshakes,
        };
        let initiated = initiate(&self.identity, &invitation, &mut message).expect("a good key");
        let mut jar = CookieSigner::new(&self.hub_key);
        jar.sign(&mut message, Millis(1));
        self.send_raw(&message);
        initiated
    }

    /// Sends one initiation; returns whether its response arrived.
    fn try_connect(&mut self) -> bool {
        let initiated = self.initiate();
        let keys = loop {
            let Some(datagram) = self.wait_for_datagram() else { return false };
            let Ok(response) = <&[u8; RESPONSE_LEN]>::try_from(&datagram[..]) else { continue };
            if classify(response) == Some(Kind::Response(initiated.local_index)) {
                let psk = Secret::default();
                break initiated.finish(&self.identity, &psk, response).expect("authentic");
            }
        };
        self.add_session(initiated.local_index, &keys);
        true
    }

    fn add_session(&mut self, local_index: u32, keys: &SessionKeys) {
        self.sessions.push(Session {
            local_index,
            remote_index: keys.remote_index,
            send: Key::new(&keys.send),
            receive: Key::new(&keys.receive),
            counter: 0,
        });
    }

    /// Sends one packet, padded with zeros to a multiple of 16 bytes.
    pub fn send(&mut self, packet: &[u8]) {
        let mut padded = packet.to_vec();
        padded.resize(packet.len().next_multiple_of(16), 0);
        self.send_exactly(&padded);
    }

    /// Sends this plaintext unpadded; an empty one is a keepalive.
    pub fn send_exactly(&mut self, plaintext: &[u8]) {
        let message = self.seal(plaintext);
        self.send_raw(&message);
    }

    /// Sends these plaintexts in trains (UDP_SEGMENT). All must be as long as the first, except
    /// that the last of a train may be shorter.
    #[track_caller]
    pub fn send_train(&mut self, plaintexts: &[Vec<u8>]) {
        let Some(first) = plaintexts.first() else { return };
        let segment = (first.len() + DATA_OVERHEAD) as u16;
        let count = TRAIN_SEGMENTS_MAX.min(TRAIN_BYTES_MAX / usize::from(segment));
        for train in plaintexts.chunks(count) {
            let messages: Vec<_> = train.iter().map(|text| self.seal(text)).collect();
            let sent = send_segments(&self.socket, self.hub, &messages.concat(), segment);
            sent.expect("the kernel accepts a train");
        }
    }

    /// Seals this plaintext as the next message of the session.
    pub fn seal(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let session = self.sessions.last_mut().expect("the handshake is complete");
        let mut message = vec![0; plaintext.len() + DATA_OVERHEAD];
        let counter = session.counter;
        session.counter += 1;
        let header = DataHeader { receiver: session.remote_index, counter };
        write_data_header(&mut message, header);
        message[DATA_HEADER_LEN..][..plaintext.len()].copy_from_slice(plaintext);
        Aead::best().seal(&mut [Seal { key: &session.send, counter, message: &mut message }]);
        message
    }

    /// Sends this plaintext `count` times, as messages of one train that are sealed together.
    pub fn send_copies(&mut self, plaintext: &[u8], count: usize) {
        let session = self.sessions.last_mut().expect("the handshake is complete");
        let length = plaintext.len() + DATA_OVERHEAD;
        let mut train = vec![0; length * count];
        let mut batch: Vec<_> = (session.counter..)
            .zip(train.chunks_mut(length))
            .map(|(counter, message)| {
                write_data_header(message, DataHeader { receiver: session.remote_index, counter });
                message[DATA_HEADER_LEN..][..plaintext.len()].copy_from_slice(plaintext);
                Seal { key: &session.send, counter, message }
            })
            .collect();
        Aead::best().seal(&mut batch);
        session.counter += count as u64;
        // A full socket drops the train.
        let _ = send_segments(&self.socket, self.hub, &train, length as u16);
    }

    /// The hub's index of the session.
    pub fn remote_index(&self) -> u32 {
        self.sessions.last().expect("the handshake is complete").remote_index
    }

    /// Begins to count what arrives instead of reading it.
    pub fn begin_counting(&self) {
        setsockopt(&self.socket, sockopt::UdpGroSegment, &true).expect("Linux 5.0");
        self.socket.set_nonblocking(true).expect("a socket");
    }

    /// Counts the messages that have arrived, which must have the same length.
    pub fn count_arrived(&mut self) -> usize {
        let mut count = 0;
        let mut space = nix::cmsg_space!(i32);
        loop {
            let mut parts = [std::io::IoSliceMut::new(&mut self.buffer)];
            let flags = MsgFlags::MSG_DONTWAIT;
            let fd = self.socket.as_raw_fd();
            let Ok(read) = recvmsg::<()>(fd, &mut parts, Some(&mut space), flags) else {
                return count;
            };
            let segment = read.cmsgs().expect("it has room").find_map(|message| match message {
                ControlMessageOwned::UdpGroSegments(length) => usize::try_from(length).ok(),
                _ => None,
            });
            count += segment.map_or(1, |segment| read.bytes.div_ceil(segment));
        }
    }

    /// Ends counting.
    pub fn end_counting(&self) {
        setsockopt(&self.socket, sockopt::UdpGroSegment, &false).expect("Linux 5.0");
        self.socket.set_nonblocking(false).expect("a socket");
    }

    /// Sends a raw datagram.
    pub fn send_raw(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.hub).expect("the link has room");
    }

    /// Returns the next plaintext from the hub with its padding. Skips keepalives and responds to
    /// the hub's initiations. Panics after ten seconds.
    #[track_caller]
    pub fn receive(&mut self) -> Vec<u8> {
        loop {
            if let Some(plaintext) = self.waiting.pop_front() {
                return plaintext;
            }
            let datagram = self.wait_for_datagram();
            self.handle(datagram.expect("a datagram within ten seconds"));
        }
    }

    /// As [`FakePeer::receive`]; `None` after `limit`.
    pub fn receive_within(&mut self, limit: Duration) -> Option<Vec<u8>> {
        self.socket.set_read_timeout(Some(limit)).expect("not zero");
        while self.waiting.is_empty()
            && let Some(datagram) = self.wait_for_datagram()
        {
            self.handle(datagram);
        }
        self.socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
        self.waiting.pop_front()
    }

    /// The next datagram; `None` if the socket's timeout expires.
    fn wait_for_datagram(&mut self) -> Option<Vec<u8>> {
        loop {
            match self.socket.recv_from(&mut self.buffer) {
                Ok((length, from)) => {
                    self.last_from.set(Some(from));
                    return Some(self.buffer[..length].to_vec());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => panic!("the socket fails: {error}"),
            }
        }
    }

    fn handle(&mut self, mut datagram: Vec<u8>) {
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

    /// Responds to the hub's initiation and switches to the new session.
    pub fn respond(&mut self, message: &[u8; INITIATION_LEN]) {
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
        self.add_session(local_index, &keys);
        self.send_raw(&response);
    }

    fn static_static(&self) -> Secret {
        self.identity.static_static(&self.hub_key).expect("the hub's key is a good one")
    }

    /// A timestamp that grows with each handshake, as the responder requires.
    fn timestamp(&mut self) -> Timestamp {
        self.handshakes += 1;
        let mut timestamp = Timestamp::default();
        let seconds = 0x4000_0000_6000_0000 + u64::from(self.handshakes);
        timestamp.0[..8].copy_from_slice(&seconds.to_be_bytes());
        timestamp
    }
}

/// Whether this is a report to ff02::16 (RFC 3810 §5.2), which the hub's kernel sends when its
/// interface comes up, and which reaches the peer that owns that address.
fn is_membership_report(plaintext: &[u8]) -> bool {
    plaintext[0] >> 4 == 6
        && plaintext.get(24..40) == Some(&[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x16])
}
