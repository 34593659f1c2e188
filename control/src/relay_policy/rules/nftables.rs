//! Rules of nftables as the kernel lists them (linux/netfilter/nf_tables.h), including those that
//! iptables-nft writes.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use wg_bounce_dataplane::ip::V6_HEADER_LEN;

use super::registers::{self, Registers, Slot};
use super::sets::{Element, Sets};
use super::{Condition, Effect, Layer, NewAddress, NewPort, Side, Step, Verdict, exthdr, nat, xt};
use crate::netlink::attribute::{Attribute, attributes, find, need};
use crate::netlink::numbers::{
    NFT_CT_STATE, NFT_FIB_RESULT_ADDRTYPE, NFT_LOOKUP_F_INV, NFTA_BITWISE_DREG, NFTA_BITWISE_MASK,
    NFTA_BITWISE_OP, NFTA_BITWISE_SREG, NFTA_BITWISE_XOR, NFTA_CMP_DATA, NFTA_CMP_OP,
    NFTA_CMP_SREG, NFTA_CT_DREG, NFTA_CT_KEY, NFTA_DATA_VALUE, NFTA_DATA_VERDICT,
    NFTA_DYNSET_SET_NAME, NFTA_EXPR_DATA, NFTA_EXPR_NAME, NFTA_EXTHDR_DREG, NFTA_FIB_DREG,
    NFTA_FIB_F_DADDR, NFTA_FIB_FLAGS, NFTA_FIB_RESULT, NFTA_IMMEDIATE_DATA, NFTA_IMMEDIATE_DREG,
    NFTA_LOOKUP_DREG, NFTA_LOOKUP_FLAGS, NFTA_LOOKUP_SET, NFTA_LOOKUP_SREG, NFTA_META_DREG,
    NFTA_META_KEY, NFTA_PAYLOAD_BASE, NFTA_PAYLOAD_DREG, NFTA_PAYLOAD_LEN, NFTA_PAYLOAD_OFFSET,
    NFTA_PAYLOAD_SREG, NFTA_RANGE_FROM, NFTA_RANGE_OP, NFTA_RANGE_SREG, NFTA_RANGE_TO,
    NFTA_VERDICT_CHAIN, NFTA_VERDICT_CODE,
};
use crate::netlink::parse::malformed;

/// Bytes of the ports in a header of TCP or UDP, and the least of any whole transport header
/// (`has_whole_header`).
const PORTS_LEN: usize = 4;

/// The offset of the flags in a TCP header.
const TCP_FLAGS_AT: u32 = 13;

/// Reads the expressions of a rule. `chains`: the indices of its table's chains, by their names.
/// `table`: the family (NFPROTO_*) and the name of the table.
///
/// # Errors
/// InvalidData: a message is malformed. Those of reading sets.
pub fn steps(
    chains: &HashMap<String, usize>,
    (family, table): (u8, &str),
    expressions: &[Attribute<'_>],
    sets: &mut dyn Sets,
) -> io::Result<Vec<Step>> {
    let (registers, steps) = (Registers::new(), Vec::new());
    let mut reader = Reader { chains, table, family, sets, registers, steps };
    for expression in expressions {
        let parts = expression.nested()?;
        let name = need(&parts, NFTA_EXPR_NAME)?.text();
        let data = find(&parts, NFTA_EXPR_DATA).map_or(Ok(Vec::new()), |data| data.nested())?;
        match reader.expression(&name, &data) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                reader.steps.push(Step::Do(Effect::Unclear(name)));
            }
            result => result?,
        }
    }
    Ok(reader.steps)
}

/// The names of the sets that the expressions of a rule change.
///
/// # Errors
/// InvalidData: a message is malformed.
pub fn updated_sets(expressions: &[Attribute<'_>]) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for expression in expressions {
        let parts = expression.nested()?;
        if need(&parts, NFTA_EXPR_NAME)?.text() == "dynset" {
            let data = need(&parts, NFTA_EXPR_DATA)?.nested()?;
            names.push(need(&data, NFTA_DYNSET_SET_NAME)?.text());
        }
    }
    Ok(names)
}

struct Reader<'a> {
    /// The indices of the table's chains.
    chains: &'a HashMap<String, usize>,
    /// The name of the table.
    table: &'a str,
    sets: &'a mut dyn Sets,
    /// NFPROTO_* of the table.
    family: u8,
    registers: Registers,
    steps: Vec<Step>,
}

impl Reader<'_> {
    /// The step of a verdict; none if it goes on.
    fn verdict(&self, verdict: &[Attribute<'_>]) -> io::Result<Option<Step>> {
        let code = need(verdict, NFTA_VERDICT_CODE)?.u32_be()?.cast_signed();
        let target = || {
            let name = need(verdict, NFTA_VERDICT_CHAIN)?.text();
            self.chains.get(&name).copied().ok_or_else(malformed)
        };
        Ok(Some(match code {
            libc::NFT_CONTINUE => return Ok(None),
            libc::NF_DROP => Step::Do(Effect::Drop),
            libc::NF_ACCEPT => Step::End(Verdict::Accept),
            libc::NFT_JUMP => Step::End(Verdict::Jump(target()?)),
            libc::NFT_GOTO => Step::End(Verdict::Goto(target()?)),
            libc::NFT_RETURN => Step::End(Verdict::Return),
            other => Step::Do(Effect::Unclear(format!("verdict {other}"))),
        }))
    }

    /// See net/netfilter/nft_*.c for what each expression does.
    fn expression(&mut self, name: &str, data: &[Attribute<'_>]) -> io::Result<()> {
        match name {
            "meta" => self.meta(data),
            "cmp" => self.compare(data),
            "immediate" => self.immediate(data),
            "payload" => self.payload(data),
            "fib" => self.fib(data),
            "bitwise" => self.bitwise(data),
            "exthdr" if exthdr::is_mss(data) => {
                self.steps.push(Step::Clamp("tcp option maxseg".to_owned()));
                Ok(())
            }
            "exthdr" if exthdr::is_of_extension(data) => {
                self.steps.push(Step::If(Condition::Extension));
                self.write(need(data, NFTA_EXTHDR_DREG)?.u32_be()?, &[])
            }
            "ct" if is_state(data)? => {
                self.write(need(data, NFTA_CT_DREG)?.u32_be()?, &[Slot::State(u32::MAX)])
            }
            "ct" | "exthdr" | "rt" | "byteorder" | "hash" => self.load(name, data),
            "range" => self.range(data),
            "lookup" => self.look_up(data),
            "counter" => {
                self.steps.push(Step::Count);
                Ok(())
            }
            "reject" => self.effect(Effect::Drop),
            "match" => {
                let (name, revision, info) = of_x_tables(data)?;
                self.steps.extend(xt::conditions(&name, revision, info));
                Ok(())
            }
            "target" => {
                let (name, revision, info) = of_x_tables(data)?;
                // They exist in tables of one IP version only.
                self.steps.push(match nat::ip_version(self.family.into()) {
                    Some(family) => xt::target(family, &name, revision, info),
                    None => Step::Do(Effect::Apply(name)),
                });
                Ok(())
            }
            "nat" => {
                let registers = &self.registers;
                let to = (nat::new_address(registers, data)?, nat::new_port(registers, data)?);
                self.translate(name, to)
            }
            "masq" | "redir" => self.translate(name, (NewAddress::OfHost, NewPort::Any)),
            "notrack" => {
                self.steps.push(Step::Untrack);
                Ok(())
            }
            "log" | "queue" | "dup" | "fwd" | "tproxy" | "synproxy" | "flow_offload" => {
                self.effect(Effect::Apply(name.to_owned()))
            }
            _ => self.effect(Effect::Unclear(name.to_owned())),
        }
    }

    /// A condition or, if the elements have verdicts, several of them.
    fn look_up(&mut self, data: &[Attribute<'_>]) -> io::Result<()> {
        let name = need(data, NFTA_LOOKUP_SET)?.text();
        let value = |kind| find(data, kind).map(|one| one.u32_be()).transpose();
        let is_in = value(NFTA_LOOKUP_FLAGS)?.unwrap_or(0) & NFT_LOOKUP_F_INV == 0;
        let target = value(NFTA_LOOKUP_DREG)?;
        let key = (self.family, self.table.to_owned(), name.clone());
        let Some(set) = self.sets.read(&key)? else {
            return self.effect(Effect::Unclear(format!("set {name}")));
        };
        let slots = self.registers.from(need(data, NFTA_LOOKUP_SREG)?.u32_be()?)?;
        let condition =
            |element: &Element| registers::key(slots, &element.first, element.last.as_deref());
        let conditions = || set.elements.iter().map(condition).collect::<io::Result<Vec<_>>>();
        let may_expire = set.may_expire;
        let any = |elements| Condition::AnyOf { elements, is_in, may_expire };
        if target != Some(0) {
            let numbers = set.numbers.as_ref().and_then(|(length, ranges)| {
                Some((registers::field(slots, *length)?, Arc::clone(ranges)))
            });
            self.steps.push(Step::If(match numbers {
                _ if set.catch_all.is_some() => Condition::Unknown,
                Some(((layer, bytes), ranges)) => {
                    let is_within = true;
                    any(vec![vec![Condition::Within { layer, bytes, ranges, is_within }]])
                }
                None => any(conditions()?),
            }));
            return target.map_or(Ok(()), |register| self.write(register, &[]));
        }
        let step = |verdict: &[u8]| {
            let step = self.verdict(&attributes(verdict)?)?;
            let other = || Step::Do(Effect::Unclear("verdict continue".to_owned()));
            Ok::<_, io::Error>(step.unwrap_or_else(other))
        };
        let cases = conditions()?.into_iter().zip(&set.elements);
        let cases = cases.map(|(one, element)| Ok((any(vec![one]), step(&element.verdict)?)));
        let mut cases = cases.collect::<io::Result<Vec<_>>>()?;
        let mut otherwise = set.catch_all.as_deref().map(step).transpose()?.map(Box::new);
        if may_expire {
            cases.extend(otherwise.take().map(|step| (Condition::Unknown, *step)));
        }
        self.steps.push(Step::Choose { cases, otherwise });
        Ok(())
    }

    fn effect(&mut self, effect: Effect) -> io::Result<()> {
        self.steps.push(Step::Do(effect));
        Ok(())
    }

    fn translate(&mut self, name: &str, (to, port): (NewAddress, NewPort)) -> io::Result<()> {
        self.steps.push(Step::Translate(name.to_owned(), to, port));
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
            "byteorder" | "hash" => (2, None),
            _ => (1, None),
        };
        if from.is_some_and(|from| find(data, from).is_some()) {
            return self.effect(Effect::Apply(format!("{name} set")));
        }
        self.steps.push(Step::If(Condition::Pure(name.to_owned())));
        self.write(need(data, to)?.u32_be()?, &[])
    }

    /// Bytes of a packet. Those of addresses, the protocol and ports are known as far as these are.
    fn payload(&mut self, data: &[Attribute<'_>]) -> io::Result<()> {
        let value = |kind| find(data, kind).map(|one| one.u32_be()).transpose();
        let base = value(NFTA_PAYLOAD_BASE)?;
        let is_header = base == Some(libc::NFT_PAYLOAD_NETWORK_HEADER.cast_unsigned());
        let is_transport = base == Some(libc::NFT_PAYLOAD_TRANSPORT_HEADER.cast_unsigned());
        let (offset, length) = (value(NFTA_PAYLOAD_OFFSET)?, value(NFTA_PAYLOAD_LEN)?);
        if is_transport
            && (offset, length) == (Some(TCP_FLAGS_AT), Some(1))
            && let Some(register) = find(data, NFTA_PAYLOAD_DREG)
        {
            self.unknown();
            return self.write(register.u32_be()?, &[Slot::TcpFlags(0xff)]);
        }
        let (Some(offset), Some(length), true) = (offset, length, is_header || is_transport) else {
            return self.load("payload", data);
        };
        let (offset, length) = (offset as usize, length as usize);
        let (layer, header_len) = match is_header {
            true => (Layer::Network, V6_HEADER_LEN),
            false => (Layer::Transport, PORTS_LEN),
        };
        if find(data, NFTA_PAYLOAD_SREG).is_some() || offset.saturating_add(length) > header_len {
            return self.load("payload", data);
        }
        let words = (0..length).step_by(4).map(|at| Slot::Header {
            layer,
            offset: offset + at,
            length: (length - at).min(4),
            mask: [0xff; 4],
            begins: at == 0,
        });
        self.steps.push(Step::If(match layer {
            Layer::Transport => Condition::Transport,
            _ => Condition::Length(offset + length),
        }));
        self.write(need(data, NFTA_PAYLOAD_DREG)?.u32_be()?, &words.collect::<Vec<_>>())
    }

    /// A query of the kernel's routes. Only the type of the destination is known.
    fn fib(&mut self, data: &[Attribute<'_>]) -> io::Result<()> {
        let value = |kind| need(data, kind)?.u32_be();
        let known = (value(NFTA_FIB_RESULT)?, value(NFTA_FIB_FLAGS)?);
        let is_type = known == (NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_F_DADDR);
        if !is_type {
            return self.load("fib", data);
        }
        self.write(value(NFTA_FIB_DREG)?, &[Slot::DestinationType])
    }

    /// Keeps some bits of a register.
    fn bitwise(&mut self, data: &[Attribute<'_>]) -> io::Result<()> {
        let bytes = |kind| {
            let nested = find(data, kind).map(|one| one.nested()).transpose()?;
            let value = nested.as_ref().and_then(|list| find(list, NFTA_DATA_VALUE));
            Ok::<_, io::Error>(value.map(|one| one.value.to_vec()))
        };
        let operation = find(data, NFTA_BITWISE_OP).map_or(Ok(0), |one| one.u32_be())?;
        let slots = self.registers.from(need(data, NFTA_BITWISE_SREG)?.u32_be()?)?;
        let mut known = Vec::new();
        if let (0, Some(mask), Some(flip)) =
            (operation, bytes(NFTA_BITWISE_MASK)?, bytes(NFTA_BITWISE_XOR)?)
            && flip.iter().all(|byte| *byte == 0)
        {
            let words = mask.chunks(4).zip(slots);
            known.extend(words.map(|(word, slot)| match *slot {
                Slot::Header { layer, offset, length, mask: before, begins } => {
                    let mut mask = [0; 4];
                    mask[..word.len()].copy_from_slice(word);
                    let mask = std::array::from_fn(|at| mask[at] & before[at]);
                    let length = length.min(word.len());
                    Slot::Header { layer, offset, length, mask, begins }
                }
                Slot::Mark if word.len() == 4 => Slot::Mark,
                Slot::State(before) if word.len() == 4 => {
                    let bits = u32::from_ne_bytes(std::array::from_fn(|at| word[at]));
                    Slot::State(before & bits)
                }
                Slot::TcpFlags(before) => Slot::TcpFlags(before & word[0]),
                _ => Slot::Unknown,
            }));
        }
        self.write(need(data, NFTA_BITWISE_DREG)?.u32_be()?, &known)
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
        if key == libc::NFT_META_MARK {
            return self.write(register, &[Slot::Mark]);
        }
        if key == libc::NFT_META_L4PROTO {
            let (layer, offset, length, mask, begins) = (Layer::Protocol, 0, 1, [0xff; 4], true);
            self.steps.push(Step::If(Condition::Transport));
            return self.write(register, &[Slot::Header { layer, offset, length, mask, begins }]);
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

    fn write(&mut self, register: u32, known: &[Slot]) -> io::Result<()> {
        self.registers.write(register, known)
    }

    fn compare(&mut self, data: &[Attribute<'_>]) -> io::Result<()> {
        const EQUAL: u32 = 0;
        const NOT_EQUAL: u32 = 1;
        const LESS: u32 = 2;
        const AT_MOST: u32 = 3;
        const MORE: u32 = 4;
        const AT_LEAST: u32 = 5;
        let slots = self.registers.from(need(data, NFTA_CMP_SREG)?.u32_be()?)?;
        let operation = need(data, NFTA_CMP_OP)?.u32_be()?;
        let value = need(&need(data, NFTA_CMP_DATA)?.nested()?, NFTA_DATA_VALUE)?.value;
        let (least, most) = (vec![0; value.len()], vec![0xff; value.len()]);
        let condition = match operation {
            EQUAL | NOT_EQUAL => registers::compare(slots, value, operation == EQUAL)?,
            LESS | AT_LEAST => registers::range(slots, value, &most, operation == AT_LEAST),
            AT_MOST | MORE => registers::range(slots, &least, value, operation == AT_MOST),
            _ => Condition::Unknown,
        };
        self.steps.push(Step::If(condition));
        Ok(())
    }

    fn range(&mut self, data: &[Attribute<'_>]) -> io::Result<()> {
        const NOT_EQUAL: u32 = 1;
        let slots = self.registers.from(need(data, NFTA_RANGE_SREG)?.u32_be()?)?;
        let is_within = need(data, NFTA_RANGE_OP)?.u32_be()? != NOT_EQUAL;
        let (first, last) =
            (need(data, NFTA_RANGE_FROM)?.nested()?, need(data, NFTA_RANGE_TO)?.nested()?);
        let (first, last) = (need(&first, NFTA_DATA_VALUE)?, need(&last, NFTA_DATA_VALUE)?);
        self.steps.push(Step::If(registers::range(slots, first.value, last.value, is_within)));
        Ok(())
    }

    fn immediate(&mut self, data: &[Attribute<'_>]) -> io::Result<()> {
        let register = need(data, NFTA_IMMEDIATE_DREG)?.u32_be()?;
        let value = need(data, NFTA_IMMEDIATE_DATA)?.nested()?;
        if register != 0 {
            let bytes = need(&value, NFTA_DATA_VALUE)?.value;
            // The rest of a register is zero (`nft_data_copy`).
            let words = bytes.chunks(4).map(|word| {
                let mut padded = [0; 4];
                padded[..word.len()].copy_from_slice(word);
                Slot::Data(padded)
            });
            return self.write(register, &words.collect::<Vec<_>>());
        }
        let verdict = need(&value, NFTA_DATA_VERDICT)?.nested()?;
        self.steps.extend(self.verdict(&verdict)?);
        Ok(())
    }
}

/// Whether `ct` loads the state of the packet's connection, which every packet has.
fn is_state(data: &[Attribute<'_>]) -> io::Result<bool> {
    let key = find(data, NFTA_CT_KEY).map(|key| key.u32_be()).transpose()?;
    Ok(key == Some(NFT_CT_STATE) && find(data, NFTA_CT_DREG).is_some())
}

/// The name, the revision and the data of a match or target of x_tables (NFTA_MATCH_*,
/// NFTA_TARGET_*).
fn of_x_tables<'a>(data: &'a [Attribute<'_>]) -> io::Result<(String, u8, &'a [u8])> {
    let revision = find(data, 2).map_or(Ok(0), |one| one.u32_be())?;
    let info = find(data, 3).map_or(&[][..], |one| one.value);
    // One that does not fit is of no known revision.
    Ok((need(data, 1)?.text(), u8::try_from(revision).unwrap_or(u8::MAX), info))
}
