//! Netfilter on the path of a forwarded packet: nftables (including iptables-nft), IPVS, BPF.
//!
//! Connection tracking enabled by other chains does not count: without a rule on the path it has no
//! effect on the packet.

use std::io;

use wg_bounce_sys::Family;

use super::kernel::{Interface, Kernel, NetfilterLink};
use super::reason::{ChainEffect, Families, Finding, Reason};
use crate::netlink::attribute::{Attribute, find, need};
use crate::netlink::message::{Message, Protocol, Request};
use crate::netlink::numbers::{
    NFT_MSG_GETCHAIN, NFT_MSG_GETFLOWTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWFLOWTABLE,
    NFTA_CHAIN_HOOK, NFTA_CHAIN_NAME, NFTA_CHAIN_POLICY, NFTA_CHAIN_TABLE, NFTA_CHAIN_USE,
    NFTA_DEVICE_NAME, NFTA_DEVICE_PREFIX, NFTA_FLOWTABLE_DEVS, NFTA_FLOWTABLE_HOOK,
    NFTA_FLOWTABLE_NAME, NFTA_FLOWTABLE_TABLE, NFTA_HOOK_DEV, NFTA_HOOK_DEVS, NFTA_HOOK_HOOKNUM,
};
use crate::netlink::parse::malformed;

/// Bytes of `struct nfgenmsg`; the first one is the family.
const HEADER_LEN: usize = 4;

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

/// Base chains with an effect on forwarded packets, and flowtables that contain the interface.
pub fn tables(kernel: &mut impl Kernel, at: &Interface) -> io::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for message in listed(kernel, NFT_MSG_GETCHAIN, NFT_MSG_NEWCHAIN)? {
        findings.extend(chain(&message, at)?);
    }
    for message in listed(kernel, NFT_MSG_GETFLOWTABLE, NFT_MSG_NEWFLOWTABLE)? {
        findings.extend(flowtable(&message, at)?);
    }
    Ok(findings)
}

/// All objects of a kind; none if the kernel has no nftables.
fn listed(kernel: &mut impl Kernel, request: u16, kind: u16) -> io::Result<Vec<Message>> {
    match kernel.query(Protocol::Netfilter, &Request::dump(request, &[0; HEADER_LEN])) {
        Ok(reply) if reply.iter().all(|message| message.kind == kind) => Ok(reply),
        Ok(_) => Err(malformed()),
        // `nfnetlink_rcv_msg` in net/netfilter/nfnetlink.c: the subsystem is not registered.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn chain(message: &Message, at: &Interface) -> io::Result<Option<Finding>> {
    let (header, attributes) = message.split(HEADER_LEN)?;
    let Some(hook) = find(&attributes, NFTA_CHAIN_HOOK) else { return Ok(None) };
    let hook = hook.nested()?;
    let number = need(&hook, NFTA_HOOK_HOOKNUM)?.u32_be()?;
    let Some((families, hook_name)) = on_the_path(header[0], number) else { return Ok(None) };
    if !applies_to(&hook, at)? {
        return Ok(None);
    }
    let rules = need(&attributes, NFTA_CHAIN_USE)?.u32_be()?;
    let policy = need(&attributes, NFTA_CHAIN_POLICY)?.u32_be()?;
    let effect = match (rules, policy) {
        (0, NF_ACCEPT) => return Ok(None),
        (0, _) => ChainEffect::Policy,
        _ => ChainEffect::Rules,
    };
    let reason = Reason::Chain {
        family: family_name(header[0]),
        table: need(&attributes, NFTA_CHAIN_TABLE)?.text(),
        chain: need(&attributes, NFTA_CHAIN_NAME)?.text(),
        hook: hook_name,
        effect,
    };
    Ok(Some(Finding { families, reason }))
}

fn flowtable(message: &Message, at: &Interface) -> io::Result<Option<Finding>> {
    let (_, attributes) = message.split(HEADER_LEN)?;
    let hook = need(&attributes, NFTA_FLOWTABLE_HOOK)?.nested()?;
    let devices = find(&hook, NFTA_FLOWTABLE_DEVS);
    if !devices.map_or(Ok(false), |devices| has_interface(&devices, at))? {
        return Ok(None);
    }
    let table = need(&attributes, NFTA_FLOWTABLE_TABLE)?.text();
    let name = need(&attributes, NFTA_FLOWTABLE_NAME)?.text();
    Ok(Some(Finding::of_both(Reason::Flowtable { table, name })))
}

/// The IP versions whose packets between peers pass this hook (NF_INET_* or NF_NETDEV_*), and its
/// name. None if no such packet does. An unknown family or hook may be on the path.
fn on_the_path(family: u8, hook: u32) -> Option<(Families, String)> {
    let families = match family {
        IPV4 => Families::only(Family::V4),
        IPV6 => Families::only(Family::V6),
        // The interface carries neither ARP nor Ethernet.
        ARP | BRIDGE => return None,
        _ => Families::BOTH,
    };
    let name = match (family, hook) {
        (NETDEV, 0) => "ingress",
        (NETDEV, 1) => "egress",
        (INET | IPV4 | IPV6, 0) => "prerouting",
        (INET | IPV4 | IPV6, 1 | 3) => return None, // input, output
        (INET | IPV4 | IPV6, 2) => "forward",
        (INET | IPV4 | IPV6, 4) => "postrouting",
        (INET, 5) => "ingress",
        _ => return Some((families, format!("number {hook}"))),
    };
    Some((families, name.to_owned()))
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
        let (families, _) = on_the_path(family, link.hook)?;
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
