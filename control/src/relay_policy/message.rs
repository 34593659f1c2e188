//! Netlink messages (netlink(7)), written and read by hand. Read strictly: what is not understood
//! is an error, and an error means that the kernel forwards.

use std::io;

/// Bytes of `struct nlmsghdr`, and of an attribute's header.
const HEADER_LEN: usize = 16;
const ATTRIBUTE_LEN: usize = 4;
const ALIGNMENT: usize = 4;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// The upper bits of an attribute's kind are flags (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
const KIND_MASK: u16 = 0x3fff;

/// A message that the kernel answered, or sent by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is (`nlmsg_type`).
    pub kind: u16,
    /// What follows the netlink header.
    pub payload: Vec<u8>,
}

impl Message {
    /// The fixed part of `length` bytes, and the attributes behind it.
    ///
    /// # Errors
    /// The message is shorter, or its attributes cannot be read.
    pub fn parts(&self, length: usize) -> io::Result<(&[u8], Vec<Attribute<'_>>)> {
        let (fixed, rest) = self.payload.split_at_checked(length).ok_or_else(unreadable)?;
        Ok((fixed, attributes(rest)?))
    }
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked (`nlmsg_type`).
    pub kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Request {
    /// Asks for one thing; `fixed` is the protocol's header.
    pub fn one(kind: u16, fixed: &[u8]) -> Request {
        Request { kind, flags: NLM_F_REQUEST | NLM_F_ACK, body: fixed.to_vec() }
    }

    /// Asks for all that there are.
    pub fn all(kind: u16, fixed: &[u8]) -> Request {
        Request { kind, flags: NLM_F_REQUEST | NLM_F_DUMP, body: fixed.to_vec() }
    }

    /// With one attribute more.
    pub fn with(mut self, kind: u16, value: &[u8]) -> Request {
        let length = ATTRIBUTE_LEN + value.len();
        self.body.extend((length as u16).to_ne_bytes());
        self.body.extend(kind.to_ne_bytes());
        self.body.extend(value);
        self.body.resize(self.body.len().next_multiple_of(ALIGNMENT), 0);
        self
    }

    /// The protocol's header and the attributes.
    #[cfg(test)]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The bytes to send.
    pub fn bytes(&self, sequence: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_LEN + self.body.len());
        bytes.extend(((HEADER_LEN + self.body.len()) as u32).to_ne_bytes());
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend(self.flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(&self.body);
        bytes
    }
}

/// An answer, datagram by datagram.
#[derive(Debug, Default)]
pub struct Reply {
    /// What has come so far.
    pub messages: Vec<Message>,
    /// It is complete.
    pub is_complete: bool,
    /// What it lists has changed meanwhile.
    pub is_disturbed: bool,
}

impl Reply {
    /// Takes those messages of a datagram that answer request `sequence`.
    ///
    /// # Errors
    /// The kernel's refusal, or a datagram that cannot be read.
    pub fn take(&mut self, datagram: &[u8], sequence: u32) -> io::Result<()> {
        for frame in frames(datagram)? {
            if frame.sequence != sequence {
                continue;
            }
            self.is_disturbed |= frame.flags & NLM_F_DUMP_INTR != 0;
            match frame.message.kind {
                NLMSG_ERROR | NLMSG_DONE => {
                    let code = i32::from_ne_bytes(array(&frame.message.payload)?);
                    if code != 0 {
                        return Err(io::Error::from_raw_os_error(code.wrapping_neg()));
                    }
                    self.is_complete = true;
                }
                _ => self.messages.push(frame.message),
            }
        }
        Ok(())
    }
}

/// One message with its header.
pub struct Frame {
    flags: u16,
    sequence: u32,
    /// What it is and says.
    pub message: Message,
}

/// The messages of one datagram.
///
/// # Errors
/// It is cut short, or a length in it lies.
pub fn frames(datagram: &[u8]) -> io::Result<Vec<Frame>> {
    let mut frames = Vec::new();
    let mut rest = datagram;
    while !rest.is_empty() {
        let header = rest.first_chunk::<HEADER_LEN>().ok_or_else(unreadable)?;
        let length = u32::from_ne_bytes(array(header)?) as usize;
        let payload = rest.get(HEADER_LEN..length).ok_or_else(unreadable)?.to_vec();
        let kind = u16::from_ne_bytes(array(&header[4..])?);
        frames.push(Frame {
            flags: u16::from_ne_bytes(array(&header[6..])?),
            sequence: u32::from_ne_bytes(array(&header[8..])?),
            message: Message { kind, payload },
        });
        rest = rest.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
    }
    Ok(frames)
}

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// What it is; its meaning depends on where it stands.
    pub kind: u16,
    /// Its bytes.
    pub value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// A number in the machine's byte order.
    ///
    /// # Errors
    /// It has no four bytes.
    pub fn u32(&self) -> io::Result<u32> {
        Ok(u32::from_ne_bytes(exactly(self.value)?))
    }

    /// A number in the network's byte order, as netfilter writes them.
    ///
    /// # Errors
    /// It has no four bytes.
    pub fn u32_of_network(&self) -> io::Result<u32> {
        Ok(u32::from_be_bytes(exactly(self.value)?))
    }

    /// A text, which a zero byte ends.
    pub fn text(&self) -> String {
        let end = self.value.iter().position(|&byte| byte == 0).unwrap_or(self.value.len());
        String::from_utf8_lossy(&self.value[..end]).into_owned()
    }

    /// The attributes within.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn nested(&self) -> io::Result<Vec<Attribute<'a>>> {
        attributes(self.value)
    }
}

/// The attributes of a message.
///
/// # Errors
/// One of them is cut short.
pub fn attributes(bytes: &[u8]) -> io::Result<Vec<Attribute<'_>>> {
    let mut attributes = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let length = usize::from(u16::from_ne_bytes(array(rest)?));
        let kind = u16::from_ne_bytes(array(rest.get(2..).ok_or_else(unreadable)?)?) & KIND_MASK;
        let value = rest.get(ATTRIBUTE_LEN..length).ok_or_else(unreadable)?;
        attributes.push(Attribute { kind, value });
        rest = rest.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
    }
    Ok(attributes)
}

/// The attribute of this kind.
pub fn find<'a>(attributes: &[Attribute<'a>], kind: u16) -> Option<Attribute<'a>> {
    attributes.iter().find(|attribute| attribute.kind == kind).copied()
}

/// The attribute of this kind, which must be there.
///
/// # Errors
/// It is not.
pub fn need<'a>(attributes: &[Attribute<'a>], kind: u16) -> io::Result<Attribute<'a>> {
    find(attributes, kind).ok_or_else(unreadable)
}

/// What stands for every answer that is not understood.
pub fn unreadable() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kernel sent a reply that cannot be parsed")
}

/// The first bytes.
///
/// # Errors
/// There are not so many.
pub fn array<const N: usize>(bytes: &[u8]) -> io::Result<[u8; N]> {
    bytes.first_chunk().copied().ok_or_else(unreadable)
}

fn exactly<const N: usize>(bytes: &[u8]) -> io::Result<[u8; N]> {
    bytes.try_into().map_err(|_| unreadable())
}

#[cfg(test)]
pub mod build {
    //! Messages as a kernel would write them.

    use super::{ALIGNMENT, ATTRIBUTE_LEN, Message};

    /// An attribute with its padding.
    pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(((ATTRIBUTE_LEN + value.len()) as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes
    }

    /// A text as an attribute.
    pub fn text(kind: u16, value: &str) -> Vec<u8> {
        attribute(kind, format!("{value}\0").as_bytes())
    }

    /// A message of a fixed part and attributes.
    pub fn message(kind: u16, fixed: &[u8], attributes: &[Vec<u8>]) -> Message {
        Message { kind, payload: [fixed, &attributes.concat()].concat() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut request = Request::one(kind, payload);
        request.flags = flags;
        request.bytes(sequence)
    }

    #[test]
    fn an_answer_ends_with_done_and_counts_only_its_own_number() {
        let mut answer = Reply::default();
        let mut bytes = datagram(20, 0, 7, b"abcd");
        bytes.extend(datagram(20, 0, 6, b"late"));
        answer.take(&bytes, 7).expect("readable");
        assert!(!answer.is_complete);
        answer.take(&datagram(NLMSG_DONE, 0, 7, &[0; 4]), 7).expect("readable");
        assert!(answer.is_complete && !answer.is_disturbed);
        assert_eq!(answer.messages, [Message { kind: 20, payload: b"abcd".to_vec() }]);
    }

    #[test]
    fn a_refusal_is_an_error_and_a_disturbed_list_is_known() {
        let refused = datagram(NLMSG_ERROR, 0, 7, &(-1i32).to_ne_bytes());
        let error = Reply::default().take(&refused, 7).expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        let mut answer = Reply::default();
        answer.take(&datagram(20, NLM_F_DUMP_INTR, 7, b"abcd"), 7).expect("readable");
        assert!(answer.is_disturbed && !answer.is_complete, "the rest is still to come");
        answer.take(&datagram(NLMSG_DONE, 0, 7, &[0; 4]), 7).expect("readable");
        assert!(answer.is_disturbed && answer.is_complete);
    }

    #[test]
    fn what_is_cut_short_is_an_error() {
        let whole = datagram(20, 0, 7, &build::text(1, "wg0"));
        for length in 1..whole.len() {
            let cut = frames(&whole[..length]);
            assert!(cut.is_err(), "cut to {length}");
            let mut lying = whole.clone();
            lying[..4].copy_from_slice(&(length as u32).to_ne_bytes());
            let _ = frames(&lying);
        }
        let attribute = build::text(1, "wg0");
        for length in 1..attribute.len() {
            assert!(attributes(&attribute[..length]).is_err(), "cut to {length}");
        }
        assert!(attributes(&[0; 4]).is_err(), "a length of nothing");
    }
}
