//! Protocol and ports of a packet: what tells the conversations between two addresses apart.

use std::net::IpAddr;

use crate::icmp;
use crate::ip::{self, Packet, V4_HEADER_LEN, V6_HEADER_LEN, u16_at};
use crate::ip_forward::has_whole_header;

/// Protocol and ports of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// The number of the protocol, or [`Transport::ICMP_ERROR`].
    pub protocol: u16,
    /// The source port of TCP and UDP; zero of other protocols.
    pub source_port: u16,
    /// The destination port, likewise.
    pub destination_port: u16,
}

/// The packet that an ICMP error quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Its source address.
    pub source: IpAddr,
    /// Its destination address.
    pub destination: IpAddr,
    /// Its protocol and ports; none if they cannot be told.
    pub transport: Option<Transport>,
}

impl Transport {
    /// Stands for ICMP errors of both IP versions, whose protocol is that of other messages too:
    /// they belong to the conversation that they quote.
    pub const ICMP_ERROR: u16 = 256;

    /// Those of the packet that was parsed to `ip`; none if it is a fragment, has IPv6 extension
    /// headers, or ends within its transport header.
    #[must_use]
    pub fn of(packet: &[u8], ip: &Packet) -> Option<Transport> {
        if !has_whole_header(packet, ip) {
            return None;
        }
        if icmp::is_error(packet, ip) {
            let protocol = Transport::ICMP_ERROR;
            return Some(Transport { protocol, source_port: 0, destination_port: 0 });
        }
        Transport::read(ip.protocol, &packet[ip.header_len..ip.len])
    }

    /// Reads the ports of a transport header, if the protocol has any.
    fn read(protocol: u8, header: &[u8]) -> Option<Transport> {
        let has_ports = matches!(protocol, ip::TCP | ip::UDP);
        let (source_port, destination_port) = match has_ports {
            true if header.len() < 4 => return None,
            true => (u16_at(header, 0), u16_at(header, 2)),
            false => (0, 0),
        };
        Some(Transport { protocol: protocol.into(), source_port, destination_port })
    }
}

impl Quoted {
    /// The packet quoted by the ICMP error that was parsed to `ip`; none if the error is cut short.
    #[must_use]
    pub fn by(error: &[u8], ip: &Packet) -> Option<Quoted> {
        let quoted = icmp::quoted(error, ip)?;
        match ip.source {
            IpAddr::V4(_) if quoted.first()? >> 4 == 4 => {
                let address = |at| Some(IpAddr::from(*quoted.get(at..)?.first_chunk::<4>()?));
                let (source, destination) = (address(12)?, address(16)?);
                let is_plain = quoted[0] & 0xf == 5 && u16_at(quoted, 6) & 0x3fff == 0;
                let header = quoted.get(V4_HEADER_LEN..).filter(|_| is_plain);
                let transport = header.and_then(|header| Transport::read(quoted[9], header));
                Some(Quoted { source, destination, transport })
            }
            IpAddr::V6(_) if quoted.first()? >> 4 == 6 => {
                let address = |at| Some(IpAddr::from(*quoted.get(at..)?.first_chunk::<16>()?));
                let (source, destination) = (address(8)?, address(24)?);
                let is_plain = !ip::is_extension_header(quoted[6]);
                let header = quoted.get(V6_HEADER_LEN..).filter(|_| is_plain);
                let transport = header.and_then(|header| Transport::read(quoted[6], header));
                Some(Quoted { source, destination, transport })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::icmp::tests::{v4_packet as v4, v6_packet as v6};

    fn of(packet: &[u8]) -> Option<(u16, u16, u16)> {
        let found = Transport::of(packet, &ip::parse(packet).expect("an IP packet"))?;
        Some((found.protocol, found.source_port, found.destination_port))
    }

    #[test]
    fn ports_are_those_of_whole_tcp_and_udp_headers() {
        let udp = [1, 2, 3, 4, 0, 8, 0, 0];
        assert_eq!(of(&v4(ip::UDP, &udp)), Some((17, 0x102, 0x304)));
        assert_eq!(of(&v6(ip::UDP, &udp)), Some((17, 0x102, 0x304)));
        assert_eq!(of(&v4(ip::UDP, &udp[..7])), None);
        assert_eq!(of(&v4(47, &udp)), Some((47, 0, 0)));
        let mut fragment = v4(ip::UDP, &udp);
        fragment[6] = 0x20;
        assert_eq!(of(&fragment), None);
        assert_eq!(of(&v6(44, &udp)), None);
        assert_eq!(of(&v4(ip::ICMP, &[8, 0, 0, 0, 0, 0, 0, 0])), Some((1, 0, 0)));
        assert_eq!(of(&v4(ip::ICMP, &[3, 1, 0, 0, 0, 0, 0, 0])), Some((256, 0, 0)));
        assert_eq!(of(&v6(ip::ICMPV6, &[1, 0, 0, 0, 0, 0, 0, 0])), Some((256, 0, 0)));
    }

    #[test]
    fn errors_quote_addresses_and_ports() {
        let quoted = |error: &[u8]| Quoted::by(error, &ip::parse(error).expect("an IP packet"));
        let error = |quoted: &[u8]| [&[3, 1, 0, 0, 0, 0, 0, 0], quoted].concat();
        let udp = [1, 2, 3, 4, 0, 8, 0, 0];
        let whole = quoted(&v4(ip::ICMP, &error(&v4(ip::UDP, &udp)))).expect("an error");
        assert_eq!(whole.source.to_string(), "10.0.0.1");
        assert_eq!(whole.destination.to_string(), "10.0.0.99");
        let expected = Transport { protocol: 17, source_port: 0x102, destination_port: 0x304 };
        assert_eq!(whole.transport, Some(expected));
        let of_v6 = quoted(&v6(ip::ICMPV6, &error(&v6(ip::UDP, &udp)))).expect("an error");
        assert_eq!(of_v6.transport, Some(expected));
        let cut = quoted(&v4(ip::ICMP, &error(&v4(ip::UDP, &udp)[..23]))).expect("addresses");
        assert_eq!(cut.transport, None);
        let mut fragment = v4(ip::UDP, &udp);
        fragment[7] = 1;
        let later = quoted(&v4(ip::ICMP, &error(&fragment))).expect("addresses");
        assert_eq!(later.transport, None);
        assert_eq!(quoted(&v4(ip::ICMP, &error(&v6(ip::UDP, &udp)))), None, "another version");
        for length in 0..20 {
            assert_eq!(quoted(&v4(ip::ICMP, &error(&v4(ip::UDP, &udp)[..length]))), None);
        }
    }
}
