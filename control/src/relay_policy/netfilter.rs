//! Netfilter on the path of a forwarded packet: nftables (including iptables-nft), IPVS, BPF.
//!
//! Connection tracking itself does not count: only rules make a difference between connections. (It
//! would drop fragments of which some are missing; a worker relays them one by one.)

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use netlink_packet_core::DefaultNla;

use wg_bounce_sys::{Family, PerFamily};

use super::announced::Announced;
use super::base_chain::BaseChain;
use super::kernel::{Interface, Kernel, NetfilterLink};
use super::reading::{Known, Reading, Ruleset};
use super::reason::{ChainEffect, ChainName, Families, Finding, Reason};
use super::routing;
use super::rules::place::{self, Hook};
use super::rules::sets::{self, Kind, Name, Set, Sets};
use super::rules::tables::Draft;
use crate::limits::{
    NFTABLES_ATTEMPTS_MAX, NFTABLES_ELEMENTS_MAX, NFTABLES_RULES_AT_ONCE, NFTABLES_RULES_MAX,
};
use crate::netlink::attribute::{Attribute, find, need};
use crate::netlink::message::{Message, Protocol, Request};
use crate::netlink::numbers::{
    NFGENMSG_LEN, NFT_MSG_GETCHAIN, NFT_MSG_GETFLOWTABLE, NFT_MSG_GETGEN, NFT_MSG_GETRULE,
    NFT_MSG_GETSET, NFT_MSG_GETSETELEM, NFT_MSG_NEWCHAIN, NFT_MSG_NEWFLOWTABLE, NFT_MSG_NEWRULE,
    NFT_MSG_NEWSET, NFT_MSG_NEWSETELEM, NFTA_CHAIN_HOOK, NFTA_CHAIN_NAME, NFTA_CHAIN_POLICY,
    NFTA_CHAIN_TABLE, NFTA_CHAIN_TYPE, NFTA_CHAIN_USE, NFTA_DEVICE_NAME, NFTA_DEVICE_PREFIX,
    NFTA_FLOWTABLE_DEVS, NFTA_FLOWTABLE_HOOK, NFTA_FLOWTABLE_NAME, NFTA_FLOWTABLE_TABLE,
    NFTA_GEN_ID, NFTA_HOOK_DEV, NFTA_HOOK_DEVS, NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY,
    NFTA_RULE_CHAIN, NFTA_RULE_TABLE, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_TABLE,
};
use crate::netlink::parse::malformed;

/// NFPROTO_*: the families of tables.
const INET: u8 = libc::NFPROTO_INET as u8;
const IPV4: u8 = libc::NFPROTO_IPV4 as u8;
const ARP: u8 = libc::NFPROTO_ARP as u8;
const NETDEV: u8 = libc::NFPROTO_NETDEV as u8;
const BRIDGE: u8 = libc::NFPROTO_BRIDGE as u8;
const IPV6: u8 = libc::NFPROTO_IPV6 as u8;
/// The policy of a chain: accept.
const NF_ACCEPT: u32 = libc::NF_ACCEPT as u32;

/// Lines before the first service in /proc/net/ip_vs.
const IPVS_HEADING: usize = 3;

/// Rules on the path of forwarded packets that may do something to them, policies other than accept
/// that they may reach, and flowtables that contain the interface.
pub fn tables(kernel: &mut impl Kernel, at: &Interface, known: Known<'_>) -> io::Result<Reading> {
    // Each list is consistent, and all must be of the same generation.
    for attempt in 1..=NFTABLES_ATTEMPTS_MAX {
        if attempt > 1 {
            kernel.pause();
        }
        let before = generation(kernel)?;
        let announced = kernel.announced();
        let all_since = known.rules.map(|(rules, since)| (announced.are_all(since, before), rules));
        let same = match all_since {
            Some((Some(true), rules)) if rules.elements <= 2 * NFTABLES_ELEMENTS_MAX => {
                Some((rules, &announced))
            }
            // The events come in a moment.
            Some((None, _)) if attempt < NFTABLES_ATTEMPTS_MAX => continue,
            _ => None,
        };
        let is_last = attempt == NFTABLES_ATTEMPTS_MAX;
        let result = chains(kernel, at, known, same, is_last);
        let is_current = generation(kernel)? == before;
        match result {
            Ok((mut reading, rules)) if is_current => {
                (reading.generation, reading.rules) = (before, rules.map(Arc::new));
                return Ok(reading);
            }
            // The next attempt may take as long.
            _ if known.may_take_long => break,
            Err(error) if is_current && error.kind() != io::ErrorKind::Interrupted => {
                return Err(error);
            }
            _ => {}
        }
    }
    Err(io::Error::new(io::ErrorKind::Interrupted, "the rules keep changing"))
}

/// The number of the last transaction; none if the kernel has no nftables.
pub fn generation(kernel: &mut impl Kernel) -> io::Result<Option<u32>> {
    let request = Request::get(NFT_MSG_GETGEN, &[0; NFGENMSG_LEN]);
    match kernel.query(Protocol::Netfilter, &request) {
        Ok(reply) => {
            let Some(message) = reply.first() else { return Ok(None) };
            let (_, attributes) = message.split(NFGENMSG_LEN)?;
            Ok(Some(need(&attributes, NFTA_GEN_ID)?.u32_be()?))
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(None),
        Err(error) => Err(error),
    }
}

/// The findings, and the rules of tables with base chains on the path if they were followed.
/// `same`: those that were read before, with all events since. `is_last`: chains whose rules may be
/// missing are accepted, and not understood. Interrupted: the lists contradict each other.
fn chains(
    kernel: &mut impl Kernel,
    at: &Interface,
    known: Known<'_>,
    same: Option<(&Ruleset, &Announced)>,
    is_last: bool,
) -> io::Result<(Reading, Option<Ruleset>)> {
    // Before Linux 6.0 they may be assigned by port, without any rule.
    let has_helpers = kernel.setting("netfilter/nf_conntrack_helper").is_ok_and(|on| on != "0\n");
    let mut reading = Reading { has_helpers, ..Reading::default() };
    let chains = listed(kernel, NFT_MSG_GETCHAIN, NFT_MSG_NEWCHAIN)?;
    let bases = chains.iter().map(|message| base_chain(message, at));
    let bases: Vec<_> = bases.filter_map(Result::transpose).collect::<io::Result<_>>()?;
    let on_the_path: BTreeSet<_> = bases.iter().map(|base| base.table.clone()).collect();
    let before = same.map(|(rules, announced)| (&rules.tables, announced));
    let mut draft = Draft::new(&chains, |table| on_the_path.contains(table), before)?;
    drop(chains);
    let may_follow = draft.rules() <= NFTABLES_RULES_MAX;
    let limit = if known.may_take_long { NFTABLES_RULES_MAX } else { NFTABLES_RULES_AT_ONCE };
    let rules = match may_follow && list_rules(kernel, &mut draft, limit)? {
        true => Some(read_rules(kernel, draft, same, is_last)?),
        false => None,
    };
    // The kernel forwards everything until the other half of the work is done.
    if may_follow && rules.is_none() {
        reading.is_unfinished = true;
        reading.findings.push(Finding::of_both(Reason::Unread));
        return Ok((reading, None));
    }
    let families = if bases.is_empty() { Families::NONE } else { Families::BOTH };
    let host_first = routing::host_first(kernel, families);
    let mut chains = Vec::new();
    for base in bases {
        let table = rules.as_ref().and_then(|rules| rules.tables.get(&base.table));
        match (base.hook, table) {
            (Some(hook), Some(table)) => {
                let number = table.number_of(&base.name.chain)?;
                // While a transaction is prepared, it counts already. And a list may end early.
                if table.listed_rules(number) != base.rules as usize {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                let chain = BaseChain {
                    name: base.name,
                    families: base.families,
                    priority: base.priority,
                    hook,
                    chains: Arc::clone(&table.chains),
                    number,
                    translates: base.translates,
                    accepts: base.policy == NF_ACCEPT,
                    host_first,
                    untracked: PerFamily::default(),
                };
                chains.push(chain);
            }
            _ if base.rules > 0 => reading.findings.push(base.finding(ChainEffect::Rules)),
            _ if base.policy != NF_ACCEPT => {
                reading.findings.push(base.finding(ChainEffect::Policy));
            }
            _ => {}
        }
    }
    reading.add_all(at, known, chains);
    for message in listed(kernel, NFT_MSG_GETFLOWTABLE, NFT_MSG_NEWFLOWTABLE)? {
        reading.findings.extend(flowtable(&message, at)?);
    }
    Ok((reading, rules))
}

/// Asks for the rules that are missing, if they are at most `limit`; whether they are.
fn list_rules(kernel: &mut impl Kernel, draft: &mut Draft<'_>, limit: u32) -> io::Result<bool> {
    let mut left = limit;
    loop {
        let (parts, count) = draft.missing();
        match left.checked_sub(count) {
            Some(rest) => left = rest,
            None => return Ok(false),
        }
        if parts.is_empty() {
            return Ok(true);
        }
        for part in parts {
            let (family, table) = &part.table;
            let chain = part.chain.iter().map(|chain| text(NFTA_RULE_CHAIN, chain));
            let attributes: Vec<_> =
                std::iter::once(text(NFTA_RULE_TABLE, table)).chain(chain).collect();
            let request = Request::dump_some(NFT_MSG_GETRULE, &[*family, 0, 0, 0], &attributes);
            draft.add(&part, answered(kernel, &request, NFT_MSG_NEWRULE)?)?;
        }
        draft.forget_affected();
    }
}

/// Reads the rules that were listed, and the sets that they look up. See [`chains`].
fn read_rules(
    kernel: &mut impl Kernel,
    draft: Draft<'_>,
    same: Option<(&Ruleset, &Announced)>,
    is_last: bool,
) -> io::Result<Ruleset> {
    let (kinds, updated, known) = (None, draft.updated_sets().collect(), BTreeMap::new());
    let mut sets = KernelSets { kernel, kinds, updated, known, left: NFTABLES_ELEMENTS_MAX };
    let tables = draft.finish(&mut sets, is_last)?;
    let elements = same.map_or(0, |(rules, _)| rules.elements) + NFTABLES_ELEMENTS_MAX - sets.left;
    Ok(Ruleset { elements, tables })
}

/// The sets that packets do not change.
struct KernelSets<'k, K> {
    kernel: &'k mut K,
    /// The properties of all sets, once one was asked for.
    kinds: Option<BTreeMap<Name, Kind>>,
    /// Those that packets change.
    updated: BTreeSet<Name>,
    /// The sets read so far; none for one that is missing.
    known: BTreeMap<Name, Option<Rc<Set>>>,
    /// Elements that may be read.
    left: usize,
}

impl<K: Kernel> Sets for KernelSets<'_, K> {
    fn read(&mut self, name: &Name) -> io::Result<Option<Rc<Set>>> {
        if let Some(set) = self.known.get(name) {
            return Ok(set.clone());
        }
        let set = self.ask(name)?.map(Rc::new);
        self.known.insert(name.clone(), set.clone());
        Ok(set)
    }
}

impl<K: Kernel> KernelSets<'_, K> {
    fn ask(&mut self, name: &Name) -> io::Result<Option<Set>> {
        let kinds = match &mut self.kinds {
            Some(kinds) => kinds,
            none => none.insert(kinds(self.kernel)?),
        };
        let kind = kinds.get(name).filter(|kind| kind.is_plain() && !self.updated.contains(name));
        let Some(kind) = kind else { return Ok(None) };
        let (family, table, set) = name;
        let attributes = [text(NFTA_SET_ELEM_LIST_TABLE, table), text(NFTA_SET_ELEM_LIST_SET, set)];
        let request = Request::dump_some(NFT_MSG_GETSETELEM, &[*family, 0, 0, 0], &attributes);
        let lists = match self.kernel.query(Protocol::Netfilter, &request) {
            // The set is gone: the lists are of different generations.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(io::ErrorKind::Interrupted.into());
            }
            lists => lists?,
        };
        if lists.iter().any(|message| message.kind != NFT_MSG_NEWSETELEM) {
            return Err(malformed());
        }
        let read = kind.elements(&lists, self.left)?;
        self.left -= read.as_ref().map_or(0, |set| set.elements.len());
        Ok(read)
    }
}

/// The properties of all sets.
fn kinds(kernel: &mut impl Kernel) -> io::Result<BTreeMap<Name, Kind>> {
    listed(kernel, NFT_MSG_GETSET, NFT_MSG_NEWSET)?.iter().map(sets::kind).collect()
}

/// A base chain on the path of forwarded packets, as it is listed.
struct Listed {
    /// The family (NFPROTO_*) and the name of its table.
    table: (u8, String),
    name: ChainName,
    /// The IP versions whose packets pass it.
    families: Families,
    /// None if it is not known.
    hook: Option<Hook>,
    priority: i32,
    rules: u32,
    policy: u32,
    /// Whether its rules may translate addresses.
    translates: bool,
}

impl Listed {
    fn finding(self, effect: ChainEffect) -> Finding {
        Finding { families: self.families, reason: Reason::Chain { name: self.name, effect } }
    }
}

/// A string as an attribute.
fn text(kind: u16, text: &str) -> DefaultNla {
    DefaultNla::new(kind, [text.as_bytes(), &[0]].concat())
}

/// All objects of a kind; none if the kernel has no nftables.
fn listed(kernel: &mut impl Kernel, request: u16, kind: u16) -> io::Result<Vec<Message>> {
    answered(kernel, &Request::dump(request, &[0; NFGENMSG_LEN]), kind)
}

/// The objects that a request asks for, of this kind. Whether they are of one generation is for
/// [`tables`] to find out.
fn answered(kernel: &mut impl Kernel, request: &Request, kind: u16) -> io::Result<Vec<Message>> {
    let mut messages = Vec::new();
    let mut add = |message: &Message| {
        messages.push(message.clone());
        if message.kind == kind { Ok(()) } else { Err(malformed()) }
    };
    match kernel.query_each(Protocol::Netfilter, request, &mut add) {
        Ok(()) => Ok(messages),
        // `nfnetlink_rcv_msg` in net/netfilter/nfnetlink.c: the subsystem is not registered.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn base_chain(message: &Message, at: &Interface) -> io::Result<Option<Listed>> {
    let (header, attributes) = message.split(NFGENMSG_LEN)?;
    let Some(place) = find(&attributes, NFTA_CHAIN_HOOK) else { return Ok(None) };
    let place = place.nested()?;
    let number = need(&place, NFTA_HOOK_HOOKNUM)?.u32_be()?;
    let Some((families, hook, hook_name)) = on_the_path(header[0], number) else {
        return Ok(None);
    };
    if !applies_to(&place, at)? {
        return Ok(None);
    }
    let table = need(&attributes, NFTA_CHAIN_TABLE)?.text();
    let name = ChainName {
        program: "nftables",
        table: format!("table {} {table}", family_name(header[0])),
        chain: need(&attributes, NFTA_CHAIN_NAME)?.text(),
        hook: Some(hook_name),
    };
    let priority = find(&place, NFTA_HOOK_PRIORITY).map_or(Ok(0), |one| one.u32_be())?;
    Ok(Some(Listed {
        table: (header[0], table),
        name,
        families,
        hook,
        priority: priority.cast_signed(),
        // No rule can jump to a base chain.
        rules: need(&attributes, NFTA_CHAIN_USE)?.u32_be()?,
        policy: need(&attributes, NFTA_CHAIN_POLICY)?.u32_be()?,
        translates: find(&attributes, NFTA_CHAIN_TYPE).is_none_or(|kind| kind.text() == "nat"),
    }))
}

fn flowtable(message: &Message, at: &Interface) -> io::Result<Option<Finding>> {
    let (_, attributes) = message.split(NFGENMSG_LEN)?;
    let hook = need(&attributes, NFTA_FLOWTABLE_HOOK)?.nested()?;
    let devices = find(&hook, NFTA_FLOWTABLE_DEVS);
    if !devices.map_or(Ok(false), |devices| has_interface(&devices, at))? {
        return Ok(None);
    }
    let table = need(&attributes, NFTA_FLOWTABLE_TABLE)?.text();
    let name = need(&attributes, NFTA_FLOWTABLE_NAME)?.text();
    Ok(Some(Finding::of_both(Reason::Flowtable { table, name })))
}

/// The IP versions whose packets between peers pass this hook (NF_INET_* or NF_NETDEV_*), the hook
/// if it is known, and its name. None if no such packet does. An unknown family or hook may be on
/// the path.
fn on_the_path(family: u8, hook: u32) -> Option<(Families, Option<Hook>, String)> {
    let families = match family {
        IPV4 => Families::only(Family::V4),
        IPV6 => Families::only(Family::V6),
        // The interface carries neither ARP nor Ethernet.
        ARP | BRIDGE => return None,
        _ => Families::BOTH,
    };
    let known = match (family, hook) {
        (NETDEV, 0) | (INET, 5) => place::INGRESS,
        (NETDEV, 1) => place::EGRESS,
        (INET | IPV4 | IPV6, 0) => place::PREROUTING,
        (INET | IPV4 | IPV6, 1 | 3) => return None, // input, output
        (INET | IPV4 | IPV6, 2) => place::FORWARD,
        (INET | IPV4 | IPV6, 4) => place::POSTROUTING,
        _ => return Some((families, None, format!("number {hook}"))),
    };
    Some((families, Some(known), known.name.to_owned()))
}

/// Whether a chain's hook applies to the interface: it is bound to no device, or to this one.
fn applies_to(hook: &[Attribute<'_>], at: &Interface) -> io::Result<bool> {
    match (find(hook, NFTA_HOOK_DEVS), find(hook, NFTA_HOOK_DEV)) {
        (Some(devices), _) => has_interface(&devices, at),
        (None, Some(device)) => Ok(device.text() == at.name),
        (None, None) => Ok(true),
    }
}

fn has_interface(devices: &Attribute<'_>, at: &Interface) -> io::Result<bool> {
    Ok(devices.nested()?.iter().any(|device| match device.kind {
        NFTA_DEVICE_NAME => device.text() == at.name,
        NFTA_DEVICE_PREFIX => at.name.starts_with(&device.text()),
        _ => true,
    }))
}

fn family_name(family: u8) -> String {
    match family {
        INET => "inet".to_owned(),
        IPV4 => "ip".to_owned(),
        NETDEV => "netdev".to_owned(),
        IPV6 => "ip6".to_owned(),
        other => format!("number {other}"),
    }
}

/// Virtual services of IPVS, which hooks into forwarding.
pub fn virtual_services(kernel: &mut impl Kernel) -> io::Result<Vec<Finding>> {
    match kernel.listing("ip_vs") {
        Ok(text) if text.lines().count() > IPVS_HEADING => {
            Ok(vec![Finding::of_both(Reason::VirtualServices)])
        }
        Ok(_) => Ok(Vec::new()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// BPF programs linked to hooks on the path of a forwarded packet.
pub fn programs(kernel: &mut impl Kernel) -> io::Result<Vec<Finding>> {
    let links = kernel.netfilter_links()?;
    let finding = |link: NetfilterLink| {
        let family = u8::try_from(link.family).unwrap_or(0);
        let (families, ..) = on_the_path(family, link.hook)?;
        let hook = match link.hook {
            0 => "prerouting",
            2 => "forward",
            4 => "postrouting",
            _ => "of unknown number",
        };
        let reason = Reason::NetfilterProgram { link: link.id, hook };
        Some(Finding { families, reason })
    };
    Ok(links.into_iter().filter_map(finding).collect())
}
