//! IP forwarding, as far as it depends on the packet alone (RFC 1812 §5.2, RFC 8200 §3;
//! `ip_forward` and `ip6_forward` of Linux).
//!
//! A worker forwards only packets of the fast path. All others need an answer or an exception that
//! the kernel knows: an expired TTL, options, a packet beyond the MTU, addresses that a router must
//! not forward between.

use std::net::IpAddr;

use crate::checksum;
use crate::icmp::IcmpError;
use crate::ip::{self, Packet, V4_HEADER_LEN, put_u16, u16_at};

/// Offset of TTL and protocol in an IPv4 header (bytes).
pub const V4_TTL_AT: usize = 8;
const V4_CHECKSUM_AT: usize = 10;
/// Offset of the hop limit in an IPv6 header (bytes).
pub const V6_HOP_LIMIT_AT: usize = 7;
/// An IPv6 next header that every router must process.
const HOP_BY_HOP: u8 = 0;
/// The fragment offset in the third word of an IPv4 header.
const FRAGMENT_OFFSET: u16 = 0x1fff;
/// The flag "don't fragment" in the third word of an IPv4 header.
const DONT_FRAGMENT: u16 = 0x4000;
/// The flag "more fragments" in the third word of an IPv4 header.
const MORE_FRAGMENTS: u16 = 0x2000;
const ICMP_REDIRECT: u8 = 5;
const NDISC_ROUTER_SOLICITATION: u8 = 133;
const NDISC_REDIRECT: u8 = 137;

/// Whether the packet that was parsed to `ip` needs plain forwarding only, out of an interface with
/// this MTU (bytes).
#[must_use]
pub fn is_fast_path(packet: &[u8], ip: &Packet, mtu: usize) -> bool {
    ip.len <= mtu
        && is_forwarded(ip.source)
        && is_forwarded(ip.destination)
        && if ip::is_v4(packet) { is_fast_path_v4(packet, ip) } else { is_fast_path_v6(packet, ip) }
        && !is_link_local_control(packet, ip)
}

fn is_fast_path_v4(packet: &[u8], ip: &Packet) -> bool {
    let Some(header) = packet.first_chunk::<V4_HEADER_LEN>() else { return false };
    ip.header_len == V4_HEADER_LEN
        && header[V4_TTL_AT] > 1
        && checksum::is_valid(checksum::sum(header))
}

fn is_fast_path_v6(packet: &[u8], ip: &Packet) -> bool {
    packet[V6_HOP_LIMIT_AT] > 1 && ip.protocol != HOP_BY_HOP
}

/// Whether rules of the kernel that read the transport header find all of it. This is false for a
/// fragment, for IPv6 extension headers, and for a packet that was parsed to `ip` and ends within
/// the header of TCP, UDP or ICMP (`hotdrop`, net/netfilter/xt_tcpudp.c).
#[must_use]
pub fn has_whole_header(packet: &[u8], ip: &Packet) -> bool {
    const ICMP_HEADER_LEN: usize = 8;
    const UDP_HEADER_LEN: usize = 8;
    const UDP_LITE: u8 = 136;
    const TCP_OFFSET_AT: usize = 12;
    /// The least that is read of any other protocol with ports.
    const PORTS_LEN: usize = 4;
    let is_v4 = ip::is_v4(packet);
    if is_v4 && u16_at(packet, 6) & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0
        || !is_v4 && ip::is_extension_header(ip.protocol)
    {
        return false;
    }
    let transport = &packet[ip.header_len..ip.len];
    let length = match ip.protocol {
        ip::TCP => match transport.get(TCP_OFFSET_AT) {
            Some(offset) if offset >> 4 >= 5 => usize::from(offset >> 4) * 4,
            _ => return false,
        },
        ip::UDP | UDP_LITE => UDP_HEADER_LEN,
        ip::ICMP | ip::ICMPV6 => ICMP_HEADER_LEN,
        _ => PORTS_LEN,
    };
    transport.len() >= length
}

/// Whether the packet that was parsed to `ip`, and that [`has_whole_header`], is a TCP segment with
/// SYN.
#[must_use]
pub fn is_syn(packet: &[u8], ip: &Packet) -> bool {
    const FLAGS_AT: usize = 13;
    const SYN: u8 = 2;
    ip.protocol == ip::TCP
        && packet[..ip.len].get(ip.header_len + FLAGS_AT).is_some_and(|flags| flags & SYN != 0)
}

/// The ICMP error of a router that cannot forward the packet that was parsed to `ip`, out of an
/// interface with this MTU (bytes); none if it can, if it drops the packet silently, or if the
/// packet has options, which the kernel must look at. The order of the checks is that of
/// `ip_forward` and `ip6_forward`.
#[must_use]
pub fn refusal(packet: &[u8], ip: &Packet, mtu: usize) -> Option<IcmpError> {
    let (hop_limit, may_fragment) = if ip::is_v4(packet) {
        let header = packet.first_chunk::<V4_HEADER_LEN>()?;
        if ip.header_len != V4_HEADER_LEN || !checksum::is_valid(checksum::sum(header)) {
            return None;
        }
        (header[V4_TTL_AT], u16_at(header, 6) & DONT_FRAGMENT == 0)
    } else {
        (packet[V6_HOP_LIMIT_AT], false)
    };
    let has_options = ip.protocol == HOP_BY_HOP && !ip::is_v4(packet);
    let is_forwarded = is_forwarded(ip.source) && is_forwarded(ip.destination);
    if has_options || !is_forwarded || is_link_local_control(packet, ip) {
        None
    } else if hop_limit <= 1 {
        Some(IcmpError::TimeExceeded)
    } else if ip.len > mtu && !may_fragment {
        Some(IcmpError::TooBig(mtu as u32))
    } else {
        None
    }
}

/// The treatment of a packet by a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// Forward it.
    Forward,
    /// Drop it, and answer with this error.
    Refuse(IcmpError),
    /// Drop it silently.
    Drop,
}

/// The treatment of the packet that was parsed to `ip`, for an interface with this MTU (bytes), by
/// a router without a kernel behind it: packets with IPv4 options or with a hop-by-hop header are
/// dropped. One that is too long and may be fragmented is forwarded as it is: the datagram that
/// carries it is fragmented instead.
#[must_use]
pub fn alone(packet: &[u8], ip: &Packet, mtu: usize) -> Forwarding {
    if is_fast_path(packet, ip, mtu) {
        return Forwarding::Forward;
    }
    match refusal(packet, ip, mtu) {
        Some(error) => Forwarding::Refuse(error),
        None if is_fast_path(packet, ip, usize::MAX) => Forwarding::Forward,
        None => Forwarding::Drop,
    }
}

/// Whether a packet is an ICMP redirect, an NDISC redirect or a router solicitation. They concern
/// hosts on one link and mean nothing to a peer; a peer must not redirect other peers' traffic
/// either. On the way out of the TUN the sender of such a packet cannot be told from its headers.
#[must_use]
pub fn is_link_local_control(packet: &[u8], ip: &Packet) -> bool {
    let Some(&kind) = packet.get(ip.header_len) else { return false };
    match ip.protocol {
        // In the middle of a packet lies its payload, not its type.
        ip::ICMP => kind == ICMP_REDIRECT && u16_at(packet, 6) & FRAGMENT_OFFSET == 0,
        ip::ICMPV6 => kind == NDISC_REDIRECT || kind == NDISC_ROUTER_SOLICITATION,
        _ => false,
    }
}

/// Whether packets are forwarded from and to an address: a unicast one beyond its own link.
fn is_forwarded(address: IpAddr) -> bool {
    match address {
        // 0.0.0.0/8 is "this network"; multicast, reserved and broadcast addresses lie above
        // 224.0.0.0.
        IpAddr::V4(v4) => {
            let first = v4.octets()[0];
            first != 0 && first < 224 && !v4.is_loopback() && !v4.is_link_local()
        }
        IpAddr::V6(v6) => {
            let [first, ..] = v6.segments();
            !(v6.is_multicast()
                || v6.is_unspecified()
                || v6.is_loopback()
                || first & 0xffc0 == 0xfe80
                || v6.to_ipv4_mapped().is_some())
        }
    }
}

/// Decrements the TTL (and updates the checksum) or the hop limit of a packet that
/// [`is_fast_path`].
pub fn decrement_ttl(packet: &mut [u8]) {
    if ip::is_v4(packet) {
        let old = u16_at(packet, V4_TTL_AT);
        let new = old - 0x100;
        put_u16(packet, V4_TTL_AT, new);
        let updated = checksum::update(u16_at(packet, V4_CHECKSUM_AT), old, new);
        put_u16(packet, V4_CHECKSUM_AT, updated);
    } else {
        packet[V6_HOP_LIMIT_AT] -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: usize = 1420;

    fn v4() -> Vec<u8> {
        let mut packet =
            vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, ip::UDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 9];
        packet.extend([0; 12]);
        ip::set_len(&mut packet, V4_HEADER_LEN, 32);
        packet
    }

    fn v6() -> Vec<u8> {
        let mut packet = vec![0; 52];
        packet[0] = 0x60;
        packet[5] = 12;
        packet[6] = ip::UDP;
        packet[7] = 64;
        packet[8..24].copy_from_slice(&[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        packet[24..40].copy_from_slice(&[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
        packet
    }

    fn fast_path(packet: &[u8], mtu: usize) -> bool {
        is_fast_path(packet, &ip::parse(packet).expect("an IP packet"), mtu)
    }

    /// A fast-path IPv4 packet with some bytes changed and its header checksum corrected.
    fn changed_v4(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut packet = v4();
        packet[at..at + bytes.len()].copy_from_slice(bytes);
        let len = packet.len();
        ip::set_len(&mut packet, V4_HEADER_LEN, len);
        packet
    }

    #[test]
    fn fast_path_packets() {
        assert!(fast_path(&v4(), MTU) && fast_path(&v6(), MTU));
        assert!(fast_path(&v4(), 32) && fast_path(&v6(), 52), "as large as the MTU");
        assert!(!fast_path(&v4(), 31) && !fast_path(&v6(), 51), "larger");
        assert!(fast_path(&changed_v4(6, &[0x20, 0x00]), MTU), "fragments are forwarded");
        assert!(fast_path(&changed_v4(8, &[2]), MTU));
    }

    #[test]
    fn headers_that_end_early_are_seen() {
        let whole = |packet: &[u8]| has_whole_header(packet, &ip::parse(packet).expect("IP"));
        let of_v4 = |protocol: u8, payload: &[u8]| {
            let mut packet = changed_v4(9, &[protocol]);
            packet.truncate(V4_HEADER_LEN);
            packet.extend_from_slice(payload);
            let len = packet.len();
            ip::set_len(&mut packet, V4_HEADER_LEN, len);
            packet
        };
        assert!(whole(&v4()) && whole(&v6()));
        for (protocol, length) in [(ip::UDP, 8), (ip::ICMP, 8), (136, 8), (132, 4)] {
            assert!(whole(&of_v4(protocol, &vec![0; length])), "{protocol}");
            assert!(!whole(&of_v4(protocol, &vec![0; length - 1])), "{protocol}");
            let mut padded = of_v4(protocol, &vec![0; length - 1]);
            padded.push(0); // WireGuard's padding is not of the packet
            assert!(!whole(&padded), "{protocol}");
        }
        let mut options = [0; 24];
        options[12] = 0x60;
        assert!(whole(&of_v4(ip::TCP, &options)));
        assert!(!whole(&of_v4(ip::TCP, &options[..23])));
        options[12] = 0x50;
        assert!(whole(&of_v4(ip::TCP, &options[..20])));
        assert!(!whole(&of_v4(ip::TCP, &options[..19])));
        options[12] = 0x40;
        assert!(!whole(&of_v4(ip::TCP, &options)), "less than a header");
        for fragment in [[0x20, 0], [0, 1], [0x20, 1]] {
            assert!(!whole(&changed_v4(6, &fragment)), "{fragment:?}");
        }
        for extension in [0, 43, 44, 51, 60, 135] {
            let mut packet = v6();
            packet[6] = extension;
            assert!(!whole(&packet), "{extension}");
        }
    }

    #[test]
    fn segments_with_syn_are_seen() {
        let is_syn = |protocol: u8, flags: u8, length: usize| {
            let mut packet = changed_v4(9, &[protocol]);
            packet.truncate(V4_HEADER_LEN);
            packet.extend([0; 20]);
            packet[V4_HEADER_LEN + 13] = flags;
            ip::set_len(&mut packet, V4_HEADER_LEN, V4_HEADER_LEN + length);
            super::is_syn(&packet, &ip::parse(&packet).expect("IP"))
        };
        assert!(
            is_syn(ip::TCP, 0x02, 20) && is_syn(ip::TCP, 0x12, 20) && is_syn(ip::TCP, 0xff, 20)
        );
        assert!(!is_syn(ip::TCP, 0x10, 20) && !is_syn(ip::TCP, 0, 20));
        assert!(!is_syn(ip::UDP, 0x02, 20));
        assert!(!is_syn(ip::TCP, 0x02, 13), "padding is not of the packet");
    }

    #[test]
    fn an_expiring_ttl_is_not_fast_path() {
        for ttl in [0, 1] {
            assert!(!fast_path(&changed_v4(8, &[ttl]), MTU));
            let mut packet = v6();
            packet[7] = ttl;
            assert!(!fast_path(&packet, MTU));
        }
    }

    #[test]
    fn options_are_not_fast_path() {
        let mut packet = v4();
        packet[0] = 0x46;
        ip::set_len(&mut packet, 24, 32);
        assert!(!fast_path(&packet, MTU));
        let mut packet = v6();
        packet[6] = HOP_BY_HOP;
        assert!(!fast_path(&packet, MTU));
    }

    #[test]
    fn link_local_control_is_not_fast_path() {
        let mut packet = changed_v4(9, &[ip::ICMP]);
        assert!(fast_path(&packet, MTU));
        packet[20] = ICMP_REDIRECT;
        assert!(!fast_path(&packet, MTU));
        let mut packet = changed_v4(6, &[0x20, 1, 64, ip::ICMP]);
        packet[20] = ICMP_REDIRECT;
        assert!(fast_path(&packet, MTU), "the middle of a packet has no type");
        for kind in [NDISC_REDIRECT, NDISC_ROUTER_SOLICITATION] {
            let mut packet = v6();
            packet[6] = ip::ICMPV6;
            assert!(fast_path(&packet, MTU));
            packet[40] = kind;
            assert!(!fast_path(&packet, MTU));
        }
    }

    #[test]
    fn a_broken_header_is_not_fast_path() {
        let mut packet = v4();
        packet[11] ^= 1;
        assert!(!fast_path(&packet, MTU));
    }

    #[test]
    fn special_addresses_are_not_fast_path() {
        let special = [
            [0, 1, 2, 3],
            [127, 0, 0, 1],
            [169, 254, 1, 1],
            [224, 0, 0, 1],
            [240, 0, 0, 1],
            [255, 255, 255, 255],
        ];
        for address in special {
            assert!(!fast_path(&changed_v4(12, &address), MTU), "from {address:?}");
            assert!(!fast_path(&changed_v4(16, &address), MTU), "to {address:?}");
        }
        for address in ["::", "::1", "fe80::1", "febf::1", "ff02::1", "::ffff:10.0.0.1"] {
            let octets = address.parse::<std::net::Ipv6Addr>().expect("an address").octets();
            for at in [8, 24] {
                let mut packet = v6();
                packet[at..at + 16].copy_from_slice(&octets);
                assert!(!fast_path(&packet, MTU), "{address} at {at}");
            }
        }
    }

    #[test]
    fn the_ttl_is_decremented_and_the_checksum_stays_valid() {
        for ttl in 2..=255 {
            for identification in [0u16, 0x7fff, 0xfeff, 0xffff] {
                let mut packet = changed_v4(4, &identification.to_be_bytes());
                packet[8] = ttl;
                ip::set_len(&mut packet, V4_HEADER_LEN, 32);
                decrement_ttl(&mut packet);
                assert_eq!(packet[8], ttl - 1);
                assert!(checksum::is_valid(checksum::sum(&packet[..V4_HEADER_LEN])));
            }
        }
        let mut packet = v6();
        decrement_ttl(&mut packet);
        assert_eq!(packet[7], 63);
    }
}
