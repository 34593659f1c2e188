//! Link messages of rtnetlink (rtnetlink(7)) as far as the daemon needs them. Read leniently: an
//! attribute that is new or odd says nothing, and costs nothing.

use netlink_packet_core::{
    NLM_F_REQUEST, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, LinkMessageBuffer};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const IFF_UP: u32 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;

/// Bytes of `struct nlmsghdr`, and the alignment of messages in a datagram.
const HEADER_LEN: usize = 16;
const ALIGNMENT: usize = 4;

/// What the daemon wants to know of its interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its present name.
    pub name: String,
    /// IFF_UP.
    pub is_up: bool,
    /// Bytes.
    pub mtu: usize,
}

/// One message of the kernel.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A link is there, or has changed; also the answer to [`request`].
    Present {
        /// The request's number; zero for what happened by itself.
        sequence: u32,
        /// Which, and how it is now.
        link: Link,
    },
    /// A link has left this namespace: deleted, or moved to another one.
    Gone {
        /// The link's number.
        index: u32,
    },
    /// A request was refused with this errno (positive).
    Refused {
        /// The request's number.
        sequence: u32,
        /// As in errno(3).
        errno: i32,
    },
}

/// A request for the link called `name`.
pub fn request(name: &str, sequence: u32) -> Vec<u8> {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    header.sequence_number = sequence;
    let payload = NetlinkPayload::from(RouteNetlinkMessage::GetLink(link));
    let mut message = NetlinkMessage::new(header, payload);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// The messages of one datagram that concern links; the rest, and what cannot be read, is left
/// out.
pub fn parse(datagram: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    let mut rest = datagram;
    while let Ok(message) = NetlinkBuffer::new_checked(rest) {
        let length = message.length() as usize;
        if length < HEADER_LEN {
            break;
        }
        let payload = &rest[HEADER_LEN..length];
        let sequence = message.sequence_number();
        events.extend(match message.message_type() {
            RTM_NEWLINK => present(payload).map(|link| Event::Present { sequence, link }),
            RTM_DELLINK => gone(payload),
            NLMSG_ERROR => refused(payload, sequence),
            _ => None,
        });
        rest = rest.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
    }
    events
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
    // Messages of other families (bridge ports, IPv6) come without one of the two.
    let is_up = message.flags() & IFF_UP != 0;
    Some(Link { index: message.link_index(), name: name?, is_up, mtu: mtu? as usize })
}

fn gone(payload: &[u8]) -> Option<Event> {
    let message = LinkMessageBuffer::new_checked(payload).ok()?;
    // AF_BRIDGE: a port left its bridge, and lives on.
    (message.interface_family() == 0).then(|| Event::Gone { index: message.link_index() })
}

fn refused(payload: &[u8], sequence: u32) -> Option<Event> {
    let errno = -i32::from_ne_bytes(*payload.first_chunk()?);
    (errno != 0).then_some(Event::Refused { sequence, errno })
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One netlink message, padded to the alignment.
    fn message(kind: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(((HEADER_LEN + payload.len()) as u32).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(((4 + value.len()) as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes
    }

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

    #[test]
    fn all_messages_of_a_datagram_are_read() {
        let mut datagram = message(RTM_NEWLINK, 7, &link(0, 3, IFF_UP | 0x10, &wg0()));
        datagram.extend(message(20, 0, &[0; 8])); // RTM_NEWADDR
        datagram.extend(message(RTM_DELLINK, 0, &link(0, 3, 0, &wg0())));
        datagram.extend(message(NLMSG_ERROR, 8, &(-19i32).to_ne_bytes()));
        let link = Link { index: 3, name: "wg0".into(), is_up: true, mtu: 1420 };
        assert_eq!(
            parse(&datagram),
            [
                Event::Present { sequence: 7, link },
                Event::Gone { index: 3 },
                Event::Refused { sequence: 8, errno: 19 },
            ]
        );
    }

    #[test]
    fn a_port_that_leaves_its_bridge_is_not_gone() {
        assert!(parse(&message(RTM_DELLINK, 0, &link(7, 3, 0, &wg0()))).is_empty());
    }

    #[test]
    fn unknown_attributes_do_not_matter() {
        let mut attributes = vec![attribute(4242, &[1; 37])];
        attributes.extend(wg0());
        let events = parse(&message(RTM_NEWLINK, 0, &link(0, 9, 0, &attributes)));
        let [Event::Present { link, .. }] = &events[..] else { panic!("{events:?}") };
        assert_eq!((link.index, link.is_up, link.mtu), (9, false, 1420));
    }

    #[test]
    fn an_acknowledgement_refuses_nothing() {
        assert!(parse(&message(NLMSG_ERROR, 1, &[0; 20])).is_empty());
    }

    #[test]
    fn broken_datagrams_are_no_events_and_no_panic() {
        let whole = message(RTM_NEWLINK, 7, &link(0, 3, IFF_UP, &wg0()));
        for length in 0..whole.len() {
            assert!(parse(&whole[..length]).is_empty(), "cut to {length}");
            let mut lying = whole.clone();
            lying[..4].copy_from_slice(&(length as u32).to_ne_bytes());
            let _ = parse(&lying);
        }
        for position in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[position] ^= 0xff;
            let _ = parse(&flipped);
        }
    }

    #[test]
    fn the_request_names_the_link() {
        let request = request("wg0", 5);
        assert_eq!(request.len() % ALIGNMENT, 0);
        assert_eq!(u32::from_ne_bytes(request[..4].try_into().unwrap()), request.len() as u32);
        assert_eq!(u16::from_ne_bytes(request[4..6].try_into().unwrap()), 18, "RTM_GETLINK");
        assert!(request.windows(4).any(|window| window == b"wg0\0"));
    }
}
