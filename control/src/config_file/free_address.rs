//! Addresses for new peers.

use ipnet::IpNet;
use wg_bounce_sys::Family;

use super::model::Config;
use crate::address_number::{address, ends};

/// The addresses of a network that neither the interface nor a peer has, from the lowest on. The
/// network's own address and the broadcast address of IPv4 are not for hosts. The time until the
/// first one is that of sorting all prefixes, however large the network is.
pub fn free(config: &Config, network: IpNet) -> impl Iterator<Item = IpNet> + use<> {
    let interface = config.interface.addresses.iter().map(|one| IpNet::from(one.value.addr()));
    let peers = config.peers.iter().flat_map(|peer| &peer.allowed_ips).map(|one| one.value);
    // A peer with a route for the whole network or more does not have each address in it.
    let is_inside = |prefix: &IpNet| network.contains(prefix) && *prefix != network;
    let mut used: Vec<_> =
        interface.chain(peers).filter(is_inside).map(|prefix| ends(&prefix)).collect();
    used.sort_unstable();
    let (first, last) = ends(&network);
    let last = if network.addr().is_ipv4() { last.saturating_sub(1) } else { last };
    let family = Family::of(network.addr());
    let mut used = used.into_iter().peekable();
    let mut next = first.checked_add(1);
    std::iter::from_fn(move || {
        let mut free = next?;
        while let Some((_, last)) = used.next_if(|(first, _)| *first <= free) {
            free = free.max(last.checked_add(1)?);
        }
        next = free.checked_add(1);
        (free <= last).then(|| address(free, family).into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config_file::read::read;

    fn found(address: &str, allowed: &str) -> Option<String> {
        let text = format!("[Interface]\nAddress = {address}\n[Peer]\nAllowedIPs = {allowed}\n");
        let config = read(&text).0;
        let network = config.interface.addresses[0].value.trunc();
        free(&config, network).next().map(|one| one.to_string())
    }

    #[test]
    fn all_addresses_come_in_order() {
        let text = "[Interface]\nAddress = 10.7.0.1/29\n[Peer]\nAllowedIPs = 10.7.0.4/31\n";
        let network = "10.7.0.0/29".parse().expect("a network");
        let all: Vec<_> = free(&read(text).0, network).map(|one| one.to_string()).collect();
        assert_eq!(all, ["10.7.0.2/32", "10.7.0.3/32", "10.7.0.6/32"]);
    }

    #[test]
    fn the_lowest_address_that_is_free_is_found() {
        let cases = [
            ("10.7.0.1/24", "10.9.0.0/24", Some("10.7.0.2/32")),
            ("10.7.0.1/24", "10.7.0.2/32, 10.7.0.4/32", Some("10.7.0.3/32")),
            ("10.7.0.9/24", "10.7.0.1/32, 10.7.0.2/31", Some("10.7.0.4/32")),
            ("10.7.0.1/24", "0.0.0.0/0, 10.7.0.0/24", Some("10.7.0.2/32")),
            ("10.7.0.1/24", "10.7.0.0/25, 10.7.0.128/26", Some("10.7.0.192/32")),
            ("10.7.0.1/30", "10.7.0.2/32", None),
            ("10.7.0.1/24", "10.7.0.0/25, 10.7.0.128/25", None),
            ("10.7.0.1/32", "10.7.0.2/32", None),
            ("255.255.255.253/30", "10.7.0.2/32", Some("255.255.255.254/32")),
            ("fd77::1/64", "fd77::2/127", Some("fd77::4/128")),
            ("fd77::2/127", "fd77::9/128", Some("fd77::3/128")),
            ("ffff::1/16", "ffff::/17", Some("ffff:8000::/128")),
            ("::1/0", "::2/128", Some("::3/128")),
        ];
        for (address, allowed, expected) in cases {
            assert_eq!(found(address, allowed).as_deref(), expected, "{address} {allowed}");
        }
    }
}
