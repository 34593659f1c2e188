//! IPv4 and IPv6 headers: parsing, and the small edits that a tunnel makes.
//!
//! [`parse`] checks only what delivery depends on: version, lengths, addresses. It reads no more of
//! a hostile packet than its own bytes, and every length that it returns lies within them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::checksum;

/// Bytes of an IPv4 header without options.
pub const V4_HEADER_LEN: usize = 20;
/// Bytes of the fixed IPv6 header.
pub const V6_HEADER_LEN: usize = 40;

/// Protocol number of ICMP for IPv4.
pub const ICMP: u8 = 1;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Protocol number of ICMP for IPv6.
pub const ICMPV6: u8 = 58;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const HOST_IDENTITY: u8 = 139;
const SHIM6: u8 = 140;

/// ECN field: the transport does not understand ECN (RFC 3168 §5).
pub const NOT_ECT: u8 = 0b00;
/// ECN field: ECN-capable transport, codepoint 1.
pub const ECT_1: u8 = 0b01;
/// ECN field: ECN-capable transport, codepoint 0.
pub const ECT_0: u8 = 0b10;
/// ECN field: congestion experienced.
pub const CE: u8 = 0b11;
const ECN_MASK: u8 = 0b11;

/// The fields of an IP header that delivery depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source address; its family is the packet's version.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// Bytes of the whole packet, header included, by its own header; never more than given.
    pub len: usize,
    /// Bytes of the IPv4 header with options, or of the fixed IPv6 header.
    pub header_len: usize,
    /// The ECN field (RFC 3168 §5), 0 to 3.
    pub ecn: u8,
    /// Protocol of IPv4, or the first next header of IPv6.
    pub protocol: u8,
}

/// Parses the IP header of `packet`; `None` if it is neither IPv4 nor IPv6, cut short, or claims
/// lengths that contradict each other or the bytes given. Bytes after the IP length are allowed:
/// they are WireGuard's padding (§5.4.6).
#[must_use]
pub fn parse(packet: &[u8]) -> Option<Packet> {
    match packet.first()? >> 4 {
        4 => parse_v4(packet),
        6 => parse_v6(packet),
        _ => None,
    }
}

fn parse_v4(packet: &[u8]) -> Option<Packet> {
    let header = packet.first_chunk::<V4_HEADER_LEN>()?;
    let header_len = usize::from(header[0] & 0xf) * 4;
    let len = usize::from(u16_at(header, 2));
    if header_len < V4_HEADER_LEN || header_len > len || len > packet.len() {
        return None;
    }
    let address = |at| IpAddr::V4(Ipv4Addr::from_bits(u32_at(header, at)));
    Some(Packet {
        source: address(12),
        destination: address(16),
        len,
        header_len,
        ecn: header[1] & ECN_MASK,
        protocol: header[9],
    })
}

fn parse_v6(packet: &[u8]) -> Option<Packet> {
    let header = packet.first_chunk::<V6_HEADER_LEN>()?;
    let len = V6_HEADER_LEN + usize::from(u16_at(header, 4));
    if len > packet.len() {
        return None;
    }
    let address = |at: usize| {
        let octets: [u8; 16] = header[at..at + 16].try_into().expect("sixteen bytes");
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    Some(Packet {
        source: address(8),
        destination: address(24),
        len,
        header_len: V6_HEADER_LEN,
        ecn: (header[1] >> 4) & ECN_MASK,
        protocol: header[6],
    })
}

/// Whether an IPv6 next header is an extension header whose own next header follows (RFC 7045).
#[must_use]
pub fn is_extension_header(next_header: u8) -> bool {
    matches!(
        next_header,
        HOP_BY_HOP
            | ROUTING
            | FRAGMENT
            | AUTHENTICATION
            | DESTINATION_OPTIONS
            | MOBILITY
            | HOST_IDENTITY
            | SHIM6
    )
}

/// The ECN field of a packet that [`parse`] accepts.
#[must_use]
pub fn ecn(packet: &[u8]) -> u8 {
    if is_v4(packet) { packet[1] & ECN_MASK } else { (packet[1] >> 4) & ECN_MASK }
}

/// TOS or traffic class of a packet that [`parse`] accepts.
#[must_use]
pub fn traffic_class(packet: &[u8]) -> u8 {
    if is_v4(packet) { packet[1] } else { packet[0] << 4 | packet[1] >> 4 }
}

/// The outer ECN field for a packet that [`parse`] accepts: the inner one, but ECT(0) for CE
/// (RFC 3168 §9.1.1, full functionality; `INET_ECN_encapsulate`, include/net/inet_ecn.h).
#[must_use]
pub fn outer_ecn(packet: &[u8]) -> u8 {
    match ecn(packet) {
        CE => ECT_0,
        inner => inner,
    }
}

/// Merges the outer ECN into a packet that [`parse`] accepts (RFC 6040 §4.2 as the kernel module
/// does it: `INET_ECN_decapsulate`). Congestion in the tunnel marks an ECN-capable packet,
/// ECT(1) replaces ECT(0), and a packet that is not ECN-capable is left as it is.
pub fn apply_outer_ecn(packet: &mut [u8], outer_tos: u8) {
    let merged = match (ecn(packet), outer_tos & ECN_MASK) {
        (ECT_0 | ECT_1, CE) => CE,
        (ECT_0, ECT_1) => ECT_1,
        _ => return,
    };
    if is_v4(packet) {
        let old = u16_at(packet, 0);
        let new = old & !u16::from(ECN_MASK) | u16::from(merged);
        put_u16(packet, 0, new);
        let updated = checksum::update(u16_at(packet, 10), old, new);
        put_u16(packet, 10, updated);
    } else {
        packet[1] = packet[1] & !(ECN_MASK << 4) | merged << 4;
    }
}

/// The upper layer of a packet, after all IPv6 extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpperLayer {
    /// Protocol of the upper layer.
    pub protocol: u8,
    /// Offset of the upper layer (bytes from the start of the packet).
    pub start: usize,
    /// A fragment: more fragments follow, or came before.
    pub is_fragment: bool,
    /// A fragment that does not begin with the upper layer's header.
    pub is_later_fragment: bool,
    /// A routing header with segments left: the pseudo header has another destination.
    pub is_source_routed: bool,
}

/// Finds the upper layer of the packet that was parsed to `ip`; `None` if its extension headers
/// are cut short.
#[must_use]
pub fn upper_layer(packet: &[u8], ip: &Packet) -> Option<UpperLayer> {
    let packet = packet.get(..ip.len)?;
    let mut upper = UpperLayer {
        protocol: ip.protocol,
        start: ip.header_len,
        is_fragment: false,
        is_later_fragment: false,
        is_source_routed: false,
    };
    if ip.source.is_ipv4() {
        let fragment = u16_at(packet, 6);
        upper.is_fragment = fragment & 0x3fff != 0;
        upper.is_later_fragment = fragment & 0x1fff != 0;
        return Some(upper);
    }
    // Every iteration advances by at least eight bytes, so the loop ends.
    while let HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS =
        upper.protocol
    {
        let header = packet.get(upper.start..)?.first_chunk::<8>()?;
        let length = match upper.protocol {
            FRAGMENT => 8,
            AUTHENTICATION => (usize::from(header[1]) + 2) * 4,
            _ => (usize::from(header[1]) + 1) * 8,
        };
        if upper.protocol == FRAGMENT {
            let fragment = u16_at(header, 2);
            upper.is_fragment = fragment & 0xfff9 != 0;
            upper.is_later_fragment = fragment & 0xfff8 != 0;
        }
        upper.is_source_routed |= upper.protocol == ROUTING && header[3] != 0;
        upper.protocol = header[0];
        upper.start += length;
        if upper.start > packet.len() {
            return None;
        }
        if upper.is_later_fragment {
            break;
        }
    }
    Some(upper)
}

/// A hash that all packets of a flow share, in both directions; that of fragments depends on their
/// addresses only, as in the kernel's `__skb_get_hash_symmetric`.
#[must_use]
pub fn flow_hash(packet: &[u8]) -> u32 {
    let Some(ip) = parse(packet) else { return 0 };
    let addresses = addresses(packet);
    let (source, destination) = addresses.split_at(addresses.len() / 2);
    let word = |bytes: &[u8]| u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let mut mixed = 0;
    for (a, b) in source.chunks_exact(4).zip(destination.chunks_exact(4)) {
        mixed ^= word(a) ^ word(b);
    }
    if let Some(upper) = upper_layer(packet, &ip)
        && matches!(upper.protocol, TCP | UDP)
        && !upper.is_fragment
        && let Some(ports) = packet[..ip.len].get(upper.start..upper.start + 4)
    {
        mixed ^= u32::from(u16_at(ports, 0) ^ u16_at(ports, 2));
    }
    // The high bits depend on all bits of the sum.
    mixed.wrapping_mul(0x9e37_79b1) >> 16
}

/// The bytes of source and destination address in the header of a packet that [`parse`] accepts.
#[must_use]
pub fn addresses(packet: &[u8]) -> &[u8] {
    if is_v4(packet) { &packet[12..20] } else { &packet[8..40] }
}

/// Writes the IP length (bytes, header included) and, for IPv4, the header checksum into a
/// packet that [`parse`] accepts; an IPv6 length above 65,575 or an IPv4 one above 65,535 is a bug
/// of the caller.
pub fn set_len(packet: &mut [u8], header_len: usize, len: usize) {
    if is_v4(packet) {
        debug_assert!(len <= usize::from(u16::MAX));
        put_u16(packet, 2, len as u16);
        put_u16(packet, 10, 0);
        let checksum = checksum::finish(checksum::sum(&packet[..header_len]));
        put_u16(packet, 10, checksum);
    } else {
        debug_assert!(len - V6_HEADER_LEN <= usize::from(u16::MAX));
        put_u16(packet, 4, (len - V6_HEADER_LEN) as u16);
    }
}

/// Whether a packet is IPv4 rather than IPv6; for one that [`parse`] accepts.
#[must_use]
pub fn is_v4(packet: &[u8]) -> bool {
    packet[0] >> 4 == 4
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

pub(crate) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4() -> Vec<u8> {
        let mut packet =
            vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, UDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 9];
        packet.extend([0; 12]);
        set_len(&mut packet, V4_HEADER_LEN, 32);
        packet
    }

    fn v6() -> Vec<u8> {
        let mut packet = vec![0; 52];
        packet[0] = 0x60;
        packet[6] = TCP;
        packet[23] = 1;
        packet[39] = 9;
        set_len(&mut packet, V6_HEADER_LEN, 52);
        packet
    }

    #[test]
    fn headers_are_read() {
        let packet = parse(&v4()).unwrap();
        assert_eq!((packet.len, packet.header_len, packet.protocol), (32, 20, UDP));
        assert_eq!(packet.source.to_string(), "10.0.0.1");
        assert_eq!(packet.destination.to_string(), "10.0.0.9");
        let packet = parse(&v6()).unwrap();
        assert_eq!((packet.len, packet.header_len, packet.protocol), (52, 40, TCP));
        assert_eq!(packet.source.to_string(), "::1");
        assert_eq!(packet.destination.to_string(), "::9");
    }

    /// Each case changes one byte of a valid packet.
    #[test]
    fn impossible_lengths_are_refused() {
        for (number, (at, value)) in
            [(0, 0x44), (0, 0x4f), (0, 0x55), (0, 0x65), (0, 0), (3, 19), (3, 33), (2, 1)]
                .into_iter()
                .enumerate()
        {
            let mut packet = v4();
            packet[at] = value;
            assert_eq!(parse(&packet), None, "case {}", number + 1);
        }
        for len in 0..32 {
            assert_eq!(parse(&v4()[..len]), None, "{len}");
        }
        for len in 0..52 {
            assert_eq!(parse(&v6()[..len]), None, "{len}");
        }
        let mut packet = v6();
        packet[5] = 13;
        assert_eq!(parse(&packet), None);
        packet[5] = 0;
        assert_eq!(parse(&packet).unwrap().len, 40, "bytes after the IP length are allowed");
    }

    /// RFC 6040 figure 4, as the kernel does it: inner, outer, merged.
    #[test]
    fn outer_ecn_is_merged_into_the_packet() {
        let table = [
            (NOT_ECT, [NOT_ECT, NOT_ECT, NOT_ECT, NOT_ECT]),
            (ECT_0, [ECT_0, ECT_0, ECT_1, CE]),
            (ECT_1, [ECT_1, ECT_1, ECT_1, CE]),
            (CE, [CE, CE, CE, CE]),
        ];
        for (inner, merged) in table {
            for (outer, expected) in [NOT_ECT, ECT_0, ECT_1, CE].into_iter().zip(merged) {
                let mut packet = v4();
                packet[1] = 0xb8 | inner;
                set_len(&mut packet, V4_HEADER_LEN, 32);
                apply_outer_ecn(&mut packet, 0x48 | outer);
                assert_eq!((ecn(&packet), packet[1] & 0xfc), (expected, 0xb8));
                assert!(checksum::is_valid(checksum::sum(&packet[..20])));
                let mut packet = v6();
                packet[0] |= 0xb;
                packet[1] = 0x8f | inner << 4;
                apply_outer_ecn(&mut packet, outer);
                assert_eq!(parse(&packet).unwrap().ecn, expected);
                assert_eq!(packet[..2], [0x6b, 0x8f | expected << 4]);
            }
        }
    }

    #[test]
    fn inner_ecn_is_copied_to_the_outer_header() {
        for (inner, outer) in [(NOT_ECT, NOT_ECT), (ECT_0, ECT_0), (ECT_1, ECT_1), (CE, ECT_0)] {
            let (mut packet, mut packet_v6) = (v4(), v6());
            packet[1] |= inner;
            packet_v6[1] |= inner << 4;
            assert_eq!((outer_ecn(&packet), outer_ecn(&packet_v6)), (outer, outer));
        }
    }

    #[test]
    fn extension_headers_are_walked() {
        let mut packet = v6();
        packet.extend([0; 28]);
        set_len(&mut packet, V6_HEADER_LEN, 80);
        // Hop-by-hop of 16 bytes, routing without segments left, fragment, then UDP.
        packet[6] = HOP_BY_HOP;
        packet[40..42].copy_from_slice(&[ROUTING, 1]);
        packet[56..60].copy_from_slice(&[FRAGMENT, 0, 0, 0]);
        packet[64..68].copy_from_slice(&[UDP, 0, 0, 1]);
        let parsed = parse(&packet).unwrap();
        let upper = upper_layer(&packet, &parsed).unwrap();
        let expected = UpperLayer {
            protocol: UDP,
            start: 72,
            is_fragment: true,
            is_later_fragment: false,
            is_source_routed: false,
        };
        assert_eq!(upper, expected);
        packet[59] = 1;
        assert!(upper_layer(&packet, &parsed).unwrap().is_source_routed);
        packet[67] = 8;
        assert!(upper_layer(&packet, &parsed).unwrap().is_later_fragment);
        packet[41] = 9;
        assert_eq!(upper_layer(&packet, &parsed), None, "cut short");
    }
}
