//! ICMP errors about packets that cannot be forwarded, with the source address that a router has.
//!
//! 1. A packet of a peer: the error is sealed straight to that peer, from the host's own address
//!    towards it, as the kernel would choose it. In the TUN the kernel would drop it as a martian.
//! 2. A packet of a local socket, or of a host that is not behind a peer: the error is written to
//!    the TUN, so that its source is the unreachable address.

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::sync::Arc;

use wg_bounce_sys::clock::Millis;
use wg_bounce_sys::{Errno, TunWrite};

use crate::icmp::{self, IcmpError, may_answer};
use crate::ip::Packet;
use crate::limits::{
    ICMP_ERROR_BUCKETS, ICMP_ERROR_BURST, ICMP_ERROR_BURST_PER_PEER, ICMP_ERRORS_PER_PEER,
    ICMP_ERRORS_PER_SECOND,
};
use crate::offload::VNET_HEADER_LEN;
use crate::own_host::DUMMY_ADDRESS;
use crate::peer::{Peer, PeerId};
use crate::router::Router;
use crate::send::Sender;
use crate::snapshot::Snapshot;
use crate::token_bucket::{Rate, TokenBucket};
use crate::turn::Turn;

/// The rate of a worker's errors.
const RATE: Rate = rate(ICMP_ERRORS_PER_SECOND, ICMP_ERROR_BURST);
/// The rate of a worker's errors about the packets of one peer.
const RATE_PER_PEER: Rate = rate(ICMP_ERRORS_PER_PEER, ICMP_ERROR_BURST_PER_PEER);

const fn rate(per_second: u64, burst: u64) -> Rate {
    Rate { cost: Millis(1000 / per_second), burst: Millis(burst * 1000 / per_second) }
}

/// The ICMP errors of one worker.
pub struct IcmpErrors {
    message: Box<[u8; VNET_HEADER_LEN + icmp::ERROR_LEN_MAX]>,
    outcomes: Vec<Errno>,
    all: TokenBucket,
    /// By the peer's number; peers beyond the size of the table share buckets.
    by_peer: Box<[TokenBucket]>,
}

impl Default for IcmpErrors {
    /// Allocates its memory here.
    fn default() -> Self {
        let full = TokenBucket::full(&RATE_PER_PEER, Millis::ZERO);
        IcmpErrors {
            message: Box::new([0; VNET_HEADER_LEN + icmp::ERROR_LEN_MAX]),
            outcomes: Vec::with_capacity(1),
            all: TokenBucket::full(&RATE, Millis::ZERO),
            by_peer: vec![full; ICMP_ERROR_BUCKETS].into(),
        }
    }
}

impl IcmpErrors {
    /// Writes the error about a packet of `peer` that lies in a train; returns its length, or none
    /// if there must not be one.
    pub fn prepare(
        &mut self,
        error: IcmpError,
        (offending, ip): (&[u8], &Packet),
        peer: PeerId,
        router: &mut Router,
        turn: &Turn<'_>,
    ) -> Option<usize> {
        if !may_answer(offending, ip) || !self.is_within_rate(Some(peer), turn.now) {
            return None;
        }
        let from = source_towards(ip.source, router, turn.snapshot)?;
        error.write(offending, from, &mut self.message[VNET_HEADER_LEN..])
    }

    /// Seals the error of `length` bytes that [`IcmpErrors::prepare`] wrote.
    pub fn send(
        &self,
        length: usize,
        peer: &Arc<Peer>,
        sender: &mut Sender,
        turn: &mut Turn<'_>,
    ) -> io::Result<()> {
        sender.send_error(peer, &self.message[VNET_HEADER_LEN..][..length], turn)
    }

    /// Answers a packet of the TUN that no peer can receive.
    ///
    /// # Errors
    /// EBADFD: the TUN device was deleted.
    pub fn answer_frame(
        &mut self,
        (offending, ip): (&[u8], &Packet),
        router: &mut Router,
        sender: &mut Sender,
        turn: &mut Turn<'_>,
    ) -> io::Result<()> {
        let snapshot = turn.snapshot;
        let peer = snapshot.routes.lookup(ip.source);
        let number = peer.map(|peer| peer.id);
        if !may_answer(offending, ip) || !self.is_within_rate(number, turn.now) {
            return Ok(());
        }
        let error = IcmpError::Unreachable;
        // A peer may own the host's own addresses as well, for example by 0.0.0.0/0: only the
        // kernel's routes tell its packets from those of a local socket.
        let from = peer.filter(|_| router.is_back(ip.destination, ip.source));
        let from = from.and_then(|peer| Some((peer, source_towards(ip.source, router, snapshot)?)));
        let body = &mut self.message[VNET_HEADER_LEN..];
        if let Some((peer, from)) = from
            && let Some(length) = error.write(offending, from, body)
        {
            return self.send(length, peer, sender, turn);
        }
        match error.write(offending, ip.destination, body) {
            Some(length) => self.write_tun(length, turn),
            None => Ok(()),
        }
    }

    fn write_tun(&mut self, length: usize, turn: &mut Turn<'_>) -> io::Result<()> {
        self.message[..VNET_HEADER_LEN].fill(0);
        let piece = [IoSlice::new(&self.message[..VNET_HEADER_LEN + length])];
        let delivery = TunWrite { queue: turn.worker, pieces: 0..1 };
        turn.io.write(&[delivery], &piece, &mut self.outcomes)?;
        turn.counters.generated_packets.add(1);
        self.outcomes.iter().try_for_each(|&outcome| turn.written(1, outcome))
    }

    fn is_within_rate(&mut self, peer: Option<PeerId>, now: Millis) -> bool {
        let is_within = peer.is_none_or(|PeerId(number)| {
            self.by_peer[number as usize % ICMP_ERROR_BUCKETS].try_take(&RATE_PER_PEER, now)
        });
        is_within && self.all.try_take(&RATE, now)
    }
}

/// The host's own address towards `peer`; none if it has none.
fn source_towards(peer: IpAddr, router: &mut Router, snapshot: &Snapshot) -> Option<IpAddr> {
    let dummy = peer.is_ipv4().then_some(DUMMY_ADDRESS);
    router.source_address(peer, snapshot).or(dummy)
}
