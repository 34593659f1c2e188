//! The addresses of the peers: of both ends of every packet between them.

use ipnet::IpNet;
use wg_bounce_sys::{Family, PerFamily};

/// All allowed IPs, of one version of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// The version of the allowed IPs.
    pub version: u64,
    /// First and last addresses of ranges, in order; no two touch.
    ranges: PerFamily<Vec<(u128, u128)>>,
}

impl Addresses {
    /// The addresses within these prefixes.
    pub fn new(version: u64, prefixes: impl IntoIterator<Item = IpNet>) -> Addresses {
        let mut ranges = PerFamily::<Vec<(u128, u128)>>::default();
        for prefix in prefixes {
            let (family, range) = match prefix {
                IpNet::V4(v4) => {
                    let ends = [v4.network(), v4.broadcast()];
                    (Family::V4, ends.map(|end| u128::from(end.to_bits())))
                }
                IpNet::V6(v6) => {
                    (Family::V6, [v6.network(), v6.broadcast()].map(|end| end.to_bits()))
                }
            };
            ranges.of_mut(family).push(range.into());
        }
        for list in [&mut ranges.v4, &mut ranges.v6] {
            list.sort_unstable();
            // `next` begins within or right behind the range before it.
            list.dedup_by(|next, before| {
                let touch = next.0 <= before.1.saturating_add(1);
                if touch {
                    before.1 = before.1.max(next.1);
                }
                touch
            });
        }
        Addresses { version, ranges }
    }

    /// Whether all of them are from `first` to `last` (true), or none (false).
    pub fn are_within(&self, family: Family, first: u128, last: u128) -> Option<bool> {
        let ranges = self.ranges.of(family);
        let at = ranges.partition_point(|range| range.1 < first);
        if ranges.get(at).is_none_or(|range| range.0 > last) {
            return Some(false);
        }
        let (begin, end) = (ranges[0].0, ranges[ranges.len() - 1].1);
        (first <= begin && end <= last).then_some(true)
    }
}

/// The number of an address.
pub fn number(address: &[u8]) -> u128 {
    address.iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(prefixes: &[&str]) -> Addresses {
        Addresses::new(1, prefixes.iter().map(|prefix| prefix.parse().expect("a prefix")))
    }

    fn within(addresses: &Addresses, prefix: &str) -> Option<bool> {
        let other = Addresses::new(1, [prefix.parse().expect("a prefix")]);
        let family = if other.ranges.v4.is_empty() { Family::V6 } else { Family::V4 };
        let (first, last) = other.ranges.of(family)[0];
        addresses.are_within(family, first, last)
    }

    #[test]
    fn all_none_or_some_are_within_a_prefix() {
        let peers = addresses(&["10.7.0.2/32", "10.7.0.3/32", "10.9.0.0/16", "fd77::2/128"]);
        for (prefix, expected) in [
            ("10.0.0.0/8", Some(true)),
            ("0.0.0.0/0", Some(true)),
            ("10.7.0.0/16", None),
            ("10.7.0.2/31", None),
            ("10.9.3.0/24", None),
            ("10.8.0.0/16", Some(false)),
            ("10.7.0.4/32", Some(false)),
            ("10.10.0.0/16", Some(false)),
            ("192.168.0.0/16", Some(false)),
            ("fd77::/64", Some(true)),
            ("fd78::/64", Some(false)),
        ] {
            assert_eq!(within(&peers, prefix), expected, "{prefix}");
        }
        assert_eq!(within(&addresses(&[]), "0.0.0.0/0"), Some(false), "there are none");
        let all = addresses(&["0.0.0.0/0", "10.7.0.2/32", "::/0"]);
        assert_eq!(within(&all, "10.7.0.2/32"), None);
        assert_eq!(within(&all, "0.0.0.0/0"), Some(true));
        assert_eq!(within(&all, "::/0"), Some(true));
    }

    #[test]
    fn ranges_that_touch_are_joined() {
        let peers = addresses(&["10.0.0.2/31", "10.0.0.0/31", "10.0.0.4/30", "10.0.0.1/32"]);
        assert_eq!(peers.ranges.v4, [(0x0a00_0000, 0x0a00_0007)]);
        let ends = addresses(&["ffff::/16", "::/1", "8000::/1"]);
        assert_eq!(ends.ranges.v6, [(0, u128::MAX)]);
    }
}
