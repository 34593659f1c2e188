//! The hub itself as an IP host, where it has no interface and the kernel knows nothing of it
//! (`--tun off`): its addresses, and its answers to packets for them (RFC 792, RFC 1122 §3.2.2,
//! RFC 4443 §3.1, §4).

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::checksum;
use crate::icmp::IcmpError;
use crate::ip::{self, ICMP, ICMPV6, Packet, UpperLayer, V4_HEADER_LEN, put_u16, u16_at};
use crate::ip_forward::{V4_TTL_AT, V6_HOP_LIMIT_AT};

/// The source of IPv4 errors of a host without an address (RFC 7600; `INADDR_DUMMY` of Linux).
pub const DUMMY_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 0, 8));

/// TTL and hop limit of answers.
const HOP_LIMIT: u8 = 64;
/// Next headers without an upper layer: "no next header" of IPv6.
const NO_NEXT_HEADER: u8 = 59;
/// Multicast management: hosts that do not take part in it are silent.
const IGMP: u8 = 2;

/// Addresses and networks of the hub.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnHost {
    addresses: Vec<IpNet>,
}

/// The answer to a packet for the hub itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalAnswer {
    /// The packet was turned into its reply, for its sender.
    Reply,
    /// This error.
    Error(IcmpError),
    /// None.
    Silence,
}

impl OwnHost {
    /// A host with these addresses, each with the length of its network's prefix.
    #[must_use]
    pub fn new(addresses: Vec<IpNet>) -> OwnHost {
        OwnHost { addresses }
    }

    /// Its addresses.
    #[must_use]
    pub fn addresses(&self) -> &[IpNet] {
        &self.addresses
    }

    /// Whether it has this address.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.addr() == address)
    }

    /// Whether an address means all hosts of one of its networks (RFC 1122 §3.2.1.3): the last
    /// one, or the first, as before 1989.
    #[must_use]
    pub fn is_broadcast(&self, address: IpAddr) -> bool {
        let IpAddr::V4(address) = address else { return false };
        self.addresses.iter().any(|own| match own {
            IpNet::V4(own) if own.prefix_len() < 31 => {
                own.broadcast() == address || own.network() == address
            }
            _ => false,
        })
    }

    /// Whether an address is in one of its networks.
    #[must_use]
    pub fn is_on_link(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.contains(&address))
    }

    /// The source address of its own packets to `destination`: one in the same network, or else
    /// its first one.
    #[must_use]
    pub fn source_address(&self, destination: IpAddr) -> Option<IpAddr> {
        let is_v4 = destination.is_ipv4();
        let of_family = || self.addresses.iter().filter(|own| own.addr().is_ipv4() == is_v4);
        let in_network = of_family().find(|own| own.contains(&destination));
        in_network.or_else(|| of_family().next()).map(IpNet::addr)
    }
}

/// Answers a packet for the hub that was parsed to `ip`. An echo request is turned into its reply
/// where it lies. Replies have no limit of their own, as with Linux: one goes to the sender of
/// the request, and is as long. Each fragment of a request is answered by itself, and the sender
/// reassembles the reply: only the first fragment has what differs.
#[must_use]
pub fn answer(packet: &mut [u8], ip: &Packet) -> LocalAnswer {
    let is_v4 = ip::is_v4(packet);
    let has_options = is_v4 && ip.header_len != V4_HEADER_LEN;
    let has_valid_sum = !is_v4 || checksum::is_valid(checksum::sum(&packet[..V4_HEADER_LEN]));
    let upper = ip::upper_layer(packet, ip).filter(|upper| {
        let has_extensions = upper.start != ip.header_len && !is_only_fragmented(ip, upper);
        !has_options && !has_extensions && has_valid_sum
    });
    let Some(upper) = upper.filter(|upper| is_intact(packet, ip, upper)) else {
        return LocalAnswer::Silence;
    };
    let icmp = if is_v4 { ICMP } else { ICMPV6 };
    match upper.protocol {
        protocol if protocol == icmp => answer_icmp(packet, ip, &upper),
        IGMP | ICMP | ICMPV6 | NO_NEXT_HEADER => LocalAnswer::Silence,
        // All ports are closed. Linux answers a later fragment only with what it reassembles.
        _ if upper.is_later_fragment => LocalAnswer::Silence,
        ip::TCP | ip::UDP => LocalAnswer::Error(IcmpError::PortUnreachable),
        // The error of IPv6 points to the field that names the protocol.
        _ if !is_v4 && upper.is_fragment => LocalAnswer::Silence,
        _ => LocalAnswer::Error(IcmpError::ProtocolUnreachable),
    }
}

/// Whether a fragment header is the only extension header of an IPv6 packet.
fn is_only_fragmented(ip: &Packet, upper: &UpperLayer) -> bool {
    const FRAGMENT: u8 = 44;
    const FRAGMENT_HEADER_LEN: usize = 8;
    ip.protocol == FRAGMENT && upper.start == ip.header_len + FRAGMENT_HEADER_LEN
}

/// Whether the checksum of the upper layer is right, as far as one packet tells.
fn is_intact(packet: &[u8], ip: &Packet, upper: &UpperLayer) -> bool {
    let message = &packet[upper.start..ip.len];
    let has_pseudo_header = match upper.protocol {
        ip::UDP if message.len() >= 8 && u16_at(message, 6) == 0 => return ip::is_v4(packet),
        ip::UDP | ip::TCP | ICMPV6 => true,
        ICMP => false,
        _ => return true,
    };
    let pseudo = match has_pseudo_header {
        true => checksum::pseudo_header(ip::addresses(packet), upper.protocol, message.len()),
        false => 0,
    };
    upper.is_fragment || checksum::is_valid(pseudo + checksum::sum(message))
}

fn answer_icmp(packet: &mut [u8], ip: &Packet, upper: &UpperLayer) -> LocalAnswer {
    let is_v4 = ip::is_v4(packet);
    let (request, reply) = if is_v4 { (8, 0) } else { (128, 129) };
    let hop_limit_at = if is_v4 { V4_TTL_AT } else { V6_HOP_LIMIT_AT };
    let mut hop_limit = HOP_LIMIT;
    if upper.is_later_fragment {
        // It may be of anything, also of a reply: it must not go to and fro for ever.
        hop_limit = hop_limit.min(packet[hop_limit_at].saturating_sub(1));
        if hop_limit == 0 {
            return LocalAnswer::Silence;
        }
    } else {
        let Some(message) = packet[..ip.len].get_mut(upper.start..).filter(|icmp| icmp.len() >= 8)
        else {
            return LocalAnswer::Silence;
        };
        if message[0] != request {
            return LocalAnswer::Silence;
        }
        let old = u16_at(message, 0);
        message[0] = reply;
        let updated = checksum::update(u16_at(message, 2), old, u16_at(message, 0));
        put_u16(message, 2, updated);
    }
    // The pseudo header of ICMPv6 has the same sum with its addresses exchanged.
    let addresses = if is_v4 { &mut packet[12..20] } else { &mut packet[8..40] };
    let (source, destination) = addresses.split_at_mut(addresses.len() / 2);
    source.swap_with_slice(destination);
    packet[hop_limit_at] = hop_limit;
    if is_v4 {
        ip::set_len(packet, V4_HEADER_LEN, ip.len); // and the checksum
    }
    LocalAnswer::Reply
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::icmp::tests::{v4_packet, v6_packet};

    fn host() -> OwnHost {
        let addresses = ["10.0.0.99/24", "192.168.7.1/32", "fd00::99/64"];
        OwnHost::new(addresses.map(|one| one.parse().expect("an address")).to_vec())
    }

    fn answered(mut packet: Vec<u8>) -> (LocalAnswer, Vec<u8>) {
        let ip = ip::parse(&packet).expect("an IP packet");
        (answer(&mut packet, &ip), packet)
    }

    fn with_checksum(mut packet: Vec<u8>, protocol: u8, at: usize) -> Vec<u8> {
        let start = if ip::is_v4(&packet) { 20 } else { 40 };
        let length = packet.len() - start;
        let pseudo = match protocol {
            ICMP => 0,
            _ => checksum::pseudo_header(ip::addresses(&packet), protocol, length),
        };
        let sum = checksum::finish(pseudo + checksum::sum(&packet[start..]));
        put_u16(&mut packet, start + at, sum);
        packet
    }

    #[test]
    fn echo_requests_become_replies() {
        let v4 = with_checksum(v4_packet(ICMP, &[8, 0, 0, 0, 1, 2, 3, 4, 5]), ICMP, 2);
        let v6 = with_checksum(v6_packet(ICMPV6, &[128, 0, 0, 0, 1, 2, 3, 4, 5]), ICMPV6, 2);
        for (request, start, kind, protocol) in [(v4, 20, 0, ICMP), (v6, 40, 129, ICMPV6)] {
            let before = ip::parse(&request).expect("an IP packet");
            let (outcome, reply) = answered(request.clone());
            assert_eq!(outcome, LocalAnswer::Reply);
            let after = ip::parse(&reply).expect("an IP packet");
            assert_eq!(
                (after.source, after.destination, after.len),
                (before.destination, before.source, before.len)
            );
            assert_eq!(reply[start], kind);
            assert_eq!(reply[start + 4..], request[start + 4..]);
            let mut unsummed = reply.clone();
            put_u16(&mut unsummed, start + 2, 0);
            assert_eq!(with_checksum(unsummed, protocol, 2), reply, "a right checksum");
            let mut wrong = request;
            wrong[start + 2] ^= 1;
            assert_eq!(answered(wrong).0, LocalAnswer::Silence);
        }
    }

    #[test]
    fn other_packets_get_an_error_or_nothing() {
        let port = LocalAnswer::Error(IcmpError::PortUnreachable);
        let protocol = LocalAnswer::Error(IcmpError::ProtocolUnreachable);
        let header = [0x1b, 0x59, 0, 9, 0, 8, 0, 0];
        for (packet, expected) in [
            (v4_packet(ip::UDP, &header), port),
            (with_checksum(v4_packet(ip::UDP, &header), ip::UDP, 6), port),
            (v4_packet(ip::UDP, &[0x1b, 0x59, 0, 9, 0, 8, 0, 1]), LocalAnswer::Silence),
            (v6_packet(ip::UDP, &header), LocalAnswer::Silence),
            (with_checksum(v6_packet(ip::UDP, &header), ip::UDP, 6), port),
            (with_checksum(v4_packet(ip::TCP, &[0; 20]), ip::TCP, 16), port),
            (v4_packet(253, &[7]), protocol),
            (v6_packet(253, &[7]), protocol),
            (v6_packet(60, &[253, 0, 1, 4, 0, 0, 0, 0, 7]), LocalAnswer::Silence),
            (v4_packet(IGMP, &[7]), LocalAnswer::Silence),
            (v6_packet(NO_NEXT_HEADER, &[]), LocalAnswer::Silence),
            (v4_packet(ICMP, &[8]), LocalAnswer::Silence),
            (
                with_checksum(v4_packet(ICMP, &[3, 1, 0, 0, 0, 0, 0, 0]), ICMP, 2),
                LocalAnswer::Silence,
            ),
            (with_checksum(v4_packet(ICMP, &[0; 8]), ICMP, 2), LocalAnswer::Silence),
        ] {
            assert_eq!(answered(packet.clone()).0, expected, "{packet:02x?}");
        }
    }

    #[test]
    fn the_source_is_an_address_of_the_same_network() {
        let source = |to: &str| host().source_address(to.parse().expect("an address"));
        assert_eq!(source("192.168.7.1"), Some("192.168.7.1".parse().expect("an address")));
        assert_eq!(source("172.16.0.1"), Some("10.0.0.99".parse().expect("an address")));
        assert_eq!(source("2001:db8::1"), Some("fd00::99".parse().expect("an address")));
        assert_eq!(OwnHost::default().source_address(DUMMY_ADDRESS), None);
    }
}
