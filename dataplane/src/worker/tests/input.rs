//! Inputs of the worker's targets: a setting, and what arrives.
//!
//! Byte 0 is the setting, byte 1 the MTU. Records follow: a byte with what it is, two with its
//! length, and its bytes. A record that is longer than the input ends with it.

use super::Setting;
use super::kernel_routes::Answer;
use crate::snapshot::DirectRelay;

/// A record.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// The first byte.
    pub flags: u8,
    /// The bytes.
    pub bytes: &'a [u8],
}

/// The kind of a record, in the low bits of its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A datagram as it is.
    Raw,
    /// A packet, sealed.
    Sealed,
    /// A packet, padded to a multiple of 16 with what is not zero, and sealed.
    Padded,
    /// A packet, sealed under the counter of the one before.
    Replayed,
    /// A packet, sealed; then a bit of the message is flipped.
    Forged,
    /// A handshake message, with the right mac1 if it has the length of one.
    Handshake,
    /// A datagram that another worker hands over.
    HandedOver,
    /// The end of a turn.
    Turn,
}

impl Record<'_> {
    pub fn kind(&self) -> Kind {
        match self.flags & 7 {
            0 => Kind::Raw,
            1 => Kind::Sealed,
            2 => Kind::Padded,
            3 => Kind::Replayed,
            4 => Kind::Forged,
            5 => Kind::Handshake,
            6 => Kind::HandedOver,
            _ => Kind::Turn,
        }
    }

    /// The peer whose session it is sealed for, and from whose socket it comes.
    pub fn peer(&self) -> usize {
        usize::from(self.flags >> 3 & 1)
    }

    /// The socket that it comes from: the peer's own, or that of a stranger.
    pub fn socket(&self) -> usize {
        if self.flags >> 4 & 1 == 1 { 2 } else { self.peer() }
    }

    /// Whether it belongs to the train of the record before.
    pub fn continues(&self) -> bool {
        self.flags >> 5 & 1 == 1
    }

    /// The outer traffic class: ECN alone.
    pub fn traffic_class(&self) -> u8 {
        self.flags >> 6
    }
}

/// Reads an input.
pub fn read(data: &[u8]) -> (Setting, Vec<Record<'_>>) {
    let (setting, mtu) = (byte(data, 0), byte(data, 1));
    let mode = match setting & 7 {
        1 => DirectRelay::IfRoutedBack,
        2 => DirectRelay::Always,
        3 => DirectRelay::LocalOnly,
        4 => DirectRelay::Alone,
        _ => DirectRelay::Never,
    };
    let mtu = [1420, 1280, 576, 65_535][usize::from(mtu & 3)];
    let (is_up, is_expired) = (setting & 8 == 0, setting & 16 != 0);
    let mut records = Vec::new();
    let mut rest = data.get(2..).unwrap_or_default();
    while let [flags, low, high, more @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(more.len());
        let (bytes, next) = more.split_at(length);
        records.push(Record { flags: *flags, bytes });
        rest = next;
    }
    let route = Answer::number(setting >> 5);
    (Setting { mode, is_up, mtu, is_expired, route }, records)
}

fn byte(data: &[u8], at: usize) -> u8 {
    data.get(at).copied().unwrap_or_default()
}
