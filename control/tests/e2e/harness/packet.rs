//! IP packets built byte by byte, including ones that no socket would send.

use std::net::IpAddr;

use wg_bounce_dataplane::checksum;
use wg_bounce_dataplane::ip::{self, ICMP, ICMPV6, TCP, UDP, V4_HEADER_LEN, V6_HEADER_LEN};

/// IPv4: don't fragment.
pub const DF: u16 = 0x4000;
/// IPv4: more fragments follow.
pub const MF: u16 = 0x2000;

/// A packet builder; fills in lengths and checksums.
#[derive(Clone, Debug)]
pub struct Draft {
    source: IpAddr,
    destination: IpAddr,
    hop_limit: u8,
    class: u8,
    identification: u16,
    fragment: u16,
    options: Vec<u8>,
    /// Type of the first IPv6 extension header; the others are in `options`.
    extension: Option<u8>,
    protocol: u8,
    upper: Vec<u8>,
}

impl Draft {
    fn new(source: &str, destination: &str, protocol: u8, upper: Vec<u8>) -> Draft {
        Draft {
            source: source.parse().expect("an address"),
            destination: destination.parse().expect("an address"),
            hop_limit: 64,
            class: 0,
            identification: 0x1234,
            fragment: 0,
            options: Vec::new(),
            extension: None,
            protocol,
            upper,
        }
    }

    /// A UDP datagram to the discard port with `length` bytes of payload.
    pub fn udp(source: &str, destination: &str, length: usize) -> Draft {
        let mut upper = vec![0x1b, 0x59, 0, 9];
        upper.extend((8 + length as u16).to_be_bytes());
        upper.extend([0, 0]);
        upper.extend(payload(length));
        Draft::new(source, destination, UDP, upper).sum_upper(6)
    }

    /// A TCP segment with `length` bytes of payload.
    pub fn tcp(source: &str, destination: &str, sequence: u32, length: usize) -> Draft {
        let mut upper = vec![0x1b, 0x59, 0, 9];
        upper.extend(sequence.to_be_bytes());
        // Acknowledgement, header of five words, ACK, a window, no checksum, no urgent pointer.
        upper.extend([0, 0, 0, 1, 0x50, 0x10, 4, 0, 0, 0, 0, 0]);
        upper.extend(payload(length));
        Draft::new(source, destination, TCP, upper).sum_upper(16)
    }

    /// An echo request with `length` bytes of payload.
    pub fn echo(source: &str, destination: &str, sequence: u16, length: usize) -> Draft {
        let is_v6 = destination.contains(':');
        let mut upper = vec![if is_v6 { 128 } else { 8 }, 0, 0, 0, 0x77, 0x77];
        upper.extend(sequence.to_be_bytes());
        upper.extend(payload(length));
        let protocol = if is_v6 { ICMPV6 } else { ICMP };
        Draft::new(source, destination, protocol, upper).sum_upper(2)
    }

    /// A packet of any protocol.
    pub fn other(source: &str, destination: &str, protocol: u8, upper: &[u8]) -> Draft {
        Draft::new(source, destination, protocol, upper.to_vec())
    }

    /// Sets the ports of UDP and TCP (7001 and 9 otherwise).
    pub fn ports(mut self, source: u16, destination: u16) -> Draft {
        let at = if self.protocol == UDP { 6 } else { 16 };
        self.upper[..2].copy_from_slice(&source.to_be_bytes());
        self.upper[2..4].copy_from_slice(&destination.to_be_bytes());
        self.upper[at..at + 2].fill(0);
        self.sum_upper(at)
    }

    /// Sets TTL or hop limit (64 otherwise).
    pub fn hop_limit(mut self, hop_limit: u8) -> Draft {
        self.hop_limit = hop_limit;
        self
    }

    /// Sets TOS or traffic class (0 otherwise).
    pub fn class(mut self, class: u8) -> Draft {
        self.class = class;
        self
    }

    /// Sets the IPv4 identification.
    pub fn identification(mut self, identification: u16) -> Draft {
        self.identification = identification;
        self
    }

    /// Sets the IPv4 flags and fragment offset (0 otherwise); ignored for IPv6.
    pub fn fragment(mut self, word: u16) -> Draft {
        self.fragment = word;
        self
    }

    /// Adds IPv4 options: a multiple of four bytes.
    pub fn options(mut self, options: &[u8]) -> Draft {
        self.options = options.to_vec();
        self
    }

    /// Adds an IPv6 extension header of type `kind`, a multiple of eight bytes. The builder fills
    /// in its first byte.
    pub fn extension(mut self, kind: u8, bytes: &[u8]) -> Draft {
        self.extension = Some(kind);
        self.options = bytes.to_vec();
        self.options[0] = self.protocol;
        self
    }

    /// The finished packet.
    pub fn build(&self) -> Vec<u8> {
        let mut packet = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let words = 5 + self.options.len() as u8 / 4;
                let mut header = vec![0x40 | words, self.class, 0, 0];
                header.extend(self.identification.to_be_bytes());
                header.extend(self.fragment.to_be_bytes());
                header.extend([self.hop_limit, self.protocol, 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                header
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let next = self.extension.unwrap_or(self.protocol);
                // A non-zero flow label, which must not change on the way.
                let mut header = vec![0x60 | self.class >> 4, self.class << 4 | 0xa, 0xbc, 0xde];
                header.extend([0, 0, next, self.hop_limit]);
                header.extend(source.octets());
                header.extend(destination.octets());
                header
            }
            _ => panic!("both addresses are of one family"),
        };
        packet.extend(&self.options);
        let header_len = if self.is_v4() { packet.len() } else { V6_HEADER_LEN };
        packet.extend(&self.upper);
        let len = packet.len();
        ip::set_len(&mut packet, header_len, len);
        packet
    }

    fn is_v4(&self) -> bool {
        self.source.is_ipv4()
    }

    /// Writes the upper-layer checksum at offset `at` of the upper layer.
    fn sum_upper(mut self, at: usize) -> Draft {
        let packet = self.build();
        let length = self.upper.len();
        let pseudo = match self.protocol {
            ICMP => 0,
            protocol => checksum::pseudo_header(ip::addresses(&packet), protocol, length),
        };
        let sum = checksum::finish(pseudo + checksum::sum(&self.upper));
        self.upper[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        self
    }
}

/// A payload of non-zero bytes that differ from their neighbours.
fn payload(length: usize) -> impl Iterator<Item = u8> {
    (0..length).map(|number| (number % 251) as u8 + 1)
}

/// Removes the padding behind the packet; panics unless it is zero.
#[track_caller]
pub fn trim(mut plaintext: Vec<u8>) -> Vec<u8> {
    let Some(ip) = ip::parse(&plaintext) else {
        panic!("not an IP packet: {plaintext:02x?}");
    };
    let padding = plaintext.split_off(ip.len);
    assert!(padding.iter().all(|&byte| byte == 0), "padding of {padding:02x?}");
    plaintext
}

/// `packet` as a router forwards it.
pub fn forwarded(packet: &[u8]) -> Vec<u8> {
    let ip = ip::parse(packet).expect("an IP packet");
    let mut packet = packet[..ip.len].to_vec();
    if ip::is_v4(&packet) {
        packet[8] -= 1;
        ip::set_len(&mut packet, ip.header_len, ip.len);
    } else {
        packet[7] -= 1;
    }
    packet
}

/// Whether the header checksum is valid; always true for IPv6, which has none.
pub fn has_right_checksum(packet: &[u8]) -> bool {
    let header_len = usize::from(packet[0] & 0xf) * 4;
    !ip::is_v4(packet) || checksum::is_valid(checksum::sum(&packet[..header_len]))
}

/// A parsed ICMP error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// The sender of the error.
    pub source: IpAddr,
    /// The receiver of the error.
    pub destination: IpAddr,
    /// ICMP type.
    pub kind: u8,
    /// ICMP code.
    pub code: u8,
    /// The second word: MTU or pointer.
    pub word: u32,
    /// The offending packet, possibly truncated.
    pub quoted: Vec<u8>,
}

impl IcmpError {
    /// Parses an error; `None` for any other packet and for a wrong checksum.
    pub fn read(packet: &[u8]) -> Option<IcmpError> {
        let ip = ip::parse(packet)?;
        let body = &packet[ip.header_len..ip.len];
        let (pseudo, is_error) = match (ip.protocol, body.first()?) {
            (ICMP, 3 | 4 | 5 | 11 | 12) => (0, true),
            (ICMPV6, 1..128) => {
                (checksum::pseudo_header(ip::addresses(packet), ICMPV6, body.len()), true)
            }
            _ => (0, false),
        };
        let is_intact = checksum::is_valid(pseudo + checksum::sum(body));
        if !is_error || !is_intact || !has_right_checksum(packet) {
            return None;
        }
        Some(IcmpError {
            source: ip.source,
            destination: ip.destination,
            kind: body[0],
            code: body[1],
            word: u32::from_be_bytes(body.get(4..8)?.try_into().expect("four bytes")),
            quoted: body[8..].to_vec(),
        })
    }
}

/// Reassembles the fragments of one IPv4 packet; panics if one exceeds `mtu` bytes.
#[track_caller]
pub fn reassemble(fragments: &[Vec<u8>], mtu: usize) -> Vec<u8> {
    let mut whole = fragments[0][..V4_HEADER_LEN].to_vec();
    for (number, fragment) in fragments.iter().enumerate() {
        assert!(fragment.len() <= mtu && has_right_checksum(fragment), "{fragment:02x?}");
        let word = u16::from_be_bytes([fragment[6], fragment[7]]);
        let is_last = number + 1 == fragments.len();
        assert_eq!(word & MF == 0, is_last, "only the last fragment lacks MF");
        let offset = usize::from(word & 0x1fff) * 8;
        assert_eq!(offset, whole.len() - V4_HEADER_LEN, "fragments are in order and contiguous");
        whole.extend(&fragment[V4_HEADER_LEN..]);
    }
    whole[6..8].fill(0);
    let len = whole.len();
    ip::set_len(&mut whole, V4_HEADER_LEN, len);
    whole
}
