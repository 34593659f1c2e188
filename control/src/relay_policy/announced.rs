//! Events of nftables since its rules were read.

use std::collections::BTreeSet;
use std::io;

use super::rules::sets::{self, TableName};
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

/// What the events of nftables named. The kernel sends those of a transaction together, and then
/// the number of its generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Some events are not known: everything must be read.
    is_incomplete: bool,
    /// The last generation; none if none was announced yet.
    generation: Option<u32>,
    tables: BTreeSet<TableName>,
    chains: BTreeSet<(TableName, String)>,
    sets: BTreeSet<sets::Name>,
    has_flowtables: bool,
    has_elements: bool,
}

/// Before the first event: nothing is known.
impl Default for Announced {
    fn default() -> Announced {
        Announced {
            is_incomplete: true,
            generation: None,
            tables: BTreeSet::new(),
            chains: BTreeSet::new(),
            sets: BTreeSet::new(),
            has_flowtables: false,
            has_elements: false,
        }
    }
}

impl Announced {
    /// Adds an event. Returns whether it ends a transaction.
    pub fn add(&mut self, event: &Message) -> bool {
        self.parse(event).unwrap_or_else(|_| {
            self.is_incomplete = true;
            true
        })
    }

    fn parse(&mut self, event: &Message) -> io::Result<bool> {
        let (header, attributes) = event.split(NFGENMSG_LEN)?;
        let text = |kind| need(&attributes, kind).map(|one| one.text());
        let table = |kind| Ok::<_, io::Error>((header[0], text(kind)?));
        match event.kind {
            NFT_MSG_NEWGEN => {
                self.generation = Some(need(&attributes, NFTA_GEN_ID)?.u32_be()?);
                return Ok(true);
            }
            NFT_MSG_NEWTABLE | NFT_MSG_DELTABLE => {
                self.tables.insert(table(NFTA_TABLE_NAME)?);
            }
            NFT_MSG_NEWCHAIN | NFT_MSG_DELCHAIN => {
                self.chains.insert((table(NFTA_CHAIN_TABLE)?, text(NFTA_CHAIN_NAME)?));
            }
            NFT_MSG_NEWRULE | NFT_MSG_DELRULE => {
                self.chains.insert((table(NFTA_RULE_TABLE)?, text(NFTA_RULE_CHAIN)?));
            }
            NFT_MSG_NEWSET | NFT_MSG_DELSET => {
                self.sets.insert((header[0], text(NFTA_SET_TABLE)?, text(NFTA_SET_NAME)?));
            }
            NFT_MSG_NEWSETELEM | NFT_MSG_DELSETELEM => {
                let set = text(NFTA_SET_ELEM_LIST_SET)?;
                self.sets.insert((header[0], text(NFTA_SET_ELEM_LIST_TABLE)?, set));
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

    /// Forgets the events: the rules of that time were read.
    pub fn clear(&mut self) {
        *self =
            Announced { is_incomplete: false, generation: self.generation, ..Announced::default() };
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
        self.chains.contains(&(table.clone(), chain.to_owned()))
    }

    /// Whether an event named this set, or elements of it.
    pub fn concern_set(&self, table: &TableName, set: &str) -> bool {
        self.sets.contains(&(table.0, table.1.clone(), set.to_owned()))
    }
}
