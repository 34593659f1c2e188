//! Legacy iptables. Tables are read with socket options (`struct ipt_getinfo`, `struct ipt_entry`);
//! the kernel does not announce their changes.

use std::io;

use wg_bounce_sys::Family;

use super::kernel::Kernel;
use super::reason::{ChainEffect, Finding, Reason};
use crate::limits::NETLINK_ATTEMPTS_MAX;
use crate::netlink::parse::{array, malformed};

/// Offsets in `struct ipt_getinfo`: the mask of hooks, the offsets of their first entries, and of
/// their policies.
const HOOKS_AT: usize = 32;
const ENTRIES_AT: usize = 36;
const POLICIES_AT: usize = 56;

/// Hooks on the path of a forwarded packet, with their built-in chains.
const ON_THE_PATH: [(usize, &str); 3] = [(0, "PREROUTING"), (2, "FORWARD"), (4, "POSTROUTING")];

/// Position in an entry of the offset of its target: after `struct ipt_ip` (84 bytes) or `struct
/// ip6t_ip6` (136 bytes), and `nfcache`.
const TARGET_OFFSET_AT_V4: usize = 88;
const TARGET_OFFSET_AT_V6: usize = 140;
/// Within a target: its name (29 bytes, empty for a verdict), and the verdict.
const TARGET_NAME_AT: usize = 2;
const VERDICT_AT: usize = 32;
/// `-NF_ACCEPT - 1`.
const ACCEPT: i32 = -2;

/// Built-in chains on the path of a forwarded packet, with rules or a policy other than ACCEPT.
pub fn tables(kernel: &mut impl Kernel, family: Family) -> io::Result<Vec<Finding>> {
    let list = match family {
        Family::V4 => "ip_tables_names",
        Family::V6 => "ip6_tables_names",
    };
    let names = match kernel.listing(list) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut findings = Vec::new();
    for name in names.lines() {
        match read_table(kernel, family, name) {
            Ok(found) => findings.extend(found),
            // The table was removed in the meantime.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(findings)
}

/// Reads the outline of a table, which tells the chains with rules. Only if there are none, the
/// policies matter: they are in the table itself.
fn read_table(kernel: &mut impl Kernel, family: Family, name: &str) -> io::Result<Vec<Finding>> {
    let finding = |chain, effect| {
        let program = match family {
            Family::V4 => "iptables-legacy",
            Family::V6 => "ip6tables-legacy",
        };
        let reason = Reason::LegacyChain { program, table: name.to_owned(), chain, effect };
        Finding::of(family, reason)
    };
    for _ in 0..NETLINK_ATTEMPTS_MAX {
        let outline = kernel.legacy_outline(family, name)?;
        let chains = chains(&outline)?;
        let rules = chains.iter().filter(|chain| chain.has_rules);
        let rules: Vec<_> = rules.map(|one| finding(one.name, ChainEffect::Rules)).collect();
        if !rules.is_empty() || chains.is_empty() {
            return Ok(rules);
        }
        let entries = match kernel.legacy_entries(family, name, &outline) {
            // The size has changed in the meantime.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            entries => entries?,
        };
        let mut findings = Vec::new();
        for chain in chains {
            if verdict(&entries, family, chain.policy as usize)? != Some(ACCEPT) {
                findings.push(finding(chain.name, ChainEffect::Policy));
            }
        }
        return Ok(findings);
    }
    Err(io::ErrorKind::Interrupted.into())
}

/// A built-in chain on the path of a forwarded packet.
struct BuiltIn {
    name: &'static str,
    has_rules: bool,
    /// The offset of its policy in the entries.
    policy: u32,
}

fn chains(outline: &[u8]) -> io::Result<Vec<BuiltIn>> {
    let hooks = number(outline, HOOKS_AT)?;
    let present = ON_THE_PATH.into_iter().filter(|(hook, _)| hooks & 1 << hook != 0);
    present
        .map(|(hook, name)| {
            let first = number(outline, ENTRIES_AT + 4 * hook)?;
            let policy = number(outline, POLICIES_AT + 4 * hook)?;
            Ok(BuiltIn { name, has_rules: first != policy, policy })
        })
        .collect()
}

/// The verdict of the entry at `offset`; none if its target is not a verdict.
fn verdict(entries: &[u8], family: Family, offset: usize) -> io::Result<Option<i32>> {
    let entry = entries.get(offset..).ok_or_else(malformed)?;
    let at = match family {
        Family::V4 => TARGET_OFFSET_AT_V4,
        Family::V6 => TARGET_OFFSET_AT_V6,
    };
    let target = u16::from_ne_bytes(array(entry.get(at..).ok_or_else(malformed)?)?);
    let target = entry.get(usize::from(target)..).ok_or_else(malformed)?;
    if *target.get(TARGET_NAME_AT).ok_or_else(malformed)? != 0 {
        return Ok(None);
    }
    Ok(Some(number(target, VERDICT_AT)?.cast_signed()))
}

fn number(bytes: &[u8], at: usize) -> io::Result<u32> {
    Ok(u32::from_ne_bytes(array(bytes.get(at..).ok_or_else(malformed)?)?))
}
