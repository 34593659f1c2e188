//! Peers that overlap, or that nothing can reach.

use std::collections::HashMap;

use ipnet::IpNet;

use super::lines::Place;
use super::model::{Config, Peer, Placed};
use super::problem::Problem;

/// Adds warnings. The time is that of sorting all prefixes.
pub fn check(config: &Config, problems: &mut Vec<Problem>) {
    repeated_keys(config, problems);
    overlapping(config, problems);
    let is_listening = config.interface.listen_port.is_some();
    for peer in &config.peers {
        if peer.allowed_ips.is_empty() {
            let text = "this peer has no AllowedIPs: no packet comes from it or goes to it";
            problems.push(Problem::warning(peer.place, text));
        }
        if peer.endpoint.is_none() && !is_listening {
            let text = "this peer has no Endpoint, and [Interface] has no ListenPort: neither can \
                        find the other";
            problems.push(Problem::warning(peer.place, text));
        }
    }
}

fn repeated_keys(config: &Config, problems: &mut Vec<Problem>) {
    let mut seen: HashMap<[u8; 32], &Peer> = HashMap::new();
    for peer in &config.peers {
        if let Some(before) = seen.insert(peer.public_key, peer)
            && peer.public_key != [0; 32]
        {
            let text =
                format!("this peer has the PublicKey of {}: this one counts", before.title());
            problems.push(Problem::warning(peer.place, text));
        }
    }
}

/// A prefix of a peer.
struct Prefix<'a> {
    network: IpNet,
    place: Place,
    peer: &'a Peer,
}

fn overlapping(config: &Config, problems: &mut Vec<Problem>) {
    let prefixes = config.peers.iter().flat_map(|peer| {
        let prefix = move |one: &Placed<IpNet>| {
            let Placed { value: network, place } = *one;
            Prefix { network, place, peer }
        };
        peer.allowed_ips.iter().map(prefix)
    });
    let mut prefixes: Vec<Prefix<'_>> = prefixes.collect();
    // What contains others comes before them; of equal ones the first in the file.
    prefixes.sort_by_key(|one| (one.network.network(), one.network.prefix_len(), one.place));
    let mut around: Vec<&Prefix<'_>> = Vec::new();
    for one in &prefixes {
        while around.last().is_some_and(|outer| !outer.network.contains(&one.network)) {
            around.pop();
        }
        let is_other = |outer: &&&Prefix<'_>| {
            outer.peer.public_key != one.peer.public_key
                && (outer.network.prefix_len() > 0 || outer.network == one.network)
        };
        if let Some(outer) = around.last().filter(is_other) {
            let (network, title) = (one.network, outer.peer.title());
            let text = match outer.network == network {
                true => format!("{network} is of {title} too: this peer gets it"),
                false => format!(
                    "{network} lies within {} of {title}: this peer gets these addresses",
                    outer.network
                ),
            };
            problems.push(Problem::warning(one.place, text));
        }
        around.push(one);
    }
    own_addresses(config, &prefixes, problems);
}

/// Addresses of the interface that a peer has too.
fn own_addresses(config: &Config, prefixes: &[Prefix<'_>], problems: &mut Vec<Problem>) {
    for Placed { value: own, .. } in &config.interface.addresses {
        let address = IpNet::from(own.addr());
        let key = (address.network(), address.prefix_len());
        let of = |one: &Prefix<'_>| (one.network.network(), one.network.prefix_len());
        let first = prefixes.partition_point(|one| of(one) < key);
        for one in prefixes[first..].iter().take_while(|one| of(one) == key) {
            let text = format!("{} is an address of this interface itself", own.addr());
            problems.push(Problem::warning(one.place, text));
        }
    }
}
