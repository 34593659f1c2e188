//! The configuration of a relay with many peers, and what it takes.
//!
//! 1. All peers by one `wg setconf`.
//! 2. The interface up.
//! 3. Further peers one by one by `wg set`, and away again.
//! 4. The memory that the relay then has.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::options::PEERS_MAX;
use crate::daemon::INTERFACE;
use crate::failure::Failure;
use crate::generator::{Network, Randomness, Relay, Roster, encode};
use crate::memory;

/// Peers that are added one by one by one shell: so many that its start does not count.
const ADDED: u32 = 16;

/// Addresses of the peers that only have to be there.
const IDLE: Ipv4Addr = Ipv4Addr::new(10, 112, 0, 0);
const _: () = assert!(PEERS_MAX + ADDED < 1 << 20, "IDLE is the first address of a /12");

/// What it took.
#[derive(Clone, Copy, Debug)]
pub struct Configured {
    /// `wg setconf` with all peers.
    pub setconf: Duration,
    /// `wg set` that adds one.
    pub add: Duration,
    /// `wg set` that removes one.
    pub remove: Duration,
    /// Bytes in memory before the first peer, and with all; none if the relay is the kernel.
    pub resident: Option<(u64, u64)>,
}

/// What took longer than it may.
pub struct Late(pub &'static str);

/// Gives a new relay the peers of `roster`, and so many more that all are `peers`.
pub fn configure(
    network: &Network,
    roster: &Roster,
    peers: u32,
    limit: Duration,
) -> Result<Result<Configured, Late>, Failure> {
    let mut randomness = Randomness::open()?;
    let before = resident(network);
    let idle = peers.saturating_sub(u32::try_from(roster.ends.len()).expect("some pairs"));
    let idle = idle_peers(0..idle, &mut randomness)?;
    let all = roster.peers().chain(idle.iter().map(|(key, address)| (key.as_str(), *address)));
    let Some(setconf) = network.set_peers(&roster.relay, all, limit)? else {
        return Ok(Err(Late("`wg setconf`")));
    };
    network.bring_up()?;
    let added = idle_peers(PEERS_MAX..PEERS_MAX + ADDED, &mut randomness)?;
    let Some(add) = network.time("sh -e", &script(&added, "allowed-ips"), limit)? else {
        return Ok(Err(Late("adding peers by `wg set`")));
    };
    // Whoever has answered these has done what it puts off, too.
    let after = resident(network);
    let Some(remove) = network.time("sh -e", &script(&added, "remove"), limit)? else {
        return Ok(Err(Late("removing peers by `wg set`")));
    };
    let resident = before.zip(after);
    Ok(Ok(Configured { setconf, add: add / ADDED, remove: remove / ADDED, resident }))
}

fn resident(network: &Network) -> Option<u64> {
    network.pid().and_then(memory::resident)
}

/// Peers that nobody plays: any 32 bytes are a public key.
fn idle_peers(
    numbers: std::ops::Range<u32>,
    randomness: &mut Randomness,
) -> Result<Vec<(String, IpAddr)>, Failure> {
    let peer = |number| {
        let address = Ipv4Addr::from_bits(IDLE.to_bits() + number);
        Ok((encode(&randomness.key()?), address.into()))
    };
    numbers.map(peer).collect()
}

/// A `wg set` for each of the peers.
fn script(peers: &[(String, IpAddr)], verb: &str) -> String {
    let mut script = String::new();
    for (key, address) in peers {
        let rest = if verb == "remove" { String::new() } else { format!(" {address}/32") };
        writeln!(script, "wg set {INTERFACE} peer {key} {verb}{rest}").expect("into a string");
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_added_and_removed_by_a_line_each() {
        let peers = [("KEY=".to_owned(), [10, 112, 0, 1].into())];
        assert_eq!(
            script(&peers, "allowed-ips"),
            "wg set wg0 peer KEY= allowed-ips 10.112.0.1/32\n"
        );
        assert_eq!(script(&peers, "remove"), "wg set wg0 peer KEY= remove\n");
    }
}
