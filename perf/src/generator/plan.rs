//! What the generator is to play.

use super::network::Path;
use super::packet::{Kind, size_min};
use super::peer::OVERHEAD;
use super::pool::PADDING;
use crate::daemon::MTU;
use crate::failure::Failure;
use crate::star::Family;

/// What all peers of a relay have in common.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// What the inner packets are.
    pub kind: Kind,
    /// Which IP inside the tunnel.
    pub family: Family,
    /// Which IP carries the tunnel.
    pub outer: Family,
    /// Whether packets are padded to a multiple of 16 bytes.
    pub is_padded: bool,
    /// A packet of one in so many trains is decrypted and checked.
    pub check_every: usize,
    /// Core of the relay.
    pub relay_core: usize,
}

/// Pairs that send alike.
#[derive(Clone, Copy, Debug)]
pub struct GroupPlan {
    /// How many.
    pub pairs: usize,
    /// What their receivers use.
    pub path: Path,
    /// Bytes of a packet.
    pub size: usize,
    /// Packets of a train.
    pub train: usize,
    /// Bytes of the pool.
    pub pool: usize,
}

/// Datagrams of the longest train that every kernel with UDP_SEGMENT takes (UDP_MAX_SEGMENTS).
pub const TRAIN_MAX: u32 = 64;

/// Bytes of the longest train: kernels segment by themselves what comes near a datagram's limit.
const TRAIN_BYTES_MAX: usize = 65_000;

/// Fails if there are no such packets, or no trains of so many of them.
pub fn check_trains(kind: Kind, family: Family, size: usize, train: usize) -> Result<(), Failure> {
    let smallest = size_min(kind, family == Family::V6);
    if !(smallest..=MTU as usize).contains(&size) {
        let why = format!("--size {size}: such packets have {smallest} to {MTU} bytes");
        return Err(Failure::step(why));
    }
    let bytes = train * (size.next_multiple_of(PADDING) + OVERHEAD);
    if train > 1 && bytes > TRAIN_BYTES_MAX {
        return Err(Failure::step(format!(
            "--train {train}: {bytes} bytes, more than the {TRAIN_BYTES_MAX} of a train"
        )));
    }
    Ok(())
}
