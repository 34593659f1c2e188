//! Candidates for coalescing: the rules of the kernel's GRO (`inet_gro_receive`, `tcp_gro_receive`,
//! `udp_gro_receive`), slightly stricter, so that segmenting the super-packet again gives exactly
//! the packets that arrived. One field may differ: identifications that were all the same count up
//! afterwards, because a virtio header cannot say otherwise. They mean nothing (RFC 6864 §4.1).

use super::virtio::{
    ACK, PSH, TCP_CHECKSUM_AT, TCP_FLAGS_AT, TCP_HEADER_LEN, UDP_CHECKSUM_AT, UDP_HEADER_LEN,
};
use crate::checksum;
use crate::hash::mix;
use crate::ip::{self, Packet, V4_HEADER_LEN, u16_at, u32_at};

/// The kinds of packets to coalesce.
#[derive(Clone, Copy, Debug)]
pub struct CoalescerOptions {
    /// TCP segments, on a TUN with TSO4 and TSO6.
    pub tcp: bool,
    /// UDP datagrams, on a TUN with USO4 and USO6 (Linux 6.2).
    pub udp: bool,
}

/// IPv6, and TCP with all its options (bytes).
const HEADERS_LEN_MAX: usize = ip::V6_HEADER_LEN + 60;
/// "Don't fragment" in the third word of an IPv4 header.
const DF: u16 = 0x4000;
/// "More fragments" and the fragment offset in the third word of an IPv4 header.
const FRAGMENT: u16 = 0x3fff;

/// The treatment of a packet.
pub(super) enum Outcome<'a> {
    /// It may be coalesced.
    Coalesce(Candidate),
    /// It stays single, and its flow's open group ends before it; its length (bytes).
    CloseFlow(Headers, usize),
    /// It stays single, and may belong to any flow between its addresses; its length (bytes).
    ClosePair(&'a [u8], usize),
    /// It stays single, and no group ever holds a packet of its flow; its length (bytes).
    Alone(usize),
}

/// A packet that may be coalesced with others.
pub(super) struct Candidate {
    pub headers: Headers,
    /// Bytes of the packet by its IP length.
    pub len: usize,
    /// TCP sequence number; zero for UDP.
    pub sequence: u32,
    /// IPv4 identification.
    pub identification: u16,
    /// The identification is meaningless: IPv6, or IPv4 with DF (RFC 6864 §4.1).
    pub is_atomic: bool,
    /// TCP PSH: the group ends with this packet.
    pub pushed: bool,
}

impl Candidate {
    pub fn payload_len(&self) -> usize {
        self.len - self.headers.len()
    }
}

/// The headers of a packet with all fields zeroed that may differ within a group.
#[derive(Clone)]
pub(super) struct Headers {
    bytes: [u8; HEADERS_LEN_MAX],
    transport_at: u8,
    len: u8,
    protocol: u8,
}

impl PartialEq for Headers {
    fn eq(&self, other: &Headers) -> bool {
        // Version, protocol and both header lengths are among these bytes.
        self.bytes[..self.len()] == other.bytes[..other.len()]
    }
}

impl Headers {
    /// Bytes of all headers, and so the offset of the payload.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    pub fn is_udp(&self) -> bool {
        self.protocol == ip::UDP
    }

    pub fn is_same_flow(&self, other: &Headers) -> bool {
        self.protocol == other.protocol
            && self.transport_at == other.transport_at
            && self.ports() == other.ports()
            && ip::addresses(&self.bytes) == ip::addresses(&other.bytes)
    }

    /// Hash of the addresses, from source to destination.
    pub fn pair_hash(&self, seed: u64) -> u64 {
        pair_hash(seed, ip::addresses(&self.bytes))
    }

    /// Hash of the flow, from that of its addresses.
    pub fn flow_hash(&self, pair: u64, seed: u64) -> u64 {
        let ports = u64::from(u32_at(self.ports(), 0)) << 8 | u64::from(self.protocol);
        mix(pair ^ ports, seed)
    }

    fn ports(&self) -> &[u8] {
        &self.bytes[usize::from(self.transport_at)..][..4]
    }
}

/// Hash of the addresses of a packet, as [`ip::addresses`] returns them.
pub(super) fn pair_hash(seed: u64, addresses: &[u8]) -> u64 {
    addresses.chunks_exact(8).fold(seed, |state, chunk| {
        mix(state ^ u64::from_ne_bytes(chunk.try_into().expect("eight bytes")), seed)
    })
}

/// Classifies one packet; bytes after its IP length are padding.
pub(super) fn examine(packet: &[u8], options: CoalescerOptions) -> Outcome<'_> {
    let Some(ip) = ip::parse(packet) else { return Outcome::Alone(packet.len()) };
    let packet = &packet[..ip.len];
    let wanted = match ip.protocol {
        ip::TCP => options.tcp,
        ip::UDP => options.udp,
        // IPv6 extension headers may hide TCP or UDP of any flow of the pair.
        0 | 43 | 44 | 51 | 60 if !ip::is_v4(packet) => {
            return Outcome::ClosePair(ip::addresses(packet), ip.len);
        }
        _ => false,
    };
    if !wanted {
        return Outcome::Alone(ip.len);
    }
    let Some(headers) = headers_of(packet, &ip) else {
        return Outcome::ClosePair(ip::addresses(packet), ip.len);
    };
    if !may_coalesce(packet, &ip, headers.len()) {
        return Outcome::CloseFlow(headers, ip.len);
    }
    let is_tcp = ip.protocol == ip::TCP;
    let is_v4 = ip::is_v4(packet);
    let start = ip.header_len;
    Outcome::Coalesce(Candidate {
        headers,
        len: ip.len,
        sequence: if is_tcp { u32_at(packet, start + 4) } else { 0 },
        identification: if is_v4 { u16_at(packet, 4) } else { 0 },
        is_atomic: !is_v4 || u16_at(packet, 6) & DF != 0,
        pushed: is_tcp && packet[start + TCP_FLAGS_AT] & PSH != 0,
    })
}

/// The headers, if they are complete: not a fragment, no IPv4 options.
fn headers_of(packet: &[u8], ip: &Packet) -> Option<Headers> {
    let start = ip.header_len;
    let is_v4 = ip::is_v4(packet);
    if is_v4 && (start != V4_HEADER_LEN || u16_at(packet, 6) & FRAGMENT != 0) {
        return None;
    }
    let transport = &packet[start..];
    let length = match ip.protocol {
        ip::UDP => UDP_HEADER_LEN,
        _ => (usize::from(transport.get(12)? >> 4) * 4).max(TCP_HEADER_LEN),
    };
    if transport.len() < length {
        return None;
    }
    let len = start + length;
    let mut bytes = [0; HEADERS_LEN_MAX];
    bytes[..len].copy_from_slice(&packet[..len]);
    if is_v4 {
        // Length, identification, header checksum.
        bytes[2..6].fill(0);
        bytes[10..12].fill(0);
    } else {
        bytes[4..6].fill(0);
    }
    let transport = &mut bytes[start..];
    if ip.protocol == ip::UDP {
        // Length, checksum.
        transport[4..8].fill(0);
    } else {
        // Sequence number, PSH, checksum.
        transport[4..8].fill(0);
        transport[TCP_FLAGS_AT] &= !PSH;
        transport[TCP_CHECKSUM_AT..TCP_CHECKSUM_AT + 2].fill(0);
    }
    Some(Headers { bytes, transport_at: start as u8, len: len as u8, protocol: ip.protocol })
}

/// Whether the packet is plain data and intact. The receiver of a super-packet trusts the checksums
/// of its parts, so that a corrupt packet must not get into it.
fn may_coalesce(packet: &[u8], ip: &Packet, headers_len: usize) -> bool {
    if packet.len() == headers_len {
        return false;
    }
    let (header, transport) = packet.split_at(ip.header_len);
    let is_plain = if ip.protocol == ip::UDP {
        usize::from(u16_at(transport, 4)) == transport.len()
            && u16_at(transport, UDP_CHECKSUM_AT) != 0
    } else {
        usize::from(transport[12] >> 4) * 4 >= TCP_HEADER_LEN
            && transport[TCP_FLAGS_AT] & !PSH == ACK
    };
    if !is_plain || (ip::is_v4(packet) && !checksum::is_valid(checksum::sum(header))) {
        return false;
    }
    let pseudo = checksum::pseudo_header(ip::addresses(packet), ip.protocol, transport.len());
    checksum::is_valid(pseudo + checksum::sum(transport))
}
