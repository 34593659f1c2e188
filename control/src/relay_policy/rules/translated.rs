//! The conversations that other packets may be translated to. No rule matches the answers, so that
//! the kernel must get them.

use wg_bounce_dataplane::pairs::{Exceptions, Field, Pairs};
use wg_bounce_dataplane::ranges::Ranges;

use super::header::WITH_PORTS;
use super::place::{Place, is_any};
use super::{NewPort, Translation};
use crate::limits::TRANSLATED_SERVICES_MAX;

/// Conversations of these addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translated {
    /// Addresses of peers; none: of any.
    addresses: Option<Ranges>,
    /// The protocols.
    protocols: Ranges,
    /// Ports of TCP and UDP at these addresses; none: any.
    ports: Option<Ranges>,
}

impl Translated {
    /// Those that a translation of packets at `place` may lead to. `is_source`: it is of the source
    /// address.
    pub fn new(place: &Place<'_>, translation: Translation, is_source: bool) -> Translated {
        let values = |field| place.values(field).cloned();
        let ports = match translation.port {
            // That of the source may become another one.
            _ if is_source => None,
            NewPort::Same => values(Field::DestinationPort),
            NewPort::Within(one, other) => {
                let [one, other] = [one, other].map(u128::from);
                Some(Ranges::new(vec![(one.min(other), one.max(other))]))
            }
            NewPort::Any => None,
        };
        Translated {
            addresses: translation.addresses,
            protocols: values(Field::Protocol).unwrap_or_default(),
            ports: ports.filter(|ports| !is_any(Field::DestinationPort, ports)),
        }
    }

    /// The packets that are by the kernel: those to these addresses. (Workers ask in both
    /// directions.)
    fn tree(self) -> Pairs {
        let (kernel, none) = (Pairs::Alike(Exceptions::ALL), Pairs::Alike(Exceptions::NONE));
        let mut tree = kernel.clone();
        if let Some(ports) = self.ports {
            // The ports of other protocols are not known.
            let of_ports =
                Pairs::split(Field::DestinationPort, ports, kernel.clone(), none.clone());
            tree = Pairs::split(Field::Protocol, WITH_PORTS.clone(), of_ports, kernel);
        }
        if !is_any(Field::Protocol, &self.protocols) {
            tree = Pairs::split(Field::Protocol, self.protocols, tree, none.clone());
        }
        match self.addresses {
            Some(addresses) => Pairs::split(Field::Destination, addresses, tree, none),
            None => tree,
        }
    }

    /// Both, and perhaps more.
    fn and(self, other: Translated) -> Translated {
        let both = |one: Option<Ranges>, other: Option<Ranges>| Some(one?.and(&other?));
        Translated {
            addresses: both(self.addresses, other.addresses),
            protocols: self.protocols.and(&other.protocols),
            ports: both(self.ports, other.ports),
        }
    }
}

/// The judgements about all of these. Ports of the same addresses and protocols are joined; if too
/// many are left, all: a worker asks each of them.
pub fn trees(mut all: Vec<Translated>) -> Vec<Pairs> {
    let key = |one: &Translated| {
        let addresses = one.addresses.as_ref().map(|ranges| ranges.as_slice().to_vec());
        (addresses, one.protocols.as_slice().to_vec())
    };
    all.sort_by_cached_key(key);
    let mut joined: Vec<Translated> = Vec::new();
    for one in all {
        let is_same = |last: &&mut Translated| {
            (&last.addresses, &last.protocols) == (&one.addresses, &one.protocols)
        };
        match joined.last_mut().filter(is_same) {
            Some(last) => {
                last.ports = last.ports.take().zip(one.ports).map(|(a, b)| a.and(&b));
            }
            None => joined.push(one),
        }
    }
    if joined.len() > TRANSLATED_SERVICES_MAX {
        joined = joined.into_iter().reduce(Translated::and).into_iter().collect();
    }
    joined.into_iter().map(Translated::tree).collect()
}

#[cfg(test)]
mod tests {
    use wg_bounce_dataplane::ip::{TCP, UDP};
    use wg_bounce_dataplane::pairs::Packets;
    use wg_bounce_dataplane::transport::Transport;

    use super::*;

    fn at(host: u128, protocol: u8, port: u16) -> Translated {
        let is = |number: u128| Ranges::new(vec![(number, number)]);
        let (protocol, port) = (protocol.into(), port.into());
        Translated { addresses: Some(is(host)), protocols: is(protocol), ports: Some(is(port)) }
    }

    fn by_kernel(trees: &[Pairs], host: u128, protocol: u8, destination_port: u16) -> bool {
        let transport = Transport { protocol: protocol.into(), source_port: 1, destination_port };
        let packets = Packets::of_pair((99, host)).with(transport);
        trees.iter().any(|tree| tree.of(&packets).most.all)
    }

    #[test]
    fn ports_of_one_server_are_joined() {
        let trees = trees((1..1000).map(|port| at(7, TCP, port)).collect());
        assert_eq!(trees.len(), 1);
        assert!(by_kernel(&trees, 7, TCP, 999) && !by_kernel(&trees, 7, TCP, 1000));
        assert!(!by_kernel(&trees, 7, UDP, 999) && !by_kernel(&trees, 8, TCP, 999));
    }

    #[test]
    fn too_many_servers_are_all_alike() {
        let list: Vec<_> = (1..=TRANSLATED_SERVICES_MAX as u16 + 1)
            .map(|number| at(number.into(), TCP, number))
            .collect();
        let one_less = trees(list[1..].to_vec());
        assert_eq!(one_less.len(), TRANSLATED_SERVICES_MAX);
        assert!(by_kernel(&one_less, 2, TCP, 2) && !by_kernel(&one_less, 2, TCP, 3));
        let all = trees(list);
        assert_eq!(all.len(), 1);
        assert!(by_kernel(&all, 2, TCP, 2) && by_kernel(&all, 2, TCP, 3));
        assert!(!by_kernel(&all, 2, TCP, 9999) && !by_kernel(&all, 9999, TCP, 2));
    }

    /// SCTP and others have ports too, which workers do not read.
    #[test]
    fn ports_of_other_protocols_are_not_told_apart() {
        const SCTP: u8 = 132;
        let trees = trees(vec![at(7, SCTP, 36412)]);
        assert!(by_kernel(&trees, 7, SCTP, 0) && !by_kernel(&trees, 7, TCP, 36412));
    }
}
