//! Completion of sends: accounts for what left, and retries a refused train in a plainer form.

use std::io::IoSlice;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrayvec::ArrayVec;
use wg_bounce_sys::socket::{may_be_source, send_one};
use wg_bounce_sys::{Endpoint, Errno, Family, OuterHeader};

use crate::counters::DropReason;
use crate::limits::{GSO_REPROBE_AFTER, SEND_SEGMENTS_MAX};
use crate::path::Path;
use crate::peer::{Peer, flag};
use crate::session::SendSession;
use crate::turn::Turn;

/// A peer that can be sent to now.
#[derive(Clone)]
pub struct Target {
    /// The peer.
    pub peer: Arc<Peer>,
    /// A session of the peer that may still send.
    pub session: Arc<SendSession>,
    /// The peer's endpoint, with the state of segmentation offload on the way there.
    pub path: Arc<Path>,
}

/// The pieces of one train, in order.
pub(super) type Slices<'a> = ArrayVec<&'a [u8], SEND_SEGMENTS_MAX>;

/// The part of a train that left.
#[derive(Clone, Copy, Default)]
pub(super) struct SentStats {
    pub trains: u64,
    pub messages: u64,
    /// UDP payload (bytes).
    pub bytes: u64,
}

impl SentStats {
    /// One whole train of this many messages and bytes.
    pub(super) fn train(messages: u32, bytes: usize) -> SentStats {
        SentStats { trains: 1, messages: messages.into(), bytes: bytes as u64 }
    }
}

/// Records on the peer and in the counters that something left; does nothing if nothing did.
/// `has_data`: not only keepalives.
pub(super) fn note_sent(target: &Target, sent: SentStats, has_data: bool, turn: &mut Turn<'_>) {
    let Target { peer, session, .. } = target;
    if sent.messages == 0 {
        return;
    }
    turn.counters.sent_trains.add(sent.trains);
    turn.counters.sent_datagrams.add(sent.messages);
    peer.counters.sent_trains.add(sent.trains);
    peer.counters.sent_datagrams.add(sent.messages);
    peer.counters.sent_bytes.add(sent.bytes);
    if peer.note_sent(turn.now, has_data) {
        turn.channels.notice(peer.id);
    }
    if session.wants_rekey(turn.now) {
        turn.raise(peer, flag::WANTS_HANDSHAKE);
    }
}

/// Whether a path leads over another socket than that of this family.
pub(super) fn is_elsewhere(path: &Path, family: Family, turn: &Turn<'_>) -> bool {
    let now_on = path.endpoint.family();
    now_on != family && turn.io.socket_of(now_on).is_some()
}

/// A train, or a single datagram, that is sent by itself.
pub(super) struct OneTrain<'a> {
    pub to: Endpoint,
    pub header: OuterHeader,
    /// Bytes of every message but the last; zero: one message alone.
    pub segment_size: usize,
    pub messages: u32,
    pub slices: &'a [&'a [u8]],
}

impl OneTrain<'_> {
    /// Sends it, in a plainer form if need be. Returns what left, and counts the rest as dropped;
    /// none if the socket is full.
    pub(super) fn send(&self, peer: &Peer, path: &Path, turn: &Turn<'_>) -> Option<SentStats> {
        match self.try_send(&self.to, turn) {
            Ok(sent) => Some(sent),
            Err(libc::EAGAIN) => None,
            Err(errno) => self.retry_plainer(errno, peer, path, turn),
        }
    }

    fn try_send(&self, to: &Endpoint, turn: &Turn<'_>) -> Result<SentStats, Errno> {
        let socket = turn.io.socket_for(to).ok_or(libc::EAFNOSUPPORT)?.as_raw_fd();
        let pieces: ArrayVec<IoSlice<'_>, SEND_SEGMENTS_MAX> =
            self.slices.iter().map(|slice| IoSlice::new(slice)).collect();
        send_one(socket, to, self.header, self.segment_size, &pieces)?;
        let bytes = self.slices.iter().map(|slice| slice.len()).sum();
        Ok(SentStats::train(self.messages, bytes))
    }

    /// Retries, after the kernel refused it with `errno`, without the source address if that may
    /// have vanished, then one message at a time if the kernel refuses segmentation offload.
    /// Returns what left, and counts the rest as dropped; none if the socket is full.
    ///
    /// Expected errnos, besides those of [`may_be_source`]: EMSGSIZE (a segment exceeds the
    /// route's MTU), EIO and EINVAL (the device or kernel cannot segment). Any other is final.
    pub(super) fn retry_plainer(
        &self,
        mut errno: Errno,
        peer: &Peer,
        path: &Path,
        turn: &Turn<'_>,
    ) -> Option<SentStats> {
        let OneTrain { to, segment_size, messages, .. } = *self;
        let any_source = Endpoint { source: None, ..to };
        if may_be_source(errno) && to.source.is_some() {
            match self.try_send(&any_source, turn) {
                Ok(sent) => {
                    peer.forget_source(to);
                    return Some(sent);
                }
                Err(libc::EAGAIN) => return None,
                Err(other) => errno = other,
            }
        }
        let is_gso_refused = matches!(errno, libc::EMSGSIZE | libc::EIO | libc::EINVAL);
        if segment_size == 0 || !is_gso_refused {
            turn.dropped(peer, drop_reason(errno), messages.into());
            return Some(SentStats::default());
        }
        if path.gso_refused_until.load(Ordering::Relaxed) <= turn.now.0 {
            let reprobe_at = turn.now + GSO_REPROBE_AFTER;
            path.gso_refused_until.store(reprobe_at.0, Ordering::Relaxed);
            turn.counters.gso_demotions.add(1);
            peer.counters.gso_demotions.add(1);
        }
        Some(self.send_singly(peer, turn))
    }

    /// Sends one message after the other. What finds the socket full is dropped: part of this train
    /// has left, and the next ones are not formed.
    fn send_singly(&self, peer: &Peer, turn: &Turn<'_>) -> SentStats {
        let mut sent = SentStats::default();
        let Some(socket) = turn.io.socket_for(&self.to).map(AsRawFd::as_raw_fd) else {
            turn.dropped(peer, DropReason::SendRefused, self.messages.into());
            return sent;
        };
        let any_source = Endpoint { source: None, ..self.to };
        let mut to = self.to;
        for message in self.slices.iter().flat_map(|slice| slice.chunks(self.segment_size)) {
            let piece = [IoSlice::new(message)];
            let mut result = send_one(socket, &to, self.header, 0, &piece);
            // The source address may have vanished as well.
            if result.is_err_and(may_be_source) && to.source.is_some() {
                result = send_one(socket, &any_source, self.header, 0, &piece);
                if result.is_ok() {
                    peer.forget_source(self.to);
                    to = any_source;
                }
            }
            match result {
                Ok(()) => {
                    sent.trains += 1;
                    sent.messages += 1;
                    sent.bytes += message.len() as u64;
                }
                Err(errno) => turn.dropped(peer, drop_reason(errno), 1),
            }
        }
        sent
    }
}

fn drop_reason(errno: Errno) -> DropReason {
    match errno {
        libc::EAGAIN | libc::ENOBUFS => DropReason::SocketFull,
        _ => DropReason::SendRefused,
    }
}
