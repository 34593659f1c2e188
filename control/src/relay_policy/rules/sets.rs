//! Sets and maps of nftables, and their elements, as the kernel lists them.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use wg_bounce_dataplane::ranges::Ranges;

use super::addresses::{NUMBER_LEN_MAX, number};
use crate::netlink::attribute::{Attribute, find, need};
use crate::netlink::message::Message;
use crate::netlink::numbers::{
    NFGENMSG_LEN, NFT_SET_CONCAT, NFT_SET_ELEM_CATCHALL, NFT_SET_ELEM_INTERVAL_END, NFT_SET_EVAL,
    NFT_SET_INTERVAL, NFT_SET_OBJECT, NFT_SET_TIMEOUT, NFTA_DATA_VALUE, NFTA_DATA_VERDICT,
    NFTA_SET_ELEM_DATA, NFTA_SET_ELEM_EXPR, NFTA_SET_ELEM_EXPRESSIONS, NFTA_SET_ELEM_FLAGS,
    NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_KEY_END, NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_SET_EXPR,
    NFTA_SET_EXPRESSIONS, NFTA_SET_FLAGS, NFTA_SET_NAME, NFTA_SET_TABLE,
};

/// The family (NFPROTO_*) and the name of a table.
pub type TableName = (u8, String);

/// The family (NFPROTO_*), the table and the name of a set.
pub type Name = (u8, String, String);

/// The properties of a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kind {
    flags: u32,
    has_statements: bool,
}

/// A set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Its elements. A key may be in two of them if they are ranges of several fields.
    pub elements: Vec<Element>,
    /// The data of all other keys; none if they are not in the set.
    pub catch_all: Option<Vec<u8>>,
    /// The elements as numbers of so many bytes, if they are no longer than an address.
    pub numbers: Option<(usize, Arc<Ranges>)>,
    /// Elements may vanish by themselves.
    pub may_expire: bool,
}

/// An element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// Its key, or the first one of a range.
    pub first: Vec<u8>,
    /// The last one of a range, each field on its own.
    pub last: Option<Vec<u8>>,
    /// The attributes of its verdict; empty if it has none.
    pub verdict: Vec<u8>,
}

/// The sets of the kernel.
pub trait Sets {
    /// Reads a set; none if its content is not known or too large.
    ///
    /// # Errors
    /// Those of the kernel; InvalidData: a message is malformed.
    fn read(&mut self, name: &Name) -> io::Result<Option<Rc<Set>>>;
}

/// Reads the description of a set.
///
/// # Errors
/// InvalidData: it is malformed.
pub fn kind(message: &Message) -> io::Result<(Name, Kind)> {
    let (header, attributes) = message.split(NFGENMSG_LEN)?;
    let text = |kind| need(&attributes, kind).map(|one| one.text());
    let flags = find(&attributes, NFTA_SET_FLAGS).map_or(Ok(0), |flags| flags.u32_be())?;
    let has_statements =
        [NFTA_SET_EXPR, NFTA_SET_EXPRESSIONS].iter().any(|kind| find(&attributes, *kind).is_some());
    let name = (header[0], text(NFTA_SET_TABLE)?, text(NFTA_SET_NAME)?);
    Ok((name, Kind { flags, has_statements }))
}

impl Kind {
    /// Whether it is not declared to be changed by packets, as by counters in its elements.
    pub fn is_plain(self) -> bool {
        self.flags & (NFT_SET_EVAL | NFT_SET_OBJECT) == 0 && !self.has_statements
    }

    /// Reads the lists of its elements, at most `limit`. None: they are more, or have counters or
    /// quotas.
    ///
    /// # Errors
    /// InvalidData: a message is malformed.
    pub fn elements(self, lists: &[Message], limit: usize) -> io::Result<Option<Set>> {
        let mut set = Set { may_expire: self.flags & NFT_SET_TIMEOUT != 0, ..Set::default() };
        let mut ends = Vec::new();
        for message in lists {
            let (_, attributes) = message.split(NFGENMSG_LEN)?;
            let Some(list) = find(&attributes, NFTA_SET_ELEM_LIST_ELEMENTS) else { continue };
            for element in list.nested()? {
                let parts = element.nested()?;
                let has_statements = [NFTA_SET_ELEM_EXPR, NFTA_SET_ELEM_EXPRESSIONS]
                    .iter()
                    .any(|kind| find(&parts, *kind).is_some());
                if has_statements || set.elements.len() + ends.len() >= limit {
                    return Ok(None);
                }
                let flags = find(&parts, NFTA_SET_ELEM_FLAGS).map_or(Ok(0), |one| one.u32_be())?;
                let verdict = verdict(&parts)?;
                if flags & NFT_SET_ELEM_CATCHALL != 0 {
                    set.catch_all = Some(verdict);
                    continue;
                }
                let key = key(&need(&parts, NFTA_SET_ELEM_KEY)?)?;
                if flags & NFT_SET_ELEM_INTERVAL_END != 0 {
                    ends.push(key);
                    continue;
                }
                let last = find(&parts, NFTA_SET_ELEM_KEY_END).map(|end| self::key(&end));
                set.elements.push(Element { first: key, last: last.transpose()?, verdict });
            }
        }
        // With several fields, an element without a last key has only one.
        if self.flags & (NFT_SET_INTERVAL | NFT_SET_CONCAT) == NFT_SET_INTERVAL {
            set.close_ranges(ends);
        }
        set.read_numbers();
        Ok(Some(set))
    }
}

impl Set {
    /// Reads the elements as numbers.
    fn read_numbers(&mut self) {
        let length = self.elements.first().map_or(0, |element| element.first.len());
        let range = |element: &Element| {
            let last = element.last.as_ref().unwrap_or(&element.first);
            let is_even = element.first.len() == length && last.len() == length;
            (is_even && length <= NUMBER_LEN_MAX).then(|| (number(&element.first), number(last)))
        };
        let ranges = self.elements.iter().map(range).collect::<Option<Vec<_>>>();
        self.numbers = ranges.map(|ranges| (length, Arc::new(Ranges::new(ranges))));
    }

    /// A range without a last key ends before the end or the beginning of one that comes next. If
    /// none does, it is open.
    fn close_ranges(&mut self, mut ends: Vec<Vec<u8>>) {
        ends.extend(self.elements.iter().map(|element| element.first.clone()));
        ends.sort();
        for element in self.elements.iter_mut().filter(|element| element.last.is_none()) {
            let end = ends.get(ends.partition_point(|end| *end <= element.first));
            element.last = Some(match end {
                Some(end) => before(end),
                None => vec![0xff; element.first.len()],
            });
        }
    }
}

/// The number before `number`, which is not zero.
fn before(number: &[u8]) -> Vec<u8> {
    let mut number = number.to_vec();
    for byte in number.iter_mut().rev() {
        let (less, borrows) = byte.overflowing_sub(1);
        *byte = less;
        if !borrows {
            break;
        }
    }
    number
}

fn key(attribute: &Attribute<'_>) -> io::Result<Vec<u8>> {
    Ok(need(&attribute.nested()?, NFTA_DATA_VALUE)?.value.to_vec())
}

fn verdict(parts: &[Attribute<'_>]) -> io::Result<Vec<u8>> {
    let Some(data) = find(parts, NFTA_SET_ELEM_DATA) else { return Ok(Vec::new()) };
    let data = data.nested()?;
    Ok(find(&data, NFTA_DATA_VERDICT).map_or(Vec::new(), |verdict| verdict.value.to_vec()))
}
