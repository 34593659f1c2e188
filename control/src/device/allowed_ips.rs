//! The allowed IPs of one peer.

use std::collections::HashMap;

use ipnet::IpNet;

/// Prefixes up to which a list is searched one by one: no slower than a hash, and a third of its
/// memory for the few prefixes of most peers.
const LISTED_MAX: usize = 16;

/// A set of prefixes, each with its place in the order of configuration.
pub(super) enum AllowedIps {
    /// At most [`LISTED_MAX`], in any order.
    Few(Vec<(IpNet, u64)>),
    /// More, or there were more.
    Many(HashMap<IpNet, u64>),
}

impl Default for AllowedIps {
    fn default() -> Self {
        AllowedIps::Few(Vec::new())
    }
}

impl AllowedIps {
    /// Adds a prefix with its place; returns false if it is a member already.
    pub(super) fn insert(&mut self, prefix: IpNet, place: u64) -> bool {
        if self.contains(&prefix) {
            return false;
        }
        match self {
            AllowedIps::Few(list) if list.len() < LISTED_MAX => {
                // One by one: most peers never get another.
                list.reserve_exact(1);
                list.push((prefix, place));
            }
            AllowedIps::Few(list) => {
                let many = std::mem::take(list).into_iter().chain([(prefix, place)]);
                *self = AllowedIps::Many(many.collect());
            }
            AllowedIps::Many(map) => drop(map.insert(prefix, place)),
        }
        true
    }

    /// Removes a prefix; returns whether it was a member.
    pub(super) fn remove(&mut self, prefix: &IpNet) -> bool {
        match self {
            AllowedIps::Few(list) => {
                let at = list.iter().position(|(own, _)| own == prefix);
                at.map(|at| list.swap_remove(at)).is_some()
            }
            AllowedIps::Many(map) => map.remove(prefix).is_some(),
        }
    }

    /// The prefixes, in any order.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.iter().map(|(prefix, _)| prefix)
    }

    /// The prefixes, in the order of configuration.
    pub(super) fn in_order(&self) -> Vec<IpNet> {
        let mut all: Vec<(u64, IpNet)> =
            self.iter().map(|(prefix, place)| (place, prefix)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, prefix)| prefix).collect()
    }

    fn contains(&self, prefix: &IpNet) -> bool {
        match self {
            AllowedIps::Few(list) => list.iter().any(|(own, _)| own == prefix),
            AllowedIps::Many(map) => map.contains_key(prefix),
        }
    }

    fn iter(&self) -> impl Iterator<Item = (IpNet, u64)> + '_ {
        let (few, many) = match self {
            AllowedIps::Few(list) => (Some(list.iter().copied()), None),
            AllowedIps::Many(map) => {
                (None, Some(map.iter().map(|(&prefix, &place)| (prefix, place))))
            }
        };
        few.into_iter().flatten().chain(many.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(number: u8) -> IpNet {
        IpNet::from(std::net::IpAddr::from([10, 0, 0, number]))
    }

    #[test]
    fn few_and_many_behave_alike() {
        for count in [1, LISTED_MAX as u8, LISTED_MAX as u8 + 1, 100] {
            let mut set = AllowedIps::default();
            for number in (0..count).rev() {
                assert!(set.insert(prefix(number), u64::from(count - number)));
                assert!(!set.insert(prefix(number), 1000), "its place is kept");
            }
            let expected: Vec<IpNet> = (0..count).rev().map(prefix).collect();
            assert_eq!(set.in_order(), expected);
            assert!(set.remove(&prefix(0)) && !set.remove(&prefix(0)));
            assert_eq!(set.in_order(), expected[..usize::from(count) - 1]);
            assert_eq!(set.prefixes().count(), usize::from(count) - 1);
        }
    }
}
