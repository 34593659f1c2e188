//! Channels between threads: bounded lanes with doorbells, from workers to control and from one
//! worker to another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(not(loom))]
use nix::sys::eventfd::EventFd;
use wg_bounce_sys::Endpoint;
use wg_bounce_sys::clock::Millis;

use crate::limits::{COOKIE_REPLIES_MAX, INITIATIONS_MAX, NOTICES_MAX, RESPONSES_MAX, WORKERS_MAX};
use crate::messages::HandshakeMessage;
use crate::peer::PeerId;
#[cfg(loom)]
use crate::sync::EventFd;
use crate::sync::{Receiver, Sender, TrySendError, bounded};

/// A datagram that arrived at another worker than the owner of its session.
pub struct HandOff {
    /// The datagram, with [`wg_bounce_sys::message::PAYLOAD_AT`] bytes in front of it.
    pub buffer: Box<[u8]>,
    /// Its sender, and the local address that it was sent to.
    pub from: Endpoint,
    /// The outer IPv4 TOS or IPv6 traffic class.
    pub traffic_class: u8,
}

/// The reason why a worker ended.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The TUN device was deleted.
    InterfaceGone,
    /// An unexpected error, as text.
    Fatal(String),
}

/// Control's receiving ends of the workers' lanes.
pub struct Events {
    /// Initiations with a valid mac1.
    pub initiations: Receiver<HandshakeMessage>,
    /// The same, from senders that were seen some seconds before; only during a flood.
    pub returning: Receiver<HandshakeMessage>,
    /// The time until which initiations need a cookie, set by control.
    pub under_load_until: Arc<AtomicU64>,
    /// Responses with a valid mac1 for an index that is pending.
    pub responses: Receiver<HandshakeMessage>,
    /// Cookie replies for an index that is pending: cheap to forge, so they have their own lane.
    pub cookie_replies: Receiver<HandshakeMessage>,
    /// Peers with raised flags.
    pub peers: Receiver<PeerId>,
    /// Workers that ended.
    pub failures: Receiver<Failure>,
}

/// A lane of handshake messages to control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeLane {
    /// [`Events::initiations`].
    Initiations,
    /// [`Events::returning`].
    Returning,
    /// [`Events::responses`].
    Responses,
    /// [`Events::cookie_replies`].
    CookieReplies,
}

/// The sending end of the lane to another worker, and its doorbell.
#[derive(Clone)]
pub struct Neighbour {
    pub lane: Sender<HandOff>,
    pub bell: Arc<EventFd>,
}

/// The sending ends of one worker.
#[derive(Clone)]
pub struct Channels {
    initiations: Sender<HandshakeMessage>,
    returning: Sender<HandshakeMessage>,
    responses: Sender<HandshakeMessage>,
    cookie_replies: Sender<HandshakeMessage>,
    peers: Sender<PeerId>,
    failures: Sender<Failure>,
    /// See [`Events::under_load_until`].
    under_load_until: Arc<AtomicU64>,
    /// Control's doorbell.
    wake: Arc<EventFd>,
    /// All workers by number, including this one.
    pub neighbours: Vec<Neighbour>,
    /// Notices that found their lane full; retried each turn.
    unsent: Vec<PeerId>,
    /// Something was queued for control since its doorbell was last rung.
    must_wake: bool,
    /// Neighbours (one bit each) that were handed something since their bells were last rung.
    must_ring: u64,
}

impl Channels {
    /// The lanes to control, without neighbours yet; `wake` is control's doorbell.
    pub fn new(wake: Arc<EventFd>) -> (Channels, Events) {
        let (initiations, initiations_lane) = bounded(INITIATIONS_MAX);
        let (returning, returning_lane) = bounded(INITIATIONS_MAX);
        let (responses, responses_lane) = bounded(RESPONSES_MAX);
        let (cookie_replies, cookie_replies_lane) = bounded(COOKIE_REPLIES_MAX);
        let (peers, peers_lane) = bounded(NOTICES_MAX);
        let (failures, failures_lane) = bounded(WORKERS_MAX);
        let channels = Channels {
            initiations,
            returning,
            responses,
            cookie_replies,
            peers,
            failures,
            under_load_until: Arc::default(),
            wake,
            neighbours: Vec::new(),
            unsent: Vec::new(),
            must_wake: false,
            must_ring: 0,
        };
        let events = Events {
            initiations: initiations_lane,
            returning: returning_lane,
            responses: responses_lane,
            cookie_replies: cookie_replies_lane,
            peers: peers_lane,
            failures: failures_lane,
            under_load_until: Arc::clone(&channels.under_load_until),
        };
        (channels, events)
    }

    /// Whether control is under load at `now`.
    pub fn is_under_load(&self, now: Millis) -> bool {
        now < Millis(self.under_load_until.load(Ordering::Relaxed))
    }

    /// Whether this lane is full. Control is awake then, or its helpers are, who will wake it.
    pub fn is_full(&self, lane: HandshakeLane) -> bool {
        self.handshakes(lane).is_full()
    }

    /// Queues a handshake message; returns false if its lane is full.
    #[must_use]
    pub fn handshake(&mut self, message: HandshakeMessage, lane: HandshakeLane) -> bool {
        let is_queued = self.handshakes(lane).try_send(message).is_ok();
        self.must_wake = true;
        is_queued
    }

    fn handshakes(&self, lane: HandshakeLane) -> &Sender<HandshakeMessage> {
        match lane {
            HandshakeLane::Initiations => &self.initiations,
            HandshakeLane::Returning => &self.returning,
            HandshakeLane::Responses => &self.responses,
            HandshakeLane::CookieReplies => &self.cookie_replies,
        }
    }

    /// Queues a notice about a peer.
    pub fn notice(&mut self, peer: PeerId) {
        self.must_wake = true;
        if let Err(TrySendError::Full(peer)) = self.peers.try_send(peer) {
            self.unsent.push(peer);
        }
    }

    /// Makes the next [`Channels::ring_bells`] wake control.
    pub fn wake_control(&mut self) {
        self.must_wake = true;
    }

    /// Hands a datagram to the worker that owns its session; returns false if its lane is full.
    #[must_use]
    pub fn hand_off(&mut self, owner: usize, datagram: HandOff) -> bool {
        self.must_ring |= 1 << owner;
        self.neighbours[owner].lane.try_send(datagram).is_ok()
    }

    /// Reports why this worker ends, and wakes control.
    pub fn fail(&self, failure: Failure) {
        // Full: another worker has reported the same.
        let _ = self.failures.try_send(failure);
        ring(&self.wake);
    }

    /// Whether notices wait for room in their lane. Only the end of a turn retries them, and
    /// control rings no bell when it has made room: the next turn must not wait.
    pub fn must_retry(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Wakes control and the neighbours for which something was queued; once a turn.
    pub fn ring_bells(&mut self) {
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
pub fn ring(bell: &EventFd) {
    // EAGAIN: the eventfd is already signalled.
    let _ = bell.write(1);
}
