//! A worker's links to control and to the other workers: bounded lanes and doorbells.
//!
//! Initiations, answers to our handshakes, and notices about peers have lanes of their own, so
//! that a flood of one starves no other. A worker never waits for room in a lane.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError};
use nix::sys::eventfd::EventFd;
use wg_bounce_sys::Endpoint;

use crate::messages::HandshakeMessage;
use crate::peer::PeerId;

/// Initiations that may wait for control (messages; `MAX_QUEUED_INCOMING_HANDSHAKES` of the
/// kernel). More than an eighth of it means "under load".
pub const INITIATIONS_MAX: usize = 4096;
/// Responses and cookie replies that may wait for control (messages).
pub const ANSWERS_MAX: usize = 1024;
/// Peers that may wait for control's attention; a peer waits once, however much happens.
pub const NOTICES_MAX: usize = 1 << 17;
/// Datagrams that may wait for the worker that owns their session.
pub const HAND_OFFS_MAX: usize = 1024;

/// A datagram that landed on another worker than the owner of its session.
pub struct HandOff {
    /// The datagram, with [`wg_bounce_sys::message::PAYLOAD_AT`] bytes in front of it.
    pub buffer: Box<[u8]>,
    /// Who sent it, and to which of our addresses.
    pub from: Endpoint,
    /// The outer IPv4 TOS or IPv6 traffic class.
    pub traffic_class: u8,
}

/// Why a worker ended.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The TUN device was deleted.
    InterfaceGone,
    /// The worker cannot go on.
    Fatal(String),
}

/// What reaches control from the workers.
pub struct Events {
    /// Handshake initiations with a right mac1.
    pub initiations: Receiver<HandshakeMessage>,
    /// Responses and cookie replies for an index that is awaited.
    pub answers: Receiver<HandshakeMessage>,
    /// Peers with raised flags.
    pub peers: Receiver<PeerId>,
    /// Workers that ended.
    pub failures: Receiver<Failure>,
}

/// Where another worker takes hand-offs.
#[derive(Clone)]
pub(crate) struct Neighbour {
    pub lane: Sender<HandOff>,
    pub bell: Arc<EventFd>,
}

/// The sending ends of one worker.
#[derive(Clone)]
pub(crate) struct Channels {
    pub initiations: Sender<HandshakeMessage>,
    pub answers: Sender<HandshakeMessage>,
    pub peers: Sender<PeerId>,
    pub failures: Sender<Failure>,
    /// Control's doorbell.
    pub wake: Arc<EventFd>,
    /// All workers by number, this one too.
    pub neighbours: Vec<Neighbour>,
    /// Notices that found the lane full: they are tried again each turn.
    pub unsent: Vec<PeerId>,
    /// Something was put into a lane since control was last woken.
    pub must_wake: bool,
    /// Neighbours (bit by bit) that were handed something since their bells were last rung.
    pub must_ring: u64,
}

impl Channels {
    /// Queues a handshake message; false: its lane is full.
    #[must_use]
    pub fn handshake(&mut self, message: HandshakeMessage, is_initiation: bool) -> bool {
        let lane = if is_initiation { &self.initiations } else { &self.answers };
        let is_queued = lane.try_send(message).is_ok();
        self.must_wake = true;
        is_queued
    }

    /// Queues a notice about a peer.
    pub fn notice(&mut self, peer: PeerId) {
        self.must_wake = true;
        if let Err(TrySendError::Full(peer)) = self.peers.try_send(peer) {
            self.unsent.push(peer);
        }
    }

    /// Hands a datagram to the worker that owns its session; false: that one has no room.
    #[must_use]
    pub fn hand_off(&mut self, owner: usize, datagram: HandOff) -> bool {
        self.must_ring |= 1 << owner;
        self.neighbours[owner].lane.try_send(datagram).is_ok()
    }

    /// Wakes control and the neighbours for which anything was queued, once a turn.
    pub fn deliver(&mut self) {
        for peer in std::mem::take(&mut self.unsent) {
            self.notice(peer);
        }
        if std::mem::take(&mut self.must_wake) {
            ring(&self.wake);
        }
        for (number, neighbour) in self.neighbours.iter().enumerate() {
            if self.must_ring & 1 << number != 0 {
                ring(&neighbour.bell);
            }
        }
        self.must_ring = 0;
    }
}

/// Rings a doorbell.
pub(crate) fn ring(bell: &EventFd) {
    // EAGAIN: the counter is at its end, so it rings already.
    let _ = bell.write(1);
}
