//! The one way out to peers, for packets of the TUN and packets that are relayed alike.
//!
//! 1. [`Sender::send`] takes frames of the TUN, [`Sender::relay`] packets of other peers that lie
//!    where they arrived, [`Sender::send_staged`] packets that waited for a session.
//! 2. Without a session that may send, packets are staged ([`staging`]) and a handshake is
//!    requested.
//! 3. With one, each packet becomes a message under a reserved nonce ([`batch`]).
//! 4. [`Sender::flush`] seals and sends the batch. Trains that find their socket full are held
//!    ([`backpressure`]), and later packets of that peer are staged, until [`Sender::resume`].

mod backpressure;
mod batch;
mod completion;
mod staging;

use std::io;
use std::sync::Arc;

use wg_bounce_aead::Aead;
use wg_bounce_sys::Backend;

use crate::counters::DropReason;
use crate::ip;
use crate::limits::HELD_BYTES_PAUSE;
use crate::nesting::outer_header;
use crate::offload::Cut;
use crate::path::Path;
use crate::peer::{Peer, flag};
use crate::session::SendSession;
use crate::turn::Turn;
use crate::wire::{DATA_HEADER_LEN, padded_len};
use backpressure::TxBacklog;
pub use batch::InPlace;
use batch::SendBatch;
use completion::Target;
use staging::Staging;

/// The sending side of one worker.
pub struct Sender {
    batch: SendBatch,
    backlog: TxBacklog,
    staging: Staging,
}

impl Sender {
    /// Allocates all its memory here. `worker` is the worker's number of `workers`; the sockets
    /// have an SO_SNDBUF of `socket_buffer` bytes.
    pub fn new(
        worker: usize,
        workers: usize,
        aead: Aead,
        use_gso: bool,
        socket_buffer: usize,
    ) -> Sender {
        Sender {
            batch: SendBatch::new(workers, aead, use_gso),
            backlog: TxBacklog::new(socket_buffer),
            staging: Staging::new(worker),
        }
    }

    /// Sends every packet of a TUN frame to a peer whose path is known.
    pub fn send(
        &mut self,
        peer: &Arc<Peer>,
        path: &Arc<Path>,
        cut: &Cut<'_>,
        turn: &mut Turn<'_>,
    ) -> io::Result<()> {
        match self.target(peer, path, turn)? {
            Some(target) => self.send_cut(&target, cut, turn),
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
            return self.stage_in_place(peer, packets, turn);
        };
        let mut rest = packets;
        while !rest.is_empty() {
            let capacity = self.batch.capacity_in_place(&target.session);
            if capacity == 0 {
                self.flush(turn)?;
                if self.backlog.holds(peer.id) {
                    return self.stage_in_place(peer, rest, turn);
                }
                continue;
            }
            let (now, later) = rest.split_at(capacity.min(rest.len()));
            let Some(nonces) = target.session.reserve(now.len() as u64) else {
                return self.stage_in_place(peer, rest, turn);
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
        let path = peer.path();
        let Some(path) = path.as_ref() else { return Ok(()) };
        match self.target(peer, path, turn)? {
            Some(target) => self.send_packet(&target, packet, turn),
            None => self.stage(peer, [packet.into()], turn),
        }
    }

    /// Sends the staged packets of a peer, if it has a session now.
    pub fn send_staged(&mut self, peer: &Arc<Peer>, turn: &mut Turn<'_>) -> io::Result<()> {
        if !self.staging.holds(peer.id) || self.backlog.holds(peer.id) {
            return Ok(());
        }
        let path = peer.path();
        let Some(path) = path.as_ref() else { return Ok(()) };
        let Some(session) = live_session(peer, turn) else { return Ok(()) };
        turn.check_source(path);
        let target = Target { peer: Arc::clone(peer), session, path: Arc::clone(path) };
        for packet in self.staging.drain(peer) {
            self.send_packet(&target, &packet, turn)?;
        }
        Ok(())
    }

    /// Continues with peers whose socket was full, now that it has room.
    ///
    /// # Errors
    /// Those of [`Sender::flush`].
    pub fn resume(&mut self, turn: &mut Turn<'_>) -> io::Result<()> {
        for peer in self.backlog.resume(turn)? {
            self.send_staged(&peer, turn)?;
            // Packets that were staged behind the held trains have requested no handshake yet.
            if self.staging.holds(peer.id) && live_session(&peer, turn).is_none() {
                turn.raise(&peer, flag::WANTS_HANDSHAKE);
            }
        }
        Ok(())
    }

    /// Arms the wake-up for full sockets, and stops reading the TUN while too much waits.
    pub fn arm(&self, io: &mut Backend) -> io::Result<()> {
        io.watch_room(self.backlog.families())?;
        io.read_frames(!self.must_pause())
    }

    /// Whether so much waits for room that the TUN must not be read.
    pub fn must_pause(&self) -> bool {
        self.backlog.bytes() > HELD_BYTES_PAUSE
    }

    /// Sends a keepalive, or stages it and requests a handshake. Packets that are already staged
    /// for the peer serve as its keepalive.
    pub fn send_keepalive(&mut self, peer: &Arc<Peer>, turn: &mut Turn<'_>) -> io::Result<()> {
        if !turn.snapshot.is_up {
            return Ok(());
        }
        if !self.staging.holds(peer.id) {
            self.stage(peer, [Box::default()], turn)?;
        }
        self.send_staged(peer, turn)
    }

    /// Drops the held trains and staged packets of a peer: its handshake was given up, or the peer
    /// was removed.
    pub fn discard(&mut self, peer: &Peer, turn: &Turn<'_>) {
        turn.dropped(peer, DropReason::SocketFull, self.backlog.discard(peer.id));
        let staged = self.staging.drain(peer).len() as u64;
        turn.dropped(peer, DropReason::HandshakeFailed, staged);
    }

    /// Seals and sends the batch.
    ///
    /// # Errors
    /// Only those of a broken invariant: a refused send is held or counted, not returned.
    pub fn flush(&mut self, turn: &mut Turn<'_>) -> io::Result<()> {
        self.batch.flush(&mut self.backlog, turn)
    }

    /// Writes every packet of a frame into a message.
    fn send_cut(&mut self, target: &Target, cut: &Cut<'_>, turn: &mut Turn<'_>) -> io::Result<()> {
        let header = outer_header(cut.packet(), cut.ip());
        let segments = cut.segments();
        let mtu = turn.snapshot.mtu;
        let longest = padded_len(cut.max_segment_len(), mtu);
        let mut next = 0;
        while next < segments {
            let capacity = self.batch.capacity_for(&target.session, longest);
            if capacity == 0 {
                self.flush(turn)?;
                if self.backlog.holds(target.peer.id) {
                    return self.stage(&target.peer, packets_of(cut, next), turn);
                }
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

    /// Writes one packet (empty: a keepalive) into a message.
    fn send_packet(
        &mut self,
        target: &Target,
        packet: &[u8],
        turn: &mut Turn<'_>,
    ) -> io::Result<()> {
        let length = padded_len(packet.len(), turn.snapshot.mtu);
        if self.batch.capacity_for(&target.session, length) == 0 {
            self.flush(turn)?;
        }
        if self.backlog.holds(target.peer.id) {
            return self.stage(&target.peer, [packet.into()], turn);
        }
        let Some(mut nonces) = target.session.reserve(1) else {
            return self.stage(&target.peer, [packet.into()], turn);
        };
        let counter = nonces.next().expect("one was reserved");
        let header = ip::parse(packet).map(|ip| outer_header(packet, &ip)).unwrap_or_default();
        self.batch.push(target, header, counter, length, |plaintext| {
            plaintext[..packet.len()].copy_from_slice(packet);
            plaintext[packet.len()..].fill(0);
        });
        Ok(())
    }

    fn stage_in_place(
        &mut self,
        peer: &Arc<Peer>,
        packets: &[InPlace],
        turn: &mut Turn<'_>,
    ) -> io::Result<()> {
        let copies: Vec<Box<[u8]>> = packets
            .iter()
            .filter_map(|place| {
                let from = place.offset as usize + DATA_HEADER_LEN;
                let plaintext = &turn.trains[place.train as usize].buffer[from..];
                let length = ip::parse(plaintext)?.len;
                Some(plaintext[..length].into())
            })
            .collect();
        self.stage(peer, copies, turn)
    }

    fn stage(
        &mut self,
        peer: &Arc<Peer>,
        packets: impl IntoIterator<Item = Box<[u8]>>,
        turn: &mut Turn<'_>,
    ) -> io::Result<()> {
        let is_held = self.backlog.holds(peer.id);
        let reason = if is_held { DropReason::SocketFull } else { DropReason::StagingFull };
        for packet in packets {
            turn.dropped(peer, reason, self.staging.push(peer, packet));
        }
        if is_held {
            return Ok(()); // until the held trains have left
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
        if self.backlog.holds(peer.id) {
            return Ok(None);
        }
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
