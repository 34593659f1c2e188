//! ICMP errors, the answers to packets that cannot be forwarded (RFC 792, RFC 4443).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::checksum;
use crate::ip::{self, ICMP, ICMPV6, Packet, UpperLayer, V4_HEADER_LEN, V6_HEADER_LEN};

/// Bytes of an ICMP error before the packet that it quotes.
const ERROR_HEADER_LEN: usize = 8;
/// Longest ICMPv4 error with its IP header (bytes, RFC 1812 §4.3.2.3).
const V4_ERROR_LEN_MAX: usize = 576;
/// Longest ICMPv6 error with its IP header: the minimum MTU (bytes, RFC 4443 §2.4 c).
const V6_ERROR_LEN_MAX: usize = 1280;
/// Longest message that [`IcmpError::write`] writes (bytes).
pub const ERROR_LEN_MAX: usize = V6_ERROR_LEN_MAX;

/// Precedence "internetwork control", recommended for errors (RFC 1812 §4.3.2.5).
const V4_ERROR_TOS: u8 = 0xc0;
const HOP_LIMIT: u8 = 64;
/// Offset of the next header in an IPv6 header (bytes).
const V6_NEXT_HEADER_AT: u32 = 6;

/// The reason why a packet is not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// The destination cannot be reached: host unreachable, or address unreachable of IPv6.
    Unreachable,
    /// No route to the destination: network unreachable of IPv4.
    NoRoute,
    /// The destination's port is closed.
    PortUnreachable,
    /// The destination does not know the upper layer's protocol: unrecognized next header of IPv6.
    ProtocolUnreachable,
    /// The packet's TTL or hop limit ended here.
    TimeExceeded,
    /// The packet is longer than this (bytes) and must not be fragmented.
    TooBig(u32),
}

impl IcmpError {
    /// Type, code, and the second word, for IPv4 and IPv6.
    fn codes(self, is_v4: bool) -> (u8, u8, u32) {
        match (self, is_v4) {
            (IcmpError::Unreachable, true) => (3, 1, 0),
            (IcmpError::Unreachable, false) => (1, 3, 0),
            (IcmpError::NoRoute, true) => (3, 0, 0),
            (IcmpError::NoRoute, false) => (1, 0, 0),
            (IcmpError::PortUnreachable, true) => (3, 3, 0),
            (IcmpError::PortUnreachable, false) => (1, 4, 0),
            (IcmpError::ProtocolUnreachable, true) => (3, 2, 0),
            (IcmpError::ProtocolUnreachable, false) => (4, 1, V6_NEXT_HEADER_AT),
            (IcmpError::TimeExceeded, true) => (11, 0, 0),
            (IcmpError::TimeExceeded, false) => (3, 0, 0),
            (IcmpError::TooBig(mtu), true) => (3, 4, mtu.min(u16::MAX.into())),
            (IcmpError::TooBig(mtu), false) => (2, 0, mtu),
        }
    }

    /// Writes to `out` this error about `offending`, a packet that [`may_answer`] was asked about,
    /// and returns its length (bytes). Returns `None` if `from` is of another family.
    ///
    /// # Panics
    /// If `out` has less than [`ERROR_LEN_MAX`] bytes: a bug of the caller.
    #[must_use]
    pub fn write(self, offending: &[u8], from: IpAddr, out: &mut [u8]) -> Option<usize> {
        let ip = ip::parse(offending)?;
        let offending = &offending[..ip.len];
        match (ip.source, from) {
            (IpAddr::V4(to), IpAddr::V4(from)) => Some(self.write_v4(offending, to, from, out)),
            (IpAddr::V6(to), IpAddr::V6(from)) => Some(self.write_v6(offending, to, from, out)),
            _ => None,
        }
    }

    fn write_v4(self, offending: &[u8], to: Ipv4Addr, from: Ipv4Addr, out: &mut [u8]) -> usize {
        let quoted = offending.len().min(V4_ERROR_LEN_MAX - V4_HEADER_LEN - ERROR_HEADER_LEN);
        let len = V4_HEADER_LEN + ERROR_HEADER_LEN + quoted;
        let (header, error) = out[..len].split_at_mut(V4_HEADER_LEN);
        header.fill(0);
        header[0] = 0x45;
        header[1] = V4_ERROR_TOS;
        header[8] = HOP_LIMIT;
        header[9] = ICMP;
        header[12..16].copy_from_slice(&from.octets());
        header[16..20].copy_from_slice(&to.octets());
        ip::set_len(header, V4_HEADER_LEN, len);
        write_error(error, self.codes(true), &offending[..quoted], 0);
        len
    }

    fn write_v6(self, offending: &[u8], to: Ipv6Addr, from: Ipv6Addr, out: &mut [u8]) -> usize {
        let quoted = offending.len().min(V6_ERROR_LEN_MAX - V6_HEADER_LEN - ERROR_HEADER_LEN);
        let len = V6_HEADER_LEN + ERROR_HEADER_LEN + quoted;
        let (header, error) = out[..len].split_at_mut(V6_HEADER_LEN);
        header.fill(0);
        header[0] = 0x60;
        header[6] = ICMPV6;
        header[7] = HOP_LIMIT;
        header[8..24].copy_from_slice(&from.octets());
        header[24..40].copy_from_slice(&to.octets());
        ip::set_len(header, V6_HEADER_LEN, len);
        let pseudo = checksum::pseudo_header(&header[8..40], ICMPV6, error.len());
        write_error(error, self.codes(false), &offending[..quoted], pseudo);
        len
    }
}

/// Fills `error`; `pseudo` is the initial sum of its checksum.
fn write_error(error: &mut [u8], (kind, code, word): (u8, u8, u32), quoted: &[u8], pseudo: u64) {
    error[..4].copy_from_slice(&[kind, code, 0, 0]);
    ip::put_u32(error, 4, word);
    error[ERROR_HEADER_LEN..].copy_from_slice(quoted);
    let checksum = checksum::finish(pseudo + checksum::sum(error));
    ip::put_u16(error, 2, checksum);
}

/// Whether an ICMP error may answer the packet that was parsed to `ip`. Never for ICMP errors and
/// redirects, later fragments, and addresses that are not unicast (RFC 1122 §3.2.2, RFC 4443
/// §2.4 e). The caller limits the rate.
#[must_use]
pub fn may_answer(offending: &[u8], ip: &Packet) -> bool {
    let Some(upper) = ip::upper_layer(offending, ip) else { return false };
    !upper.is_later_fragment
        && is_unicast(ip.source)
        && is_unicast(ip.destination)
        && !has_error_type(offending, ip, &upper)
}

/// Whether the packet that was parsed to `ip` is an ICMP error or redirect, or may be a part of
/// one: the same for all fragments of a packet.
#[must_use]
pub fn is_error(packet: &[u8], ip: &Packet) -> bool {
    let Some(upper) = ip::upper_layer(packet, ip) else { return true };
    match upper.is_fragment {
        true => upper.protocol == ICMP || ip.source.is_ipv6(),
        false => has_error_type(packet, ip, &upper),
    }
}

/// The packet that the ICMP error that was parsed to `ip` quotes, or its beginning; none if the
/// error is a fragment, or too short.
#[must_use]
pub fn quoted<'a>(packet: &'a [u8], ip: &Packet) -> Option<&'a [u8]> {
    let upper = ip::upper_layer(packet, ip).filter(|upper| !upper.is_fragment)?;
    packet[..ip.len].get(upper.start + ERROR_HEADER_LEN..)
}

/// Whether the upper layer has the type of an ICMP error or redirect, or ends before its type.
fn has_error_type(packet: &[u8], ip: &Packet, upper: &UpperLayer) -> bool {
    let is_v4 = ip.source.is_ipv4();
    let kind = packet[..ip.len].get(upper.start).copied();
    upper.protocol == if is_v4 { ICMP } else { ICMPV6 }
        && kind.is_none_or(|kind| is_error_type(kind, is_v4))
}

/// Whether ICMP messages of this type are errors or redirects.
#[must_use]
pub fn is_error_type(kind: u8, is_v4: bool) -> bool {
    match is_v4 {
        // Unreachable, source quench, redirect, time exceeded, parameter problem.
        true => matches!(kind, 3 | 4 | 5 | 11 | 12),
        // Errors have a type below 128; 137 is a redirect.
        false => matches!(kind, 0..128 | 137),
    }
}

/// Whether an address may be that of one host elsewhere: not multicast, loopback or unspecified.
#[must_use]
pub fn is_unicast(address: IpAddr) -> bool {
    match address {
        // 0.0.0.0/8 is "this network", 240.0.0.0/4 reserved with the broadcast address in it.
        IpAddr::V4(v4) => v4.octets()[0] != 0 && v4.octets()[0] < 224 && !v4.is_loopback(),
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_multicast() && !v6.is_loopback(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn v4_packet(protocol: u8, upper: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0];
        packet.extend([10, 0, 0, 1, 10, 0, 0, 99]);
        packet.extend(upper);
        let len = packet.len();
        ip::set_len(&mut packet, V4_HEADER_LEN, len);
        packet
    }

    pub(crate) fn v6_packet(next_header: u8, upper: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, upper.len() as u8, next_header, 64];
        packet.extend("fd00::1".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend("fd00::99".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend(upper);
        let len = packet.len();
        ip::set_len(&mut packet, V6_HEADER_LEN, len);
        packet
    }

    fn answer_with(error: IcmpError, offending: &[u8]) -> Option<Vec<u8>> {
        let mut out = [0xaa; ERROR_LEN_MAX];
        let ip = ip::parse(offending)?;
        let from = if ip::is_v4(offending) { "10.0.0.254" } else { "fd00::fe" };
        let len = error.write(offending, from.parse().unwrap(), &mut out)?;
        may_answer(offending, &ip).then(|| out[..len].to_vec())
    }

    fn answer(offending: &[u8]) -> Option<Vec<u8>> {
        answer_with(IcmpError::Unreachable, offending)
    }

    #[test]
    fn every_error_has_its_type_and_second_word() {
        let (v4, v6) = (v4_packet(ip::UDP, &[7; 8]), v6_packet(ip::UDP, &[7; 8]));
        for (error, in_v4, in_v6) in [
            (IcmpError::Unreachable, [3, 1, 0, 0, 0, 0], [1, 3, 0, 0, 0, 0]),
            (IcmpError::NoRoute, [3, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]),
            (IcmpError::PortUnreachable, [3, 3, 0, 0, 0, 0], [1, 4, 0, 0, 0, 0]),
            (IcmpError::ProtocolUnreachable, [3, 2, 0, 0, 0, 0], [4, 1, 0, 0, 0, 6]),
            (IcmpError::TimeExceeded, [11, 0, 0, 0, 0, 0], [3, 0, 0, 0, 0, 0]),
            (IcmpError::TooBig(1_300), [3, 4, 0, 0, 5, 0x14], [2, 0, 0, 0, 5, 0x14]),
        ] {
            for (packet, header, expected) in [(&v4, 20, in_v4), (&v6, 40, in_v6)] {
                let answer = answer_with(error, packet).unwrap();
                assert_eq!(answer[header..header + 2], expected[..2], "{error:?}");
                assert_eq!(answer[header + 4..header + 8], expected[2..], "{error:?}");
            }
        }
        let mut out = [0; ERROR_LEN_MAX];
        let from = "fd00::1".parse().unwrap();
        assert_eq!(IcmpError::Unreachable.write(&v4, from, &mut out), None, "another family");
    }

    #[test]
    fn host_unreachable_for_ipv4() {
        for (payload, quoted) in [(8, 28), (528, 548), (529, 548), (1_400, 548)] {
            let offending = v4_packet(ip::UDP, &vec![7; payload]);
            let answer = answer(&offending).unwrap();
            let parsed = ip::parse(&answer).unwrap();
            assert_eq!(parsed.len, answer.len());
            assert_eq!(parsed.source.to_string(), "10.0.0.254");
            assert_eq!(parsed.destination.to_string(), "10.0.0.1");
            assert!(checksum::is_valid(checksum::sum(&answer[..20])));
            assert!(checksum::is_valid(checksum::sum(&answer[20..])));
            assert_eq!(answer[20..22], [3, 1]);
            assert_eq!(answer[24..28], [0; 4]);
            assert_eq!(answer[28..], offending[..quoted]);
            assert!(answer.len() <= 576);
        }
    }

    #[test]
    fn address_unreachable_for_ipv6() {
        for (payload, quoted) in [(8, 48), (1_192, 1_232), (1_193, 1_232), (1_400, 1_232)] {
            let offending = v6_packet(ip::TCP, &vec![7; payload]);
            let answer = answer(&offending).unwrap();
            let parsed = ip::parse(&answer).unwrap();
            assert_eq!((parsed.len, parsed.protocol), (answer.len(), ICMPV6));
            assert_eq!(parsed.source.to_string(), "fd00::fe");
            assert_eq!(parsed.destination.to_string(), "fd00::1");
            let pseudo = checksum::pseudo_header(&answer[8..40], ICMPV6, answer.len() - 40);
            assert!(checksum::is_valid(pseudo + checksum::sum(&answer[40..])));
            assert_eq!(answer[40..42], [1, 3]);
            assert_eq!(answer[48..], offending[..quoted]);
            assert!(answer.len() <= 1_280);
        }
    }

    #[test]
    fn bytes_after_the_ip_length_are_not_quoted() {
        let mut offending = v4_packet(ip::UDP, &[7; 8]);
        offending.extend([0xee; 40]);
        assert_eq!(answer(&offending).unwrap().len(), 28 + 28);
    }

    #[test]
    fn errors_are_told_from_other_packets() {
        let is_error = |packet: &[u8]| super::is_error(packet, &ip::parse(packet).expect("IP"));
        for (kind, expected) in [(0, false), (3, true), (5, true), (8, false), (11, true)] {
            assert_eq!(is_error(&v4_packet(ICMP, &[kind, 0, 0, 0])), expected, "{kind}");
            assert!(!is_error(&v4_packet(ip::UDP, &[kind, 0, 0, 0])), "{kind}");
        }
        for (kind, expected) in [(1, true), (2, true), (127, true), (128, false), (129, false)] {
            assert_eq!(is_error(&v6_packet(ICMPV6, &[kind, 0, 0, 0])), expected, "{kind}");
            let behind_options = v6_packet(60, &[ICMPV6, 0, 1, 4, 0, 0, 0, 0, kind, 0, 0, 0]);
            assert_eq!(is_error(&behind_options), expected, "{kind}");
        }
        assert!(is_error(&v4_packet(ICMP, &[])), "its type is cut off");
        let mut fragment = v4_packet(ICMP, &[8, 0, 0, 0]);
        fragment[7] = 1;
        assert!(is_error(&fragment), "the first fragment may be of an error");
        (fragment[6], fragment[7]) = (0x20, 0);
        assert!(is_error(&fragment), "and so this is no other case");
        for next in [ICMPV6, ip::UDP, 60] {
            for offset in [[0, 1], [0, 8]] {
                let header = [next, 0, offset[0], offset[1], 0, 0, 0, 1];
                let rest = [128, 0, 0, 0, 0, 0, 0, 0];
                assert!(is_error(&v6_packet(44, &[header, rest].concat())), "{next} {offset:?}");
            }
        }
    }

    #[test]
    fn errors_and_malformed_packets_are_not_answered() {
        let echo = v4_packet(ICMP, &[8, 0, 0, 0, 0, 0, 0, 0]);
        assert!(answer(&echo).is_some());
        for kind in [3, 4, 5, 11, 12] {
            assert_eq!(answer(&v4_packet(ICMP, &[kind, 0, 0, 0, 0, 0, 0, 0])), None, "{kind}");
        }
        assert_eq!(answer(&v4_packet(ICMP, &[])), None);
        assert!(answer(&v6_packet(ICMPV6, &[128, 0, 0, 0])).is_some());
        for kind in [1, 2, 3, 4, 100, 127, 137] {
            assert_eq!(answer(&v6_packet(ICMPV6, &[kind, 0, 0, 0])), None, "{kind}");
        }
        let behind_options = v6_packet(60, &[ICMPV6, 0, 1, 4, 0, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(answer(&behind_options), None, "an error behind an extension header");
        assert_eq!(answer(&v6_packet(60, &[ICMPV6, 9, 1, 4, 0, 0, 0, 0])), None, "cut short");
        assert_eq!(answer(b""), None);
    }

    #[test]
    fn only_first_fragments_are_answered() {
        let mut packet = v4_packet(ip::UDP, &[7; 16]);
        packet[6] = 0x20;
        assert!(answer(&packet).is_some());
        packet[7] = 1;
        assert_eq!(answer(&packet), None);
        assert!(answer(&v6_packet(44, &[ip::UDP, 0, 0, 1, 0, 0, 0, 1, 7, 7])).is_some());
        assert_eq!(answer(&v6_packet(44, &[ip::UDP, 0, 0, 9, 0, 0, 0, 1, 7, 7])), None);
    }

    #[test]
    fn only_unicast_addresses_are_answered() {
        let bad_v4 = [[0, 0, 0, 0], [224, 0, 0, 1], [255, 255, 255, 255], [127, 0, 0, 1]];
        for (address, at) in bad_v4.iter().flat_map(|bad| [(bad, 12), (bad, 16)]) {
            let mut packet = v4_packet(ip::UDP, &[7; 8]);
            packet[at..at + 4].copy_from_slice(address);
            assert_eq!(answer(&packet), None, "{address:?} at {at}");
        }
        for (bad, at) in ["::", "ff02::1", "::1"].iter().flat_map(|bad| [(bad, 8), (bad, 24)]) {
            let mut packet = v6_packet(ip::UDP, &[7; 8]);
            let address: Ipv6Addr = bad.parse().unwrap();
            packet[at..at + 16].copy_from_slice(&address.octets());
            assert_eq!(answer(&packet), None, "{bad} at {at}");
        }
    }
}
