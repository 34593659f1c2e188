//! Socket addresses and control messages as bytes (`struct sockaddr_in`, `sockaddr_in6`,
//! `cmsghdr` of Linux), and the layout of a receive buffer. Arithmetic without `unsafe`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::endpoint::Endpoint;
use crate::io::OuterHeader;

/// Bytes of `struct io_uring_recvmsg_out`, with which a multishot receive begins.
pub const OUT_LEN: usize = 16;
/// Bytes reserved for the sender's address.
pub const NAME_LEN: usize = 32;
/// Bytes reserved for control messages: pktinfo, traffic class, GRO size, and the overflow count.
pub const CONTROL_LEN: usize = 144;
/// Offset of the payload in a receive buffer (bytes).
pub const PAYLOAD_AT: usize = OUT_LEN + NAME_LEN + CONTROL_LEN;
const _: () = assert!(PAYLOAD_AT.is_multiple_of(64), "payloads are aligned for the vector AEAD");

/// Bytes of one receive buffer. Not a multiple of the page size, so that payloads do not alias in
/// caches.
pub const TRAIN_SLOT_LEN: usize = PAYLOAD_AT + 65_536 + 64;

/// Bytes of the longest socket address that is written.
pub const ADDRESS_LEN: usize = size_of::<libc::sockaddr_in6>();
/// Upper limit for the control messages of one send (bytes).
pub const SEND_CONTROL_LEN: usize = 112;

const CMSG_HEADER_LEN: usize = size_of::<libc::cmsghdr>();
const CMSG_ALIGN: usize = size_of::<usize>();
const SOL_UDP: i32 = libc::SOL_UDP;
const UDP_SEGMENT: i32 = libc::UDP_SEGMENT;
const UDP_GRO: i32 = libc::UDP_GRO;

/// The control messages of a receive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveInfo {
    /// The local address that the datagram was sent to.
    pub destination: Option<IpAddr>,
    /// TOS or traffic class.
    pub traffic_class: u8,
    /// GRO segment size (bytes); zero: not a train.
    pub segment_size: usize,
}

/// Reads the control messages of a receive.
pub fn read_control(mut control: &[u8]) -> ReceiveInfo {
    let mut info = ReceiveInfo::default();
    while control.len() >= CMSG_HEADER_LEN {
        let length = usize::from_ne_bytes(control[..8].try_into().expect("eight bytes"));
        let level = i32_at(control, 8);
        let kind = i32_at(control, 12);
        if length < CMSG_HEADER_LEN || length > control.len() {
            break;
        }
        let data = &control[CMSG_HEADER_LEN..length];
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) if data.len() >= 12 => {
                let bytes: [u8; 4] = data[4..8].try_into().expect("four bytes");
                info.destination = Some(IpAddr::V4(Ipv4Addr::from(bytes)));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if data.len() >= 20 => {
                let bytes: [u8; 16] = data[..16].try_into().expect("sixteen bytes");
                info.destination = Some(IpAddr::V6(Ipv6Addr::from(bytes)));
            }
            (libc::IPPROTO_IP, libc::IP_TOS) if !data.is_empty() => info.traffic_class = data[0],
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) if data.len() >= 4 => {
                info.traffic_class = i32_at(data, 0) as u8;
            }
            (SOL_UDP, UDP_GRO) if data.len() >= 4 => {
                info.segment_size = usize::try_from(i32_at(data, 0)).unwrap_or(0);
            }
            _ => {}
        }
        control = &control[length.next_multiple_of(CMSG_ALIGN).min(control.len())..];
    }
    info
}

/// Writes the control messages of a send; returns their length.
pub fn write_control(
    out: &mut [u8; SEND_CONTROL_LEN],
    to: &Endpoint,
    outer: OuterHeader,
    segment_size: usize,
) -> usize {
    out.fill(0);
    let mut length = 0;
    match (to.remote, to.source) {
        (SocketAddr::V4(_), Some(IpAddr::V4(source))) => {
            // struct in_pktinfo: interface (any), local address, unused.
            let mut info = [0u8; 12];
            info[4..8].copy_from_slice(&source.octets());
            append(out, &mut length, libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        }
        (SocketAddr::V6(remote), Some(IpAddr::V6(source))) => {
            // struct in6_pktinfo: local address, interface (for link-local addresses).
            let mut info = [0u8; 20];
            info[..16].copy_from_slice(&source.octets());
            info[16..].copy_from_slice(&remote.scope_id().to_ne_bytes());
            append(out, &mut length, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        }
        _ => {}
    }
    let (level, traffic_class, hop_limit) = match to.remote {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS, libc::IP_TTL),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, libc::IPV6_HOPLIMIT),
    };
    for (kind, value) in [(traffic_class, outer.traffic_class), (hop_limit, outer.hop_limit)] {
        if value != 0 {
            append(out, &mut length, level, kind, &i32::from(value).to_ne_bytes());
        }
    }
    if segment_size != 0 {
        append(out, &mut length, SOL_UDP, UDP_SEGMENT, &(segment_size as u16).to_ne_bytes());
    }
    length
}

/// Appends a control message at offset `end` of `out`, and moves `end` behind it.
fn append(out: &mut [u8; SEND_CONTROL_LEN], end: &mut usize, level: i32, kind: i32, data: &[u8]) {
    let length = CMSG_HEADER_LEN + data.len();
    let message = &mut out[*end..*end + length];
    message[..8].copy_from_slice(&length.to_ne_bytes());
    message[8..12].copy_from_slice(&level.to_ne_bytes());
    message[12..16].copy_from_slice(&kind.to_ne_bytes());
    message[CMSG_HEADER_LEN..].copy_from_slice(data);
    *end += length.next_multiple_of(CMSG_ALIGN);
}

/// Reads a socket address.
pub fn read_address(name: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(name.get(..2)?.try_into().ok()?);
    let port = u16::from_be_bytes(name.get(2..4)?.try_into().ok()?);
    match i32::from(family) {
        libc::AF_INET => {
            let bytes: [u8; 4] = name.get(4..8)?.try_into().ok()?;
            Some(SocketAddrV4::new(Ipv4Addr::from(bytes), port).into())
        }
        libc::AF_INET6 => {
            let bytes: [u8; 16] = name.get(8..24)?.try_into().ok()?;
            let scope = u32::from_ne_bytes(name.get(24..28)?.try_into().ok()?);
            Some(SocketAddrV6::new(Ipv6Addr::from(bytes), port, 0, scope).into())
        }
        _ => None,
    }
}

/// Writes a socket address; returns its length.
pub fn write_address(out: &mut [u8; ADDRESS_LEN], address: &SocketAddr) -> usize {
    out.fill(0);
    out[2..4].copy_from_slice(&address.port().to_be_bytes());
    match address {
        SocketAddr::V4(v4) => {
            out[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            out[4..8].copy_from_slice(&v4.ip().octets());
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            out[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            out[8..24].copy_from_slice(&v6.ip().octets());
            out[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
            size_of::<libc::sockaddr_in6>()
        }
    }
}

/// The endpoint of a received datagram: its sender's address `name`, and its destination.
pub fn endpoint(name: &[u8], info: &ReceiveInfo) -> Option<Endpoint> {
    Some(Endpoint { remote: read_address(name)?, source: info.destination })
}

fn i32_at(bytes: &[u8], offset: usize) -> i32 {
    i32::from_ne_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back() {
        for text in ["192.0.2.1:51820", "[2001:db8::1]:7", "[fe80::1%3]:65535"] {
            let address: SocketAddr = text.parse().expect("an address");
            let mut bytes = [0u8; ADDRESS_LEN];
            let length = write_address(&mut bytes, &address);
            assert_eq!(read_address(&bytes[..length]), Some(address));
        }
        assert_eq!(read_address(&[0; 28]), None);
        assert_eq!(read_address(&[2, 0, 1]), None);
    }

    #[test]
    fn ipv4_address_overwrites_all_of_an_ipv6_address() {
        let mut bytes = [0u8; ADDRESS_LEN];
        write_address(&mut bytes, &"[ffff::ffff%9]:9".parse().expect("an address"));
        write_address(&mut bytes, &"192.0.2.1:51820".parse().expect("an address"));
        assert_eq!(&bytes[8..], &[0; 20]);
    }

    #[test]
    fn longest_control_fits_and_reads_back() {
        for (remote, source) in [("192.0.2.1:1", "192.0.2.2"), ("[fe80::1%3]:1", "fe80::2")] {
            let to = Endpoint {
                remote: remote.parse().expect("an address"),
                source: Some(source.parse().expect("an address")),
            };
            let mut control = [0u8; SEND_CONTROL_LEN];
            let outer = OuterHeader { traffic_class: 0x8b, hop_limit: 56 };
            let length = write_control(&mut control, &to, outer, 1452);
            let info = read_control(&control[..length]);
            assert_eq!(info.destination, to.source);
            assert_eq!(info.traffic_class, 0x8b);
        }
    }

    #[test]
    fn reading_stops_at_an_invalid_length() {
        let mut control = [0u8; 48];
        control[..8].copy_from_slice(&400usize.to_ne_bytes());
        assert_eq!(read_control(&control), ReceiveInfo::default());
        control[..8].copy_from_slice(&3usize.to_ne_bytes());
        assert_eq!(read_control(&control), ReceiveInfo::default());
        assert_eq!(read_control(&[0; 15]), ReceiveInfo::default());
    }
}
