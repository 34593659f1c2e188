//! Matches and targets of x_tables, by their name, revision and data. Legacy tables and
//! iptables-nft use the same ones.

use std::sync::Arc;

use wg_bounce_dataplane::ranges::Ranges;
use wg_bounce_sys::Family;

use super::addresses::number;
use super::{Condition, Effect, Layer, NewAddress, NewPort, Step};

/// Matches that depend on nothing but the packet and its connection, and have no effect: they hold
/// or not. Those that keep state (recent, hashlimit, quota, …) are not among them.
const PURE: [&str; 15] = [
    "addrtype",
    "connmark",
    "conntrack",
    "dscp",
    "ecn",
    "hl",
    "iprange",
    "length",
    "mac",
    "mark",
    "pkttype",
    "realm",
    "state",
    "tos",
    "ttl",
];

/// Pure matches that read the transport header: they drop a packet that ends before it
/// (`hotdrop`), and no fragment but the first matches.
const OF_TRANSPORT: [&str; 6] = ["icmp", "icmp6", "multiport", "tcp", "tcpmss", "udp"];

/// Bits of inverted conditions of tcp and udp (XT_TCP_INV_*, XT_UDP_INV_*) and of icmp
/// (IPT_ICMP_INV, IP6T_ICMP_INV).
const NOT_SOURCE: u8 = 1;
const NOT_DESTINATION: u8 = 2;
const NOT_FLAGS: u8 = 4;
const NOT_TYPE: u8 = 1;

/// Pure matches for IPv6 extension headers: none matches a packet that has not got its header.
const OF_EXTENSIONS: [&str; 5] = ["dst", "frag", "hbh", "mh", "rt"];

/// Flags of `struct xt_addrtype_info_v1`: XT_ADDRTYPE_INVERT_DEST.
const INVERT_DESTINATION: u32 = 2;
/// The bit of RTN_LOCAL in its sets of types.
const LOCAL: u16 = 1 << libc::RTN_LOCAL;

/// The flag SYN of TCP.
pub const TCP_SYN: u8 = 2;

/// NF_NAT_RANGE_MAP_IPS: the range has addresses.
const MAP_ADDRESSES: u32 = 1;
/// NF_NAT_RANGE_PROTO_SPECIFIED: it has ports.
const MAP_PORTS: u32 = 2;

/// The conditions for a match; none if it always holds.
pub fn conditions(name: &str, revision: u8, data: &[u8]) -> Vec<Step> {
    let of_transport = || match (name, revision) {
        ("tcp", 0) => tcp(data),
        ("udp", 0) => ports(data, *data.get(8)?),
        ("icmp" | "icmp6", 0) => icmp(data),
        ("multiport", 1) => multiport(data),
        _ => None,
    };
    let conditions = match name {
        "comment" => Vec::new(),
        "mark" if revision == 1 => vec![mark(data)],
        "addrtype" if revision == 1 => vec![address_type(data)],
        "conntrack" if revision == 2 || revision == 3 => vec![state(data)],
        _ if OF_TRANSPORT.contains(&name) => {
            let conditions = of_transport().unwrap_or_else(|| vec![Condition::Unknown]);
            [Condition::Transport].into_iter().chain(conditions).collect()
        }
        _ if OF_EXTENSIONS.contains(&name) => vec![Condition::Extension],
        _ if PURE.contains(&name) => vec![Condition::Pure(name.to_owned())],
        _ => vec![Condition::Unclear(name.to_owned())],
    };
    conditions.into_iter().map(Step::If).collect()
}

/// `struct xt_conntrack_mtinfo2` and 3. For an untracked packet only the state counts, and without
/// a state it does not match (`conntrack_mt`, net/netfilter/xt_conntrack.c).
fn state(data: &[u8]) -> Condition {
    const OF_STATE: u16 = 1; // XT_CONNTRACK_STATE
    const UNTRACKED: u16 = 1 << 8; // XT_CONNTRACK_STATE_UNTRACKED
    let values = || {
        let at = |offset: usize| data.get(offset..)?.first_chunk().copied().map(u16::from_ne_bytes);
        Some((at(146)?, at(148)?, at(150)?))
    };
    match values() {
        Some((matched, inverted, states)) => Condition::State {
            of_untracked: matched & OF_STATE != 0
                && (states & UNTRACKED != 0) == (inverted & OF_STATE == 0),
        },
        None => Condition::Pure("conntrack".to_owned()),
    }
}

/// `struct xt_tcp`: ports, option, mask and flags, what is inverted.
fn tcp(data: &[u8]) -> Option<Vec<Condition>> {
    let &[option, mask, flags, inverted] = data.get(8..)?.first_chunk()?;
    let mut conditions = ports(data, inverted)?;
    if mask & flags & TCP_SYN != 0 && inverted & NOT_FLAGS == 0 {
        conditions.push(Condition::Syn);
    } else if mask | flags != 0 || inverted & NOT_FLAGS != 0 {
        conditions.push(Condition::Unknown);
    }
    if option != 0 {
        conditions.push(Condition::Unknown);
    }
    Some(conditions)
}

/// The first and last source and destination port (`struct xt_tcp`, `struct xt_udp`).
fn ports(data: &[u8], inverted: u8) -> Option<Vec<Condition>> {
    let mut conditions = Vec::new();
    for (offset, bit) in [(0, NOT_SOURCE), (2, NOT_DESTINATION)] {
        let (first, last) = (u16_at(data, 2 * offset)?, u16_at(data, 2 * offset + 2)?);
        let is_within = inverted & bit == 0;
        if (first, last) != (0, u16::MAX) || !is_within {
            conditions.push(port(offset, first, last, is_within));
        }
    }
    Some(conditions)
}

/// The condition that the port at this offset is in a range (or is not).
fn port(offset: usize, first: u16, last: u16, is_within: bool) -> Condition {
    port_of(offset, vec![(first.into(), last.into())], is_within)
}

/// The condition that the port at this offset is in one of these ranges (or in none).
fn port_of(offset: usize, ranges: Vec<(u128, u128)>, is_within: bool) -> Condition {
    let ranges = Arc::new(Ranges::new(ranges));
    Condition::Within { layer: Layer::Transport, bytes: offset..offset + 2, ranges, is_within }
}

/// `struct ipt_icmp`, `struct ip6t_icmp`: type, first and last code, whether all that is inverted.
fn icmp(data: &[u8]) -> Option<Vec<Condition>> {
    const ANY_TYPE: u8 = 0xff;
    let &[kind, first, last, inverted] = data.first_chunk()?;
    let is_equal = inverted & NOT_TYPE == 0;
    let of_type = Condition::Header {
        layer: Layer::Transport,
        offset: 0,
        value: vec![kind],
        mask: vec![0xff],
        is_equal,
    };
    Some(match (kind, first, last) {
        (ANY_TYPE, ..) => vec![Condition::Unknown],
        (_, 0, 0xff) => vec![of_type],
        _ if is_equal => vec![of_type, Condition::Unknown],
        _ => vec![Condition::Unknown],
    })
}

/// `struct xt_multiport_v1`: which ports, their number, the ports, whether each begins a range,
/// whether all that is inverted.
fn multiport(data: &[u8]) -> Option<Vec<Condition>> {
    const SOURCE: u8 = 0;
    const DESTINATION: u8 = 1;
    const PORTS: usize = 15;
    let (&[which, count], &inverted) = (data.first_chunk()?, data.get(2 + 3 * PORTS)?);
    let offset = match which {
        SOURCE => 0,
        DESTINATION => 2,
        // One of both.
        _ => return None,
    };
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < usize::from(count).min(PORTS) {
        let first = u16_at(data, 2 + 2 * at)?;
        let begins_range = *data.get(2 + 2 * PORTS + at)? != 0;
        at += usize::from(begins_range);
        let last = u16_at(data, 2 + 2 * at)?;
        ranges.push((first.into(), last.into()));
        at += 1;
    }
    Some(vec![port_of(offset, ranges, inverted == 0)])
}

/// `struct xt_mark_mtinfo1`: mark, mask, whether it is inverted.
fn mark(data: &[u8]) -> Condition {
    match (u32_at(data, 0), data.get(8)) {
        (Some(value), Some(&inverted)) => Condition::Mark { value, is_equal: inverted == 0 },
        _ => Condition::Unknown,
    }
}

/// `struct xt_addrtype_info_v1`: types of the source and of the destination, flags.
fn address_type(data: &[u8]) -> Condition {
    match (u16_at(data, 0), u16_at(data, 2), u32_at(data, 4)) {
        (Some(0), Some(LOCAL), Some(flags)) => {
            Condition::ToHost { is_equal: flags & INVERT_DESTINATION == 0 }
        }
        _ => Condition::Unknown,
    }
}

/// The step for a target.
pub fn target(family: Family, name: &str, revision: u8, data: &[u8]) -> Step {
    let (address, port) = match name {
        "REJECT" => return Step::Do(Effect::Drop),
        "MASQUERADE" | "REDIRECT" => (NewAddress::OfHost, NewPort::Any),
        "SNAT" | "DNAT" => {
            translated(family, revision, data).unwrap_or((NewAddress::Any, NewPort::Any))
        }
        "NETMAP" => (NewAddress::Any, NewPort::Same),
        "TCPMSS" => return Step::Clamp(name.to_owned()),
        "NOTRACK" => return Step::Untrack,
        "CT" if matches!(revision, 0..=2) && u16_at(data, 0).is_some_and(|one| one & 1 != 0) => {
            return Step::Untrack;
        }
        _ => return Step::Do(Effect::Apply(name.to_owned())),
    };
    Step::Translate(name.to_owned(), address, port)
}

/// The addresses and ports of `struct nf_nat_ipv4_multi_range_compat` (revision 0), `struct
/// nf_nat_range` or `struct nf_nat_range2`.
fn translated(family: Family, revision: u8, data: &[u8]) -> Option<(NewAddress, NewPort)> {
    let (flags, first, last, ports) = match (revision, family) {
        (0, Family::V4) if u32_at(data, 0)? == 1 => (4, 8, 12, 16),
        (1 | 2, _) => (0, 4, 20, 36),
        _ => return None,
    };
    let flags = u32_at(data, flags)?;
    let length = if family == Family::V4 { 4 } else { 16 };
    let number = |at: usize, length: usize| data.get(at..at + length).map(number);
    let port = match flags & MAP_PORTS {
        0 => NewPort::Same,
        _ => {
            let port = |at: usize| number(at, 2).map(|port| port as u16);
            NewPort::Within(port(ports)?, port(ports + 2)?)
        }
    };
    let address = match flags & MAP_ADDRESSES {
        0 => NewAddress::Any,
        _ => NewAddress::Within(family, number(first, length)?, number(last, length)?),
    };
    Some((address, port))
}

fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(data.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(data.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(numbers: &[u32]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
    }

    fn condition(name: &str, revision: u8, data: &[u8]) -> Condition {
        match conditions(name, revision, data).pop() {
            Some(Step::If(condition)) => condition,
            other => panic!("{name}: {other:?}"),
        }
    }

    #[test]
    fn data_of_matches_is_read_in_known_revisions_only() {
        let mark = [numbers(&[0x4000, 0xff00]), vec![1, 0, 0, 0]].concat();
        let marked = Condition::Mark { value: 0x4000, is_equal: false };
        assert_eq!(condition("mark", 1, &mark), marked);
        assert_eq!(condition("mark", 2, &mark), Condition::Pure("mark".into()));
        let local =
            |flags: u32| [vec![0, 0], 4u16.to_ne_bytes().to_vec(), numbers(&[flags])].concat();
        assert_eq!(condition("addrtype", 1, &local(0)), Condition::ToHost { is_equal: true });
        assert_eq!(condition("addrtype", 1, &local(2)), Condition::ToHost { is_equal: false });
        assert_eq!(condition("addrtype", 0, &local(0)), Condition::Pure("addrtype".into()));
        let source = [4u16.to_ne_bytes(), 4u16.to_ne_bytes()].concat();
        let source = [source, numbers(&[0])].concat();
        assert_eq!(condition("addrtype", 1, &source), Condition::Unknown);
        assert_eq!(condition("rt", 0, &[]), Condition::Extension);
        assert_eq!(conditions("comment", 0, &[]), []);
        assert_eq!(condition("recent", 0, &[]), Condition::Unclear("recent".into()));
    }

    fn all(name: &str, revision: u8, data: &[u8]) -> Vec<Condition> {
        let steps = conditions(name, revision, data).into_iter();
        let conditions = steps.map(|step| match step {
            Step::If(condition) => condition,
            other => panic!("{name}: {other:?}"),
        });
        conditions.collect()
    }

    fn words(words: &[u16]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    fn ports_and_flags_are_read() {
        use Condition::{Syn, Transport, Unknown};
        const ANY: [u16; 2] = [0, u16::MAX];
        let tcp = |ports: [[u16; 2]; 2], rest: [u8; 4]| {
            all("tcp", 0, &[words(&ports.concat()), rest.to_vec()].concat())
        };
        assert_eq!(tcp([ANY, ANY], [0, 0, 0, 0]), [Transport]);
        assert_eq!(tcp([ANY, ANY], [0, 6, 2, 0]), [Transport, Syn]);
        for rest in [[0, 6, 4, 0], [0, 4, 2, 0], [0, 0, 2, 0], [0, 6, 2, 4], [7, 0, 0, 0]] {
            assert_eq!(tcp([ANY, ANY], rest), [Transport, Unknown], "{rest:?}");
        }
        let web = |is_within| port(2, 80, 81, is_within);
        assert_eq!(tcp([ANY, [80, 81]], [0; 4]), [Transport, web(true)]);
        let from = port(0, 53, 53, true);
        assert_eq!(tcp([[53, 53], [80, 81]], [0, 0, 0, 2]), [Transport, from, web(false)]);
        assert_eq!(tcp([ANY, ANY], [0, 0, 0, 1]), [Transport, port(0, 0, u16::MAX, false)]);
        let udp = [words(&[0, u16::MAX, 80, 81]), vec![2]].concat();
        assert_eq!(all("udp", 0, &udp), [Transport, web(false)]);
        assert_eq!(all("udp", 1, &udp), [Transport, Unknown]);
        let many = |which: u8, inverted: u8| {
            let ports = [&[22, 80, 81][..], &[0; 12]].concat();
            let ranges = [&[0, 1, 0][..], &[0; 12]].concat();
            all("multiport", 1, &[vec![which, 3], words(&ports), ranges, vec![inverted]].concat())
        };
        assert_eq!(many(1, 1), [Transport, port_of(2, vec![(22, 22), (80, 81)], false)]);
        assert_eq!(many(2, 0), [Transport, Unknown]);
    }

    #[test]
    fn types_of_icmp_are_read() {
        let of_type = |is_equal| {
            let (layer, value, mask) = (Layer::Transport, vec![8], vec![0xff]);
            Condition::Header { layer, offset: 0, value, mask, is_equal }
        };
        for name in ["icmp", "icmp6"] {
            let icmp = |data: [u8; 4]| all(name, 0, &data).split_off(1);
            assert_eq!(icmp([8, 0, 255, 0]), [of_type(true)]);
            assert_eq!(icmp([8, 0, 255, 1]), [of_type(false)]);
            assert_eq!(icmp([8, 0, 1, 0]), [of_type(true), Condition::Unknown]);
            assert_eq!(icmp([8, 0, 1, 1]), [Condition::Unknown]);
            assert_eq!(icmp([255, 0, 255, 0]), [Condition::Unknown]);
        }
    }

    #[test]
    fn packets_that_are_not_tracked_are_left_as_they_are() {
        for (name, revision, data, expected) in [
            ("CT", 2, words(&[1, 0]), Step::Untrack),
            ("CT", 2, words(&[0, 5]), Step::Do(Effect::Apply("CT".into()))),
            ("CT", 3, words(&[1, 0]), Step::Do(Effect::Apply("CT".into()))),
            ("NOTRACK", 0, Vec::new(), Step::Untrack),
        ] {
            assert_eq!(target(Family::V4, name, revision, &data), expected, "{name} {data:?}");
        }
    }

    #[test]
    fn addresses_of_translations_are_read_in_known_revisions_only() {
        let (first, last) = ([10, 0, 0, 1], [10, 0, 0, 9]);
        let old = [numbers(&[1, 1]), [first, last].concat(), vec![0; 4]].concat();
        let wide = |address: [u8; 4]| [address.to_vec(), vec![0; 12]].concat();
        let new =
            |flags: u32| [numbers(&[flags]), wide(first), wide(last), vec![0, 80, 0, 81]].concat();
        let within = NewAddress::Within(Family::V4, 0x0a00_0001, 0x0a00_0009);
        let ports = NewPort::Within(80, 81);
        for (revision, data, expected, port) in [
            (0, old.clone(), within, NewPort::Same),
            (2, new(1), within, NewPort::Same),
            (2, new(2), NewAddress::Any, ports),
            (2, new(3), within, ports),
            (3, new(1), NewAddress::Any, NewPort::Any),
        ] {
            let step = Step::Translate("DNAT".into(), expected, port);
            assert_eq!(target(Family::V4, "DNAT", revision, &data), step, "{revision}");
        }
        let of_v6 = target(Family::V6, "DNAT", 0, &old);
        assert_eq!(of_v6, Step::Translate("DNAT".into(), NewAddress::Any, NewPort::Any));
    }

    #[test]
    fn data_of_any_length_never_panics() {
        for length in 0..64 {
            for byte in [0, 1, 0xff] {
                let data = vec![byte; length];
                for revision in 0..4 {
                    for name in ["mark", "addrtype", "tcp", "udp", "icmp", "multiport"] {
                        assert!(!conditions(name, revision, &data).is_empty());
                    }
                    for family in Family::BOTH {
                        let step = target(family, "SNAT", revision, &data);
                        assert!(matches!(step, Step::Translate(..)));
                        target(family, "CT", revision, &data);
                    }
                }
            }
        }
    }
}
