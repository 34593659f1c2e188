//! Inner packets: valid IPv4 and IPv6 with TCP or UDP. The first bytes of the payload are the
//! packet's sequence number in its flow.

use std::net::IpAddr;

use clap::ValueEnum;
use serde::Serialize;

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;

/// Bytes of the sequence number at the start of the payload.
const SEQUENCE_LEN: usize = 4;

/// Time to live, and hop limit, as sent; a router takes one off.
const HOPS: u8 = 64;

/// Protocol of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// TCP segments in sequence, as in a bulk transfer; kernels coalesce them
    Tcp,
    /// UDP datagrams
    Udp,
}

impl Kind {
    /// IP protocol number, and bytes of the header (RFC 9293, RFC 768).
    fn protocol(self) -> (u8, usize) {
        if self == Kind::Tcp { (6, 20) } else { (17, 8) }
    }
}

/// Bytes of the smallest packet: headers and the sequence number.
pub fn size_min(kind: Kind, is_ipv6: bool) -> usize {
    let ip = if is_ipv6 { IPV6_HEADER } else { IPV4_HEADER };
    ip + kind.protocol().1 + SEQUENCE_LEN
}

/// Generates the packets of one flow.
pub struct Flow {
    kind: Kind,
    /// A packet with zeros where packets differ: sequence numbers, identification and checksums.
    template: Vec<u8>,
    /// Offset of the transport header.
    transport: usize,
    /// Offset of the payload.
    payload: usize,
    /// Sums of the template's 16-bit words under the IPv4 header's and the transport checksum.
    header_sum: u32,
    transport_sum: u32,
}

impl Flow {
    /// Packets of `size` bytes, which is at least [`size_min`]; both addresses are of one family.
    pub fn new(kind: Kind, source: IpAddr, destination: IpAddr, size: usize) -> Flow {
        assert!(size >= size_min(kind, source.is_ipv6()), "the options check it");
        let (protocol, transport_header) = kind.protocol();
        let mut template = vec![0; size];
        let length = u16::try_from(size).expect("an IP packet");
        // The pseudo header of the transport checksum begins with the addresses.
        let (transport, addresses) = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                template[0] = 0x45; // version, words of header
                template[2..4].copy_from_slice(&length.to_be_bytes());
                template[6] = 0x40; // don't fragment
                template[8] = HOPS;
                template[9] = protocol;
                template[12..16].copy_from_slice(&source.octets());
                template[16..20].copy_from_slice(&destination.octets());
                (IPV4_HEADER, 12..20)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                template[0] = 0x60;
                template[4..6].copy_from_slice(&(length - IPV6_HEADER as u16).to_be_bytes());
                template[6] = protocol;
                template[7] = HOPS;
                template[8..24].copy_from_slice(&source.octets());
                template[24..40].copy_from_slice(&destination.octets());
                (IPV6_HEADER, 8..40)
            }
            _ => unreachable!("both addresses come from one plan"),
        };
        let payload = transport + transport_header;
        let length = length - transport as u16;
        let header = &mut template[transport..payload];
        header[..2].copy_from_slice(&40_000_u16.to_be_bytes()); // source port
        header[2..4].copy_from_slice(&5_201_u16.to_be_bytes()); // destination port
        match kind {
            Kind::Tcp => {
                header[11] = 1; // acknowledges the other's SYN
                header[12] = 5 << 4; // words of header
                header[13] = 0x10; // ACK
                header[14..16].copy_from_slice(&u16::MAX.to_be_bytes()); // window
            }
            Kind::Udp => header[4..6].copy_from_slice(&length.to_be_bytes()),
        }
        for (index, byte) in template[payload + SEQUENCE_LEN..].iter_mut().enumerate() {
            *byte = (index % 251) as u8; // a prime: no shift by a power of two looks the same
        }
        let transport_sum = sum(&template[addresses])
            + u32::from(protocol)
            + u32::from(length)
            + sum(&template[transport..]);
        let header_sum = sum(&template[..IPV4_HEADER]);
        Flow { kind, template, transport, payload, header_sum, transport_sum }
    }

    /// Bytes of each packet.
    pub fn size(&self) -> usize {
        self.template.len()
    }

    /// Writes packet number `sequence`, of [`Flow::size`] bytes.
    pub fn write(&self, sequence: u32, packet: &mut [u8]) {
        packet.copy_from_slice(&self.template);
        let number = sequence.to_be_bytes();
        packet[self.payload..self.payload + SEQUENCE_LEN].copy_from_slice(&number);
        let mut transport_sum = self.transport_sum + sum(&number);
        if self.transport == IPV4_HEADER {
            // Consecutive, as segmentation offload generates them: others are not coalesced.
            let identification = &number[2..];
            packet[4..6].copy_from_slice(identification);
            let checksum = folded(self.header_sum + sum(identification));
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        let transport = &mut packet[self.transport..];
        let at = match self.kind {
            Kind::Tcp => {
                let step = (self.size() - self.payload) as u32; // at most a packet's size
                let tcp_sequence = sequence.wrapping_mul(step).wrapping_add(1).to_be_bytes();
                transport[4..8].copy_from_slice(&tcp_sequence);
                transport_sum += sum(&tcp_sequence);
                16
            }
            Kind::Udp => 6,
        };
        let checksum = match folded(transport_sum) {
            // RFC 768: zero would say that there is none.
            0 if self.kind == Kind::Udp => u16::MAX,
            checksum => checksum,
        };
        transport[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    }

    /// Checks a plaintext that arrived after `hops` routers: a packet of this flow, followed by
    /// padding only. Returns its sequence number, or what is wrong with it.
    pub fn check_arrived(&self, plaintext: &[u8], hops: u8) -> Result<u32, String> {
        let Some((packet, padding)) = plaintext.split_at_checked(self.size()) else {
            return Err(format!("{} of {} bytes arrived", plaintext.len(), self.size()));
        };
        if padding.len() >= 16 || padding.iter().any(|byte| *byte != 0) {
            return Err(format!("invalid padding: {padding:02x?}"));
        }
        let number = &packet[self.payload..self.payload + SEQUENCE_LEN];
        let sequence = u32::from_be_bytes(number.try_into().expect("four bytes"));
        let mut expected = vec![0; self.size()];
        self.write(sequence, &mut expected);
        if self.transport == IPV4_HEADER {
            expected[8] -= hops;
            if folded(sum(&packet[..IPV4_HEADER])) != 0 {
                return Err("the IPv4 header's checksum is wrong".to_owned());
            }
            expected[10..12].copy_from_slice(&packet[10..12]);
        } else {
            expected[7] -= hops;
        }
        match packet.iter().zip(&expected).position(|(came, sent)| came != sent) {
            Some(at) => Err(format!(
                "packet {sequence} differs at byte {at}: {:#04x} instead of {:#04x}",
                packet[at], expected[at]
            )),
            None => Ok(sequence),
        }
    }
}

/// Sum of big-endian 16-bit words; an odd last byte is a word's upper half (RFC 1071).
fn sum(bytes: &[u8]) -> u32 {
    let (words, last) = bytes.as_chunks::<2>();
    let last = last.first().map_or(0, |byte| u32::from(*byte) << 8);
    words.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum::<u32>() + last
}

/// The checksum that completes a sum (RFC 1071).
fn folded(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    let twice = (once & 0xffff) + (once >> 16);
    !(twice as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAMILIES: [(&str, &str); 2] = [("10.80.0.1", "10.96.0.1"), ("fd77::1", "fd77::2")];

    fn flow(kind: Kind, family: (&str, &str), size: usize) -> Flow {
        let address = |text: &str| text.parse().expect("an address");
        Flow::new(kind, address(family.0), address(family.1), size)
    }

    /// Residue of the transport checksum; zero if it is right.
    fn transport_residue(packet: &[u8]) -> u16 {
        let (addresses, protocol, start) = match packet[0] >> 4 {
            4 => (&packet[12..20], packet[9], 20),
            _ => (&packet[8..40], packet[6], 40),
        };
        let length = (packet.len() - start) as u32;
        folded(sum(addresses) + u32::from(protocol) + length + sum(&packet[start..]))
    }

    fn forwarded(mut packet: Vec<u8>) -> Vec<u8> {
        if packet[0] >> 4 == 4 {
            packet[8] -= 1;
            packet[10..12].fill(0);
            let checksum = folded(sum(&packet[..20]));
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        } else {
            packet[7] -= 1;
        }
        packet
    }

    #[test]
    fn checksums_are_right_for_all_sizes_and_numbers() {
        for kind in [Kind::Tcp, Kind::Udp] {
            for family in FAMILIES {
                for size in [size_min(kind, family.0.contains(':')), 64, 101, 1401, 1408] {
                    let flow = flow(kind, family, size);
                    for sequence in [0, 1, 0xffff, 0x1_0000, 0x1234_5678, u32::MAX] {
                        let mut packet = vec![0xaa; size];
                        flow.write(sequence, &mut packet);
                        assert_eq!(transport_residue(&packet), 0, "{kind:?} {size} {sequence}");
                        assert!(packet[0] >> 4 != 4 || folded(sum(&packet[..20])) == 0);
                        assert_eq!(flow.check_arrived(&forwarded(packet), 1), Ok(sequence));
                    }
                }
            }
        }
    }

    #[test]
    fn a_packet_of_64_bytes_always_fits() {
        assert_eq!(size_min(Kind::Tcp, true), 64);
    }

    #[test]
    fn tcp_segments_follow_each_other() {
        let flow = flow(Kind::Tcp, FAMILIES[0], 1408);
        let sequence_of = |number| {
            let mut packet = vec![0; 1408];
            flow.write(number, &mut packet);
            (u32::from_be_bytes(packet[24..28].try_into().expect("four")), packet[4..6].to_vec())
        };
        assert_eq!(sequence_of(0), (1, vec![0, 0]));
        assert_eq!(sequence_of(258), (1 + 258 * 1368, vec![1, 2]));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        for kind in [Kind::Tcp, Kind::Udp] {
            for family in FAMILIES {
                let flow = flow(kind, family, 100);
                let mut packet = vec![0; 100];
                flow.write(7, &mut packet);
                assert!(flow.check_arrived(&packet, 1).is_err(), "not forwarded at all");
                let good = forwarded(packet);
                for at in 0..good.len() {
                    let mut changed = good.clone();
                    changed[at] ^= 4;
                    assert!(flow.check_arrived(&changed, 1).is_err(), "{kind:?} byte {at}");
                }
                assert!(flow.check_arrived(&good[..99], 1).is_err(), "too short");
                assert_eq!(flow.check_arrived(&[&good[..], &[0; 12]].concat(), 1), Ok(7));
                assert!(flow.check_arrived(&[&good[..], &[0; 16]].concat(), 1).is_err());
                assert!(flow.check_arrived(&[&good[..], &[0, 1]].concat(), 1).is_err());
            }
        }
    }
}
