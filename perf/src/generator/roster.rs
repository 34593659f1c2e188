//! Who takes part: the relay, and both ends of every pair.

use std::net::IpAddr;

use super::network::{Role, inner_address};
use super::peer::{Keys, Randomness};
use crate::failure::Failure;
use crate::star::Family;

/// Keys of all, and the peers' addresses inside the tunnel.
pub struct Roster {
    /// Of the relay.
    pub relay: Keys,
    /// Of the peers. Where they are pairs, senders have even numbers, receivers odd ones.
    pub ends: Vec<(Keys, IpAddr)>,
}

impl Roster {
    /// New keys for so many pairs.
    pub fn new(
        pairs: usize,
        family: Family,
        randomness: &mut Randomness,
    ) -> Result<Roster, Failure> {
        let relay = Keys::new(randomness)?;
        let roles = [Role::Sender, Role::Receiver];
        let ends = (0..pairs).flat_map(|pair| roles.map(|role| (role, pair)));
        let end = |(role, pair)| Ok((Keys::new(randomness)?, inner_address(role, pair, family)));
        let ends = ends.map(end).collect::<Result<Vec<_>, Failure>>()?;
        Ok(Roster { relay, ends })
    }

    /// New keys for so many peers that belong to no pair.
    pub fn of_single_peers(number: usize, randomness: &mut Randomness) -> Result<Roster, Failure> {
        let mut roster = Roster::new(0, Family::V4, randomness)?;
        for peer in 0..number {
            let address = inner_address(Role::Sender, peer, Family::V4);
            roster.ends.push((Keys::new(randomness)?, address));
        }
        Ok(roster)
    }

    /// The peers as the relay's configuration has them.
    pub fn peers(&self) -> impl Iterator<Item = (&str, IpAddr)> {
        self.ends.iter().map(|(keys, address)| (keys.public.as_str(), *address))
    }
}
