//! The packets between peers that workers must leave to the kernel, because its rules do something
//! to them: a decision tree over addresses, protocol and ports.
//!
//! All packets of a conversation take one way, in both directions ([`between`]): the kernel may
//! drop a connection that it sees only half of.

use std::net::IpAddr;
use std::sync::Arc;

use crate::ranges::Ranges;
use crate::transport::Transport;

/// Packets that [`crate::snapshot::DirectRelay::IfRoutedBack`] leaves to the kernel all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exceptions {
    /// All of them.
    pub all: bool,
    /// Packets that end before their transport header does, fragments, and IPv6 extension headers:
    /// rules read that header.
    pub without_header: bool,
    /// TCP segments with SYN: rules change their MSS option.
    pub syn: bool,
    /// ICMP errors: they may quote a packet that the kernel has translated.
    pub icmp_errors: bool,
}

impl Exceptions {
    /// No packets.
    pub const NONE: Exceptions =
        Exceptions { all: false, without_header: false, syn: false, icmp_errors: false };
    /// All packets.
    pub const ALL: Exceptions = Exceptions { all: true, ..Exceptions::NONE };

    /// The exceptions of both.
    #[must_use]
    pub fn and(self, other: Exceptions) -> Exceptions {
        Exceptions {
            all: self.all | other.all,
            without_header: self.without_header | other.without_header,
            syn: self.syn | other.syn,
            icmp_errors: self.icmp_errors | other.icmp_errors,
        }
    }

    /// The exceptions that both have.
    fn common(self, other: Exceptions) -> Exceptions {
        Exceptions {
            all: self.all & other.all,
            without_header: self.without_header & other.without_header,
            syn: self.syn & other.syn,
            icmp_errors: self.icmp_errors & other.icmp_errors,
        }
    }
}

/// Source and destination of a packet, by their numbers.
pub type Pair = (u128, u128);

/// A field that rules tell packets apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The source address.
    Source,
    /// The destination address.
    Destination,
    /// The protocol, as [`Transport::protocol`].
    Protocol,
    /// The source port of TCP and UDP.
    SourcePort,
    /// The destination port of TCP and UDP.
    DestinationPort,
}

impl Field {
    /// All fields.
    pub const ALL: [Field; 5] = [
        Field::Source,
        Field::Destination,
        Field::Protocol,
        Field::SourcePort,
        Field::DestinationPort,
    ];
}

/// Packets from one address to another, with any protocol and ports that are not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packets {
    /// The source address, by its number.
    pub source: u128,
    /// The destination address.
    pub destination: u128,
    /// The protocol, as [`Transport::protocol`].
    pub protocol: Option<u16>,
    /// The source port.
    pub source_port: Option<u16>,
    /// The destination port.
    pub destination_port: Option<u16>,
}

impl Packets {
    /// All packets from one address to another.
    #[must_use]
    pub fn from_to(source: IpAddr, destination: IpAddr) -> Packets {
        Packets::of_pair((number(source), number(destination)))
    }

    /// As [`Packets::from_to`], by the numbers of the addresses.
    #[must_use]
    pub fn of_pair((source, destination): Pair) -> Packets {
        let (protocol, source_port, destination_port) = (None, None, None);
        Packets { source, destination, protocol, source_port, destination_port }
    }

    /// Those with this protocol and these ports.
    #[must_use]
    pub fn with(self, transport: Transport) -> Packets {
        let Transport { protocol, source_port, destination_port } = transport;
        let [source_port, destination_port] = [source_port, destination_port].map(Some);
        Packets { protocol: Some(protocol), source_port, destination_port, ..self }
    }

    /// The answers to them.
    #[must_use]
    pub fn back(self) -> Packets {
        Packets {
            source: self.destination,
            destination: self.source,
            protocol: self.protocol,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }

    /// The ICMP errors between the same addresses.
    #[must_use]
    pub fn errors(self) -> Packets {
        let protocol = Some(Transport::ICMP_ERROR);
        Packets { protocol, source_port: None, destination_port: None, ..self }
    }

    /// The value of a field, if it is known.
    #[must_use]
    pub fn value(&self, field: Field) -> Option<u128> {
        match field {
            Field::Source => Some(self.source),
            Field::Destination => Some(self.destination),
            Field::Protocol => self.protocol.map(u128::from),
            Field::SourcePort => self.source_port.map(u128::from),
            Field::DestinationPort => self.destination_port.map(u128::from),
        }
    }
}

/// The exceptions of packets of which not everything is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// Those of all these packets.
    pub least: Exceptions,
    /// Those of any of them.
    pub most: Exceptions,
}

impl Spread {
    /// No exceptions.
    pub const NONE: Spread = Spread { least: Exceptions::NONE, most: Exceptions::NONE };

    /// Whether they depend on what is not known.
    #[must_use]
    pub fn depends(&self) -> bool {
        !self.least.all && self.least != self.most
    }

    /// The exceptions of packets that two judgements are about.
    fn and(self, other: Spread) -> Spread {
        Spread { least: self.least.and(other.least), most: self.most.and(other.most) }
    }

    /// The exceptions of packets that one of two judgements is about.
    fn or(self, other: Spread) -> Spread {
        Spread { least: self.least.common(other.least), most: self.most.and(other.most) }
    }
}

impl From<Exceptions> for Spread {
    fn from(exceptions: Exceptions) -> Spread {
        Spread { least: exceptions, most: exceptions }
    }
}

/// The exceptions by the fields of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// Those of all packets.
    Alike(Exceptions),
    /// All packets of these pairs of source and destination, in order, and none of others.
    These(Vec<Pair>),
    /// They depend on a field.
    Split {
        /// The field.
        field: Field,
        /// The values that `inside` is about.
        ranges: Ranges,
        /// The packets with one of these.
        inside: Box<Pairs>,
        /// All others.
        outside: Box<Pairs>,
    },
}

impl Pairs {
    /// Splits by a field, unless it makes no difference.
    #[must_use]
    pub fn split(field: Field, ranges: Ranges, inside: Pairs, outside: Pairs) -> Pairs {
        match inside == outside {
            true => inside,
            false => {
                let [inside, outside] = [inside, outside].map(Box::new);
                Pairs::Split { field, ranges, inside, outside }
            }
        }
    }

    /// Whether the exceptions of some pairs are like that.
    #[must_use]
    pub fn any(&self, is: fn(&Exceptions) -> bool) -> bool {
        match self {
            Pairs::Alike(exceptions) => is(exceptions),
            Pairs::These(list) => !list.is_empty() && is(&Exceptions::ALL),
            Pairs::Split { inside, outside, .. } => inside.any(is) || outside.any(is),
        }
    }

    /// Whether all ICMP errors between any addresses are by the kernel.
    #[must_use]
    pub fn are_errors_by_kernel(&self) -> bool {
        match self {
            Pairs::Alike(exceptions) => exceptions.all,
            Pairs::These(_) => false,
            Pairs::Split { field: Field::Protocol, ranges, inside, outside } => {
                let is_inside = ranges.contain(Transport::ICMP_ERROR.into());
                if is_inside { inside } else { outside }.are_errors_by_kernel()
            }
            Pairs::Split { inside, outside, .. } => {
                inside.are_errors_by_kernel() && outside.are_errors_by_kernel()
            }
        }
    }

    /// The exceptions of packets.
    #[must_use]
    pub fn of(&self, packets: &Packets) -> Spread {
        match self {
            Pairs::Alike(exceptions) => (*exceptions).into(),
            Pairs::These(list) => {
                let pair = (packets.source, packets.destination);
                let is_listed = list.binary_search(&pair).is_ok();
                if is_listed { Exceptions::ALL.into() } else { Spread::NONE }
            }
            Pairs::Split { field, ranges, inside, outside } => match packets.value(*field) {
                Some(value) if ranges.contain(value) => inside.of(packets),
                Some(_) => outside.of(packets),
                None => inside.of(packets).or(outside.of(packets)),
            },
        }
    }
}

/// The exceptions of packets and of the answers to them, by all of these judgements, as
/// [`both_ways`]. All are by the kernel if ICMP errors between the same addresses may be: to the
/// kernel, an error is related to a connection only if it has seen that.
#[must_use]
pub fn between(all: &[Arc<Pairs>], packets: &Packets) -> Spread {
    match both_ways(all, &packets.errors()).most.all {
        true => Exceptions::ALL.into(),
        false => both_ways(all, packets),
    }
}

/// The exceptions of packets and of the answers to them, whatever those of ICMP errors are.
#[must_use]
pub fn both_ways(all: &[Arc<Pairs>], packets: &Packets) -> Spread {
    let back = packets.back();
    let of_both = |pairs: &Arc<Pairs>| pairs.of(packets).and(pairs.of(&back));
    all.iter().map(of_both).fold(Spread::NONE, Spread::and)
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: Pairs = Pairs::Alike(Exceptions::ALL);
    const SYN: Pairs = Pairs::Alike(Exceptions { syn: true, ..Exceptions::NONE });
    const NONE: Pairs = Pairs::Alike(Exceptions::NONE);

    #[test]
    fn pairs_are_judged_in_both_directions() {
        let to = |range| Ranges::new(vec![range]);
        // From 1 to 2 and 3; SYN from 5 to anywhere.
        let first = Pairs::split(Field::Destination, to((2, 3)), KERNEL, NONE);
        let first = Pairs::split(Field::Source, to((1, 1)), first, NONE);
        let second = Pairs::split(Field::Source, to((5, 5)), SYN, NONE);
        let third = Pairs::These(vec![(4, 6), (6, 7)]);
        let all = [Arc::new(first), Arc::new(second), Arc::new(third)];
        let address = |number: u8| IpAddr::from([0, 0, 0, number]);
        let between = |one, other| between(&all, &Packets::from_to(address(one), address(other)));
        for (one, other, is_kernel, is_syn) in [
            (1, 2, true, false),
            (2, 1, true, false),
            (3, 1, true, false),
            (1, 4, false, false),
            (2, 3, false, false),
            (2, 5, false, true),
            (5, 2, false, true),
            (4, 6, true, false),
            (7, 6, true, false),
            (4, 7, false, false),
        ] {
            let expected = Exceptions { all: is_kernel, syn: is_syn, ..Exceptions::NONE };
            assert_eq!(between(one, other), expected.into(), "{one} and {other}");
        }
    }

    #[test]
    fn ports_are_mirrored_and_what_depends_on_them_is_said() {
        let is = |number| Ranges::new(vec![(number, number)]);
        let tree = Pairs::split(Field::DestinationPort, is(53), KERNEL, NONE);
        let tree = Pairs::split(Field::Protocol, is(17), tree, NONE);
        let all = [Arc::new(Pairs::split(Field::Destination, is(2), tree, NONE))];
        let pair = |one, other| Packets::of_pair((one, other));
        let spread = between(&all, &pair(1, 2));
        assert!(spread.depends() && spread.most.all && !spread.least.all);
        assert_eq!(spread, between(&all, &pair(2, 1)));
        assert_eq!(between(&all, &pair(1, 3)), Spread::NONE);
        let of = |protocol, source_port, destination_port| {
            let transport = Transport { protocol, source_port, destination_port };
            let spread = between(&all, &pair(1, 2).with(transport));
            assert_eq!(between(&all, &pair(1, 2).with(transport).back()), spread);
            assert!(!spread.depends());
            spread.most.all
        };
        assert!(of(17, 4000, 53));
        // Only answers from the other one are concerned.
        assert!(!of(17, 53, 4000) && !of(6, 4000, 53) && !of(Transport::ICMP_ERROR, 0, 53));
    }

    #[test]
    fn a_pair_whose_errors_are_by_the_kernel_is_so_too() {
        let errors = Ranges::new(vec![(u128::from(Transport::ICMP_ERROR), 300)]);
        let all = [Arc::new(Pairs::split(Field::Protocol, errors, KERNEL, NONE))];
        let packets = Packets::of_pair((1, 2));
        assert_eq!(between(&all, &packets), Exceptions::ALL.into());
        let tcp = Transport { protocol: 6, source_port: 1, destination_port: 2 };
        assert_eq!(between(&all, &packets.with(tcp)), Exceptions::ALL.into());
    }

    #[test]
    fn a_split_that_makes_no_difference_is_none() {
        let ranges = Ranges::new(vec![(1, 2)]);
        assert_eq!(Pairs::split(Field::Source, ranges, KERNEL, KERNEL), KERNEL);
    }
}
