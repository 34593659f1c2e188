//! Rules of legacy iptables: the entries of a table, one after the other (`struct ipt_entry`,
//! linux/netfilter_ipv4/ip_tables.h; `struct ip6t_entry`, linux/netfilter_ipv6/ip6_tables.h).
//!
//! A chain is a run of entries. A built-in one ends with its policy; one of the user's begins after
//! an entry with the target ERROR, which names it, and ends with an unconditional return.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use wg_bounce_sys::Family;

use super::{Chain, Condition, Effect, Layer, Rule, Side, Step, Verdict, xt};
use crate::netlink::parse::{array, malformed, text};

/// Bytes of an interface's name (IFNAMSIZ), and of the name of a match or target.
const DEVICE_LEN: usize = 16;
const NAME_LEN: usize = 29;
/// Positions in a match or target: its size, its name, and its data.
const NAME_AT: usize = 2;
const REVISION_AT: usize = 31;
const DATA_AT: usize = 32;

/// Bytes of an entry's counters (`struct xt_counters`), which lie before its matches.
const COUNTERS_LEN: usize = 16;

/// `-NF_DROP - 1`, `-NF_ACCEPT - 1` and XT_RETURN. A verdict of zero or more is an offset.
const DROP: i32 = -1;
const ACCEPT: i32 = -2;
const RETURN: i32 = -5;

/// `IPT_INV_*` and `IP6T_INV_*`: inverted conditions.
const NOT_IN: u8 = 1;
const NOT_OUT: u8 = 2;
const NOT_FROM: u8 = 8;
const NOT_TO: u8 = 16;
const NOT_PROTOCOL: u8 = 64;

/// Positions in an entry, by its IP version (bytes).
struct Layout {
    /// Bytes of an address. The entry begins with source and destination, then come their masks.
    address: usize,
    /// The offset of the source in a packet; the destination follows.
    header: usize,
    /// The names of the interfaces, and behind them their masks.
    devices: usize,
    /// The protocol, the flags, and a bit for each inverted condition.
    protocol: usize,
    flags: usize,
    inverted: usize,
    /// The flag of rules that test the protocol; all do that name one if there is none.
    tests_protocol: u8,
    goto: u8,
    target_offset: usize,
    matches: usize,
}

const V4: Layout = Layout {
    address: 4,
    header: 12,
    devices: 16,
    protocol: 80,
    flags: 82,
    inverted: 83,
    tests_protocol: 0,
    goto: 2,
    target_offset: 88,
    matches: 112,
};

const V6: Layout = Layout {
    address: 16,
    header: 8,
    devices: 64,
    protocol: 128,
    flags: 131,
    inverted: 132,
    tests_protocol: 1,
    goto: 4,
    target_offset: 140,
    matches: 168,
};

/// A table.
pub struct Table {
    /// The built-in chains, in the order in which they were named, and those of the user.
    pub chains: Vec<Chain>,
    /// The chains of the user, by the offset of their first entry.
    of_user: HashMap<usize, usize>,
}

impl Table {
    /// Reads a table. `built_in` has the built-in chains: their names, and the offsets of the first
    /// entry and of the policy.
    ///
    /// # Errors
    /// The table is malformed.
    pub fn new(
        family: Family,
        entries: &[u8],
        built_in: &[(&str, usize, usize)],
    ) -> io::Result<Table> {
        let chain = |name: &str| Chain { name: name.to_owned(), ..Chain::default() };
        let chains = built_in.iter().map(|(name, ..)| chain(name)).collect();
        let mut table = Table { chains, of_user: HashMap::new() };
        let length = entries.len();
        let entries = Entry::all(family, entries)?;
        // A target may be in a chain that comes later, so the chains are found first.
        for entry in &entries {
            let next = entry.at + entry.bytes.len();
            if let Some(name) = entry.begins_chain()
                && next < length
            {
                table.of_user.insert(next, table.chains.len());
                table.chains.push(chain(&name));
            }
        }
        let mut number = None;
        let (mut firsts, mut policies) = (0, 0);
        for entry in &entries {
            let begins = built_in.iter().position(|(_, first, _)| *first == entry.at);
            let is_error = entry.begins_chain().is_some();
            // Only the policy ends a built-in chain: iptables(8) never writes anything else.
            let is_built_in = |number: Option<usize>| number.is_some_and(|at| at < built_in.len());
            if begins.is_some() && is_built_in(number) {
                return Err(malformed());
            }
            firsts += usize::from(begins.is_some());
            number = begins.or(table.of_user.get(&entry.at).copied()).or(number);
            if is_error && is_built_in(number) {
                return Err(malformed());
            }
            let is_policy = built_in.iter().any(|(.., policy)| *policy == entry.at);
            policies += usize::from(is_policy);
            if is_policy || is_error {
                number = None;
            }
            if let Some(number) = number {
                let steps = entry.steps(&table)?;
                let rules = Arc::make_mut(&mut table.chains[number].rules);
                rules.push(Rule { label: (rules.len() + 1).to_string(), steps });
            }
        }
        let is_whole = firsts == built_in.len() && policies == built_in.len();
        if is_whole { Ok(table) } else { Err(malformed()) }
    }
}

/// Sets the counters of all entries to zero: they change with every packet.
///
/// # Errors
/// The entries are malformed.
pub fn clear_counters(family: Family, entries: &mut [u8]) -> io::Result<()> {
    let mut at = 0;
    while at < entries.len() {
        let entry = Entry::read(family, entries, at)?;
        let (length, end) = (entry.bytes.len(), at + entry.layout.matches);
        entries[end - COUNTERS_LEN..end].fill(0);
        at += length;
    }
    Ok(())
}

/// Whether the entry at an offset accepts: a policy.
///
/// # Errors
/// The entry is malformed.
pub fn accepts(family: Family, entries: &[u8], offset: usize) -> io::Result<bool> {
    let entry = Entry::read(family, entries, offset)?;
    Ok(entry.target_name().is_empty() && entry.verdict()? == ACCEPT)
}

/// One entry.
struct Entry<'a> {
    family: Family,
    layout: &'static Layout,
    /// Its offset in the table.
    at: usize,
    bytes: &'a [u8],
    /// Its target, to the end.
    target: &'a [u8],
}

impl<'a> Entry<'a> {
    fn all(family: Family, table: &'a [u8]) -> io::Result<Vec<Entry<'a>>> {
        let mut entries = Vec::new();
        let mut at = 0;
        while at < table.len() {
            let entry = Entry::read(family, table, at)?;
            at += entry.bytes.len();
            entries.push(entry);
        }
        Ok(entries)
    }

    fn read(family: Family, table: &'a [u8], at: usize) -> io::Result<Entry<'a>> {
        let layout = if family == Family::V4 { &V4 } else { &V6 };
        let rest = table.get(at..).ok_or_else(malformed)?;
        let offset = |position| number(rest, position).map(usize::from);
        let (target, next) = (offset(layout.target_offset)?, offset(layout.target_offset + 2)?);
        let bytes = rest.get(..next).ok_or_else(malformed)?;
        if target < layout.matches {
            return Err(malformed());
        }
        let target = bytes.get(target..).ok_or_else(malformed)?;
        if target.len() < DATA_AT + 4 {
            return Err(malformed());
        }
        Ok(Entry { family, layout, at, bytes, target })
    }

    fn target_name(&self) -> String {
        text(&self.target[NAME_AT..NAME_AT + NAME_LEN])
    }

    /// Its verdict, if its target is one.
    fn verdict(&self) -> io::Result<i32> {
        Ok(i32::from_ne_bytes(array(&self.target[DATA_AT..DATA_AT + 4])?))
    }

    /// The name of the user's chain whose first entry follows. The table ends in such an entry too.
    fn begins_chain(&self) -> Option<String> {
        (self.target_name() == "ERROR").then(|| text(&self.target[DATA_AT..]))
    }

    fn steps(&self, table: &Table) -> io::Result<Vec<Step>> {
        let layout = self.layout;
        let mut steps = Vec::new();
        let inverted = self.bytes[layout.inverted];
        for (side, number, bit) in [(Side::In, 0, NOT_IN), (Side::Out, 1, NOT_OUT)] {
            let at = layout.devices + number * DEVICE_LEN;
            let name = self.bytes[at..at + DEVICE_LEN].to_vec();
            let at = at + 2 * DEVICE_LEN;
            let mask = self.bytes[at..at + DEVICE_LEN].to_vec();
            let is_equal = inverted & bit == 0;
            if mask.iter().any(|byte| *byte != 0) || !is_equal {
                steps.push(Step::If(Condition::Name { side, name, mask, is_equal }));
            }
        }
        for (number, bit) in [(0, NOT_FROM), (1, NOT_TO)] {
            let at = number * layout.address;
            let bytes = |at: usize| self.bytes[at..at + layout.address].to_vec();
            let (mut value, mask) = (bytes(at), bytes(at + 2 * layout.address));
            if self.family == Family::V6 {
                // Other bits do not count (`ipv6_masked_addr_cmp`).
                value.iter_mut().zip(&mask).for_each(|(byte, mask)| *byte &= mask);
            }
            let is_equal = inverted & bit == 0;
            if mask.iter().chain(&value).any(|byte| *byte != 0) || !is_equal {
                let offset = layout.header + at;
                let layer = Layer::Network;
                steps.push(Step::If(Condition::Header { layer, offset, value, mask, is_equal }));
            }
        }
        let flags = self.bytes[layout.flags];
        let protocol = number(self.bytes, layout.protocol)?;
        let tests_protocol = match layout.tests_protocol {
            0 => protocol != 0,
            flag => flags & flag != 0,
        };
        if tests_protocol {
            // Of IPv6 it drops packets whose headers it cannot follow to the end
            // (`ip6_packet_match`, net/ipv6/netfilter/ip6_tables.c).
            steps.push(Step::If(Condition::Transport));
            steps.push(Step::If(match u8::try_from(protocol) {
                Ok(protocol @ 1..) => Condition::Header {
                    layer: Layer::Protocol,
                    offset: 0,
                    value: vec![protocol],
                    mask: vec![0xff],
                    is_equal: inverted & NOT_PROTOCOL == 0,
                },
                _ => Condition::Unknown,
            }));
        }
        // Type of service, fragments: any of them may hold.
        let others = flags & !layout.goto & !layout.tests_protocol;
        let known = NOT_IN | NOT_OUT | NOT_FROM | NOT_TO | NOT_PROTOCOL;
        if others != 0 || inverted & !known != 0 {
            steps.push(Step::If(Condition::Unknown));
        }
        let mut matches = &self.bytes[layout.matches..self.bytes.len() - self.target.len()];
        while !matches.is_empty() {
            let size = usize::from(number(matches, 0)?);
            let one = matches.get(..size).filter(|one| one.len() >= DATA_AT);
            let one = one.ok_or_else(malformed)?;
            let name = text(&one[NAME_AT..NAME_AT + NAME_LEN]);
            steps.extend(xt::conditions(&name, one[REVISION_AT], &one[DATA_AT..]));
            matches = &matches[size..];
        }
        steps.push(Step::Count);
        steps.extend(self.end(table)?);
        Ok(steps)
    }

    /// The step for its target; none if it has none.
    fn end(&self, table: &Table) -> io::Result<Option<Step>> {
        let name = self.target_name();
        if !name.is_empty() {
            let (revision, data) = (self.target[REVISION_AT], &self.target[DATA_AT..]);
            return Ok(Some(xt::target(self.family, &name, revision, data)));
        }
        let step = match self.verdict()? {
            DROP => Step::Do(Effect::Drop),
            ACCEPT => Step::End(Verdict::Accept),
            RETURN => Step::End(Verdict::Return),
            other => match usize::try_from(other) {
                // A rule without a target goes to the next one.
                Ok(offset) if offset == self.at + self.bytes.len() => return Ok(None),
                Ok(offset) => {
                    let chain = *table.of_user.get(&offset).ok_or_else(malformed)?;
                    let is_goto = self.bytes[self.layout.flags] & self.layout.goto != 0;
                    let to = if is_goto { Verdict::Goto(chain) } else { Verdict::Jump(chain) };
                    Step::End(to)
                }
                Err(_) => Step::Do(Effect::Unclear(format!("verdict {other}"))),
            },
        };
        Ok(Some(step))
    }
}

fn number(bytes: &[u8], at: usize) -> io::Result<u16> {
    Ok(u16::from_ne_bytes(array(bytes.get(at..at + 2).ok_or_else(malformed)?)?))
}
