//! Legacy iptables. Tables are read with socket options (`struct ipt_getinfo`, `struct ipt_entry`);
//! the kernel does not announce their changes.

use std::io;
use std::sync::Arc;

use wg_bounce_sys::{Family, PerFamily};

use super::base_chain::BaseChain;
use super::kernel::{Interface, Kernel};
use super::reading::{Known, LegacyCopy, Reading};
use super::reason::{ChainEffect, ChainName, Families, Finding, Reason};
use super::routing;
use super::rules::legacy::{self, Table};
use super::rules::place::{self, Hook};
use crate::limits::{LEGACY_TABLE_MAX, NETLINK_ATTEMPTS_MAX};
use crate::netlink::parse::{array, malformed};

/// Offsets in `struct ipt_getinfo`: the mask of hooks, the offsets of their first entries and of
/// their policies, and the size of all entries.
const HOOKS_AT: usize = 32;
const ENTRIES_AT: usize = 36;
const POLICIES_AT: usize = 56;
const SIZE_AT: usize = 80;

/// Hooks on the path of a forwarded packet, with their built-in chains.
const ON_THE_PATH: [(usize, &str, Hook); 3] = [
    (0, "PREROUTING", place::PREROUTING),
    (2, "FORWARD", place::FORWARD),
    (4, "POSTROUTING", place::POSTROUTING),
];

/// Rules on the path of a forwarded packet that may do something to it, and policies other than
/// ACCEPT that it may reach.
pub fn tables(
    kernel: &mut impl Kernel,
    at: &Interface,
    known: Known<'_>,
    family: Family,
) -> io::Result<Reading> {
    let list = match family {
        Family::V4 => "ip_tables_names",
        Family::V6 => "ip6_tables_names",
    };
    let names = match kernel.listing(list) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Reading::default()),
        Err(error) => return Err(error),
    };
    let mut reading = Reading::default();
    if names.is_empty() {
        return Ok(reading);
    }
    let host_first = routing::host_first(kernel, Families::only(family));
    for name in names.lines() {
        let before = known.before.and_then(|it| it.copies.iter().find(|copy| copy.name == name));
        let copy = match read_table(kernel, host_first, family, name, before) {
            // The table was removed in the meantime.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            result => result?,
        };
        reading.findings.extend(copy.findings.iter().cloned());
        reading.copies.push(copy);
    }
    let chains = reading.copies.iter().flat_map(|copy| &copy.chains).cloned().collect();
    reading.add_all(at, known, chains);
    Ok(reading)
}

/// Reads a table: its base chains, or findings about it. A large one with rules is not copied, as
/// it would be each time that it is polled. `before`: the last copy, which is returned if it is the
/// same.
fn read_table(
    kernel: &mut impl Kernel,
    host_first: PerFamily<bool>,
    family: Family,
    name: &str,
    before: Option<&Arc<LegacyCopy>>,
) -> io::Result<Arc<LegacyCopy>> {
    let program = match family {
        Family::V4 => "iptables-legacy",
        Family::V6 => "ip6tables-legacy",
    };
    let named = |chain: &str| {
        let (table, chain) = (format!("table {name}"), chain.to_owned());
        ChainName { program, table, chain, hook: None }
    };
    let finding = |chain, effect| Finding::of(family, Reason::Chain { name: named(chain), effect });
    for _ in 0..NETLINK_ATTEMPTS_MAX {
        let outline = kernel.legacy_outline(family, name)?;
        let chains = chains(&outline)?;
        let mut copy = LegacyCopy {
            name: name.to_owned(),
            outline,
            entries: Vec::new(),
            host_first,
            chains: Vec::new(),
            findings: Vec::new(),
        };
        if chains.is_empty() {
            return Ok(Arc::new(copy));
        }
        let rules = chains.iter().filter(|chain| chain.first != chain.policy);
        let rules: Vec<_> = rules.map(|one| finding(one.name, ChainEffect::Rules)).collect();
        let size = number(&copy.outline, SIZE_AT)?;
        if !rules.is_empty() && size > LEGACY_TABLE_MAX {
            copy.findings = rules;
            return Ok(Arc::new(copy));
        }
        copy.entries = match kernel.legacy_entries(family, name, size) {
            // The size has changed in the meantime.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            entries => entries?,
        };
        // Replaced by another table of the same size.
        if kernel.legacy_outline(family, name)? != copy.outline {
            continue;
        }
        legacy::clear_counters(family, &mut copy.entries)?;
        if let Some(before) = before
            && before.host_first == copy.host_first
            && before.outline == copy.outline
            && before.entries == copy.entries
        {
            return Ok(Arc::clone(before));
        }
        let offsets: Vec<_> = chains
            .iter()
            .map(|chain| (chain.name, chain.first as usize, chain.policy as usize))
            .collect();
        // Without rules on the path only the policies matter, of a table that may be large.
        let table =
            (!rules.is_empty()).then(|| Table::new(family, &copy.entries, &offsets)).transpose()?;
        let table = table.map(|table| Arc::new(table.chains));
        for (number, chain) in chains.into_iter().enumerate() {
            let accepts = legacy::accepts(family, &copy.entries, chain.policy as usize)?;
            let Some(table) = &table else {
                copy.findings.extend((!accepts).then(|| finding(chain.name, ChainEffect::Policy)));
                continue;
            };
            copy.chains.push(BaseChain {
                name: named(chain.name),
                families: Families::only(family),
                priority: priority(name, chain.hook),
                hook: chain.hook,
                chains: Arc::clone(table),
                number,
                translates: name == "nat",
                accepts,
                host_first,
                untracked: PerFamily::default(),
            });
        }
        return Ok(Arc::new(copy));
    }
    Err(io::ErrorKind::Interrupted.into())
}

/// The priority of a table's chain at a hook (NF_IP_PRI_*, linux/netfilter_ipv4.h).
fn priority(table: &str, hook: Hook) -> i32 {
    match table {
        "raw" => -300,
        "mangle" => -150,
        "nat" if hook == place::PREROUTING => -100,
        "nat" => 100,
        "security" => 50,
        _ => 0,
    }
}

/// A built-in chain on the path of a forwarded packet.
struct BuiltIn {
    name: &'static str,
    hook: Hook,
    /// The offset of its first entry.
    first: u32,
    /// The offset of its policy, which is the first entry of a chain without rules.
    policy: u32,
}

fn chains(outline: &[u8]) -> io::Result<Vec<BuiltIn>> {
    let hooks = number(outline, HOOKS_AT)?;
    let present = ON_THE_PATH.into_iter().filter(|(hook, ..)| hooks & 1 << hook != 0);
    present
        .map(|(number_of_hook, name, hook)| {
            let first = number(outline, ENTRIES_AT + 4 * number_of_hook)?;
            let policy = number(outline, POLICIES_AT + 4 * number_of_hook)?;
            Ok(BuiltIn { name, hook, first, policy })
        })
        .collect()
}

fn number(bytes: &[u8], at: usize) -> io::Result<u32> {
    Ok(u32::from_ne_bytes(array(bytes.get(at..).ok_or_else(malformed)?)?))
}
