//! Events of nftables since its rules were read.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::rules::sets::TableName;
use crate::limits::ANNOUNCED_NAMES_MAX;
use crate::netlink::attribute::need;
use crate::netlink::message::Message;
use crate::netlink::numbers::{
    NFGENMSG_LEN, NFT_MSG_DELCHAIN, NFT_MSG_DELFLOWTABLE, NFT_MSG_DELOBJ, NFT_MSG_DELRULE,
    NFT_MSG_DELSET, NFT_MSG_DELSETELEM, NFT_MSG_DELTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWFLOWTABLE,
    NFT_MSG_NEWGEN, NFT_MSG_NEWOBJ, NFT_MSG_NEWRULE, NFT_MSG_NEWSET, NFT_MSG_NEWSETELEM,
    NFT_MSG_NEWTABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_TABLE, NFTA_GEN_ID, NFTA_RULE_CHAIN,
    NFTA_RULE_TABLE, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_TABLE, NFTA_SET_NAME,
    NFTA_SET_TABLE, NFTA_TABLE_NAME,
};

/// Names in tables.
type Names = BTreeMap<TableName, BTreeSet<String>>;

/// What the events of nftables named. The kernel sends those of a transaction together, and then
/// the number of its generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Some events are not known: everything must be read.
    is_incomplete: bool,
    /// The last generation that was announced or read; none if there was none yet.
    generation: Option<u32>,
    /// Events have come since.
    is_open: bool,
    tables: BTreeSet<TableName>,
    chains: Names,
    sets: Names,
    has_flowtables: bool,
    has_elements: bool,
}

/// Before the first event: nothing is known.
impl Default for Announced {
    fn default() -> Announced {
        Announced {
            is_incomplete: true,
            generation: None,
            is_open: false,
            tables: BTreeSet::new(),
            chains: Names::new(),
            sets: Names::new(),
            has_flowtables: false,
            has_elements: false,
        }
    }
}

/// The generation after this one; zero is left out (`nft_base_seq_inc`,
/// net/netfilter/nf_tables_api.c).
fn next(generation: u32) -> u32 {
    generation.wrapping_add(1).max(1)
}

fn add(names: &mut Names, table: TableName, name: String) {
    names.entry(table).or_default().insert(name);
}

fn has(names: &Names, table: &TableName, name: &str) -> bool {
    names.get(table).is_some_and(|names| names.contains(name))
}

fn is_after(generation: u32, other: u32) -> bool {
    generation.wrapping_sub(other).cast_signed() > 0
}

impl Announced {
    /// Adds an event. Returns whether it ends a transaction.
    pub fn add(&mut self, event: &Message) -> bool {
        let ends = self.parse(event).unwrap_or_else(|_| {
            self.is_incomplete = true;
            true
        });
        self.is_open = !ends;
        let names = self.chains.values().chain(self.sets.values()).map(BTreeSet::len);
        if names.sum::<usize>() > ANNOUNCED_NAMES_MAX {
            self.chains.clear();
            self.sets.clear();
            self.is_incomplete = true;
        }
        ends
    }

    fn parse(&mut self, event: &Message) -> io::Result<bool> {
        let (header, attributes) = event.split(NFGENMSG_LEN)?;
        let text = |kind| need(&attributes, kind).map(|one| one.text());
        let table = |kind| Ok::<_, io::Error>((header[0], text(kind)?));
        match event.kind {
            NFT_MSG_NEWGEN => {
                let generation = need(&attributes, NFTA_GEN_ID)?.u32_be()?;
                // A transaction whose only event could not be sent, or a missing one.
                let is_whole = self.is_open
                    && self
                        .generation
                        .is_none_or(|last| !is_after(generation, last) || generation == next(last));
                self.is_incomplete |= !is_whole;
                self.advance(generation);
                return Ok(true);
            }
            NFT_MSG_NEWTABLE | NFT_MSG_DELTABLE => {
                self.tables.insert(table(NFTA_TABLE_NAME)?);
            }
            NFT_MSG_NEWCHAIN | NFT_MSG_DELCHAIN => {
                add(&mut self.chains, table(NFTA_CHAIN_TABLE)?, text(NFTA_CHAIN_NAME)?);
            }
            NFT_MSG_NEWRULE | NFT_MSG_DELRULE => {
                add(&mut self.chains, table(NFTA_RULE_TABLE)?, text(NFTA_RULE_CHAIN)?);
            }
            NFT_MSG_NEWSET | NFT_MSG_DELSET => {
                add(&mut self.sets, table(NFTA_SET_TABLE)?, text(NFTA_SET_NAME)?);
            }
            NFT_MSG_NEWSETELEM | NFT_MSG_DELSETELEM => {
                let set = text(NFTA_SET_ELEM_LIST_SET)?;
                add(&mut self.sets, table(NFTA_SET_ELEM_LIST_TABLE)?, set);
                self.has_elements = true;
            }
            NFT_MSG_NEWFLOWTABLE | NFT_MSG_DELFLOWTABLE => self.has_flowtables = true,
            // Rules that name them are not understood anyway.
            NFT_MSG_NEWOBJ | NFT_MSG_DELOBJ => {}
            _ => self.is_incomplete = true,
        }
        Ok(false)
    }

    /// Notes that events were lost.
    pub fn lose(&mut self) {
        self.is_incomplete = true;
    }

    /// Forgets the events: the rules of that time were read. `generation`: theirs, if it is known.
    pub fn clear(&mut self, generation: Option<u32>) {
        let Announced { generation: last, is_open, .. } = *self;
        *self =
            Announced { is_incomplete: false, generation: last, is_open, ..Announced::default() };
        generation.into_iter().for_each(|generation| self.advance(generation));
    }

    fn advance(&mut self, generation: u32) {
        if self.generation.is_none_or(|last| is_after(generation, last)) {
            self.generation = Some(generation);
        }
    }

    /// Whether the kernel's generation is one that was neither announced nor read: events are
    /// missing.
    pub fn misses(&self, generation: Option<u32>) -> bool {
        generation.is_some_and(|now| self.generation.is_none_or(|last| is_after(now, last)))
    }

    /// Whether rules are to be read again. `asks_for_elements`: they were judged by elements of
    /// sets, which change by the thousand.
    pub fn concern_rules(&self, asks_for_elements: bool) -> bool {
        let has_rules = !self.tables.is_empty() || !self.chains.is_empty() || self.has_flowtables;
        has_rules || self.is_incomplete || asks_for_elements && self.has_elements
    }

    /// Whether these are all events since some generation was read, up to the current one. None:
    /// those of the current one are still to come.
    pub fn are_all(&self, since: Option<u32>, current: Option<u32>) -> Option<bool> {
        match self.is_incomplete {
            true => Some(false),
            false if since == current || self.generation == current => Some(true),
            false => None,
        }
    }

    /// Whether an event named this table.
    pub fn concern_table(&self, table: &TableName) -> bool {
        self.tables.contains(table)
    }

    /// Whether an event named this chain, or a rule in it.
    pub fn concern_chain(&self, table: &TableName, chain: &str) -> bool {
        has(&self.chains, table, chain)
    }

    /// Whether an event named this set, or elements of it.
    pub fn concern_set(&self, table: &TableName, set: &str) -> bool {
        has(&self.sets, table, set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::message::build::{attribute, message, text};

    fn rule() -> Message {
        message(NFT_MSG_NEWRULE, &[2, 0, 0, 0], &[text(1, "t"), text(2, "c")])
    }

    fn end(generation: u32) -> Message {
        message(NFT_MSG_NEWGEN, &[0; 4], &[attribute(1, &generation.to_be_bytes())])
    }

    /// Events of which the last says that this generation was reached, after reading generation 7.
    fn announced(events: &[Message]) -> Announced {
        let mut announced = Announced::default();
        announced.clear(Some(7));
        for event in events {
            announced.add(event);
        }
        announced
    }

    #[test]
    fn no_generation_may_be_missing() {
        let all = |events: &[Message], current| announced(events).are_all(Some(7), Some(current));
        assert_eq!(all(&[], 7), Some(true));
        assert_eq!(all(&[rule(), end(8)], 8), Some(true));
        assert_eq!(all(&[rule(), end(8), rule(), end(9)], 9), Some(true));
        assert_eq!(all(&[rule(), end(7), rule(), end(8)], 8), Some(true), "a late event");
        assert_eq!(all(&[rule()], 8), None, "the rest is to come");
        assert_eq!(all(&[rule(), end(8)], 9), None);
        assert_eq!(all(&[rule(), end(9)], 9), Some(false), "one is missing");
        assert_eq!(all(&[end(8)], 8), Some(false), "its event could not be sent");
        assert_eq!(all(&[rule(), end(8), end(9)], 9), Some(false));
        assert_eq!(all(&[message(0xa30, &[0; 4], &[]), end(8)], 8), Some(false), "not known");
        assert!(announced(&[]).misses(Some(8)) && !announced(&[rule(), end(8)]).misses(Some(8)));
        assert!(!announced(&[]).misses(Some(7)) && !announced(&[]).misses(None));
        let mut last = announced(&[]);
        last.clear(Some(u32::MAX));
        assert!(last.add(&end(1)) && last.is_incomplete);
        last.clear(Some(u32::MAX));
        assert!(!last.add(&rule()) && last.add(&end(1)) && !last.is_incomplete, "zero is left out");
    }

    #[test]
    fn rules_are_read_again_and_elements_only_if_they_matter() {
        let concern = |kind, asks| {
            let event = message(kind, &[2, 0, 0, 0], &[text(1, "t"), text(2, "s"), text(3, "c")]);
            announced(&[event, end(8)]).concern_rules(asks)
        };
        for kind in [NFT_MSG_NEWCHAIN, NFT_MSG_DELRULE, NFT_MSG_DELTABLE, NFT_MSG_NEWFLOWTABLE] {
            assert!(concern(kind, false), "{kind:#x}");
        }
        assert!(!concern(NFT_MSG_NEWSETELEM, false) && concern(NFT_MSG_NEWSETELEM, true));
        assert!(!concern(NFT_MSG_NEWSET, true) && !concern(NFT_MSG_NEWOBJ, true));
        assert!(concern(0xa30, false), "unknown: look");
    }

    #[test]
    fn names_are_bounded() {
        let mut announced = announced(&[]);
        for number in 0..=ANNOUNCED_NAMES_MAX {
            let name = text(2, &format!("s{number}"));
            announced.add(&message(NFT_MSG_NEWSET, &[2, 0, 0, 0], &[text(1, "t"), name]));
        }
        assert!(announced.is_incomplete && announced.sets.is_empty());
    }
}
