//! Changes of this host's network by rtnetlink(7), in the namespace of the calling thread: links,
//! addresses, routes, rules.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::{fmt, fs};

use ipnet::IpNet;
use netlink_packet_core::parse_u32;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::plan::{MAIN_TABLE, Route};
use crate::link::message::{self, Event};
use crate::netlink::attribute::{Attribute, attributes, find};
use crate::netlink::message::{Message, Protocol, Request};
use crate::netlink::numbers::{
    FIB_RULE_INVERT, FRA_FWMARK, FRA_FWMASK, FRA_PRIORITY, FRA_SUPPRESS_PREFIXLEN, FRA_TABLE,
    RTAX_MTU,
};
use crate::netlink::parse::{array, malformed};
use crate::netlink::socket::{self, NetlinkSocket};

/// The interface.
pub(super) struct Host {
    socket: NetlinkSocket,
    /// Zero, which is never the index of an interface, without one.
    index: u32,
}

/// Whether the IPv4 or the IPv6 of something is meant.
fn family(is_v4: bool) -> AddressFamily {
    if is_v4 { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

impl Host {
    /// The host with this interface, or without any (`--tun off`).
    ///
    /// # Errors
    /// ENODEV: it does not exist. Those of opening a netlink socket.
    pub fn new(interface: Option<&str>) -> io::Result<Host> {
        let socket = NetlinkSocket::open(Protocol::Route, &[])?;
        let index = interface.map(nix::net::if_::if_nametoindex).transpose()?;
        Ok(Host { socket, index: index.unwrap_or(0) })
    }

    /// Whether the interface is missing.
    pub fn has_none(&self) -> bool {
        self.index == 0
    }

    /// Sets the MTU, and brings the interface up.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_link(&mut self, mtu: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = self.index;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        link.attributes.push(LinkAttribute::Mtu(mtu));
        self.change(&Request::change_route(&RouteNetlinkMessage::SetLink(link)))
    }

    /// The addresses of the interface.
    ///
    /// # Errors
    /// The kernel's reply cannot be read.
    pub fn addresses(&mut self) -> io::Result<BTreeSet<IpNet>> {
        let message = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let mut found = BTreeSet::new();
        for message in socket::request(Protocol::Route, &Request::dump_route(&message))? {
            // linux/if_addr.h: family, length of the prefix, flags, scope, index.
            let (header, attributes) = message.split(8)?;
            if u32::from_ne_bytes(array(&header[4..])?) != self.index {
                continue;
            }
            let local = find(&attributes, libc::IFA_LOCAL);
            let Some(address) = local.or(find(&attributes, libc::IFA_ADDRESS)) else { continue };
            found.insert(network(address.value, header[1])?);
        }
        Ok(found)
    }

    /// Adds an address. It may be there already.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn add_address(&mut self, address: IpNet) -> io::Result<()> {
        let message = RouteNetlinkMessage::NewAddress(self.address(address));
        let added = self.change(&Request::create_route(&message));
        match unless(added, io::ErrorKind::AlreadyExists) {
            Err(error)
                if error.kind() == io::ErrorKind::PermissionDenied && address.addr().is_ipv6() =>
            {
                Err(io::Error::other("IPv6 is off: see sysctl net.ipv6.conf.all.disable_ipv6"))
            }
            result => result,
        }
    }

    /// Removes an address, which may be gone already.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove_address(&mut self, address: IpNet) -> io::Result<()> {
        let message = RouteNetlinkMessage::DelAddress(self.address(address));
        let removed = self.change(&Request::change_route(&message));
        unless(removed, io::ErrorKind::AddrNotAvailable)
    }

    fn address(&self, address: IpNet) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.family = family(address.addr().is_ipv4());
        message.header.prefix_len = address.prefix_len();
        message.header.index = self.index;
        // As ip-address(8) does.
        let is_of_host = address.addr().is_loopback() && address.addr().is_ipv4();
        message.header.scope = if is_of_host { AddressScope::Host } else { AddressScope::Universe };
        let address = address.addr();
        message.attributes =
            vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
        message
    }

    /// The unicast routes into the interface that were added by programs, not by the kernel.
    ///
    /// # Errors
    /// The kernel's reply cannot be read.
    pub fn routes(&mut self) -> io::Result<BTreeSet<Route>> {
        let mut found = BTreeSet::new();
        for is_v4 in [true, false] {
            each_route(is_v4, &mut |header, attributes| {
                let is_added = header[5] == u8::from(RouteProtocol::Boot);
                if is_added && self.is_into_interface(attributes) {
                    found.insert(Route {
                        table: table_of(header, attributes)?,
                        prefix: prefix_of(header, attributes, is_v4)?,
                    });
                }
                Ok(())
            })?;
        }
        Ok(found)
    }

    /// Adds a route.
    ///
    /// # Errors
    /// EEXIST: this interface or another one has it. Other refusals of the kernel.
    pub fn add_route(&mut self, route: Route) -> io::Result<()> {
        let message = RouteNetlinkMessage::NewRoute(self.route(route));
        self.change(&Request::create_route(&message))
    }

    /// Removes a route, which may be gone already.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove_route(&mut self, route: Route) -> io::Result<()> {
        let message = RouteNetlinkMessage::DelRoute(self.route(route));
        let removed = self.change(&Request::change_route(&message));
        ignore_missing(removed)
    }

    /// As ip-route(8) writes it.
    fn route(&self, route: Route) -> RouteMessage {
        let Route { table, prefix } = route;
        let is_v4 = prefix.addr().is_ipv4();
        let mut message = RouteMessage::default();
        message.header.address_family = family(is_v4);
        message.header.destination_prefix_length = prefix.prefix_len();
        // Numbers that do not fit are in the attribute alone.
        message.header.table = u8::try_from(table).unwrap_or(0);
        message.header.protocol = RouteProtocol::Boot;
        message.header.scope = if is_v4 { RouteScope::Link } else { RouteScope::Universe };
        message.header.kind = RouteType::Unicast;
        if prefix.prefix_len() > 0 {
            message.attributes.push(RouteAttribute::Destination(prefix.network().into()));
        }
        message.attributes.extend([RouteAttribute::Oif(self.index), RouteAttribute::Table(table)]);
        message
    }

    /// Adds a route, unless the interface has it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn ensure_route(&mut self, route: Route) -> io::Result<()> {
        match self.add_route(route) {
            Err(error)
                if error.kind() == io::ErrorKind::AlreadyExists
                    && self.routes()?.contains(&route) =>
            {
                Ok(())
            }
            result => result,
        }
    }

    /// Adds the rules that lead all packets without the mark `table` into the routing table of
    /// that number, but for those with a better route than a default one in the main table. Does
    /// nothing if they are there. Returns the priority of the first; `known` is what it was.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn add_rules(&mut self, table: u32, is_v4: bool, known: Option<u32>) -> io::Result<u32> {
        let mut rules = listed(is_v4)?;
        if priority_of(&rules, table).is_none() {
            self.change(&rule_request(&to_table(table, is_v4), known, RuleChange::Add))?;
            rules = listed(is_v4)?;
        }
        let priority = priority_of(&rules, table).ok_or_else(malformed)?;
        let full = || io::Error::other("no priority is left before those of the other rules");
        let before = priority.checked_sub(1).filter(|before| *before > 0).ok_or_else(full)?;
        if !rules.iter().any(|rule| rule.is_to_main && rule.priority == before) {
            self.change(&rule_request(&to_main(is_v4), Some(before), RuleChange::Add))?;
        }
        Ok(priority)
    }

    /// Removes the rules for this table; also those of an earlier process that was killed.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove_rules(&mut self, table: u32, is_v4: bool) -> io::Result<()> {
        let mut rules = listed(is_v4)?;
        while let Some(priority) = priority_of(&rules, table) {
            let request = rule_request(&to_table(table, is_v4), Some(priority), RuleChange::Remove);
            self.change(&request)?;
            // That of another tunnel must stay.
            let before = priority.saturating_sub(1);
            let request = rule_request(&to_main(is_v4), Some(before), RuleChange::Remove);
            ignore_missing(self.change(&request))?;
            rules = listed(is_v4)?;
        }
        Ok(())
    }

    /// The MTU of the way of our datagrams to this address: that of the route, or else that of its
    /// link. None if the only way is through the tunnel itself, or there is none.
    ///
    /// # Errors
    /// The kernel's reply cannot be read.
    pub fn mtu_to(&self, address: IpAddr, mark: u32) -> io::Result<Option<u32>> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(address.is_ipv4());
        message.header.destination_prefix_length = if address.is_ipv4() { 32 } else { 128 };
        let attributes = [RouteAttribute::Destination(address.into()), RouteAttribute::Mark(mark)];
        message.attributes.extend(attributes);
        let request = Request::get_route(&RouteNetlinkMessage::GetRoute(message));
        match socket::request(Protocol::Route, &request) {
            // Unreachable, prohibited, a black hole, or no such IP version here.
            Err(error) if error.raw_os_error().is_some() => Ok(None),
            Err(error) => Err(error),
            Ok(messages) => {
                let message = messages.first().ok_or_else(malformed)?;
                let (_, attributes) = message.split(12)?;
                match self.is_into_interface(&attributes) {
                    true => Ok(None),
                    false => mtu_of_route(&attributes),
                }
            }
        }
    }

    /// Whether a route leads into the interface.
    fn is_into_interface(&self, route: &[Attribute<'_>]) -> bool {
        let index = find(route, libc::RTA_OIF).and_then(|one| one.u32().ok());
        index == Some(self.index)
    }

    fn change(&mut self, request: &Request) -> io::Result<()> {
        self.socket.request(request).map(drop)
    }
}

/// The MTU of the IPv4 default route in the main table. None if there is none.
///
/// # Errors
/// The kernel's reply cannot be read.
pub(super) fn mtu_of_default_route() -> io::Result<Option<u32>> {
    let mut mtu = None;
    each_route(true, &mut |header, attributes| {
        if header[1] == 0 && table_of(header, attributes)? == MAIN_TABLE && mtu.is_none() {
            mtu = mtu_of_route(attributes)?;
        }
        Ok(())
    })?;
    Ok(mtu)
}

/// The first table from 51820 on without routes, as wg-quick(8) chooses one.
///
/// # Errors
/// The kernel's reply cannot be read.
pub(super) fn free_table() -> io::Result<u32> {
    let mut used = BTreeSet::new();
    for is_v4 in [true, false] {
        each_route(is_v4, &mut |header, attributes| {
            used.insert(table_of(header, attributes)?);
            Ok(())
        })?;
    }
    (51_820..).find(|table| !used.contains(table)).ok_or_else(malformed)
}

/// Lets the kernel look at marks when it checks whether a source address is valid.
///
/// # Errors
/// The setting is read-only, and off.
pub(super) fn set_src_valid_mark() -> io::Result<()> {
    const SETTING: &str = "/proc/sys/net/ipv4/conf/all/src_valid_mark";
    match fs::read_to_string(SETTING)?.trim() {
        "0" => fs::write(SETTING, "1"),
        _ => Ok(()),
    }
}

/// A visitor of a route's header (`struct rtmsg`) and attributes.
type Visitor<'a> = dyn FnMut(&[u8], &[Attribute<'_>]) -> io::Result<()> + 'a;

/// Calls `each` with the header and the attributes of each unicast route.
fn each_route(is_v4: bool, each: &mut Visitor<'_>) -> io::Result<()> {
    let mut message = RouteMessage::default();
    message.header.address_family = family(is_v4);
    let request = Request::dump_route(&RouteNetlinkMessage::GetRoute(message));
    for message in socket::request(Protocol::Route, &request)? {
        let (header, attributes) = message.split(12)?;
        if header[7] == u8::from(RouteType::Unicast) {
            each(header, &attributes)?;
        }
    }
    Ok(())
}

fn table_of(header: &[u8], attributes: &[Attribute<'_>]) -> io::Result<u32> {
    match find(attributes, libc::RTA_TABLE) {
        Some(table) => table.u32(),
        None => Ok(header[4].into()),
    }
}

fn prefix_of(header: &[u8], attributes: &[Attribute<'_>], is_v4: bool) -> io::Result<IpNet> {
    let any: &[u8] = if is_v4 { &[0; 4] } else { &[0; 16] };
    network(find(attributes, libc::RTA_DST).map_or(any, |one| one.value), header[1])
}

fn network(address: &[u8], length: u8) -> io::Result<IpNet> {
    let address = match *address {
        [_, _, _, _] => IpAddr::from(array::<4>(address)?),
        _ => IpAddr::from(array::<16>(address)?),
    };
    IpNet::new(address, length).map_err(|_| malformed())
}

fn mtu_of_route(route: &[Attribute<'_>]) -> io::Result<Option<u32>> {
    let metrics = find(route, libc::RTA_METRICS).map(|one| attributes(one.value)).transpose()?;
    let mtu = metrics.and_then(|metrics| find(&metrics, RTAX_MTU)).map(|one| parse_u32(one.value));
    if let Some(mtu) = mtu {
        return mtu.map(Some).map_err(|_| malformed());
    }
    let Some(index) = find(route, libc::RTA_OIF) else { return Ok(None) };
    let mut link = LinkMessage::default();
    link.header.index = index.u32()?;
    let request = Request::get_route(&RouteNetlinkMessage::GetLink(link));
    let reply = socket::request(Protocol::Route, &request)?;
    match reply.first().and_then(message::event) {
        Some(Event::Present(link)) => Ok(u32::try_from(link.mtu).ok()),
        _ => Err(malformed()),
    }
}

/// A rule, as far as it matters here.
struct Listed {
    priority: u32,
    /// The table that all packets without its number as a mark are led to.
    to_table: Option<u32>,
    /// It leads to routes in the main table that are no default routes.
    is_to_main: bool,
}

/// The rules, in their order.
fn listed(is_v4: bool) -> io::Result<Vec<Listed>> {
    let mut message = RuleMessage::default();
    message.header.family = family(is_v4);
    let request = Request::dump_route(&RouteNetlinkMessage::GetRule(message));
    let read = |message: &Message| {
        let (header, attributes) = message.split(12)?;
        let number = |kind| find(&attributes, kind).map(|one| one.u32()).transpose();
        let flags = u32::from_ne_bytes(array(&header[8..])?);
        let table = number(FRA_TABLE)?.unwrap_or(header[4].into());
        let mark = number(FRA_FWMARK)?;
        let is_whole = number(FRA_FWMASK)?.is_none_or(|mask| mask == u32::MAX);
        let is_inverted = flags & FIB_RULE_INVERT != 0;
        Ok(Listed {
            priority: number(FRA_PRIORITY)?.unwrap_or(0),
            to_table: Some(table).filter(|_| is_inverted && is_whole && mark == Some(table)),
            is_to_main: table == MAIN_TABLE
                && !is_inverted
                && mark.is_none()
                && number(FRA_SUPPRESS_PREFIXLEN)? == Some(0),
        })
    };
    socket::request(Protocol::Route, &request)?.iter().map(read).collect()
}

fn priority_of(rules: &[Listed], table: u32) -> Option<u32> {
    rules.iter().find(|rule| rule.to_table == Some(table)).map(|rule| rule.priority)
}

fn to_table(table: u32, is_v4: bool) -> RuleMessage {
    let mut rule = rule_to(table, is_v4);
    rule.header.flags = RuleFlags::Invert;
    rule.attributes.push(RuleAttribute::FwMark(table));
    rule
}

fn to_main(is_v4: bool) -> RuleMessage {
    let mut rule = rule_to(MAIN_TABLE, is_v4);
    rule.attributes.push(RuleAttribute::SuppressPrefixLen(0));
    rule
}

fn rule_to(table: u32, is_v4: bool) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = family(is_v4);
    rule.header.action = RuleAction::ToTable;
    // Numbers that do not fit are in the attribute alone.
    rule.header.table = u8::try_from(table).unwrap_or(0);
    rule.attributes.push(RuleAttribute::Table(table));
    rule
}

/// The direction of a change.
enum RuleChange {
    Add,
    Remove,
}

fn rule_request(rule: &RuleMessage, priority: Option<u32>, change: RuleChange) -> Request {
    let mut rule = rule.clone();
    rule.attributes.extend(priority.map(RuleAttribute::Priority));
    match change {
        RuleChange::Add => Request::create_route(&RouteNetlinkMessage::NewRule(rule)),
        RuleChange::Remove => Request::change_route(&RouteNetlinkMessage::DelRule(rule)),
    }
}

/// 0.0.0.0/0 or ::/0.
pub(super) fn default_prefix(is_v4: bool) -> IpNet {
    match is_v4 {
        true => IpNet::V4(Default::default()),
        false => IpNet::V6(Default::default()),
    }
}

/// The error of a change of `what`.
pub(super) fn describe(what: impl fmt::Display) -> impl Fn(io::Error) -> String {
    move |error| format!("{what}: {error}")
}

fn unless(result: io::Result<()>, kind: io::ErrorKind) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == kind => Ok(()),
        result => result,
    }
}

/// ENOENT: no such rule. ESRCH: no such route.
fn is_missing(error: &io::Error) -> bool {
    [Some(libc::ENOENT), Some(libc::ESRCH)].contains(&error.raw_os_error())
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if is_missing(&error) => Ok(()),
        result => result,
    }
}
