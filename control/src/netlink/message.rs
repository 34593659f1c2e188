//! Netlink messages. Read strictly: a message that cannot be parsed is an error.

use std::io;
use std::ops::RangeInclusive;

use netlink_packet_core::{
    DefaultNla, Emitable, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL,
    NLM_F_REQUEST, NLMSG_ALIGNTO, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NetlinkBuffer,
    NetlinkHeader, NetlinkSerializable,
};
use netlink_packet_route::RouteNetlinkMessage;
pub use wg_bounce_sys::netlink::Protocol;

use super::attribute::{Attribute, attributes};
use super::parse::{array, malformed};

/// A reply or an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its type (`nlmsg_type`).
    pub kind: u16,
    /// The bytes after the netlink header.
    pub payload: Vec<u8>,
}

impl Message {
    /// Splits the payload into a fixed header of `length` bytes and the attributes after it.
    ///
    /// # Errors
    /// The message is shorter, or one of its attributes is cut short.
    pub fn split(&self, length: usize) -> io::Result<(&[u8], Vec<Attribute<'_>>)> {
        let (fixed, rest) = self.payload.split_at_checked(length).ok_or_else(malformed)?;
        Ok((fixed, attributes(rest)?))
    }
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its type (`nlmsg_type`).
    pub kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Request {
    /// Asks for one object; `body` is everything after the netlink header.
    pub fn get(kind: u16, body: &[u8]) -> Request {
        Request { kind, flags: NLM_F_REQUEST, body: body.to_vec() }
    }

    /// Asks for nothing but an acknowledgement.
    pub fn nothing() -> Request {
        Request { kind: NLMSG_NOOP, flags: NLM_F_REQUEST | NLM_F_ACK, body: Vec::new() }
    }

    /// Begins or ends a transaction of nftables (NFNL_MSG_BATCH_*).
    pub fn end_of_batch(kind: u16) -> Request {
        // struct nfgenmsg (linux/netfilter/nfnetlink.h): family, version, resource.
        let [high, low] = (libc::NFNL_SUBSYS_NFTABLES as u16).to_be_bytes();
        Request::get(kind, &[libc::AF_UNSPEC as u8, 0, high, low])
    }

    /// Asks for a whole table.
    pub fn dump(kind: u16, body: &[u8]) -> Request {
        Request { kind, flags: NLM_F_REQUEST | NLM_F_DUMP, body: body.to_vec() }
    }

    /// Asks for all objects that these attributes select.
    pub fn dump_some(kind: u16, header: &[u8], attributes: &[DefaultNla]) -> Request {
        let mut body = header.to_vec();
        let mut bytes = vec![0; attributes.buffer_len()];
        attributes.emit(&mut bytes);
        body.extend(bytes);
        Request::dump(kind, &body)
    }

    /// Changes the object that these attributes select; the reply is empty.
    pub fn change(kind: u16, header: &[u8], attributes: &[DefaultNla]) -> Request {
        Request { flags: NLM_F_REQUEST | NLM_F_ACK, ..Request::dump_some(kind, header, attributes) }
    }

    /// Changes something with a message of rtnetlink; the reply is empty.
    pub fn change_route(message: &RouteNetlinkMessage) -> Request {
        let flags = NLM_F_REQUEST | NLM_F_ACK;
        Request { kind: message.message_type(), flags, body: serialized(message) }
    }

    /// Creates something with a message of rtnetlink; the reply is empty. EEXIST: it exists.
    pub fn create_route(message: &RouteNetlinkMessage) -> Request {
        Request::change_route(message).with(NLM_F_CREATE | NLM_F_EXCL)
    }

    /// The request with more flags (NLM_F_*).
    pub fn with(self, flags: u16) -> Request {
        Request { flags: self.flags | flags, ..self }
    }

    /// Asks for one object with a message of rtnetlink.
    pub fn get_route(message: &RouteNetlinkMessage) -> Request {
        Request::get(message.message_type(), &serialized(message))
    }

    /// Asks for a whole table with a message of rtnetlink.
    pub fn dump_route(message: &RouteNetlinkMessage) -> Request {
        Request::dump(message.message_type(), &serialized(message))
    }

    /// The bytes after the netlink header.
    #[cfg(test)]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The bytes to send.
    pub fn bytes(&self, sequence: u32) -> Vec<u8> {
        frame(self.kind, self.flags, sequence, &self.body)
    }

    /// Whether it asks for a whole table.
    pub fn is_dump(&self) -> bool {
        self.flags & NLM_F_DUMP == NLM_F_DUMP
    }
}

fn serialized(message: &RouteNetlinkMessage) -> Vec<u8> {
    let mut bytes = vec![0; NetlinkSerializable::buffer_len(message)];
    message.serialize(&mut bytes);
    bytes
}

fn frame(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    let start = header.buffer_len();
    header.length = (start + body.len()) as u32;
    header.message_type = kind;
    header.flags = flags;
    header.sequence_number = sequence;
    let mut bytes = vec![0; start];
    header.emit(&mut bytes);
    bytes.extend(body);
    bytes
}

/// The reply to a request, collected datagram by datagram.
#[derive(Debug)]
pub struct Reply {
    sequence: u32,
    is_dump: bool,
    /// The messages so far.
    pub messages: Vec<Message>,
    /// Whether nothing more will come.
    pub is_complete: bool,
    /// Whether the table changed while it was dumped (NLM_F_DUMP_INTR).
    pub is_inconsistent: bool,
}

impl Reply {
    /// The reply to `request`, sent with this sequence number, before its first datagram.
    pub fn to(request: &Request, sequence: u32) -> Reply {
        let is_dump = request.is_dump();
        let (is_complete, is_inconsistent) = (false, false);
        Reply { sequence, is_dump, messages: Vec::new(), is_complete, is_inconsistent }
    }

    /// Adds the messages of a datagram that carry the request's sequence number.
    ///
    /// # Errors
    /// The kernel refused the request, or the datagram cannot be parsed.
    pub fn add(&mut self, datagram: &[u8]) -> io::Result<()> {
        for frame in frames(datagram)? {
            if frame.sequence != self.sequence {
                continue;
            }
            self.is_inconsistent |= frame.flags & NLM_F_DUMP_INTR != 0;
            match frame.result_of(self.sequence..=self.sequence)? {
                Some(()) => self.is_complete = true,
                None => {
                    self.messages.push(frame.message);
                    self.is_complete |= !self.is_dump;
                }
            }
        }
        Ok(())
    }
}

/// One message with the parts of its header that matter.
pub struct Frame {
    flags: u16,
    sequence: u32,
    /// Its type and payload.
    pub message: Message,
}

impl Frame {
    /// The end of the request with one of these sequence numbers; none if the message is another.
    ///
    /// # Errors
    /// The kernel refused the request.
    pub fn result_of(&self, sequences: RangeInclusive<u32>) -> io::Result<Option<()>> {
        if !sequences.contains(&self.sequence)
            || ![NLMSG_ERROR, NLMSG_DONE].contains(&self.message.kind)
        {
            return Ok(None);
        }
        match i32::from_ne_bytes(array(&self.message.payload)?) {
            0 => Ok(Some(())),
            code => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
        }
    }
}

/// The messages of one datagram.
///
/// # Errors
/// The datagram is cut short, or a length in it is wrong.
pub fn frames(datagram: &[u8]) -> io::Result<Vec<Frame>> {
    let mut frames = Vec::new();
    let mut rest = datagram;
    while !rest.is_empty() {
        let frame = NetlinkBuffer::new_checked(rest).map_err(|_| malformed())?;
        let message = Message { kind: frame.message_type(), payload: frame.payload().to_vec() };
        let (flags, sequence) = (frame.flags(), frame.sequence_number());
        frames.push(Frame { flags, sequence, message });
        let length = frame.length() as usize;
        let next = length.next_multiple_of(usize::from(NLMSG_ALIGNTO));
        rest = rest.get(next..).unwrap_or_default();
    }
    Ok(frames)
}

#[cfg(test)]
pub mod build {
    //! Messages as a kernel would write them.

    use netlink_packet_core::{DefaultNla, Emitable};

    use super::Message;

    /// An attribute with its padding.
    pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let attribute = DefaultNla::new(kind, value.to_vec());
        let mut bytes = vec![0; attribute.buffer_len()];
        attribute.emit(&mut bytes);
        bytes
    }

    /// A string as an attribute.
    pub fn text(kind: u16, value: &str) -> Vec<u8> {
        attribute(kind, format!("{value}\0").as_bytes())
    }

    /// A message of a fixed header and attributes.
    pub fn message(kind: u16, fixed: &[u8], attributes: &[Vec<u8>]) -> Message {
        Message { kind, payload: [fixed, &attributes.concat()].concat() }
    }

    /// A message of a datagram, padded to the alignment.
    pub fn frame(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = super::frame(kind, flags, sequence, payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::build::frame;
    use super::*;

    fn dump() -> Reply {
        Reply::to(&Request::dump(18, &[]), 7)
    }

    #[test]
    fn a_dump_ends_with_done_and_counts_only_its_own_number() {
        let mut reply = dump();
        let mut bytes = frame(20, 0, 7, b"abcd");
        bytes.extend(frame(20, 0, 6, b"late"));
        reply.add(&bytes).expect("readable");
        assert!(!reply.is_complete);
        reply.add(&frame(NLMSG_DONE, 0, 7, &[0; 4])).expect("readable");
        assert!(reply.is_complete && !reply.is_inconsistent);
        assert_eq!(reply.messages, [Message { kind: 20, payload: b"abcd".to_vec() }]);
    }

    #[test]
    fn a_single_object_is_a_complete_reply() {
        let mut reply = Reply::to(&Request::get(18, &[]), 7);
        reply.add(&frame(16, 0, 0, b"event")).expect("readable");
        assert!(!reply.is_complete, "an event is not the reply");
        reply.add(&frame(16, 0, 7, b"abcd")).expect("readable");
        assert!(reply.is_complete);
        assert_eq!(reply.messages, [Message { kind: 16, payload: b"abcd".to_vec() }]);
    }

    #[test]
    fn a_refusal_is_an_error_and_an_inconsistent_dump_is_known() {
        let refused = frame(NLMSG_ERROR, 0, 7, &(-1i32).to_ne_bytes());
        let error = dump().add(&refused).expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        let mut reply = dump();
        reply.add(&frame(20, NLM_F_DUMP_INTR, 7, b"abcd")).expect("readable");
        assert!(reply.is_inconsistent && !reply.is_complete, "the rest is still to come");
        reply.add(&frame(NLMSG_DONE, 0, 7, &[0; 4])).expect("readable");
        assert!(reply.is_inconsistent && reply.is_complete);
        dump().add(&frame(NLMSG_ERROR, 0, 7, &[0; 20])).expect("an acknowledgement");
        assert!(dump().add(&frame(NLMSG_DONE, 0, 7, &[])).is_err(), "no code");
    }

    #[test]
    fn a_truncated_datagram_is_an_error() {
        let whole = frame(20, 0, 7, &build::text(1, "wg0"));
        for length in 1..whole.len() {
            assert!(frames(&whole[..length]).is_err(), "cut to {length}");
            let mut lying = whole.clone();
            lying[..4].copy_from_slice(&(length as u32).to_ne_bytes());
            let _ = frames(&lying);
        }
        for position in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[position] ^= 0xff;
            let _ = frames(&flipped);
        }
    }
}
