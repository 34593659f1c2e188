//! Facts about packets on their way through the hooks of netfilter.

use std::sync::LazyLock;

use wg_bounce_dataplane::ip::{V4_HEADER_LEN, V6_HEADER_LEN};
use wg_bounce_dataplane::pairs::Field;
use wg_bounce_dataplane::ranges::Ranges;
use wg_bounce_dataplane::transport::Transport;
use wg_bounce_sys::{Family, PerFamily};

use super::addresses::Addresses;
use super::{Condition, NewAddress, Notes, Side};
use crate::relay_policy::kernel::Interface;

/// The interface on one side, as rules see it at a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// It is our interface.
    Ours,
    /// Rules see none there: its name is empty and its index is zero.
    Nothing,
    /// Not known.
    Any,
}

/// A hook on the path of a packet between peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Its name in nft(8).
    pub name: &'static str,
    /// The interface that packets enter by, as far as rules see it there.
    pub incoming: Device,
    /// The interface that they leave by.
    pub outgoing: Device,
}

/// As soon as a packet is received.
pub const INGRESS: Hook =
    Hook { name: "ingress", incoming: Device::Ours, outgoing: Device::Nothing };
/// Before the route is known.
pub const PREROUTING: Hook = Hook { name: "prerouting", ..INGRESS };
/// When a packet is forwarded.
pub const FORWARD: Hook = Hook { name: "forward", incoming: Device::Ours, outgoing: Device::Ours };
/// Before a packet leaves. Rules see where it came from since Linux 5.7.
pub const POSTROUTING: Hook = Hook { name: "postrouting", ..FORWARD };
/// When a packet is given to the device.
pub const EGRESS: Hook = Hook { name: "egress", incoming: Device::Nothing, outgoing: Device::Ours };

/// Facts about the host.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Our interface.
    pub interface: &'a Interface,
    /// The peers' addresses, if they are known.
    pub addresses: Option<&'a Addresses>,
    /// Whether the kernel looks for its own addresses before any other route, so that a packet
    /// whose route leads to a peer is not for the host.
    pub host_first: PerFamily<bool>,
    /// Whether an earlier rule keeps the kernel from tracking any packet between peers.
    pub untracked: PerFamily<bool>,
}

/// The values that a field of a packet may have.
#[derive(Clone, Copy, Debug)]
pub(super) enum Candidates<'a> {
    /// Any.
    All,
    /// Addresses of peers, which are not known.
    OfPeers,
    /// These.
    Known(&'a Ranges),
}

/// All protocols, as [`wg_bounce_dataplane::transport::Transport::protocol`].
static PROTOCOLS: LazyLock<Ranges> =
    LazyLock::new(|| Ranges::new(vec![(0, Transport::ICMP_ERROR.into())]));
static PORTS: LazyLock<Ranges> = LazyLock::new(|| Ranges::new(vec![(0, u16::MAX.into())]));

/// Whether these are all protocols or all ports.
pub fn is_any(field: Field, values: &Ranges) -> bool {
    match field {
        Field::Source | Field::Destination => false,
        Field::Protocol => *values == *PROTOCOLS,
        Field::SourcePort | Field::DestinationPort => *values == *PORTS,
    }
}

/// Facts about packets at a hook.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub(super) interface: &'a Interface,
    hook: Hook,
    pub(super) family: Family,
    source: Candidates<'a>,
    destination: Candidates<'a>,
    protocol: &'a Ranges,
    source_port: &'a Ranges,
    destination_port: &'a Ranges,
    /// Whether the destination is none of the host's addresses.
    is_not_to_host: bool,
    /// Whether the packets have no mark.
    is_unmarked: bool,
    /// Whether the kernel does not track the packets.
    is_untracked: bool,
}

impl<'a> Place<'a> {
    /// Packets of one IP version between peers, at `hook`. They have no mark: any rule that gives
    /// them one is an effect by itself.
    pub fn between_peers(facts: &Facts<'a>, hook: Hook, family: Family) -> Place<'a> {
        let of_peers = match facts.addresses {
            Some(addresses) => Candidates::Known(addresses.ranges.of(family)),
            None => Candidates::OfPeers,
        };
        Place {
            interface: facts.interface,
            hook,
            family,
            source: of_peers,
            destination: of_peers,
            protocol: &PROTOCOLS,
            source_port: &PORTS,
            destination_port: &PORTS,
            is_not_to_host: *facts.host_first.of(family),
            is_unmarked: true,
            is_untracked: *facts.untracked.of(family) && hook != INGRESS && hook != PREROUTING,
        }
    }

    /// Packets whose translation may make the answers to them packets between peers: from a peer
    /// and translated before routing, or to a peer and translated before they leave. None at
    /// another hook.
    pub fn of_translations(facts: &Facts<'a>, hook: Hook, family: Family) -> Option<Place<'a>> {
        let between = Place::between_peers(facts, hook, family);
        let (is_not_to_host, is_unmarked, is_untracked) = (false, false, false);
        let place = Place { is_not_to_host, is_unmarked, is_untracked, ..between };
        match hook {
            PREROUTING => Some(Place { destination: Candidates::All, ..place }),
            POSTROUTING => {
                let hook = Hook { incoming: Device::Any, ..hook };
                Some(Place { hook, source: Candidates::All, ..place })
            }
            _ => None,
        }
    }

    /// The same packets, as far as a field has one of these values.
    pub fn with(mut self, field: Field, ranges: &'a Ranges) -> Place<'a> {
        match field {
            Field::Source => self.source = Candidates::Known(ranges),
            Field::Destination => self.destination = Candidates::Known(ranges),
            Field::Protocol => self.protocol = ranges,
            Field::SourcePort => self.source_port = ranges,
            Field::DestinationPort => self.destination_port = ranges,
        }
        self
    }

    /// The values that a field may have, if they are known.
    pub fn values(&self, field: Field) -> Option<&'a Ranges> {
        match self.candidates(field) {
            Candidates::Known(ranges) => Some(ranges),
            Candidates::All | Candidates::OfPeers => None,
        }
    }

    pub(super) fn candidates(&self, field: Field) -> Candidates<'a> {
        match field {
            Field::Source => self.source,
            Field::Destination => self.destination,
            Field::Protocol => Candidates::Known(self.protocol),
            Field::SourcePort => Candidates::Known(self.source_port),
            Field::DestinationPort => Candidates::Known(self.destination_port),
        }
    }

    /// NFPROTO_IPV4 or NFPROTO_IPV6; none at hooks of devices, where rules see another number.
    pub(super) fn version(&self) -> Option<u8> {
        let version = match self.family {
            Family::V4 => libc::NFPROTO_IPV4,
            Family::V6 => libc::NFPROTO_IPV6,
        };
        (self.hook != INGRESS && self.hook != EGRESS).then_some(version as u8)
    }

    /// Whether a condition holds; none if that is not known. Notes what the answer depends on.
    pub fn holds(&self, condition: &Condition, notes: &mut Notes) -> Option<bool> {
        notes.work += 1;
        let name_of_ours = &self.interface.name;
        match condition {
            Condition::Name { side, name, mask, is_equal } => {
                let actual = match self.side(*side) {
                    // Not as the kernel has it.
                    Device::Ours if name_of_ours.contains(char::REPLACEMENT_CHARACTER) => {
                        return None;
                    }
                    Device::Ours => name_of_ours.as_bytes(),
                    Device::Nothing => &[],
                    Device::Any => return None,
                };
                let actual = actual.iter().chain(std::iter::repeat(&0));
                let equal = name.iter().zip(mask).zip(actual).all(|((n, m), a)| n & m == a & m);
                Some(equal == *is_equal)
            }
            Condition::Index { side, index, is_equal } => {
                let actual = match self.side(*side) {
                    Device::Ours => self.interface.index,
                    Device::Nothing => 0,
                    Device::Any => return None,
                };
                Some((actual == *index) == *is_equal)
            }
            Condition::Version { version, is_equal } => {
                self.version().map(|actual| (actual == *version) == *is_equal)
            }
            Condition::Header { layer, offset, value, mask, is_equal } => {
                let holds = self.header_equals((*layer, *offset), value, mask, notes);
                holds.map(|equal| equal == *is_equal)
            }
            Condition::Within { layer, bytes, ranges, is_within } => {
                let within = self.header_within(*layer, bytes, ranges, notes);
                within.map(|within| within == *is_within)
            }
            Condition::AnyOf { elements, is_in, may_expire } => {
                notes.needs.sets = true;
                let (mut any, count) = (Some(false), notes.splits.len());
                for element in elements {
                    let holds = element.iter().map(|one| self.holds(one, notes));
                    any = either(any, holds.fold(Some(true), both));
                }
                notes.join_splits(count);
                any.filter(|any| !(*any && *may_expire)).map(|any| any == *is_in)
            }
            // Every packet has the fixed part of its header.
            Condition::Length(length) => match self.family {
                _ if *length <= V4_HEADER_LEN => Some(true),
                Family::V6 if self.version().is_some() && *length <= V6_HEADER_LEN => Some(true),
                _ => None,
            },
            Condition::Mark { value, is_equal } => {
                self.is_unmarked.then_some((*value == 0) == *is_equal)
            }
            Condition::ToHost { is_equal } => self.is_not_to_host.then_some(!is_equal),
            Condition::State { of_untracked } => self.is_untracked.then_some(*of_untracked),
            // All others are by the kernel.
            Condition::Transport | Condition::Extension => {
                notes.exceptions.without_header = true;
                Some(*condition == Condition::Transport)
            }
            Condition::Syn | Condition::Pure(_) | Condition::Unclear(_) | Condition::Unknown => {
                None
            }
        }
    }

    /// The addresses of peers that a translation to `address` may write; none if they are not
    /// known.
    pub fn translated(&self, address: NewAddress, notes: &mut Notes) -> Option<Ranges> {
        match address {
            NewAddress::OfHost => Some(Ranges::default()),
            NewAddress::Within(_, first, last) => {
                notes.needs.addresses = true;
                let mut ends = [Field::Source, Field::Destination].into_iter();
                let peers = ends.find_map(|field| self.values(field));
                Some(peers?.split(&Ranges::new(vec![(first, last)])).0)
            }
            NewAddress::Any => None,
        }
    }

    fn side(&self, side: Side) -> Device {
        match side {
            Side::In => self.hook.incoming,
            Side::Out => self.hook.outgoing,
        }
    }
}

/// Whether both hold.
pub(super) fn both(one: Option<bool>, other: Option<bool>) -> Option<bool> {
    match (one, other) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

/// Whether one of both holds.
fn either(one: Option<bool>, other: Option<bool>) -> Option<bool> {
    both(one.map(|one| !one), other.map(|other| !other)).map(|neither| !neither)
}
