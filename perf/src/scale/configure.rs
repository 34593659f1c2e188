//! Configuration of a relay with many peers: its time, and the memory it takes.
//!
//! 1. All peers with one `wg setconf`.
//! 2. The interface up.
//! 3. More peers one by one with `wg set`, and removed again.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::time::Duration;

use serde_json::{Value, json};

use crate::daemon::INTERFACE;
use crate::failure::Failure;
use crate::generator::{Network, Peers, Randomness, encode};
use crate::usage;

/// Peers at most: each has an address in 10.112.0.0/12.
pub const PEERS_MAX: u32 = 1_000_000;

/// Peers added one by one by one shell: enough to neglect the shell's start.
const ADDED: u32 = 16;

/// First address of the peers that are only configured.
const IDLE: Ipv4Addr = Ipv4Addr::new(10, 112, 0, 0);
const _: () = assert!(PEERS_MAX + ADDED < 1 << 20, "IDLE is the first address of a /12");

/// Configures a new relay with `number` peers, `peers` among them. Returns the figures, or which
/// step took longer than `limit` seconds.
pub fn configure(
    network: &Network,
    peers: &Peers,
    number: u32,
    limit: u32,
) -> Result<Result<Value, String>, Failure> {
    let mut randomness = Randomness::open()?;
    let late = |step: &str| Ok(Err(format!("{step} took longer than {limit} s")));
    let limit = Duration::from_secs(limit.into());
    let resident = || network.pid().and_then(usage::resident);
    let before = resident();
    let idle = number.saturating_sub(u32::try_from(peers.ends.len()).expect("a few pairs"));
    let idle = idle_peers(0..idle, &mut randomness)?;
    let all = peers.entries().chain(idle.iter().map(|(key, address)| (key.as_str(), *address)));
    let Some(setconf) = network.set_peers(&peers.relay, all, limit)? else {
        return late("`wg setconf`");
    };
    network.bring_up()?;
    let added = idle_peers(PEERS_MAX..PEERS_MAX + ADDED, &mut randomness)?;
    let Some(add) = network.time(&script(&added, "allowed-ips"), limit)? else {
        return late("adding peers with `wg set`");
    };
    // A relay that has answered these has also finished deferred work.
    let after = resident();
    let Some(remove) = network.time(&script(&added, "remove"), limit)? else {
        return late("removing peers with `wg set`");
    };
    Ok(Ok(json!({
        "setconf_seconds": setconf.as_secs_f64(),
        "add_seconds": (add / ADDED).as_secs_f64(),
        "remove_seconds": (remove / ADDED).as_secs_f64(),
        "resident_bytes": after,
        "resident_bytes_without_peers": before,
    })))
}

/// Peers that never send: any 32 bytes serve as a public key.
fn idle_peers(
    numbers: Range<u32>,
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
    let line = |(key, address): &(String, IpAddr)| {
        let rest = if verb == "remove" { String::new() } else { format!(" {address}/32") };
        format!("wg set {INTERFACE} peer {key} {verb}{rest}\n")
    };
    peers.iter().map(line).collect()
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
