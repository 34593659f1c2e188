//! What a router owes to a packet that it forwards, as far as it concerns the packet alone
//! (RFC 1812 §5.2, RFC 8200 §3; `ip_forward` and `ip6_forward` of Linux).
//!
//! A worker forwards only what is plain. Everything else has an answer, or an exception, that the
//! kernel knows: an expired TTL, options, a packet beyond the MTU, addresses that no router
//! forwards between.

use std::net::IpAddr;

use crate::checksum;
use crate::ip::{self, Packet, V4_HEADER_LEN, put_u16, u16_at};

/// Offset of TTL and protocol in an IPv4 header (bytes).
const V4_TTL_AT: usize = 8;
const V4_CHECKSUM_AT: usize = 10;
/// Offset of the hop limit in an IPv6 header (bytes).
const V6_HOP_LIMIT_AT: usize = 7;
/// An IPv6 next header that every router looks at.
const HOP_BY_HOP: u8 = 0;
/// The fragment offset in the third word of an IPv4 header.
const FRAGMENT_OFFSET: u16 = 0x1fff;
const ICMP_REDIRECT: u8 = 5;
const NDISC_ROUTER_SOLICITATION: u8 = 133;
const NDISC_REDIRECT: u8 = 137;

/// Whether the packet that was parsed to `ip` can be forwarded without anything being said or
/// done about it, out of an interface with this MTU (bytes).
#[must_use]
pub fn is_fast_path(packet: &[u8], ip: &Packet, mtu: usize) -> bool {
    ip.len <= mtu
        && is_forwarded(ip.source)
        && is_forwarded(ip.destination)
        && if ip::is_v4(packet) { is_plain_v4(packet, ip) } else { is_plain_v6(packet, ip) }
        && !is_link_chatter(packet, ip)
}

fn is_plain_v4(packet: &[u8], ip: &Packet) -> bool {
    let Some(header) = packet.first_chunk::<V4_HEADER_LEN>() else { return false };
    ip.header_len == V4_HEADER_LEN
        && header[V4_TTL_AT] > 1
        && checksum::is_valid(checksum::sum(header))
}

fn is_plain_v6(packet: &[u8], ip: &Packet) -> bool {
    packet[V6_HOP_LIMIT_AT] > 1 && ip.protocol != HOP_BY_HOP
}

/// Redirects (the kernel sends them when it forwards back out of the interface) and router
/// solicitations: between hosts on one link they have a meaning, to a peer none, and nobody shall
/// be told by a peer where its packets ought to go. Whose they are cannot be told on the way out.
#[must_use]
pub fn is_link_chatter(packet: &[u8], ip: &Packet) -> bool {
    let Some(&kind) = packet.get(ip.header_len) else { return false };
    match ip.protocol {
        // In the middle of a packet lies its payload, not its type.
        ip::ICMP => kind == ICMP_REDIRECT && u16_at(packet, 6) & FRAGMENT_OFFSET == 0,
        ip::ICMPV6 => kind == NDISC_REDIRECT || kind == NDISC_ROUTER_SOLICITATION,
        _ => false,
    }
}

/// Whether packets are forwarded from and to an address: one host's, beyond its own link.
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

/// Takes one hop off the TTL or hop limit of a packet that [`is_fast_path`].
pub fn take_hop(packet: &mut [u8]) {
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

    fn plain(packet: &[u8], mtu: usize) -> bool {
        is_fast_path(packet, &ip::parse(packet).expect("an IP packet"), mtu)
    }

    /// A change to a plain IPv4 packet with its header checksum made right again.
    fn changed_v4(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut packet = v4();
        packet[at..at + bytes.len()].copy_from_slice(bytes);
        let len = packet.len();
        ip::set_len(&mut packet, V4_HEADER_LEN, len);
        packet
    }

    #[test]
    fn plain_packets() {
        assert!(plain(&v4(), MTU) && plain(&v6(), MTU));
        assert!(plain(&v4(), 32) && plain(&v6(), 52), "as large as the MTU");
        assert!(!plain(&v4(), 31) && !plain(&v6(), 51), "larger");
        assert!(plain(&changed_v4(6, &[0x20, 0x00]), MTU), "fragments are forwarded");
        assert!(plain(&changed_v4(8, &[2]), MTU));
    }

    #[test]
    fn the_last_hop_is_not_plain() {
        for ttl in [0, 1] {
            assert!(!plain(&changed_v4(8, &[ttl]), MTU));
            let mut packet = v6();
            packet[7] = ttl;
            assert!(!plain(&packet, MTU));
        }
    }

    #[test]
    fn options_are_not_plain() {
        let mut packet = v4();
        packet[0] = 0x46;
        ip::set_len(&mut packet, 24, 32);
        assert!(!plain(&packet, MTU));
        let mut packet = v6();
        packet[6] = HOP_BY_HOP;
        assert!(!plain(&packet, MTU));
    }

    #[test]
    fn link_chatter_is_not_plain() {
        let mut packet = changed_v4(9, &[ip::ICMP]);
        assert!(plain(&packet, MTU));
        packet[20] = ICMP_REDIRECT;
        assert!(!plain(&packet, MTU));
        let mut packet = changed_v4(6, &[0x20, 1, 64, ip::ICMP]);
        packet[20] = ICMP_REDIRECT;
        assert!(plain(&packet, MTU), "the middle of a packet has no type");
        for kind in [NDISC_REDIRECT, NDISC_ROUTER_SOLICITATION] {
            let mut packet = v6();
            packet[6] = ip::ICMPV6;
            assert!(plain(&packet, MTU));
            packet[40] = kind;
            assert!(!plain(&packet, MTU));
        }
    }

    #[test]
    fn a_broken_header_is_not_plain() {
        let mut packet = v4();
        packet[11] ^= 1;
        assert!(!plain(&packet, MTU));
    }

    #[test]
    fn special_addresses_are_not_plain() {
        let special = [
            [0, 1, 2, 3],
            [127, 0, 0, 1],
            [169, 254, 1, 1],
            [224, 0, 0, 1],
            [240, 0, 0, 1],
            [255, 255, 255, 255],
        ];
        for address in special {
            assert!(!plain(&changed_v4(12, &address), MTU), "from {address:?}");
            assert!(!plain(&changed_v4(16, &address), MTU), "to {address:?}");
        }
        for address in ["::", "::1", "fe80::1", "febf::1", "ff02::1", "::ffff:10.0.0.1"] {
            let octets = address.parse::<std::net::Ipv6Addr>().expect("an address").octets();
            for at in [8, 24] {
                let mut packet = v6();
                packet[at..at + 16].copy_from_slice(&octets);
                assert!(!plain(&packet, MTU), "{address} at {at}");
            }
        }
    }

    #[test]
    fn a_hop_is_taken_and_the_checksum_stays_right() {
        for ttl in 2..=255 {
            for identification in [0u16, 0x7fff, 0xfeff, 0xffff] {
                let mut packet = changed_v4(4, &identification.to_be_bytes());
                packet[8] = ttl;
                ip::set_len(&mut packet, V4_HEADER_LEN, 32);
                take_hop(&mut packet);
                assert_eq!(packet[8], ttl - 1);
                assert!(checksum::is_valid(checksum::sum(&packet[..V4_HEADER_LEN])));
            }
        }
        let mut packet = v6();
        take_hop(&mut packet);
        assert_eq!(packet[7], 63);
    }
}
