//! Tables of nftables, read chain by chain. After a change, only those chains are read again that
//! an event named, or whose rules look up a set that an event named.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use super::sets::{Name, Set, Sets, TableName};
use super::{Chain, Effect, Rule, Step, Verdict, nftables};
use crate::netlink::attribute::{find, need};
use crate::netlink::message::Message;
use crate::netlink::numbers::{
    NFGENMSG_LEN, NFTA_CHAIN_HANDLE, NFTA_CHAIN_NAME, NFTA_CHAIN_TABLE, NFTA_CHAIN_USE,
    NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS, NFTA_RULE_HANDLE, NFTA_RULE_POSITION, NFTA_RULE_TABLE,
};
use crate::netlink::parse::{array, malformed};
use crate::relay_policy::announced::Announced;

/// Rules that could be listed in the time that a request takes.
const RULES_PER_REQUEST: u32 = 8;

/// Tables by their names.
pub type Tables = BTreeMap<TableName, Table>;

/// The chains of one table, with their rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The chains; those with a hook too.
    pub chains: Arc<Vec<Chain>>,
    numbers: HashMap<String, usize>,
    /// The handles of the chains. Another chain never has the same, and one that is renamed keeps
    /// it.
    handles: Vec<u64>,
    /// The sets that the rules of each chain name, by the chain's index.
    sets: Vec<NamedSets>,
}

/// Sets of a table by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct NamedSets {
    looked_up: BTreeSet<String>,
    /// Packets add or remove elements.
    updated: BTreeSet<String>,
}

impl Table {
    /// The index of a chain.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn number_of(&self, chain: &str) -> io::Result<usize> {
        self.numbers.get(chain).copied().ok_or_else(malformed)
    }

    /// Number of rules that the kernel listed for a chain, by its index.
    pub fn listed_rules(&self, chain: usize) -> usize {
        let chain = &self.chains[chain];
        chain.rules.len() - usize::from(has_unlisted(chain))
    }

    /// Whether a chain has another name in this list. No event names the rules that jump to it.
    fn has_other_names(&self, listed: &[ListedChain]) -> bool {
        let names: HashMap<u64, &String> =
            listed.iter().map(|chain| (chain.handle, &chain.name)).collect();
        let is_other = |(chain, handle): (&Chain, &u64)| {
            names.get(handle).is_some_and(|name| **name != chain.name)
        };
        self.chains.iter().zip(&self.handles).any(is_other)
    }

    fn updated_sets(&self) -> BTreeSet<&String> {
        self.sets.iter().flat_map(|sets| &sets.updated).collect()
    }
}

/// A chain in the kernel's list.
struct ListedChain {
    name: String,
    handle: u64,
    uses: u32,
}

/// Rules to be asked for: those of a table, or of one of its chains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The table.
    pub table: TableName,
    /// The chain; none: all.
    pub chain: Option<String>,
}

/// Tables that are being read.
pub struct Draft<'a> {
    before: Option<&'a Tables>,
    tables: BTreeMap<TableName, DraftTable>,
}

#[derive(Default)]
struct DraftTable {
    table: Table,
    /// By the index of the chain.
    content: Vec<Content>,
    /// Rules, and jumps to the chain.
    uses: Vec<u32>,
}

enum Content {
    Missing,
    Known,
    Listed(Vec<Message>),
}

impl Draft<'_> {
    /// The tables that `matter` in the kernel's list of chains, without their rules but those of
    /// `before` that are still the same.
    ///
    /// # Errors
    /// InvalidData: a message is malformed. Interrupted: two chains have one name. While a
    /// transaction is prepared, the kernel may list chains twice and skip rules, of the same
    /// generation.
    pub fn new<'a>(
        chains: &[Message],
        matter: impl Fn(&TableName) -> bool,
        before: Option<(&'a Tables, &Announced)>,
    ) -> io::Result<Draft<'a>> {
        let mut listed: BTreeMap<TableName, Vec<ListedChain>> = BTreeMap::new();
        for message in chains {
            let (header, attributes) = message.split(NFGENMSG_LEN)?;
            let table = (header[0], need(&attributes, NFTA_CHAIN_TABLE)?.text());
            if matter(&table) {
                listed.entry(table).or_default().push(ListedChain {
                    name: need(&attributes, NFTA_CHAIN_NAME)?.text(),
                    handle: u64::from_be_bytes(array(need(&attributes, NFTA_CHAIN_HANDLE)?.value)?),
                    uses: find(&attributes, NFTA_CHAIN_USE).map_or(Ok(0), |one| one.u32_be())?,
                });
            }
        }
        let mut tables = BTreeMap::new();
        for (name, chains) in listed {
            let known =
                before.and_then(|(tables, announced)| Some((tables.get(&name)?, announced)));
            let known = known.filter(|(table, announced)| {
                !announced.concern_table(&name) && !table.has_other_names(&chains)
            });
            let mut draft = DraftTable::new(chains, known.map(|(table, _)| table))?;
            if let Some((table, announced)) = known {
                draft.take_over(table, &name, announced);
            }
            tables.insert(name, draft);
        }
        Ok(Draft { before: before.map(|(tables, _)| tables), tables })
    }

    /// The rules that are still missing, and their number, with jumps. A table is asked for as a
    /// whole if that is less work than asking for each chain that is missing.
    pub fn missing(&self) -> (Vec<Part>, u32) {
        let (mut parts, mut count) = (Vec::new(), 0u32);
        for (name, draft) in &self.tables {
            let missing: Vec<_> = draft.missing().collect();
            let part = |chain| Part { table: name.clone(), chain };
            let rules = sum(missing.iter().map(|at| draft.uses[*at]));
            let requests = RULES_PER_REQUEST.saturating_mul(missing.len() as u32);
            if missing.len() > 1 && rules.saturating_add(requests) > draft.rules() {
                parts.push(part(None));
                count = count.saturating_add(draft.rules());
            } else {
                let chains = missing.iter().map(|at| draft.table.chains[*at].name.clone());
                parts.extend(chains.map(|chain| part(Some(chain))));
                count = count.saturating_add(rules);
            }
        }
        (parts, count)
    }

    /// Number of rules in all these tables, and jumps.
    pub fn rules(&self) -> u32 {
        sum(self.tables.values().map(DraftTable::rules))
    }

    /// Adds the kernel's list of the rules of a part.
    ///
    /// # Errors
    /// InvalidData: a message is malformed. Interrupted: a rule is of another part.
    pub fn add(&mut self, part: &Part, rules: Vec<Message>) -> io::Result<()> {
        let draft = self.tables.get_mut(&part.table).ok_or_else(contradiction)?;
        for (at, content) in draft.content.iter_mut().enumerate() {
            if part.chain.as_ref().is_none_or(|chain| draft.table.chains[at].name == *chain) {
                *content = Content::Listed(Vec::new());
                draft.table.sets[at] = NamedSets::default();
            }
        }
        for message in rules {
            let (header, attributes) = message.split(NFGENMSG_LEN)?;
            let table = need(&attributes, NFTA_RULE_TABLE)?.text();
            let chain = need(&attributes, NFTA_RULE_CHAIN)?.text();
            let at = draft.table.number_of(&chain).map_err(|_| contradiction())?;
            if (header[0], &table) != (part.table.0, &part.table.1) {
                return Err(contradiction());
            }
            let expressions = need(&attributes, NFTA_RULE_EXPRESSIONS)?.nested()?;
            draft.table.sets[at].updated.extend(nftables::updated_sets(&expressions)?);
            match &mut draft.content[at] {
                Content::Listed(rules) => rules.push(message),
                _ => return Err(contradiction()),
            }
        }
        Ok(())
    }

    /// Forgets chains whose rules look up sets that packets change now and did not before, or the
    /// reverse: they are missing then.
    pub fn forget_affected(&mut self) {
        for (name, draft) in &mut self.tables {
            let Some(before) = self.before.and_then(|tables| tables.get(name)) else { continue };
            let changed: BTreeSet<String> = before
                .updated_sets()
                .symmetric_difference(&draft.table.updated_sets())
                .map(|set| (*set).clone())
                .collect();
            for (content, sets) in draft.content.iter_mut().zip(&mut draft.table.sets) {
                if matches!(content, Content::Known) && !sets.looked_up.is_disjoint(&changed) {
                    (*content, *sets) = (Content::Missing, NamedSets::default());
                }
            }
        }
    }

    /// The sets whose elements packets add or remove, in whatever chain: a set need not be declared
    /// as dynamic for that, and the kernel announces no such change.
    pub fn updated_sets(&self) -> impl Iterator<Item = Name> {
        self.tables.iter().flat_map(|((family, table), draft)| {
            let sets = draft.table.updated_sets().into_iter();
            sets.map(|set| (*family, table.clone(), set.clone()))
        })
    }

    /// Reads the rules that were listed. `is_last`: a chain that may have more is not understood.
    ///
    /// # Errors
    /// InvalidData: a message is malformed. Interrupted: a rule is missing. Those of reading sets.
    pub fn finish(self, sets: &mut dyn Sets, is_last: bool) -> io::Result<Tables> {
        let mut tables = Tables::new();
        for (name, draft) in self.tables {
            let before = self.before.and_then(|tables| tables.get(&name));
            let table = draft.finish(&name, sets, before, is_last)?;
            tables.insert(name, table);
        }
        Ok(tables)
    }
}

impl DraftTable {
    /// A table with these chains. Rules name chains by their indices, so those of `before` keep
    /// theirs; a chain that is gone leaves an empty one without a name, until another takes its
    /// place.
    fn new(listed: Vec<ListedChain>, before: Option<&Table>) -> io::Result<DraftTable> {
        let mut draft = DraftTable::default();
        let mut others = Vec::new();
        for chain in listed {
            let number = before.and_then(|table| {
                let number = *table.numbers.get(&chain.name)?;
                (table.handles[number] == chain.handle).then_some(number)
            });
            match number {
                Some(number) => draft.add(number, chain)?,
                None => others.push(chain),
            }
        }
        let mut next = 0;
        for chain in others {
            while draft.table.chains.get(next).is_some_and(|known| !known.name.is_empty()) {
                next += 1;
            }
            draft.add(next, chain)?;
        }
        Ok(draft)
    }

    fn add(&mut self, number: usize, listed: ListedChain) -> io::Result<()> {
        let Table { chains, numbers, handles, sets } = &mut self.table;
        let ListedChain { name, handle, uses } = listed;
        if numbers.insert(name.clone(), number).is_some() {
            return Err(contradiction());
        }
        let chains = Arc::make_mut(chains);
        if chains.len() <= number {
            chains.resize_with(number + 1, Chain::default);
            handles.resize(number + 1, 0);
            sets.resize_with(number + 1, NamedSets::default);
            self.content.resize_with(number + 1, || Content::Known);
            self.uses.resize(number + 1, 0);
        }
        chains[number].name = name;
        handles[number] = handle;
        self.content[number] = Content::Missing;
        self.uses[number] = uses;
        Ok(())
    }

    /// Takes over the rules of chains that no event concerns.
    fn take_over(&mut self, before: &Table, name: &TableName, announced: &Announced) {
        let chains = Arc::make_mut(&mut self.table.chains);
        for (at, (chain, known)) in chains.iter_mut().zip(before.chains.iter()).enumerate() {
            let sets = &before.sets[at];
            if self.table.handles[at] == before.handles[at]
                && !has_unlisted(known)
                && !announced.concern_chain(name, &chain.name)
                && !sets.looked_up.iter().any(|set| announced.concern_set(name, set))
            {
                chain.rules = Arc::clone(&known.rules);
                self.table.sets[at] = sets.clone();
                self.content[at] = Content::Known;
            }
        }
    }

    fn missing(&self) -> impl Iterator<Item = usize> {
        let is_missing = |at: &usize| matches!(self.content[*at], Content::Missing);
        (0..self.content.len()).filter(is_missing)
    }

    /// Number of its rules, and jumps.
    fn rules(&self) -> u32 {
        sum(self.uses.iter().copied())
    }

    fn finish(
        self,
        name: &TableName,
        sets: &mut dyn Sets,
        before: Option<&Table>,
        is_last: bool,
    ) -> io::Result<Table> {
        let DraftTable { mut table, content, uses } = self;
        let mut chains = Arc::unwrap_or_clone(table.chains);
        for (at, content) in content.into_iter().enumerate() {
            let Content::Listed(messages) = content else { continue };
            let mut recorder = Recorder { sets, names: BTreeSet::new() };
            let rules = rules(&messages, name, &table.numbers, &mut recorder)?;
            table.sets[at].looked_up = recorder.names;
            chains[at].rules = Arc::new(rules);
        }
        let jumps = jumps(&chains);
        for (at, chain) in chains.iter_mut().enumerate() {
            if chain.rules.len() + jumps[at] >= uses[at] as usize {
                continue;
            }
            // It may be different in a moment, unless it was so before.
            let number = before.and_then(|table| table.numbers.get(&chain.name));
            let was_so = number.is_some_and(|number| {
                before.is_some_and(|table| has_unlisted(&table.chains[*number]))
            });
            if !is_last && !was_so {
                return Err(contradiction());
            }
            Arc::make_mut(&mut chain.rules).push(unlisted());
        }
        table.chains = Arc::new(chains);
        Ok(table)
    }
}

/// Reads the kernel's list of a chain's rules.
fn rules(
    messages: &[Message],
    (family, table): &TableName,
    numbers: &HashMap<String, usize>,
    sets: &mut dyn Sets,
) -> io::Result<Vec<Rule>> {
    let mut last = None;
    let mut rules = Vec::with_capacity(messages.len());
    for message in messages {
        let (_, attributes) = message.split(NFGENMSG_LEN)?;
        let number = |kind| find(&attributes, kind).map(|one| array(one.value)).transpose();
        // The rule before this one, if any.
        if number(NFTA_RULE_POSITION)?.map(u64::from_be_bytes) != last {
            return Err(contradiction());
        }
        let handle = u64::from_be_bytes(number(NFTA_RULE_HANDLE)?.ok_or_else(malformed)?);
        last = Some(handle);
        let expressions = need(&attributes, NFTA_RULE_EXPRESSIONS)?.nested()?;
        let steps = nftables::steps(numbers, (*family, table), &expressions, sets)?;
        rules.push(Rule { label: format!("handle {handle}"), steps });
    }
    Ok(rules)
}

/// Stands for rules that the kernel has not listed: it counts more than it lists, and than jump to
/// the chain. It does not list a rule of more than 32 KiB, nor what follows.
fn unlisted() -> Rule {
    let steps = vec![Step::Do(Effect::Unclear("a rule that the kernel does not list".to_owned()))];
    Rule { label: String::new(), steps }
}

fn has_unlisted(chain: &Chain) -> bool {
    // Other rules have labels.
    chain.rules.last().is_some_and(|rule| rule.label.is_empty())
}

/// Number of jumps and gotos to each chain, by its index.
fn jumps(chains: &[Chain]) -> Vec<usize> {
    let mut jumps = vec![0; chains.len()];
    let mut count = |step: &Step| {
        if let Step::End(Verdict::Jump(to) | Verdict::Goto(to)) = step {
            jumps[*to] += 1;
        }
    };
    for step in chains.iter().flat_map(|chain| chain.rules.iter()).flat_map(|rule| &rule.steps) {
        match step {
            Step::Choose { cases, otherwise } => {
                cases.iter().for_each(|(_, step)| count(step));
                otherwise.iter().for_each(|step| count(step));
            }
            step => count(step),
        }
    }
    jumps
}

fn sum(numbers: impl Iterator<Item = u32>) -> u32 {
    numbers.fold(0, u32::saturating_add)
}

/// The kernel's lists are of different moments.
fn contradiction() -> io::Error {
    io::ErrorKind::Interrupted.into()
}

/// Sets, and the names of those that were read.
struct Recorder<'a> {
    sets: &'a mut dyn Sets,
    names: BTreeSet<String>,
}

impl Sets for Recorder<'_> {
    fn read(&mut self, name: &Name) -> io::Result<Option<Rc<Set>>> {
        self.names.insert(name.2.clone());
        self.sets.read(name)
    }
}
