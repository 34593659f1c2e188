//! The one way out to peers, for packets of the TUN and packets that are relayed alike.
//!
//! 1. [`Sender::send`] takes frames of the TUN, [`Sender::relay`] packets of other peers that lie
//!    where they arrived, [`Sender::send_staged`] packets that waited for a session.
//! 2. Without a session that may send, packets are staged ([`staging`]) and a handshake is
//!    requested.
//! 3. With one, each packet becomes a message under a reserved nonce ([`batch`]).
//! 4. [`Sender::flush`] seals and sends the batch. Trains that find their socket full are held
//!    ([`backpressure`]). The socket is full when it has so much in flight as leaves in a few
//!    milliseconds ([`in_flight`]).
//! 5. Later packets for a full socket wait in fair order ([`fair_queue`]) until
//!    [`Sender::resume`].

mod backpressure;
mod batch;
mod completion;
mod fair_queue;
mod in_flight;
pub(crate) mod staging;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use wg_bounce_aead::Aead;
use wg_bounce_sys::socket::{bound_in_flight, in_flight};
use wg_bounce_sys::{Backend, Family, OuterHeader, PerFamily};

use crate::counters::DropReason;
use crate::ip;
use crate::limits::{QUEUE_PER_IN_FLIGHT, RESUME_BYTES_MAX};
use crate::nesting::{Nested, outer_header};
use crate::offload::Cut;
use crate::path::Path;
use crate::peer::{Peer, flag};
use crate::session::SendSession;
use crate::sizes::Sizes;
use crate::turn::Turn;
use crate::wire::{DATA_HEADER_LEN, DATA_OVERHEAD, padded_len};
use backpressure::TxBacklog;
pub use batch::InPlace;
use batch::SendBatch;
use completion::{Target, is_elsewhere};
use fair_queue::FairQueue;
use in_flight::InFlight;
use staging::Staging;

/// The sending side of one worker.
pub struct Sender {
    batch: SendBatch,
    backlog: TxBacklog,
    /// The packets that wait for a full socket.
    waiting: PerFamily<FairQueue>,
    in_flight: PerFamily<InFlight>,
    /// The sockets that were left full in this turn.
    is_full: PerFamily<bool>,
    sizes: Sizes,
    staging: Staging,
}

impl Sender {
    /// Allocates all its memory here. `worker` is the worker's number of `workers`; `sizes`
    /// bounds what is in flight and what waits.
    pub fn new(worker: usize, workers: usize, aead: Aead, use_gso: bool, sizes: Sizes) -> Sender {
        let in_flight = || InFlight::new(sizes.socket_buffer);
        Sender {
            batch: SendBatch::new(workers, aead, use_gso),
            backlog: TxBacklog::default(),
            waiting: PerFamily::default(),
            in_flight: PerFamily { v4: in_flight(), v6: in_flight() },
            is_full: PerFamily::default(),
            sizes,
            staging: Staging::new(worker, sizes.staged),
        }
    }

    /// Sends every packet of a TUN frame, with this outer header, to a peer whose path is known.
    pub fn send(
        &mut self,
        peer: &Arc<Peer>,
        path: &Arc<Path>,
        cut: &Cut<'_>,
        header: OuterHeader,
        turn: &mut Turn<'_>,
    ) -> io::Result<()> {
        match self.target(peer, path, turn)? {
            Some(target) => self.send_cut(&target, cut, header, turn),
            None => self.stage(peer, packets_of(cut, 0), turn),
        }
    }

    /// Sends packets of other peers to `peer`, from where they lie. The calls of one turn must come
    /// in the order of the packets' offsets.
    pub fn relay(
        &mut self,
        peer: &Arc<Peer>,
        packets: &[InPlace],
        turn: &mut Turn<'_>,
    ) -> io::Result<()> {
        let path = peer.path();
        let Some(path) = path.as_ref() else {
            turn.dropped(peer, DropReason::NoEndpoint, packets.len() as u64);
            return Ok(());
        };
        let count = packets.len() as u64;
        turn.counters.relayed.add(count);
        turn.counters.relayed_bytes.add(packets.iter().map(InPlace::plaintext_len).sum());
        peer.counters.relayed.add(count);
        let Some(target) = self.target(peer, path, turn)? else {
            return self.stage(peer, copies(packets, turn), turn);
        };
        let mut rest = packets;
        while !rest.is_empty() {
            let family = path.endpoint.family();
            if self.waits(family) {
                for packet in copies(rest, turn) {
                    self.wait(peer, family, packet, turn);
                }
                return Ok(());
            }
            let capacity = self.batch.capacity_in_place(&target.session);
            if capacity == 0 {
                self.flush(turn)?;
                continue;
            }
            let (now, later) = rest.split_at(capacity.min(rest.len()));
            let Some(nonces) = target.session.reserve(now.len() as u64) else {
                return self.stage(peer, copies(rest, turn), turn);
            };
            self.batch.push_in_place(&target, now, nonces, turn.trains);
            rest = later;
        }
        Ok(())
    }

    /// Sends an ICMP error to the peer whose packet caused it.
    pub fn send_error(
        &mut self,
        peer: &Arc<Peer>,
        packet: &[u8],
        turn: &mut Turn<'_>,
    ) -> io::Result<()> {
        turn.counters.generated_packets.add(1);
        let path = peer.path();
        let Some(path) = path.as_ref() else {
            turn.dropped(peer, DropReason::NoEndpoint, 1);
            return Ok(());
        };
        match self.target(peer, path, turn)? {
            Some(target) => self.send_packet(&target, packet.into(), turn),
            None => self.stage(peer, [packet.into()], turn),
        }
    }

    /// Sends the staged packets of a peer, if it has a session now.
    pub fn send_staged(&mut self, peer: &Arc<Peer>, turn: &mut Turn<'_>) -> io::Result<()> {
        if !self.staging.holds(peer.id) {
            return Ok(());
        }
        let path = peer.path();
        let Some(path) = path.as_ref() else { return Ok(()) };
        let Some(session) = live_session(peer, turn) else { return Ok(()) };
        turn.check_source(path);
        let target = Target { peer: Arc::clone(peer), session, path: Arc::clone(path) };
        for packet in self.staging.drain(peer) {
            self.send_packet(&target, packet, turn)?;
        }
        Ok(())
    }

    /// Continues with the sockets that have room again, at `uptime` of the clock.
    ///
    /// # Errors
    /// Those of [`Sender::flush`].
    pub fn resume(
        &mut self,
        has_room: PerFamily<bool>,
        uptime: Duration,
        turn: &mut Turn<'_>,
    ) -> io::Result<()> {
        self.flush(turn)?; // what commands have pushed
        for family in Family::BOTH {
            if !*has_room.of(family) || !self.waits(family) {
                continue;
            }
            if let Some(socket) = turn.io.socket_of(family) {
                let bound = self.in_flight.of_mut(family);
                bound.adapt(uptime, in_flight(socket));
                bound_in_flight(socket, bound.bound());
                self.batch.set_train_max(family, bound.train_max());
            }
            let was_of_use = self.backlog.resume(family, turn);
            turn.io.note_room(family, was_of_use);
            let mut sent = 0;
            while sent < RESUME_BYTES_MAX
                && !self.backlog.holds(family)
                && !self.waiting.of(family).is_empty()
            {
                sent += self.send_waiting(family, turn)?;
            }
            *self.is_full.of_mut(family) = self.waits(family);
        }
        Ok(())
    }

    /// Whether a socket was left full, so that [`Sender::note_full`] must be called at the end of
    /// the turn.
    pub fn is_full(&self) -> bool {
        self.is_full.v4 || self.is_full.v6
    }

    /// Begins to measure the rate of the sockets that were left full, at `uptime` of the clock.
    pub fn note_full(&mut self, io: &Backend, uptime: Duration) {
        for family in Family::BOTH {
            if std::mem::take(self.is_full.of_mut(family))
                && let Some(socket) = io.socket_of(family)
            {
                self.in_flight.of_mut(family).note_full(uptime, in_flight(socket));
            }
        }
    }

    /// Adapts to new sockets: nothing is known about their rate, and what waits is sent, or dropped
    /// if there is no socket.
    ///
    /// # Errors
    /// Those of [`Sender::flush`].
    pub fn sockets_changed(&mut self, turn: &mut Turn<'_>) -> io::Result<()> {
        for family in Family::BOTH {
            let bound = InFlight::new(self.sizes.socket_buffer);
            self.batch.set_train_max(family, bound.train_max());
            *self.in_flight.of_mut(family) = bound;
            if turn.io.socket_of(family).is_none() {
                self.backlog.clear(family, turn);
                self.waiting.of_mut(family).clear(turn);
            }
        }
        self.resume(PerFamily { v4: true, v6: true }, Duration::ZERO, turn)
    }

    /// Arms the wake-up for full sockets, and stops reading the TUN while too much waits.
    pub fn arm(&self, io: &mut Backend) {
        io.watch_room(PerFamily { v4: self.waits(Family::V4), v6: self.waits(Family::V6) });
        io.read_frames(!self.must_pause());
    }

    /// Whether so much waits for room that the TUN must not be read.
    pub fn must_pause(&self) -> bool {
        self.waiting.v4.bytes() + self.waiting.v6.bytes() > self.sizes.queued / 2
    }

    /// Sends a keepalive, or stages it and requests a handshake. Packets that are already staged
    /// for the peer serve as its keepalive.
    pub fn send_keepalive(&mut self, peer: &Arc<Peer>, turn: &mut Turn<'_>) -> io::Result<()> {
        if !turn.snapshot.is_up {
            return Ok(());
        }
        if !self.staging.holds(peer.id) {
            turn.counters.generated_packets.add(1);
            self.stage(peer, [Box::default()], turn)?;
        }
        self.send_staged(peer, turn)
    }

    /// Packets that wait for a session, or for room in a socket.
    pub fn waiting_packets(&self) -> u64 {
        let waiting = self.waiting.v4.len() + self.waiting.v6.len() + self.staging.len();
        waiting as u64 + self.backlog.messages()
    }

    /// Drops the held trains and waiting packets of a peer: its handshake was given up, or the peer
    /// was removed.
    pub fn discard(&mut self, peer: &Peer, turn: &Turn<'_>) {
        let waiting = self.waiting.v4.discard(peer.id) + self.waiting.v6.discard(peer.id);
        turn.dropped(peer, DropReason::Congestion, self.backlog.discard(peer.id) + waiting);
        let staged = self.staging.drain(peer).len() as u64;
        turn.dropped(peer, DropReason::HandshakeFailed, staged);
    }

    /// Seals and sends the batch.
    ///
    /// # Errors
    /// Only those of a broken invariant: a refused send is held or counted, not returned.
    pub fn flush(&mut self, turn: &mut Turn<'_>) -> io::Result<()> {
        let was_full = Family::BOTH.map(|family| self.backlog.holds(family));
        self.batch.flush(&mut self.backlog, turn)?;
        for (family, was_full) in Family::BOTH.into_iter().zip(was_full) {
            *self.is_full.of_mut(family) |= self.backlog.holds(family) && !was_full;
        }
        Ok(())
    }

    /// Writes every packet of a frame into a message.
    fn send_cut(
        &mut self,
        target: &Target,
        cut: &Cut<'_>,
        header: OuterHeader,
        turn: &mut Turn<'_>,
    ) -> io::Result<()> {
        let segments = cut.segments();
        let mtu = turn.snapshot.mtu;
        let longest = padded_len(cut.max_segment_len(), mtu);
        let mut next = 0;
        while next < segments {
            let family = target.path.endpoint.family();
            if self.waits(family) {
                for packet in packets_of(cut, next) {
                    self.wait(&target.peer, family, packet, turn);
                }
                return Ok(());
            }
            let capacity = self.batch.capacity_for(&target.session, longest);
            if capacity == 0 {
                self.flush(turn)?;
                continue;
            }
            let count = capacity.min(segments - next);
            let Some(nonces) = target.session.reserve(count as u64) else {
                return self.stage(&target.peer, packets_of(cut, next), turn);
            };
            for counter in nonces {
                let length = padded_len(cut.segment_len(next), mtu);
                self.batch.push(target, header, counter, length, |plaintext| {
                    let written = cut.write_segment(next, plaintext);
                    plaintext[written..].fill(0);
                });
                next += 1;
            }
        }
        Ok(())
    }

    /// Sends one packet (empty: a keepalive), or queues it if its socket is full.
    fn send_packet(
        &mut self,
        target: &Target,
        packet: Box<[u8]>,
        turn: &mut Turn<'_>,
    ) -> io::Result<()> {
        let length = padded_len(packet.len(), turn.snapshot.mtu);
        if self.batch.capacity_for(&target.session, length) == 0 {
            self.flush(turn)?;
        }
        let family = target.path.endpoint.family();
        if self.waits(family) {
            self.wait(&target.peer, family, packet, turn);
            return Ok(());
        }
        self.push_packet(target, packet, turn)
    }

    /// Writes one packet (empty: a keepalive) into a message. The batch must have room for it.
    fn push_packet(
        &mut self,
        target: &Target,
        packet: Box<[u8]>,
        turn: &mut Turn<'_>,
    ) -> io::Result<()> {
        let length = padded_len(packet.len(), turn.snapshot.mtu);
        let Some(mut nonces) = target.session.reserve(1) else {
            return self.stage(&target.peer, [packet], turn);
        };
        let counter = nonces.next().expect("one was reserved");
        let header = ip::parse(&packet)
            .map(|ip| outer_header(&packet, Nested::read(&packet, &ip).as_ref()))
            .unwrap_or_default();
        self.batch.push(target, header, counter, length, |plaintext| {
            plaintext[..packet.len()].copy_from_slice(&packet);
            plaintext[packet.len()..].fill(0);
        });
        Ok(())
    }

    /// Whether something waits for the socket of this family, so that all else must wait behind.
    fn waits(&self, family: Family) -> bool {
        self.backlog.holds(family) || !self.waiting.of(family).is_empty()
    }

    /// Queues a packet for a full socket.
    fn wait(&mut self, peer: &Arc<Peer>, family: Family, packet: Box<[u8]>, turn: &Turn<'_>) {
        let max = QUEUE_PER_IN_FLIGHT * self.in_flight.of(family).bound();
        let max = max.clamp(Sizes::LEAST.queued, self.sizes.queued);
        self.waiting.of_mut(family).push(peer, packet, max, turn);
    }

    /// Sends as many of the waiting packets as make up a train; returns their bytes. The batch is
    /// empty, so it has room for them.
    fn send_waiting(&mut self, family: Family, turn: &mut Turn<'_>) -> io::Result<usize> {
        let (mut bytes, mut messages) = (0, 0);
        while bytes < self.in_flight.of(family).train_max()
            && messages < self.batch.per_session_max()
            && let Some((peer, packet)) = self.waiting.of_mut(family).pop(turn)
        {
            bytes += packet.len() + DATA_OVERHEAD;
            messages += 1;
            let path = peer.path();
            match (path.as_ref(), live_session(&peer, turn)) {
                _ if !turn.snapshot.is_up => turn.dropped(&peer, DropReason::InterfaceDown, 1),
                (None, _) => turn.dropped(&peer, DropReason::NoEndpoint, 1),
                (_, None) => self.stage(&peer, [packet], turn)?,
                // The peer has roamed: what waits for its socket now is not overtaken.
                (Some(path), _) if is_elsewhere(path, family, turn) => {
                    self.wait(&peer, path.endpoint.family(), packet, turn);
                }
                (Some(path), Some(session)) => {
                    turn.check_source(path);
                    let path = Arc::clone(path);
                    let target = Target { peer: Arc::clone(&peer), session, path };
                    self.push_packet(&target, packet, turn)?;
                }
            }
        }
        self.flush(turn)?;
        Ok(bytes)
    }

    fn stage(
        &mut self,
        peer: &Arc<Peer>,
        packets: impl IntoIterator<Item = Box<[u8]>>,
        turn: &mut Turn<'_>,
    ) -> io::Result<()> {
        for packet in packets {
            turn.dropped(peer, DropReason::StagingFull, self.staging.push(peer, packet));
        }
        turn.raise(peer, flag::WANTS_HANDSHAKE);
        // Control may have published a session before it could see that something is staged.
        if live_session(peer, turn).is_some() { self.send_staged(peer, turn) } else { Ok(()) }
    }

    /// The target for a peer that can be sent to now, after its staged packets were sent.
    fn target(
        &mut self,
        peer: &Arc<Peer>,
        path: &Arc<Path>,
        turn: &mut Turn<'_>,
    ) -> io::Result<Option<Target>> {
        let Some(session) = live_session(peer, turn) else { return Ok(None) };
        self.send_staged(peer, turn)?;
        turn.check_source(path);
        Ok(Some(Target { peer: Arc::clone(peer), session, path: Arc::clone(path) }))
    }
}

/// The peer's session, if it may send now.
fn live_session(peer: &Peer, turn: &Turn<'_>) -> Option<Arc<SendSession>> {
    let session = peer.session();
    session.as_ref().filter(|session| session.is_alive(turn.now)).cloned()
}

/// The packets of a frame from index `first` on, each by itself.
fn packets_of(cut: &Cut<'_>, first: usize) -> impl Iterator<Item = Box<[u8]>> {
    (first..cut.segments()).map(|index| {
        let mut packet = vec![0; cut.segment_len(index)].into_boxed_slice();
        cut.write_segment(index, &mut packet);
        packet
    })
}

/// The packets that lie in trains of the turn, without their padding.
fn copies(packets: &[InPlace], turn: &Turn<'_>) -> Vec<Box<[u8]>> {
    let copy = |place: &InPlace| {
        let from = place.offset as usize + DATA_HEADER_LEN;
        let plaintext = &turn.trains[place.train as usize].buffer[from..];
        let length = ip::parse(plaintext)?.len;
        Some(plaintext[..length].into())
    };
    packets.iter().filter_map(copy).collect()
}
