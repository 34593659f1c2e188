//! Requests for routes and their replies as bytes: RTM_GETROUTE (rtnetlink(7)).

use std::io;
use std::net::IpAddr;
use std::os::fd::RawFd;

use libc::{RTA_DST, RTM_GETROUTE, RTM_NEWROUTE};
use nix::sys::socket::{MsgFlags, recv, send};

const NLM_F_REQUEST: u16 = libc::NLM_F_REQUEST as u16;
/// Not in libc for every C library.
pub(crate) const RTA_ENCAP: u16 = 22;
/// Flag of a request (linux/rtnetlink.h, Linux 4.13): reply with the route as it was configured,
/// all its next hops included, and the device of a local address instead of the loopback device.
/// The other replies name only the next hop of the request's own flow; packets of one address pair
/// may take different ones, by flow label, next header or, for ICMP errors, the quoted addresses
/// (`rt6_multipath_hash`, `ip_multipath_l3_keys`).
pub(crate) const RTM_F_FIB_MATCH: u32 = 0x2000;

/// Bytes of `struct nlmsghdr`, of `struct rtmsg`, of an attribute's header, and of `struct
/// rtnexthop`.
pub(crate) const HEADER_LEN: usize = 16;
pub(crate) const ROUTE_LEN: usize = 12;
const ATTRIBUTE_LEN: usize = 4;
const NEXT_HOP_LEN: usize = 8;
/// Two addresses, and five numbers of at most four bytes.
const REQUEST_LEN_MAX: usize = HEADER_LEN + ROUTE_LEN + 2 * (ATTRIBUTE_LEN + 16) + 5 * 8;
/// Upper limit of a reply (bytes). A route has few attributes and next hops; a longer reply is
/// truncated and reads as unknown.
const REPLY_LEN_MAX: usize = 4096;

/// Sends a request and reads the reply; never blocks, and never allocates. `sequence` is the number
/// of the socket's last request.
///
/// # Errors
/// ENOBUFS; EAGAIN while the network namespace is torn down.
pub(crate) fn ask<T>(
    socket: RawFd,
    sequence: &mut u32,
    mut request: Request,
    read: impl FnOnce(Message<'_>) -> T,
) -> io::Result<T> {
    *sequence = sequence.wrapping_add(1);
    send(socket, request.finish(*sequence), MsgFlags::MSG_DONTWAIT)?;
    let mut reply = [0u8; REPLY_LEN_MAX];
    loop {
        let length = recv(socket, &mut reply, MsgFlags::MSG_DONTWAIT)?;
        // A reply with another sequence number is a late one to an abandoned request.
        if let Some(message) = Message::read(&reply[..length], *sequence) {
            return Ok(read(message));
        }
    }
}

/// A request for a route.
pub(crate) struct Request {
    bytes: [u8; REQUEST_LEN_MAX],
    length: usize,
}

impl Request {
    /// A request for the route to `destination`; `dscp` is in the upper six bits, as in a traffic
    /// class; `flags` are those of `struct rtmsg`.
    pub(crate) fn new(destination: IpAddr, dscp: u8, flags: u32) -> Request {
        let mut bytes = [0u8; REQUEST_LEN_MAX];
        bytes[4..6].copy_from_slice(&RTM_GETROUTE.to_ne_bytes());
        bytes[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
        let (family, bits) = match destination {
            IpAddr::V4(_) => (libc::AF_INET as u8, 32),
            IpAddr::V6(_) => (libc::AF_INET6 as u8, 128),
        };
        // struct rtmsg: family, lengths of destination and source, traffic class; the flags last.
        bytes[HEADER_LEN..HEADER_LEN + 4].copy_from_slice(&[family, bits, bits, dscp]);
        bytes[HEADER_LEN + 8..HEADER_LEN + ROUTE_LEN].copy_from_slice(&flags.to_ne_bytes());
        let mut request = Request { bytes, length: HEADER_LEN + ROUTE_LEN };
        request.attribute_address(RTA_DST, destination);
        request
    }

    pub(crate) fn attribute_address(&mut self, kind: u16, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => self.attribute(kind, &v4.octets()),
            IpAddr::V6(v6) => self.attribute(kind, &v6.octets()),
        }
    }

    /// Appends an attribute.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = ATTRIBUTE_LEN + value.len();
        let attribute = &mut self.bytes[self.length..self.length + length];
        attribute[..2].copy_from_slice(&(length as u16).to_ne_bytes());
        attribute[2..4].copy_from_slice(&kind.to_ne_bytes());
        attribute[ATTRIBUTE_LEN..].copy_from_slice(value);
        self.length += length.next_multiple_of(4);
    }

    fn finish(&mut self, sequence: u32) -> &[u8] {
        self.bytes[..4].copy_from_slice(&(self.length as u32).to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        &self.bytes[..self.length]
    }
}

/// A reply of the kernel.
pub(crate) enum Message<'a> {
    /// RTM_NEWROUTE: the route's type and its attributes.
    Route { kind: u8, attributes: Attributes<'a> },
    /// NLMSG_ERROR: the error.
    Error(i32),
    /// Anything else, or cut short.
    Unreadable,
}

impl<'a> Message<'a> {
    /// Reads a reply; `None` if it belongs to another request.
    pub(crate) fn read(reply: &'a [u8], sequence: u32) -> Option<Message<'a>> {
        let header = reply.first_chunk::<HEADER_LEN>()?;
        if u32_at(header, 8) != sequence {
            return None;
        }
        let Some(payload) = reply.get(HEADER_LEN..u32_at(header, 0) as usize) else {
            return Some(Message::Unreadable);
        };
        Some(match u16_at(header, 4) {
            // struct rtmsg: the type is its eighth byte.
            RTM_NEWROUTE => match payload.split_first_chunk::<ROUTE_LEN>() {
                Some((route, rest)) if Attributes(rest).are_whole() => {
                    Message::Route { kind: route[7], attributes: Attributes(rest) }
                }
                _ => Message::Unreadable,
            },
            _ => match payload.first_chunk() {
                Some(bytes) => Message::Error(i32::from_ne_bytes(*bytes).wrapping_neg()),
                None => Message::Unreadable,
            },
        })
    }
}

/// Attributes in a row: type and value of each.
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl Attributes<'_> {
    /// Whether the last one ends where the bytes end. An encapsulation or a next hop behind one
    /// that is cut short would be missed.
    fn are_whole(mut self) -> bool {
        while self.next().is_some() {}
        self.0.is_empty()
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.0;
        let length = usize::from(u16_at(bytes.first_chunk::<ATTRIBUTE_LEN>()?, 0));
        let value = bytes.get(ATTRIBUTE_LEN..length)?;
        self.0 = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        // The upper two bits are flags (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
        Some((u16_at(bytes, 2) & 0x3fff, value))
    }
}

/// The next hops of a multipath route: the interface of each; none for one that is encapsulated
/// or cut short.
pub(crate) struct NextHops<'a>(pub(crate) &'a [u8]);

impl Iterator for NextHops<'_> {
    type Item = Option<u32>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = std::mem::take(&mut self.0);
        if bytes.is_empty() {
            return None;
        }
        // struct rtnexthop: length, flags, weight, interface; then attributes.
        let length = bytes.first_chunk::<2>().map_or(0, |bytes| usize::from(u16_at(bytes, 0)));
        let Some(attributes) = bytes.get(NEXT_HOP_LEN..length) else { return Some(None) };
        self.0 = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        let is_encapsulated = Attributes(attributes).any(|(kind, _)| kind == RTA_ENCAP);
        Some((!is_encapsulated).then(|| u32_at(bytes, 4)))
    }
}

fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_ne_bytes([bytes[offset], bytes[offset + 1]])
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_ne_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_replies_do_not_panic() {
        let mut reply = vec![0; HEADER_LEN + ROUTE_LEN];
        reply[4..6].copy_from_slice(&RTM_NEWROUTE.to_ne_bytes());
        reply[8] = 7;
        for length in 0..=u8::MAX {
            reply[0] = length;
            let is_whole = usize::from(length) == reply.len();
            let message = Message::read(&reply, 7).expect("an answer to request 7");
            assert_eq!(matches!(message, Message::Route { .. }), is_whole, "{length}");
            assert!(Message::read(&reply, 8).is_none());
        }
        assert!(Message::read(&reply[..HEADER_LEN - 1], 7).is_none());
    }
}
