//! From a configuration to routes and to requests for the daemon. Pure.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use wg_bounce_uapi::types::{AllowedIp, Change, PeerChange};

use crate::commands::keys;
use crate::config_file::model::{Config, Endpoint, Hook, HookTime, Peer, Table};
use crate::config_file::state::{self, PeerState, State, Wanted};

/// The routing table of the kernel's own and of most other routes (linux/rtnetlink.h).
pub(super) const MAIN_TABLE: u32 = 254;

/// A route into the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Route {
    /// The routing table.
    pub table: u32,
    /// The destinations.
    pub prefix: IpNet,
}

/// The peers of a configuration by their public keys.
pub(super) type Peers<'a> = BTreeMap<[u8; 32], Wanted<'a>>;

/// The peers, without one that has the key of the interface itself: the daemon ignores it.
pub(super) fn peers(config: &Config) -> Peers<'_> {
    let mut peers = state::peers(config);
    if let Some(key) = &config.interface.private_key {
        peers.remove(&keys::public_of(key));
    }
    peers
}

/// Removes what concerns an interface and the host's network; returns the names of the settings
/// that were there.
pub(super) fn remove_interface(config: &mut Config) -> String {
    let interface = &mut config.interface;
    let hooks = std::mem::take(&mut interface.hooks);
    let (dns, domains) =
        (std::mem::take(&mut interface.dns), std::mem::take(&mut interface.search_domains));
    let is_in = |at| hooks.iter().any(|hook| hook.at == at);
    let settings = [
        ("DNS", !dns.is_empty() || !domains.is_empty()),
        ("Table", std::mem::replace(&mut interface.table, Table::Off) != Table::Auto),
        ("PreUp", is_in(HookTime::PreUp)),
        ("PostUp", is_in(HookTime::PostUp)),
        ("PreDown", is_in(HookTime::PreDown)),
        ("PostDown", is_in(HookTime::PostDown)),
    ];
    let names = settings.iter().filter(|(_, is_there)| *is_there).map(|(name, _)| *name);
    names.collect::<Vec<_>>().join(", ")
}

/// The endpoints of peers in a file, by public keys.
pub(super) type Endpoints = BTreeMap<[u8; 32], Option<Endpoint>>;

/// The endpoints of these peers.
pub(super) fn endpoints(peers: &Peers<'_>) -> Endpoints {
    peers.iter().map(|(key, peer)| (*key, peer.endpoint.cloned())).collect()
}

fn prefixes(peers: &Peers<'_>) -> impl Iterator<Item = IpNet> {
    peers.values().flat_map(|peer| &peer.state.allowed_ips).copied()
}

/// Whether default routes get a routing table of their own, with rules that lead to it.
pub(super) fn has_default(config: &Config, peers: &Peers<'_>, is_v4: bool) -> bool {
    let is_default = |one: IpNet| one.prefix_len() == 0 && one.addr().is_ipv4() == is_v4;
    config.interface.table == Table::Auto && prefixes(peers).any(is_default)
}

/// The routes of a configuration whose default routes are in the table `default`; without one, they
/// are left out. As with wg-quick(8), what a network of the interface's addresses contains needs
/// none.
pub(super) fn routes(config: &Config, peers: &Peers<'_>, default: Option<u32>) -> BTreeSet<Route> {
    let networks: Vec<IpNet> = config.interface.addresses.iter().map(|one| one.value).collect();
    // The kernel adds no route for the address of a whole IPv4 host.
    let is_connected = |prefix: &IpNet| {
        let is_around = |network: &IpNet| {
            network.contains(prefix) && (network.addr().is_ipv6() || network.prefix_len() < 32)
        };
        networks.iter().any(is_around)
    };
    let route = |prefix: IpNet| match config.interface.table {
        Table::Off => None,
        Table::Number(table) => Some(Route { table, prefix }),
        Table::Auto if prefix.prefix_len() == 0 => default.map(|table| Route { table, prefix }),
        Table::Auto if is_connected(&prefix) => None,
        Table::Auto => Some(Route { table: MAIN_TABLE, prefix }),
    };
    prefixes(peers).filter_map(route).collect()
}

/// The changes that lead from the running state to the wanted one, for the daemon's socket. They
/// contain differences only, so that the daemon leaves the rest alone. `before` has the peers of
/// the file as they were last applied: an endpoint is set only if the file has another one now,
/// since the peer may have roamed.
pub(super) fn changes(
    running: &State,
    before: &Endpoints,
    wanted: &Config,
    peers: &Peers<'_>,
    fwmark: u32,
) -> Vec<Change> {
    let mut changes = Vec::new();
    let interface = &wanted.interface;
    if let Some(key) = &interface.private_key
        && running.private_key.as_ref() != Some(key)
    {
        changes.push(Change::PrivateKey(Some(key.clone())));
    }
    if let Some(port) = &interface.listen_port
        && running.listen_port != port.value
        && port.value != 0
    {
        changes.push(Change::ListenPort(port.value));
    }
    if running.fwmark != fwmark {
        changes.push(Change::Fwmark(fwmark));
    }
    // First, so that their prefixes are free.
    let is_up = |hook: &Hook| [HookTime::PreUp, HookTime::PostUp].contains(&hook.at);
    // A hook may have added others, as `wg addconf %i peers.conf` does.
    let keeps_others = interface.hooks.iter().any(is_up);
    let is_obsolete =
        |key: &&[u8; 32]| !peers.contains_key(*key) && (!keeps_others || before.contains_key(*key));
    for key in running.peers.keys().filter(is_obsolete) {
        let mut change = PeerChange::new(*key);
        change.remove = true;
        changes.push(Change::Peer(change));
    }
    let mut seen = BTreeSet::new();
    // In the order of the file.
    for Peer { public_key: key, .. } in &wanted.peers {
        let Some(peer) = peers.get(key).filter(|_| seen.insert(*key)) else { continue };
        let old = running.peers.get(key);
        let is_endpoint_new = old.is_none() || before.get(key) != Some(&peer.endpoint.cloned());
        changes.extend(peer_change(*key, peer, old, is_endpoint_new).map(Change::Peer));
    }
    changes
}

fn peer_change(
    key: [u8; 32],
    wanted: &Wanted<'_>,
    running: Option<&PeerState>,
    is_endpoint_new: bool,
) -> Option<PeerChange> {
    let new = PeerState::default();
    let (wanted, old) = (&wanted.state, running.unwrap_or(&new));
    let mut change = PeerChange::new(key);
    let differs = wanted.preshared_key != old.preshared_key;
    change.preshared_key = differs.then(|| wanted.preshared_key.clone());
    let differs = wanted.persistent_keepalive != old.persistent_keepalive;
    change.persistent_keepalive = differs.then_some(wanted.persistent_keepalive);
    let differs = is_endpoint_new && wanted.endpoint != old.endpoint;
    change.endpoint = wanted.endpoint.filter(|_| differs);
    let added = wanted.allowed_ips.difference(&old.allowed_ips);
    let removed = old.allowed_ips.difference(&wanted.allowed_ips);
    change.allowed_ips = removed
        .map(|prefix| AllowedIp { prefix: *prefix, remove: true })
        .chain(added.map(|prefix| AllowedIp { prefix: *prefix, remove: false }))
        .collect();
    let is_changed = running.is_none()
        || change.preshared_key.is_some()
        || change.persistent_keepalive.is_some()
        || change.endpoint.is_some()
        || !change.allowed_ips.is_empty();
    is_changed.then_some(change)
}

/// Settings that a file had, and that are reset when they are removed from it. What a hook has set
/// instead stays.
#[derive(Clone, Copy, Default)]
pub(super) struct Had {
    private_key: bool,
    listen_port: bool,
}

impl Had {
    /// Those of a configuration.
    pub fn of(config: &Config) -> Had {
        let interface = &config.interface;
        Had {
            private_key: interface.private_key.is_some(),
            listen_port: interface.listen_port.is_some_and(|port| port.value != 0),
        }
    }

    /// The changes that reset what is gone.
    pub fn changes(self, now: Had) -> impl Iterator<Item = Change> {
        let key = (self.private_key && !now.private_key).then_some(Change::PrivateKey(None));
        let port = (self.listen_port && !now.listen_port).then_some(Change::ListenPort(0));
        key.into_iter().chain(port)
    }
}
