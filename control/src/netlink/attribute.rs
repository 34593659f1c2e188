//! Netlink attributes, read strictly: an attribute that is cut short is an error.

use std::io;

use netlink_packet_core::{NLA_HEADER_SIZE, NlaBuffer, NlasIterator, parse_u32, parse_u32_be};

use super::parse::{malformed, text};

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Its number; the meaning depends on the enclosing message or attribute.
    pub kind: u16,
    /// Its bytes.
    pub value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// A number in host byte order.
    ///
    /// # Errors
    /// The attribute is not four bytes long.
    pub fn u32(&self) -> io::Result<u32> {
        parse_u32(self.value).map_err(|_| malformed())
    }

    /// A number in network byte order, as netfilter writes them.
    ///
    /// # Errors
    /// The attribute is not four bytes long.
    pub fn u32_be(&self) -> io::Result<u32> {
        parse_u32_be(self.value).map_err(|_| malformed())
    }

    /// A string, up to its first NUL.
    pub fn text(&self) -> String {
        text(self.value)
    }

    /// The attributes nested in this one.
    ///
    /// # Errors
    /// One of them is cut short.
    pub fn nested(&self) -> io::Result<Vec<Attribute<'a>>> {
        attributes(self.value)
    }
}

/// The attributes in `bytes`.
///
/// # Errors
/// One of them is cut short.
pub fn attributes(bytes: &[u8]) -> io::Result<Vec<Attribute<'_>>> {
    NlasIterator::new(bytes).map(|attribute| read(attribute.map_err(|_| malformed())?)).collect()
}

fn read(attribute: NlaBuffer<&[u8]>) -> io::Result<Attribute<'_>> {
    let (kind, end) = (attribute.kind(), usize::from(attribute.length()));
    let value = attribute.into_inner().get(NLA_HEADER_SIZE..end).ok_or_else(malformed)?;
    Ok(Attribute { kind, value })
}

/// The attribute with this number.
pub fn find<'a>(attributes: &[Attribute<'a>], kind: u16) -> Option<Attribute<'a>> {
    attributes.iter().find(|attribute| attribute.kind == kind).copied()
}

/// The attribute with this number, which is mandatory.
///
/// # Errors
/// It is missing.
pub fn need<'a>(attributes: &[Attribute<'a>], kind: u16) -> io::Result<Attribute<'a>> {
    find(attributes, kind).ok_or_else(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::message::build;

    #[test]
    fn a_truncated_attribute_is_an_error() {
        let attribute = build::text(1, "wg0");
        for length in 1..attribute.len() {
            assert!(attributes(&attribute[..length]).is_err(), "cut to {length}");
        }
        assert!(attributes(&[0; 4]).is_err(), "a length of zero");
        assert!(attributes(&[3, 0, 1, 0]).is_err(), "shorter than its header");
    }

    #[test]
    fn flags_are_not_part_of_the_number() {
        let bytes = build::attribute(0x8000 | 0x4000 | 7, &[1, 2, 3, 4]);
        let read = attributes(&bytes).expect("whole");
        assert_eq!(read, [Attribute { kind: 7, value: &[1, 2, 3, 4] }]);
        assert_eq!(read[0].u32_be().expect("four bytes"), 0x0102_0304);
        assert!(Attribute { kind: 7, value: &[1, 2, 3] }.u32().is_err());
        assert!(Attribute { kind: 7, value: &[1, 2, 3, 4, 5] }.u32_be().is_err());
    }
}
