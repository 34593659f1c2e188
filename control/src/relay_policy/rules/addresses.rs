//! The addresses of the peers: of both ends of every packet between them.

use ipnet::IpNet;
use wg_bounce_dataplane::ranges::Ranges;
use wg_bounce_sys::{Family, PerFamily};

use crate::address_number::ends;

/// All allowed IPs, of one version of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// The version of the allowed IPs.
    pub version: u64,
    /// The addresses within them.
    pub ranges: PerFamily<Ranges>,
}

impl Addresses {
    /// The addresses within these prefixes.
    pub fn new(version: u64, prefixes: impl IntoIterator<Item = IpNet>) -> Addresses {
        let mut ranges = PerFamily::<Vec<(u128, u128)>>::default();
        for prefix in prefixes {
            ranges.of_mut(Family::of(prefix.addr())).push(ends(&prefix));
        }
        Addresses { version, ranges: ranges.map(Ranges::new) }
    }
}

/// Bytes of the longest number: an IPv6 address.
pub const NUMBER_LEN_MAX: usize = 16;

/// The number of an address.
pub fn number(address: &[u8]) -> u128 {
    address.iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_become_ranges() {
        let prefixes = ["10.0.0.2/31", "10.0.0.0/31", "10.0.0.4/30", "10.0.0.1/32", "fd77::2/128"];
        let peers = Addresses::new(1, prefixes.map(|prefix| prefix.parse().expect("a prefix")));
        assert_eq!(peers.ranges.v4.as_slice(), [(0x0a00_0000, 0x0a00_0007)]);
        let address = "fd77::2".parse::<std::net::Ipv6Addr>().expect("an address").to_bits();
        assert_eq!(peers.ranges.v6.as_slice(), [(address, address)]);
        let ends = ["ffff::/16", "::/1", "8000::/1"];
        let all = Addresses::new(1, ends.map(|prefix| prefix.parse().expect("a prefix")));
        assert_eq!(all.ranges.v6.as_slice(), [(0, u128::MAX)]);
    }
}
