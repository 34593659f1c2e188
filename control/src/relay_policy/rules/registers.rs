//! The registers of nftables while a rule is read: which bytes of a packet they have.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use wg_bounce_dataplane::ranges::Ranges;

use super::addresses::{NUMBER_LEN_MAX, number};
use super::xt::TCP_SYN;
use super::{Condition, Layer, Side};
use crate::netlink::parse::{array, malformed};

/// Four-byte slots of the registers: 1 to 4 are four slots each, 8 to 23 one each, of the same
/// memory (`nft_parse_register`, net/netfilter/nf_tables_api.c).
const SLOTS: usize = 16;
/// Bytes of an interface's name (IFNAMSIZ).
const NAME_LEN: usize = 16;

/// The state of an untracked packet (NF_CT_STATE_UNTRACKED_BIT,
/// linux/netfilter/nf_conntrack_common.h).
const STATE_UNTRACKED: u32 = 1 << 6;

/// Content of four bytes, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Not known.
    Unknown,
    /// Bytes of an interface's name, from four times this on.
    Name(Side, usize),
    /// An interface's index.
    Index(Side),
    /// NFPROTO_*, in the first byte.
    Version,
    /// Bytes of a header from `offset` on, in the bits of `mask`.
    Header {
        /// The header.
        layer: Layer,
        /// Offset in the header (bytes).
        offset: usize,
        /// Number of bytes, at most four; zeros follow.
        length: usize,
        /// The bits that are left.
        mask: [u8; 4],
        /// Whether it is the first one of what was loaded at once.
        begins: bool,
    },
    /// The packet's mark, in some bits.
    Mark,
    /// The state of the packet's connection, in some bits.
    State(u32),
    /// The flags of a TCP header, in these bits, in the first byte.
    TcpFlags(u8),
    /// RTN_* of the destination.
    DestinationType,
    /// Bytes that the rule has itself.
    Data([u8; 4]),
}

/// All registers.
pub struct Registers([Slot; SLOTS]);

impl Registers {
    /// Registers of which nothing is known.
    pub fn new() -> Registers {
        Registers([Slot::Unknown; SLOTS])
    }

    /// The slots from a register on.
    ///
    /// # Errors
    /// There is no such register.
    pub fn from(&self, register: u32) -> io::Result<&[Slot]> {
        Ok(&self.0[slot_of(register)?..])
    }

    /// Writes what is known to a register, and forgets everything behind it: how much an expression
    /// writes is not always known.
    ///
    /// # Errors
    /// There is no such register, or it is too short.
    pub fn write(&mut self, register: u32, known: &[Slot]) -> io::Result<()> {
        let slots = &mut self.0[slot_of(register)?..];
        slots.fill(Slot::Unknown);
        slots.get_mut(..known.len()).ok_or_else(malformed)?.copy_from_slice(known);
        Ok(())
    }
}

/// The condition that `slots` begin with `value` (or do not).
pub fn compare(slots: &[Slot], value: &[u8], is_equal: bool) -> io::Result<Condition> {
    Ok(match (slots.first().copied().unwrap_or(Slot::Unknown), value.len()) {
        // The name is whole, unless its slots were written to since.
        (Slot::Name(side, 0), 1..=NAME_LEN) if has_name(slots, side, value.len()) => {
            let mask = vec![0xff; value.len()];
            Condition::Name { side, name: value.to_vec(), mask, is_equal }
        }
        (Slot::Index(side), 4) => {
            let index = u32::from_ne_bytes(array(value)?);
            Condition::Index { side, index, is_equal }
        }
        (Slot::Version, 1) => Condition::Version { version: value[0], is_equal },
        (Slot::Mark, 4) => Condition::Mark { value: u32::from_ne_bytes(array(value)?), is_equal },
        (Slot::State(mask), 4) => {
            let is_value = mask & STATE_UNTRACKED == u32::from_ne_bytes(array(value)?);
            Condition::State { of_untracked: is_value == is_equal }
        }
        (Slot::TcpFlags(mask), 1) => {
            let has_syn = match is_equal {
                true => mask & value[0] & TCP_SYN != 0,
                false => mask == TCP_SYN && value[0] == 0,
            };
            if has_syn { Condition::Syn } else { Condition::Unknown }
        }
        (Slot::DestinationType, 4) => {
            // Of the types only this one is known not to be it.
            match u32::from_ne_bytes(array(value)?) == u32::from(libc::RTN_LOCAL) {
                true => Condition::ToHost { is_equal },
                false => Condition::Unknown,
            }
        }
        (Slot::Header { layer, offset, .. }, length) => match mask_of_header(slots, length) {
            Some(mask) => {
                Condition::Header { layer, offset, value: value.to_vec(), mask, is_equal }
            }
            None => Condition::Unknown,
        },
        _ => Condition::Unknown,
    })
}

/// The condition that the bytes of the header that `slots` begin with are from `first` to `last`
/// (or are not).
pub fn range(slots: &[Slot], first: &[u8], last: &[u8], is_within: bool) -> Condition {
    match whole(slots, first.len()) {
        Some((layer, bytes)) if first.len() == last.len() => {
            let ranges = Arc::new(Ranges::new(vec![(number(first), number(last))]));
            Condition::Within { layer, bytes, ranges, is_within }
        }
        _ => Condition::Unknown,
    }
}

/// The header and the bytes in it that a key of this length consists of, if it is one number.
pub fn field(slots: &[Slot], length: usize) -> Option<(Layer, Range<usize>)> {
    let whole = whole(slots, length)?;
    let mut rest = slots[1..].iter().take(length.div_ceil(4) - 1);
    rest.all(|slot| matches!(slot, Slot::Header { begins: false, .. })).then_some(whole)
}

/// The header and the bytes in it that are loaded, if all of their bits are, and they are no longer
/// than a number.
fn whole(slots: &[Slot], length: usize) -> Option<(Layer, Range<usize>)> {
    let is_whole = mask_of_header(slots, length)?.iter().all(|byte| *byte == 0xff);
    let Some(&Slot::Header { layer, offset, .. }) = slots.first() else { return None };
    let is_number = is_whole && (1..=NUMBER_LEN_MAX).contains(&length);
    is_number.then_some((layer, offset..offset + length))
}

/// The conditions that all fields of a key are from `first` to `last`, which is `first` if there is
/// none. Every field begins in a slot of its own.
pub fn key(slots: &[Slot], first: &[u8], last: Option<&[u8]>) -> io::Result<Vec<Condition>> {
    let mut conditions = Vec::new();
    let mut at = 0;
    while at < first.len() {
        let slots = slots.get(at / 4..).unwrap_or_default();
        let (length, padded) = match slots.first() {
            Some(Slot::Name(_, 0)) => (NAME_LEN, NAME_LEN),
            Some(Slot::Version) => (1, 4),
            Some(Slot::Header { .. }) => {
                let mut rest = slots[1..]
                    .iter()
                    .take_while(|slot| matches!(slot, Slot::Header { begins: false, .. }));
                let more: usize = rest.by_ref().map(length_of).sum();
                let length = length_of(&slots[0]) + more;
                (length, length.next_multiple_of(4))
            }
            _ => (4, 4),
        };
        let end = first.len().min(at + length);
        let (low, high) = (&first[at..end], last.map(|last| last.get(at..end)));
        conditions.push(match high {
            None => compare(slots, low, true)?,
            Some(Some(high)) if high == low => compare(slots, low, true)?,
            Some(Some(high)) => range(slots, low, high, true),
            Some(None) => return Err(malformed()),
        });
        at += padded;
    }
    Ok(conditions)
}

fn length_of(slot: &Slot) -> usize {
    if let Slot::Header { length, .. } = slot { *length } else { 0 }
}

fn has_name(slots: &[Slot], side: Side, length: usize) -> bool {
    (0..length.div_ceil(4)).all(|word| slots.get(word) == Some(&Slot::Name(side, word)))
}

/// The bits that are known of so many consecutive bytes of the header, if they are all there.
fn mask_of_header(slots: &[Slot], length: usize) -> Option<Vec<u8>> {
    let Some(Slot::Header { layer: first, offset: start, .. }) = slots.first() else { return None };
    let mut bits = Vec::with_capacity(length);
    for at in (0..length).step_by(4) {
        let part = (length - at).min(4);
        match slots.get(at / 4) {
            Some(Slot::Header { layer, offset, length: known, mask, .. })
                if layer == first && *offset == start + at && *known >= part =>
            {
                bits.extend_from_slice(&mask[..part]);
            }
            _ => return None,
        }
    }
    Some(bits)
}

fn slot_of(register: u32) -> io::Result<usize> {
    match register {
        1..=4 => Ok((register as usize - 1) * 4),
        8..=23 => Ok(register as usize - 8),
        _ => Err(malformed()),
    }
}
