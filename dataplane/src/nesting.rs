//! WireGuard in WireGuard: a peer behind another peer is reached by messages within messages, and
//! the same routes may also lead a message back into the tunnel forever.
//!
//! - A message that is routed to the peer that it is for would be encapsulated for that peer again:
//!   [`Nested::is_for`] recognises it by its endpoint and its session.
//! - A circle of peers, interfaces or daemons cannot be seen from one packet, because what a
//!   message carries is encrypted. So each message takes its hop limit from the one that it
//!   carries, less [`NESTING_HOPS`]; what has none left is dropped. Circles end after a few rounds,
//!   and nested tunnels that lead somewhere work.

use std::net::SocketAddr;

use wg_bounce_sys::OuterHeader;

use crate::ip::{self, Packet};
use crate::limits::{NESTED_HOP_LIMIT_MAX, NESTING_HOPS};
use crate::path::Path;
use crate::peer::Peer;
use crate::wire::{self, DATA, INITIATION, RESPONSE};

/// Bytes of a UDP header.
const UDP_HEADER_LEN: usize = 8;

/// An IP packet that carries a WireGuard message, as far as its headers show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nested {
    /// The destination of the message.
    pub to: SocketAddr,
    kind: u8,
    /// The index after the message's type: the receiver's in data, the sender's in a handshake.
    index: u32,
    /// TTL or hop limit of the packet.
    hop_limit: u8,
}

impl Nested {
    /// Reads a packet that was parsed to `ip`; none if it carries no WireGuard message. A message
    /// that is fragmented is in its first fragment.
    pub fn read(packet: &[u8], ip: &Packet) -> Option<Nested> {
        let upper = ip::upper_layer(packet, ip)?;
        if upper.protocol != ip::UDP || upper.is_later_fragment {
            return None;
        }
        let (udp, message) = packet.get(upper.start..ip.len)?.split_at_checked(UDP_HEADER_LEN)?;
        let (kind, index) = wire::kind_and_index(message)?;
        let hop_limit = if ip::is_v4(packet) { packet[8] } else { packet[7] };
        let to = SocketAddr::new(ip.destination, ip::u16_at(udp, 2));
        Some(Nested { to, kind, index, hop_limit })
    }

    /// Whether the message is one of ours for `peer`: to its endpoint, and with its session's index
    /// or that of our last handshake message. The same endpoint with another index is another
    /// program's tunnel, or that of a host behind us.
    pub fn is_for(&self, peer: &Peer, path: &Path) -> bool {
        let remote = path.endpoint.remote;
        (self.to.ip(), self.to.port()) == (remote.ip(), remote.port())
            && match self.kind {
                DATA => {
                    let session = peer.session();
                    session.as_ref().is_some_and(|known| known.info.remote_index == self.index)
                }
                INITIATION | RESPONSE => peer.handshake_index() == Some(self.index),
                _ => false,
            }
    }

    /// Whether it has been encapsulated so often that it must be in a circle.
    pub fn is_too_deep(&self) -> bool {
        self.hop_limit <= NESTING_HOPS
    }
}

/// Why a message that [`Nested::is_too_deep`] is dropped, for the log.
pub const TOO_DEEP: &str = "have passed too many tunnels: their endpoints lie behind each other";

/// The outer IP header for a packet, and for the message that it carries, if any.
pub fn outer_header(packet: &[u8], nested: Option<&Nested>) -> OuterHeader {
    let hop_limit = nested.map_or(0, |nested| {
        nested.hop_limit.saturating_sub(NESTING_HOPS).clamp(1, NESTED_HOP_LIMIT_MAX)
    });
    OuterHeader { traffic_class: ip::outer_ecn(packet), hop_limit }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use wg_bounce_aead::Key;
    use wg_bounce_sys::Endpoint;
    use wg_bounce_sys::clock::Millis;

    use super::*;
    use crate::peer::PeerId;

    fn header_of(packet: &[u8]) -> OuterHeader {
        let ip = ip::parse(packet).expect("IP");
        outer_header(packet, Nested::read(packet, &ip).as_ref())
    }
    use crate::session::{KeypairInfo, Lifetime, SendSession};

    const OURS: u32 = 0x0403_0201;

    /// A message with this type and index, from port 51820 to port 7 of 10.0.0.9 or ::9.
    fn packet(is_v4: bool, hop_limit: u8, kind: u8, index: u32) -> Vec<u8> {
        let mut packet = if is_v4 {
            let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, hop_limit, ip::UDP, 0, 0];
            header.extend([10, 0, 0, 1, 10, 0, 0, 9]);
            header
        } else {
            let mut header = vec![0; 40];
            (header[0], header[6], header[7]) = (0x60, ip::UDP, hop_limit);
            (header[23], header[39]) = (1, 9);
            header
        };
        let headers = packet.len();
        packet.extend([0xca, 0x6c, 0, 7, 0, 40, 0, 0, kind, 0, 0, 0]);
        packet.extend(index.to_le_bytes());
        packet.extend([0; 24]);
        let len = packet.len();
        ip::set_len(&mut packet, headers, len);
        packet
    }

    fn read(packet: &[u8]) -> Option<Nested> {
        Nested::read(packet, &ip::parse(packet).expect("an IP packet"))
    }

    fn peer(endpoint: &str) -> (Peer, Path) {
        let peer = Peer::new(PeerId(1), [1; 32]);
        let info = KeypairInfo {
            local_index: 1,
            remote_index: OURS,
            created: Millis(1),
            is_initiator: true,
            lifetime: Lifetime::default(),
        };
        let session = SendSession::new(Key::new(&[7; 32]), info);
        assert!(peer.set_session(Some(Arc::new(session))).is_none());
        let endpoint = Endpoint { remote: endpoint.parse().expect("an address"), source: None };
        (peer, Path::new(endpoint))
    }

    #[test]
    fn our_own_messages_are_told_from_those_of_others() {
        for (is_v4, endpoint) in [(true, "10.0.0.9:7"), (false, "[::9]:7")] {
            let (peer, path) = peer(endpoint);
            let is_for = |kind, index| {
                let nested = read(&packet(is_v4, 64, kind, index)).expect("a message");
                nested.is_for(&peer, &path)
            };
            assert!(is_for(DATA, OURS));
            assert!(!is_for(DATA, OURS + 1), "another tunnel to the same endpoint");
            assert!(!is_for(INITIATION, 0), "none was sent yet");
            peer.set_handshake_index(5);
            assert!(is_for(INITIATION, 5) && is_for(RESPONSE, 5) && !is_for(INITIATION, 6));
        }
        let (peer, path) = peer("10.0.0.9:8");
        let nested = read(&packet(true, 64, DATA, OURS)).expect("a message");
        assert!(!nested.is_for(&peer, &path), "another port");
    }

    #[test]
    fn other_packets_carry_no_message() {
        assert_eq!(read(&packet(true, 64, 0, 1)), None);
        assert_eq!(read(&packet(true, 64, 5, 1)), None);
        let mut later = packet(true, 64, DATA, 1);
        later[7] = 1;
        assert_eq!(read(&later), None, "a later fragment");
        later[6..8].copy_from_slice(&[0x20, 0]);
        assert!(read(&later).is_some(), "a first fragment");
        let mut tcp = packet(false, 64, DATA, 1);
        tcp[6] = ip::TCP;
        assert_eq!(read(&tcp), None);
        for len in 28..36 {
            let mut short = packet(true, 64, DATA, 1);
            ip::set_len(&mut short, 20, len);
            assert_eq!(read(&short), None, "{len} bytes");
        }
    }

    #[test]
    fn every_level_takes_hops_until_none_is_left() {
        for is_v4 in [true, false] {
            let (mut hop_limit, mut levels) = (64, 0);
            loop {
                let packet = packet(is_v4, hop_limit, DATA, 1);
                let nested = read(&packet).expect("a message");
                if nested.is_too_deep() {
                    break;
                }
                hop_limit = header_of(&packet).hop_limit;
                levels += 1;
            }
            assert_eq!(levels, 7);
        }
        let from_afar = packet(true, 255, DATA, 1);
        let header = header_of(&from_afar);
        assert_eq!(header.hop_limit, NESTED_HOP_LIMIT_MAX);
        let plain = packet(true, 3, 0, 1);
        let header = header_of(&plain);
        assert_eq!(header.hop_limit, 0, "the system's default");
    }
}
