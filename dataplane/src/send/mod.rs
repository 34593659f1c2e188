//! What leaves for peers, whichever way it came: numbered under the peer's session and sent with
//! the turn's other messages, or staged until there is a session.
//!
//! 1. [`Sender::send_cut`] takes frames of the TUN, [`Sender::relay`] packets of other peers
//!    that lie where they arrived, [`Sender::send_staged`] what has waited.
//! 2. Without a session that may send, packets are staged and a handshake is asked for.
//! 3. [`Sender::flush`] seals and sends. Where a socket is full, what was sealed is held and
//!    what comes later is staged, until [`Sender::resume`].

mod backpressure;
pub mod batch;
mod completion;
mod staging;

use std::io;
use std::sync::Arc;

use wg_bounce_aead::Aead;
use wg_bounce_sys::Backend;

use crate::counters::DropReason;
use crate::ip;
use crate::limits::HELD_BYTES_PAUSE;
use crate::offload::Cut;
use crate::peer::{Path, Peer, flag};
use crate::session::SendSession;
use crate::turn::Turn;
use crate::wire::{DATA_HEADER_LEN, padded_len};
use batch::{InPlace, SendBatch, Way};
use staging::Staging;

/// The sending side of one worker.
pub struct Sender {
    departures: SendBatch,
    staging: Staging,
}

impl Sender {
    /// Takes its memory here.
    pub fn new(
        worker: usize,
        workers: usize,
        aead: Aead,
        use_gso: bool,
        socket_buffer: usize,
    ) -> Sender {
        let departures = SendBatch::new(workers, aead, use_gso, socket_buffer);
        Sender { departures, staging: Staging::new(worker) }
    }

    /// Sends every packet of a frame to a peer whose path is known.
    pub fn send(
        &mut self,
        peer: &Arc<Peer>,
        path: &Arc<Path>,
        cut: &Cut<'_>,
        turn: &mut Turn<'_>,
    ) -> io::Result<()> {
        match self.way_to(peer, path, turn)? {
            Some(way) => self.send_cut(&way, cut, turn),
            None => self.stage(peer, packets_of(cut, 0), turn),
        }
    }

    /// Sends packets of other peers to `peer`, from where they lie. A turn's calls come in the
    /// order of their places.
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
        let Some(way) = self.way_to(peer, path, turn)? else {
            return self.stage_placed(peer, packets, turn);
        };
        let mut rest = packets;
        while !rest.is_empty() {
            let room = self.departures.room_for_placed(&way.session);
            if room == 0 {
                self.departures.flush(turn)?;
                if self.departures.held().holds(peer.id) {
                    return self.stage_placed(peer, rest, turn);
                }
                continue;
            }
            let (now, later) = rest.split_at(room.min(rest.len()));
            let Some(nonces) = way.session.reserve(now.len() as u64) else {
                return self.stage_placed(peer, rest, turn);
            };
            self.departures.push_placed(&way, now, nonces, turn.trains);
            turn.counters.relayed.add(now.len() as u64);
            peer.counters.relayed.add(now.len() as u64);
            rest = later;
        }
        Ok(())
    }

    /// Sends what was staged for a peer, if it has a session now.
    pub fn send_staged(&mut self, peer: &Arc<Peer>, turn: &mut Turn<'_>) -> io::Result<()> {
        if !self.staging.holds(peer.id) || self.departures.held().holds(peer.id) {
            return Ok(());
        }
        let path = peer.path();
        let Some(path) = path.as_ref() else { return Ok(()) };
        let Some(session) = live_session(peer, turn) else { return Ok(()) };
        let way = Way { peer: Arc::clone(peer), session, path: Arc::clone(path) };
        for packet in self.staging.take(peer) {
            self.send_whole(&way, &packet, turn)?;
        }
        Ok(())
    }

    /// Goes on with peers whose socket was full, now that it has room.
    ///
    /// # Errors
    /// See [`SendBatch::flush`].
    pub fn resume(&mut self, turn: &mut Turn<'_>) -> io::Result<()> {
        for peer in self.departures.resume(turn)? {
            self.send_staged(&peer, turn)?;
            // What was staged behind the trains has asked for no handshake yet.
            if self.staging.holds(peer.id) && live_session(&peer, turn).is_none() {
                turn.raise(&peer, flag::WANTS_HANDSHAKE);
            }
        }
        Ok(())
    }

    /// Asks to be told of room in full sockets; reads nothing from the TUN while much waits.
    pub fn watch(&self, io: &mut Backend) -> io::Result<()> {
        let held = self.departures.held();
        let (v4, v6) = held.families();
        io.watch_room(v4, v6)?;
        io.read_frames(!self.must_pause())
    }

    /// Whether so much waits for room that the TUN is not to be read.
    pub fn must_pause(&self) -> bool {
        self.departures.held().bytes() > HELD_BYTES_PAUSE
    }

    /// Sends a keepalive, or stages it and asks for a handshake. What is staged for a peer serves
    /// as its keepalive.
    pub fn send_keepalive(&mut self, peer: &Arc<Peer>, turn: &mut Turn<'_>) -> io::Result<()> {
        if !turn.snapshot.is_up {
            return Ok(());
        }
        if !self.staging.holds(peer.id) {
            self.stage(peer, [Box::default()], turn)?;
        }
        self.send_staged(peer, turn)
    }

    /// Drops what is staged for a peer: its handshake was given up, or the peer removed.
    pub fn discard_staged(&mut self, peer: &Peer, turn: &Turn<'_>) {
        self.departures.forget(peer, turn);
        let dropped = self.staging.take(peer).len() as u64;
        turn.dropped(peer, DropReason::HandshakeFailed, dropped);
    }

    /// Seals and sends what was pushed.
    ///
    /// # Errors
    /// See [`SendBatch::flush`].
    pub fn flush(&mut self, turn: &mut Turn<'_>) -> io::Result<()> {
        self.departures.flush(turn)
    }

    /// Writes every packet of a frame into a message, as far as the nonces of a flush go at once.
    fn send_cut(&mut self, way: &Way, cut: &Cut<'_>, turn: &mut Turn<'_>) -> io::Result<()> {
        let (segments, ecn) = (cut.segments(), ip::outer_ecn(cut.packet()));
        let mtu = turn.snapshot.mtu;
        let longest = padded_len(cut.max_segment_len(), mtu);
        let mut next = 0;
        while next < segments {
            let room = self.departures.room_for(&way.session, longest);
            if room == 0 {
                self.departures.flush(turn)?;
                if self.departures.held().holds(way.peer.id) {
                    return self.stage(&way.peer, packets_of(cut, next), turn);
                }
                continue;
            }
            let count = room.min(segments - next);
            let Some(nonces) = way.session.reserve(count as u64) else {
                return self.stage(&way.peer, packets_of(cut, next), turn);
            };
            for counter in nonces {
                let length = padded_len(cut.segment_len(next), mtu);
                self.departures.push(way, ecn, counter, length, |plaintext| {
                    let written = cut.write_segment(next, plaintext);
                    plaintext[written..].fill(0);
                });
                next += 1;
            }
        }
        Ok(())
    }

    /// Writes one finished packet (empty: a keepalive) into a message.
    fn send_whole(&mut self, way: &Way, packet: &[u8], turn: &mut Turn<'_>) -> io::Result<()> {
        let length = padded_len(packet.len(), turn.snapshot.mtu);
        if self.departures.room_for(&way.session, length) == 0 {
            self.departures.flush(turn)?;
        }
        if self.departures.held().holds(way.peer.id) {
            return self.stage(&way.peer, [packet.into()], turn);
        }
        let Some(mut nonces) = way.session.reserve(1) else {
            return self.stage(&way.peer, [packet.into()], turn);
        };
        let counter = nonces.next().expect("one was reserved");
        let ecn = if packet.is_empty() { 0 } else { ip::outer_ecn(packet) };
        self.departures.push(way, ecn, counter, length, |plaintext| {
            plaintext[..packet.len()].copy_from_slice(packet);
            plaintext[packet.len()..].fill(0);
        });
        Ok(())
    }

    fn stage_placed(
        &mut self,
        peer: &Arc<Peer>,
        packets: &[InPlace],
        turn: &mut Turn<'_>,
    ) -> io::Result<()> {
        let copies: Vec<Box<[u8]>> = packets
            .iter()
            .filter_map(|placed| {
                let from = placed.at as usize + DATA_HEADER_LEN;
                let plaintext = &turn.trains[placed.train as usize].buffer[from..];
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
        let is_held = self.departures.held().holds(peer.id);
        let reason = if is_held { DropReason::SocketFull } else { DropReason::StagingFull };
        for packet in packets {
            turn.dropped(peer, reason, self.staging.push(peer, packet));
        }
        if is_held {
            return Ok(()); // until its trains have left
        }
        turn.raise(peer, flag::WANTS_HANDSHAKE);
        // Control may have published a session before it could see that something is staged.
        if live_session(peer, turn).is_some() { self.send_staged(peer, turn) } else { Ok(()) }
    }

    /// The way to a peer that may be sent to now, after what was staged for it.
    fn way_to(
        &mut self,
        peer: &Arc<Peer>,
        path: &Arc<Path>,
        turn: &mut Turn<'_>,
    ) -> io::Result<Option<Way>> {
        let Some(session) = live_session(peer, turn) else { return Ok(None) };
        self.send_staged(peer, turn)?;
        if self.departures.held().holds(peer.id) {
            return Ok(None);
        }
        Ok(Some(Way { peer: Arc::clone(peer), session, path: Arc::clone(path) }))
    }
}

/// A session that may send now.
fn live_session(peer: &Peer, turn: &Turn<'_>) -> Option<Arc<SendSession>> {
    let session = peer.session();
    session.as_ref().filter(|session| session.is_alive(turn.now)).cloned()
}

/// The packets of a frame from number `first` on, each by itself.
fn packets_of(cut: &Cut<'_>, first: usize) -> impl Iterator<Item = Box<[u8]>> {
    (first..cut.segments()).map(|number| {
        let mut packet = vec![0; cut.segment_len(number)].into_boxed_slice();
        cut.write_segment(number, &mut packet);
        packet
    })
}
