//! Back-pressure: sealed trains that found their socket full wait here, in the order in which they
//! were sealed.
//!
//! They are few: while one waits, nothing more is sealed for that socket, and what follows waits
//! as packets in [`super::fair_queue`].

use std::collections::VecDeque;
use std::sync::Arc;

use wg_bounce_sys::{Family, OuterHeader, PerFamily};

use super::completion::{OneTrain, Target, is_elsewhere, note_sent};
use crate::counters::DropReason;
use crate::limits::REPLAY_WINDOW;
use crate::peer::{Peer, PeerId};
use crate::session::SendSession;
use crate::turn::Turn;

/// A sealed train that waits.
pub struct HeldTrain {
    /// The counter of its first message.
    pub first_counter: u64,
    /// The messages, one after the other.
    pub bytes: Box<[u8]>,
    /// The outer IP header.
    pub header: OuterHeader,
    /// Bytes of every message but the last; zero: one message alone.
    pub segment_size: usize,
    /// The number of messages.
    pub messages: u32,
    /// Not only keepalives.
    pub has_data: bool,
}

/// A waiting train with its peer, and with the session that its nonces belong to: it is dropped
/// when that has ended.
struct Held {
    peer: Arc<Peer>,
    session: Arc<SendSession>,
    train: HeldTrain,
}

/// All waiting trains of one worker, by the socket that was full.
#[derive(Default)]
pub struct TxBacklog {
    trains: PerFamily<VecDeque<Held>>,
}

impl TxBacklog {
    /// Whether trains wait for the socket of this family.
    pub fn holds(&self, family: Family) -> bool {
        !self.trains.of(family).is_empty()
    }

    /// The number of messages in all trains; a train or two at most times.
    pub fn messages(&self) -> u64 {
        let trains = self.trains.v4.iter().chain(&self.trains.v6);
        trains.map(|held| u64::from(held.train.messages)).sum()
    }

    /// Appends a train that found the socket of its path full.
    pub(super) fn push(&mut self, target: &Target, train: HeldTrain, turn: &Turn<'_>) {
        let Target { peer, session, path } = target;
        let (peer, session) = (Arc::clone(peer), Arc::clone(session));
        turn.counters.held_trains.add(1);
        let family = path.endpoint.family();
        self.trains.of_mut(family).push_back(Held { peer, session, train });
    }

    /// Sends waiting trains until the socket is full again. Trains that may no longer be sent are
    /// dropped and counted. Returns whether fewer wait now, or none did.
    pub(super) fn resume(&mut self, family: Family, turn: &mut Turn<'_>) -> bool {
        let mut is_of_use = !self.holds(family);
        while let Some(Held { peer, session, train }) = self.trains.of(family).front() {
            let messages = train.messages;
            // Other workers may have sent so much meanwhile that the peer would take these
            // messages for replays.
            let is_late = session.sent() > train.first_counter.saturating_add(REPLAY_WINDOW);
            // Without a session the peer was removed, or all keys were forgotten.
            let may_leave = !is_late
                && turn.snapshot.is_up
                && session.is_alive(turn.now)
                && peer.session().is_some();
            let path = peer.path();
            let Some(path) = path.as_ref().filter(|_| may_leave) else {
                turn.dropped(peer, DropReason::ExpiredSession, messages.into());
                self.trains.of_mut(family).pop_front();
                is_of_use = true;
                continue;
            };
            if is_elsewhere(path, family, turn) {
                // The peer has roamed.
                let now_on = path.endpoint.family();
                if let Some(held) = self.trains.of_mut(family).pop_front() {
                    self.trains.of_mut(now_on).push_back(held);
                    is_of_use = true;
                }
                continue;
            }
            let HeldTrain { header, segment_size, .. } = *train;
            let slices: &[&[u8]] = &[&train.bytes];
            let to = path.destination();
            let one = OneTrain { to, header, segment_size, messages, slices };
            let Some(sent) = one.send(peer, path, turn) else { return is_of_use };
            let (peer, session) = (Arc::clone(peer), Arc::clone(session));
            let target = Target { peer, session, path: Arc::clone(path) };
            note_sent(&target, sent, train.has_data, turn);
            self.trains.of_mut(family).pop_front();
            is_of_use = true;
        }
        is_of_use
    }

    /// Drops all trains of a family, whose socket was closed.
    pub(super) fn clear(&mut self, family: Family, turn: &Turn<'_>) {
        for Held { peer, train, .. } in self.trains.of_mut(family).drain(..) {
            turn.dropped(&peer, DropReason::InterfaceDown, train.messages.into());
        }
    }

    /// Drops all trains of a peer; returns the number of messages in them.
    pub(super) fn discard(&mut self, peer: PeerId) -> u64 {
        let mut messages = 0;
        for trains in [&mut self.trains.v4, &mut self.trains.v6] {
            trains.retain(|held| {
                let is_kept = held.peer.id != peer;
                messages += if is_kept { 0 } else { u64::from(held.train.messages) };
                is_kept
            });
        }
        messages
    }
}
