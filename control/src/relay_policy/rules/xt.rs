//! Matches and targets of x_tables, by their name, revision and data. Legacy tables and
//! iptables-nft use the same ones.

use wg_bounce_sys::Family;

use super::addresses::number;
use super::{Condition, Effect, NewAddress, Step};

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

/// Flags of `struct xt_addrtype_info_v1`: XT_ADDRTYPE_INVERT_DEST.
const INVERT_DESTINATION: u32 = 2;
/// The bit of RTN_LOCAL in its sets of types.
const LOCAL: u16 = 1 << libc::RTN_LOCAL;

/// The flag SYN of TCP.
pub const TCP_SYN: u8 = 2;

/// NF_NAT_RANGE_MAP_IPS: the range has addresses.
const MAP_ADDRESSES: u32 = 1;

/// The conditions for a match; none if it always holds.
pub fn conditions(name: &str, revision: u8, data: &[u8]) -> Vec<Step> {
    let condition = match name {
        "comment" => return Vec::new(),
        "tcp" if is_of_syn(data) => {
            return vec![Step::If(Condition::Transport), Step::If(Condition::Syn)];
        }
        "mark" if revision == 1 => mark(data),
        "addrtype" if revision == 1 => address_type(data),
        _ if OF_TRANSPORT.contains(&name) => Condition::Transport,
        _ if PURE.contains(&name) => Condition::Unknown,
        _ => Condition::Unclear(name.to_owned()),
    };
    vec![Step::If(condition)]
}

/// Whether a match for TCP (`struct xt_tcp`: mask, flags, and what is inverted) is for segments
/// with SYN only.
fn is_of_syn(data: &[u8]) -> bool {
    const FLAGS_AT: usize = 9;
    const INVERT_FLAGS: u8 = 4;
    let flags = data.get(FLAGS_AT..FLAGS_AT + 3);
    flags.is_some_and(|flags| flags[0] & flags[1] & TCP_SYN != 0 && flags[2] & INVERT_FLAGS == 0)
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
    let types = |at: usize| Some(u16::from_ne_bytes(data.get(at..at + 2)?.try_into().ok()?));
    match (types(0), types(2), u32_at(data, 4)) {
        (Some(0), Some(LOCAL), Some(flags)) => {
            Condition::ToHost { is_equal: flags & INVERT_DESTINATION == 0 }
        }
        _ => Condition::Unknown,
    }
}

/// The step for a target.
pub fn target(family: Family, name: &str, revision: u8, data: &[u8]) -> Step {
    let address = match name {
        "REJECT" => return Step::Do(Effect::Drop),
        "MASQUERADE" | "REDIRECT" => NewAddress::OfHost,
        "SNAT" | "DNAT" => new_address(family, revision, data).unwrap_or(NewAddress::Any),
        "NETMAP" => NewAddress::Any,
        "TCPMSS" => return Step::Clamp(name.to_owned()),
        _ => return Step::Do(Effect::Apply(name.to_owned())),
    };
    Step::Translate(name.to_owned(), address)
}

/// The addresses of `struct nf_nat_ipv4_multi_range_compat` (revision 0), `struct nf_nat_range` or
/// `struct nf_nat_range2`.
fn new_address(family: Family, revision: u8, data: &[u8]) -> Option<NewAddress> {
    let (flags, first, last) = match (revision, family) {
        (0, Family::V4) if u32_at(data, 0)? == 1 => (4, 8, 12),
        (1 | 2, _) => (0, 4, 20),
        _ => return None,
    };
    if u32_at(data, flags)? & MAP_ADDRESSES == 0 {
        return None;
    }
    let length = if family == Family::V4 { 4 } else { 16 };
    let address = |at: usize| data.get(at..at + length).map(number);
    Some(NewAddress::Within(family, address(first)?, address(last)?))
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
        assert_eq!(condition("mark", 2, &mark), Condition::Unknown);
        let local =
            |flags: u32| [vec![0, 0], 4u16.to_ne_bytes().to_vec(), numbers(&[flags])].concat();
        assert_eq!(condition("addrtype", 1, &local(0)), Condition::ToHost { is_equal: true });
        assert_eq!(condition("addrtype", 1, &local(2)), Condition::ToHost { is_equal: false });
        assert_eq!(condition("addrtype", 0, &local(0)), Condition::Unknown);
        let source = [4u16.to_ne_bytes(), 4u16.to_ne_bytes()].concat();
        let source = [source, numbers(&[0])].concat();
        assert_eq!(condition("addrtype", 1, &source), Condition::Unknown);
        let tcp = |mask, flags, inverted| [vec![0; 9], vec![mask, flags, inverted]].concat();
        assert_eq!(condition("tcp", 0, &tcp(6, 2, 0)), Condition::Syn);
        for data in [tcp(6, 4, 0), tcp(4, 2, 0), tcp(6, 2, 4)] {
            assert_eq!(condition("tcp", 0, &data), Condition::Transport, "{data:?}");
        }
        assert_eq!(conditions("comment", 0, &[]), []);
        assert_eq!(condition("recent", 0, &[]), Condition::Unclear("recent".into()));
    }

    #[test]
    fn addresses_of_translations_are_read_in_known_revisions_only() {
        let (first, last) = ([10, 0, 0, 1], [10, 0, 0, 9]);
        let old = [numbers(&[1, 1]), [first, last].concat(), vec![0; 4]].concat();
        let wide = |address: [u8; 4]| [address.to_vec(), vec![0; 12]].concat();
        let new = |flags: u32| [numbers(&[flags]), wide(first), wide(last), vec![0; 8]].concat();
        let within = NewAddress::Within(Family::V4, 0x0a00_0001, 0x0a00_0009);
        for (revision, data, expected) in [
            (0, old.clone(), within),
            (2, new(1), within),
            (2, new(2), NewAddress::Any), // ports only
            (3, new(1), NewAddress::Any),
        ] {
            let step = Step::Translate("DNAT".into(), expected);
            assert_eq!(target(Family::V4, "DNAT", revision, &data), step, "{revision}");
        }
        let of_v6 = target(Family::V6, "DNAT", 0, &old);
        assert_eq!(of_v6, Step::Translate("DNAT".into(), NewAddress::Any));
    }

    #[test]
    fn data_of_any_length_never_panics() {
        for length in 0..64 {
            for byte in [0, 1, 0xff] {
                let data = vec![byte; length];
                for revision in 0..4 {
                    for name in ["mark", "addrtype", "tcp"] {
                        assert!(!conditions(name, revision, &data).is_empty());
                    }
                    for family in Family::BOTH {
                        let step = target(family, "SNAT", revision, &data);
                        assert!(matches!(step, Step::Translate(..)));
                    }
                }
            }
        }
    }
}
