//! Default routes through the tunnel: a routing table of their own, the rules that lead to it, and
//! the table of nftables against leaks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::host::{self, Host, describe};
use super::leak_guard;
use super::plan::Route;

/// The parts that are in place.
pub(super) struct DefaultRoute {
    interface: String,
    /// Routing tables that rules lead to, each with the IP version: whether it is IPv4. Once the
    /// rule is there, its priority.
    rules: BTreeMap<(u32, bool), Option<u32>>,
    /// The addresses and the mark that the table of nftables has.
    guarded: Option<(Vec<IpAddr>, u32)>,
}

/// A default route that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The routing table, and the mark of our own datagrams.
    pub table: u32,
    /// The IP versions that have one.
    pub is_v4: BTreeSet<bool>,
    /// The addresses of the interface.
    pub addresses: Vec<IpAddr>,
}

impl DefaultRoute {
    /// None yet.
    pub fn none(interface: &str) -> DefaultRoute {
        let interface = interface.to_owned();
        DefaultRoute { interface, rules: BTreeMap::new(), guarded: None }
    }

    /// The routing table in use.
    pub fn table(&self) -> Option<u32> {
        self.rules.keys().next().map(|(table, _)| *table)
    }

    /// Adds all parts that are missing.
    ///
    /// # Errors
    /// The kernel refuses one.
    pub fn add(&mut self, host: &mut Host, wanted: &Wanted) -> Result<(), String> {
        let Wanted { table, is_v4: versions, addresses } = wanted;
        if versions.contains(&true) {
            host::set_src_valid_mark().map_err(describe("net.ipv4.conf.all.src_valid_mark=1"))?;
        }
        // Before the rules, so that no packet to the tunnel's addresses slips in.
        let guarded = addresses.iter().filter(|one| versions.contains(&one.is_ipv4())).copied();
        let guarded: Vec<IpAddr> = guarded.collect();
        let failed = || describe("nftables (modprobe nf_tables)");
        let is_whole = leak_guard::is_whole(&self.interface, guarded.len()).map_err(failed())?;
        let guarded = Some((guarded, *table));
        if self.guarded != guarded || !is_whole {
            self.guarded = guarded;
            let addresses = self.guarded.as_ref().map_or(&[][..], |(addresses, _)| addresses);
            leak_guard::set(&self.interface, addresses, *table).map_err(failed())?;
        }
        for is_v4 in versions {
            let prefix = host::default_prefix(*is_v4);
            host.ensure_route(Route { table: *table, prefix }).map_err(describe(prefix))?;
            // From here on the table is ours, and not another tunnel's.
            let priority = self.rules.entry((*table, *is_v4)).or_default();
            let added = host.add_rules(*table, *is_v4, *priority);
            *priority = Some(added.map_err(describe("routing rules"))?);
        }
        Ok(())
    }

    /// Removes all parts but the wanted ones.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn keep(&mut self, host: &mut Host, wanted: Option<&Wanted>) -> Result<(), String> {
        let is_kept = |(table, is_v4): &(u32, bool)| {
            wanted.is_some_and(|wanted| wanted.table == *table && wanted.is_v4.contains(is_v4))
        };
        let others: Vec<_> = self.rules.keys().filter(|one| !is_kept(one)).copied().collect();
        for (table, is_v4) in others {
            host.remove_rules(table, is_v4).map_err(describe("routing rules"))?;
            self.rules.remove(&(table, is_v4));
        }
        if self.guarded.is_some() && wanted.is_none() {
            leak_guard::unset(&self.interface).map_err(describe("nftables"))?;
            self.guarded = None;
        }
        Ok(())
    }
}
