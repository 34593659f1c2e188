//! Link messages of rtnetlink (rtnetlink(7)), read leniently: an unknown or odd attribute is
//! ignored.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, LinkMessageBuffer};

use crate::netlink::message::{Message, Request};
use crate::netlink::numbers::{IFF_UP, IFLA_IFNAME, IFLA_MTU, RTM_DELLINK, RTM_NEWLINK};
use crate::netlink::parse::text;

/// The state of the daemon's interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index in its network namespace.
    pub index: u32,
    /// Its current name.
    pub name: String,
    /// IFF_UP.
    pub is_up: bool,
    /// Bytes.
    pub mtu: usize,
}

/// One message of the kernel about a link.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A link exists, or has changed; also the reply to [`request`].
    Present(Link),
    /// A link has left this namespace: deleted, or moved to another one.
    Gone {
        /// The link's index.
        index: u32,
    },
}

/// A request for the link called `name`.
pub fn request(name: &str) -> Request {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    Request::get_route(&RouteNetlinkMessage::GetLink(link))
}

/// The event of a message; none if it is not about a link, or cannot be read.
pub fn event(message: &Message) -> Option<Event> {
    match message.kind {
        RTM_NEWLINK => present(&message.payload).map(Event::Present),
        RTM_DELLINK => gone(&message.payload),
        _ => None,
    }
}

fn present(payload: &[u8]) -> Option<Link> {
    let message = LinkMessageBuffer::new_checked(payload).ok()?;
    let (mut name, mut mtu) = (None, None);
    for attribute in message.attributes() {
        let Ok(attribute) = attribute else { break };
        let value = attribute.value();
        match attribute.kind() {
            IFLA_IFNAME => name = Some(text(value)),
            IFLA_MTU => mtu = value.try_into().ok().map(u32::from_ne_bytes),
            _ => {}
        }
    }
    // Messages of other families (bridge ports, IPv6) lack one of the two.
    let is_up = message.flags() & IFF_UP != 0;
    Some(Link { index: message.link_index(), name: name?, is_up, mtu: mtu? as usize })
}

fn gone(payload: &[u8]) -> Option<Event> {
    let message = LinkMessageBuffer::new_checked(payload).ok()?;
    // AF_BRIDGE: a port left its bridge, and still exists.
    let is_link = i32::from(message.interface_family()) == libc::AF_UNSPEC;
    is_link.then(|| Event::Gone { index: message.link_index() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::message::build::{attribute, frame};
    use crate::netlink::message::frames;

    fn link(family: u8, index: u32, flags: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![family, 0, 0xfe, 0xff];
        bytes.extend(index.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(attributes.concat());
        bytes
    }

    fn wg0() -> Vec<Vec<u8>> {
        vec![attribute(IFLA_IFNAME, b"wg0\0"), attribute(IFLA_MTU, &1420u32.to_ne_bytes())]
    }

    fn message(kind: u16, payload: Vec<u8>) -> Message {
        Message { kind, payload }
    }

    #[test]
    fn all_messages_of_a_datagram_are_read() {
        let mut datagram = frame(RTM_NEWLINK, 0, 7, &link(0, 3, IFF_UP | 0x10, &wg0()));
        datagram.extend(frame(20, 0, 0, &[0; 8])); // RTM_NEWADDR
        datagram.extend(frame(RTM_DELLINK, 0, 0, &link(0, 3, 0, &wg0())));
        let frames = frames(&datagram).expect("whole");
        let events: Vec<_> = frames.iter().filter_map(|frame| event(&frame.message)).collect();
        let link = Link { index: 3, name: "wg0".into(), is_up: true, mtu: 1420 };
        assert_eq!(events, [Event::Present(link), Event::Gone { index: 3 }]);
    }

    #[test]
    fn a_port_that_leaves_its_bridge_is_not_gone() {
        assert_eq!(event(&message(RTM_DELLINK, link(7, 3, 0, &wg0()))), None);
    }

    #[test]
    fn unknown_attributes_do_not_matter() {
        let mut attributes = vec![attribute(4242, &[1; 37])];
        attributes.extend(wg0());
        let event = event(&message(RTM_NEWLINK, link(0, 9, 0, &attributes)));
        let Some(Event::Present(link)) = &event else { panic!("{event:?}") };
        assert_eq!((link.index, link.is_up, link.mtu), (9, false, 1420));
    }

    #[test]
    fn broken_messages_are_no_events_and_no_panic() {
        let whole = link(0, 3, IFF_UP, &wg0());
        for length in 0..whole.len() {
            let cut = whole[..length].to_vec();
            assert_eq!(event(&message(RTM_NEWLINK, cut)), None, "cut to {length}");
        }
        for position in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[position] ^= 0xff;
            let _ = event(&message(RTM_NEWLINK, flipped.clone()));
            let _ = event(&message(RTM_DELLINK, flipped));
        }
    }

    #[test]
    fn the_request_names_the_link() {
        let request = request("wg0").bytes(5);
        assert_eq!(request.len() % 4, 0);
        assert_eq!(u32::from_ne_bytes(request[..4].try_into().unwrap()), request.len() as u32);
        assert_eq!(u16::from_ne_bytes(request[4..6].try_into().unwrap()), 18, "RTM_GETLINK");
        assert!(request.windows(4).any(|window| window == b"wg0\0"));
    }
}
