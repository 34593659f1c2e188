//! The packets between two addresses that workers must leave to the kernel, because its rules do
//! something to them: a decision tree over source and destination.

use std::net::IpAddr;
use std::sync::Arc;

use crate::ranges::Ranges;

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
}

/// Source and destination of a packet, by their numbers.
pub type Pair = (u128, u128);

/// The end of a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its source address.
    Source,
    /// Its destination address.
    Destination,
}

/// The exceptions by source and destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// Those of all pairs.
    Alike(Exceptions),
    /// All packets of these pairs of source and destination, in order, and none of others.
    These(Vec<Pair>),
    /// They depend on an address.
    Split {
        /// The address.
        end: End,
        /// The addresses that `inside` is about.
        ranges: Ranges,
        /// The pairs whose address is one of these.
        inside: Box<Pairs>,
        /// All other pairs.
        outside: Box<Pairs>,
    },
}

impl Pairs {
    /// Splits by an address, unless it makes no difference.
    #[must_use]
    pub fn split(end: End, ranges: Ranges, inside: Pairs, outside: Pairs) -> Pairs {
        match inside == outside {
            true => inside,
            false => {
                Pairs::Split { end, ranges, inside: Box::new(inside), outside: Box::new(outside) }
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

    /// The exceptions of packets from `source` to `destination`, by their numbers.
    #[must_use]
    pub fn one_way(&self, source: u128, destination: u128) -> Exceptions {
        let mut pairs = self;
        loop {
            match pairs {
                Pairs::Alike(exceptions) => return *exceptions,
                Pairs::These(list) => {
                    let is_listed = list.binary_search(&(source, destination)).is_ok();
                    return if is_listed { Exceptions::ALL } else { Exceptions::NONE };
                }
                Pairs::Split { end, ranges, inside, outside } => {
                    let address = match end {
                        End::Source => source,
                        End::Destination => destination,
                    };
                    pairs = if ranges.contain(address) { inside } else { outside };
                }
            }
        }
    }
}

/// The exceptions of packets between two addresses, in both directions: a connection that the
/// kernel sees only half of may be dropped by it.
#[must_use]
pub fn between(all: &[Arc<Pairs>], one: IpAddr, other: IpAddr) -> Exceptions {
    between_numbers(all, number(one), number(other))
}

/// As [`between`], by the numbers of the addresses.
#[must_use]
pub fn between_numbers(all: &[Arc<Pairs>], one: u128, other: u128) -> Exceptions {
    let both_ways = |pairs: &Arc<Pairs>| pairs.one_way(one, other).and(pairs.one_way(other, one));
    all.iter().map(both_ways).fold(Exceptions::default(), Exceptions::and)
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
        let first = Pairs::split(End::Destination, to((2, 3)), KERNEL, NONE);
        let first = Pairs::split(End::Source, to((1, 1)), first, NONE);
        let second = Pairs::split(End::Source, to((5, 5)), SYN, NONE);
        let third = Pairs::These(vec![(4, 6), (6, 7)]);
        let all = [Arc::new(first), Arc::new(second), Arc::new(third)];
        let address = |number: u8| IpAddr::from([0, 0, 0, number]);
        let between = |one, other| super::between(&all, address(one), address(other));
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
            assert_eq!(between(one, other), expected, "{one} and {other}");
        }
    }

    #[test]
    fn a_split_that_makes_no_difference_is_none() {
        let ranges = Ranges::new(vec![(1, 2)]);
        assert_eq!(Pairs::split(End::Source, ranges, KERNEL, KERNEL), KERNEL);
    }
}
