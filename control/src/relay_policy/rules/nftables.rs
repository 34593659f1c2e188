//! Rules of nftables as the kernel lists them (linux/netfilter/nf_tables.h), including those that
//! iptables-nft writes.

use std::collections::{BTreeMap, HashMap};
use std::io;

use super::{Chain, Condition, Effect, Rule, Side, Step, Verdict, xt_match};
use crate::netlink::attribute::{Attribute, find, need};
use crate::netlink::message::Message;
use crate::netlink::numbers::{
    NFTA_CHAIN_NAME, NFTA_CHAIN_TABLE, NFTA_CMP_DATA, NFTA_CMP_OP, NFTA_CMP_SREG, NFTA_DATA_VALUE,
    NFTA_DATA_VERDICT, NFTA_EXPR_DATA, NFTA_EXPR_NAME, NFTA_IMMEDIATE_DATA, NFTA_IMMEDIATE_DREG,
    NFTA_LOOKUP_DREG, NFTA_LOOKUP_SET, NFTA_META_DREG, NFTA_META_KEY, NFTA_RULE_CHAIN,
    NFTA_RULE_EXPRESSIONS, NFTA_RULE_HANDLE, NFTA_RULE_POSITION, NFTA_RULE_TABLE,
    NFTA_VERDICT_CHAIN, NFTA_VERDICT_CODE,
};
use crate::netlink::parse::{array, malformed};

/// Bytes of `struct nfgenmsg`; the first one is the family.
const HEADER_LEN: usize = 4;
/// Four-byte slots of the registers: 1 to 4 are four slots each, 8 to 23 one each, of the same
/// memory (`nft_parse_register`, net/netfilter/nf_tables_api.c).
const SLOTS: usize = 16;
/// Bytes of an interface's name (IFNAMSIZ).
const NAME_LEN: usize = 16;

/// The chains of one table, with their rules.
#[derive(Default)]
pub struct Table {
    /// The chains; those with a hook too.
    pub chains: Vec<Chain>,
    numbers: HashMap<String, usize>,
}

/// Tables by their family (NFPROTO_*) and name.
pub type Tables = BTreeMap<(u8, String), Table>;

/// Reads the kernel's lists of chains and rules.
///
/// # Errors
/// InvalidData: a message is malformed. Interrupted: the lists contradict each other: two chains
/// have one name, a rule belongs to no chain, or one is missing. While a transaction is prepared,
/// the kernel may list chains twice and skip rules, of the same generation.
pub fn tables(chains: &[Message], rules: &[Message]) -> io::Result<Tables> {
    let mut tables = Tables::new();
    for message in chains {
        let (header, attributes) = message.split(HEADER_LEN)?;
        let table = (header[0], need(&attributes, NFTA_CHAIN_TABLE)?.text());
        let name = need(&attributes, NFTA_CHAIN_NAME)?.text();
        let table = tables.entry(table).or_default();
        if table.numbers.insert(name.clone(), table.chains.len()).is_some() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        table.chains.push(Chain { name, rules: Vec::new() });
    }
    for message in rules {
        let (header, attributes) = message.split(HEADER_LEN)?;
        let table = (header[0], need(&attributes, NFTA_RULE_TABLE)?.text());
        let contradiction = || io::Error::from(io::ErrorKind::Interrupted);
        let table = tables.get_mut(&table).ok_or_else(contradiction)?;
        let chain = need(&attributes, NFTA_RULE_CHAIN)?.text();
        let chain = table.number_of(&chain).map_err(|_| contradiction())?;
        let handle = u64::from_be_bytes(array(need(&attributes, NFTA_RULE_HANDLE)?.value)?);
        // The rule before this one, if any.
        let before =
            find(&attributes, NFTA_RULE_POSITION).map(|one| array(one.value)).transpose()?;
        let known = table.chains[chain].rules.last().map(|rule| &rule.label);
        if before.map(|handle| label(u64::from_be_bytes(handle))).as_ref() != known {
            return Err(contradiction());
        }
        let expressions = need(&attributes, NFTA_RULE_EXPRESSIONS)?.nested()?;
        let steps = table.steps(&expressions)?;
        table.chains[chain].rules.push(Rule { label: label(handle), steps });
    }
    Ok(tables)
}

fn label(handle: u64) -> String {
    format!("handle {handle}")
}

impl Table {
    /// The index of a chain.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn number_of(&self, chain: &str) -> io::Result<usize> {
        self.numbers.get(chain).copied().ok_or_else(malformed)
    }

    fn steps(&self, expressions: &[Attribute<'_>]) -> io::Result<Vec<Step>> {
        let mut reader = Reader { table: self, registers: [Slot::Unknown; SLOTS], steps: vec![] };
        for expression in expressions {
            let parts = expression.nested()?;
            let name = need(&parts, NFTA_EXPR_NAME)?.text();
            let data = find(&parts, NFTA_EXPR_DATA).map_or(Ok(Vec::new()), |data| data.nested())?;
            if reader.expression(&name, &data).is_err() {
                reader.steps.push(Step::Do(Effect::Unclear(name)));
            }
        }
        Ok(reader.steps)
    }
}

/// What is known about four bytes of the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Unknown,
    /// Bytes of an interface's name, from four times this on.
    Name(Side, usize),
    Index(Side),
    /// NFPROTO_*, in the first byte.
    Version,
}

struct Reader<'a> {
    table: &'a Table,
    registers: [Slot; SLOTS],
    steps: Vec<Step>,
}

impl Reader<'_> {
    /// See net/netfilter/nft_*.c for what each expression does.
    fn expression(&mut self, name: &str, data: &[Attribute<'_>]) -> io::Result<()> {
        match name {
            "meta" => self.meta(data),
            "cmp" => self.compare(data),
            "immediate" => self.immediate(data),
            "payload" | "ct" | "exthdr" | "fib" | "rt" | "bitwise" | "byteorder" | "hash" => {
                self.load(name, data)
            }
            "range" => {
                self.unknown();
                Ok(())
            }
            "lookup" => self.look_up(data),
            "counter" => {
                self.steps.push(Step::Count);
                Ok(())
            }
            "reject" => self.effect(Effect::Drop),
            "match" => {
                let name = need(data, 1)?.text();
                self.steps.push(xt_match(&name));
                Ok(())
            }
            "target" => {
                let name = need(data, 1)?.text();
                self.effect(Effect::Apply(name))
            }
            "log" | "nat" | "masq" | "redir" | "queue" | "dup" | "fwd" | "tproxy" | "synproxy"
            | "notrack" | "flow_offload" => self.effect(Effect::Apply(name.to_owned())),
            _ => self.effect(Effect::Unclear(name.to_owned())),
        }
    }

    /// The set of a rule itself has no more than what is written in the rule. Elements of others
    /// may have quotas and limits.
    fn look_up(&mut self, data: &[Attribute<'_>]) -> io::Result<()> {
        /// `nf_tables_set_alloc_name`: nft(8) numbers the sets of rules.
        const OF_A_RULE: [&str; 2] = ["__set", "__map"];
        let set = need(data, NFTA_LOOKUP_SET)?.text();
        let register = find(data, NFTA_LOOKUP_DREG).map(|to| to.u32_be()).transpose()?;
        if register == Some(0) {
            return self.effect(Effect::Unclear("a verdict map".to_owned()));
        }
        if !OF_A_RULE.iter().any(|prefix| set.starts_with(prefix)) {
            return self.effect(Effect::Unclear(format!("set {set}")));
        }
        self.steps.push(Step::LookUp);
        register.map_or(Ok(()), |register| self.write(register, &[]))
    }

    fn effect(&mut self, effect: Effect) -> io::Result<()> {
        self.steps.push(Step::Do(effect));
        Ok(())
    }

    fn unknown(&mut self) {
        self.steps.push(Step::If(Condition::Unknown));
    }

    /// An expression that loads what is not known here into a register, or writes from one to the
    /// packet. Where there is nothing to load, the rule does not apply.
    fn load(&mut self, name: &str, data: &[Attribute<'_>]) -> io::Result<()> {
        // NFTA_*_DREG, and NFTA_*_SREG of those that write.
        let (to, from) = match name {
            "payload" => (1, Some(5)),
            "ct" => (1, Some(4)),
            "exthdr" => (1, Some(7)),
            "bitwise" | "byteorder" | "hash" => (2, None),
            _ => (1, None),
        };
        if from.is_some_and(|from| find(data, from).is_some()) {
            return self.effect(Effect::Apply(format!("{name} set")));
        }
        self.unknown();
        self.write(need(data, to)?.u32_be()?, &[])
    }

    fn meta(&mut self, data: &[Attribute<'_>]) -> io::Result<()> {
        const KEYS: [(i32, Side, bool); 4] = [
            (libc::NFT_META_IIFNAME, Side::In, true),
            (libc::NFT_META_OIFNAME, Side::Out, true),
            (libc::NFT_META_IIF, Side::In, false),
            (libc::NFT_META_OIF, Side::Out, false),
        ];
        let Some(register) = find(data, NFTA_META_DREG) else {
            return self.effect(Effect::Apply("meta set".to_owned()));
        };
        let register = register.u32_be()?;
        let key = need(data, NFTA_META_KEY)?.u32_be()?.cast_signed();
        if key == libc::NFT_META_NFPROTO {
            return self.write(register, &[Slot::Version]);
        }
        match KEYS.iter().find(|(known, ..)| *known == key) {
            Some((_, side, true)) => {
                self.write(register, &[0, 1, 2, 3].map(|word| Slot::Name(*side, word)))
            }
            Some((_, side, false)) => self.write(register, &[Slot::Index(*side)]),
            None => {
                self.unknown();
                self.write(register, &[])
            }
        }
    }

    /// Writes to a register what is known, and forgets everything behind it: how much an expression
    /// writes is not always known.
    fn write(&mut self, register: u32, known: &[Slot]) -> io::Result<()> {
        let first = slot_of(register)?;
        self.registers[first..].fill(Slot::Unknown);
        let to = self.registers.get_mut(first..first + known.len()).ok_or_else(malformed)?;
        to.copy_from_slice(known);
        Ok(())
    }

    fn compare(&mut self, data: &[Attribute<'_>]) -> io::Result<()> {
        const EQUAL: u32 = 0;
        const NOT_EQUAL: u32 = 1;
        let first = slot_of(need(data, NFTA_CMP_SREG)?.u32_be()?)?;
        let operation = need(data, NFTA_CMP_OP)?.u32_be()?;
        let value = need(&need(data, NFTA_CMP_DATA)?.nested()?, NFTA_DATA_VALUE)?.value;
        let is_equal = operation == EQUAL;
        let condition = match (self.registers[first], value.len()) {
            _ if operation > NOT_EQUAL => Condition::Unknown,
            // The name is whole in its register, unless its slots were written to since.
            (Slot::Name(side, 0), 1..=NAME_LEN) if self.has_name(first, side, value.len()) => {
                let mask = vec![0xff; value.len()];
                Condition::Name { side, name: value.to_vec(), mask, is_equal }
            }
            (Slot::Index(side), 4) => {
                let index = u32::from_ne_bytes(array(value)?);
                Condition::Index { side, index, is_equal }
            }
            (Slot::Version, 1) => Condition::Version { version: value[0], is_equal },
            _ => Condition::Unknown,
        };
        self.steps.push(Step::If(condition));
        Ok(())
    }

    fn has_name(&self, first: usize, side: Side, length: usize) -> bool {
        (0..length.div_ceil(4))
            .all(|word| self.registers.get(first + word) == Some(&Slot::Name(side, word)))
    }

    fn immediate(&mut self, data: &[Attribute<'_>]) -> io::Result<()> {
        let register = need(data, NFTA_IMMEDIATE_DREG)?.u32_be()?;
        if register != 0 {
            return self.write(register, &[]);
        }
        let value = need(data, NFTA_IMMEDIATE_DATA)?.nested()?;
        let verdict = need(&value, NFTA_DATA_VERDICT)?.nested()?;
        let code = need(&verdict, NFTA_VERDICT_CODE)?.u32_be()?.cast_signed();
        let target = || self.table.number_of(&need(&verdict, NFTA_VERDICT_CHAIN)?.text());
        let step = match code {
            libc::NFT_CONTINUE => return Ok(()),
            libc::NF_DROP => Step::Do(Effect::Drop),
            libc::NF_ACCEPT => Step::End(Verdict::Accept),
            libc::NFT_JUMP => Step::End(Verdict::Jump(target()?)),
            libc::NFT_GOTO => Step::End(Verdict::Goto(target()?)),
            libc::NFT_RETURN => Step::End(Verdict::Return),
            other => Step::Do(Effect::Unclear(format!("verdict {other}"))),
        };
        self.steps.push(step);
        Ok(())
    }
}

fn slot_of(register: u32) -> io::Result<usize> {
    match register {
        1..=4 => Ok((register as usize - 1) * 4),
        8..=23 => Ok(register as usize - 8),
        _ => Err(malformed()),
    }
}
