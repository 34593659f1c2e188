//! An interface that is up, and the way there and back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::process::ExitStatus;
use std::time::Duration;

use ipnet::IpNet;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use wg_bounce_sys::clock::{self, Millis};
use wg_bounce_uapi::types::{Change, PeerChange};

use super::daemon::Daemon;
use super::host::{self, Host};
use super::names::{Intervals, Names};
use super::plan::{self, Route};
use super::{dns, hooks, leak_guard};
use crate::commands::keys;
use crate::config_file::model::{Config, Endpoint, Hook, HookTime};
use crate::config_file::save::Running;
use crate::limits::RESOLVE_TIME_MAX;

/// Bytes that a tunnel adds to a packet over IPv6, as wg-quick(8) reckons.
const OVERHEAD: u32 = 80;
/// The MTU of a way that is not known (bytes).
const USUAL_MTU: u32 = 1500;

/// The interface.
pub(super) struct Tunnel {
    interface: String,
    /// The configuration that was applied last.
    config: Config,
    daemon: Daemon,
    host: Host,
    names: Names,
    intervals: Intervals,
    last_look: Millis,
    /// The mark of our own datagrams, or zero.
    mark: u32,
    /// The table that rules lead to, of IPv4 and IPv6, while there are default routes.
    rules: [Option<u32>; 2],
    addresses: BTreeSet<IpNet>,
    /// The input of the nftables table in force.
    guarded: Option<Guarded>,
    routes: BTreeSet<Route>,
    /// The endpoints in the file that was applied last.
    endpoints: BTreeMap<[u8; 32], Option<Endpoint>>,
    servers: Option<Servers>,
}

/// The servers for names, and the search domains.
#[derive(PartialEq, Eq)]
struct Servers {
    addresses: Vec<IpAddr>,
    domains: Vec<String>,
}

impl Servers {
    /// Those of a configuration. As with wg-quick(8), domains without a server are none.
    fn of(config: &Config) -> Option<Servers> {
        let interface = &config.interface;
        let (addresses, domains) = (interface.dns.clone(), interface.search_domains.clone());
        (!addresses.is_empty()).then_some(Servers { addresses, domains })
    }
}

/// The input of the nftables table against leaks.
#[derive(PartialEq, Eq)]
struct Guarded {
    addresses: Vec<IpAddr>,
    mark: u32,
}

impl Tunnel {
    /// Brings the interface up. If that fails, everything is as before.
    ///
    /// # Errors
    /// The first failure.
    pub fn up(
        interface: &str,
        config: Config,
        options: &[String],
        intervals: Intervals,
    ) -> Result<Tunnel, String> {
        if if_nametoindex(interface).is_ok() {
            return Err(format!(
                "an interface {interface} exists already: see ip link show {interface}"
            ));
        }
        // Of a process that was killed; or nftables is missing, which matters only if it is needed.
        let _ = leak_guard::unset(interface);
        let hooks = config.interface.hooks.clone();
        let undo = |error: String| {
            hooks::run_all(&hooks, HookTime::PostDown, interface);
            error
        };
        hooks::run(&hooks, HookTime::PreUp, interface).map_err(undo)?;
        let daemon = Daemon::start(interface, options).map_err(undo)?;
        let failed = |error| undo(format!("{interface}: {error}"));
        let host = Host::new(interface).map_err(failed)?;
        let names = Names::start(intervals).map_err(failed)?;
        let mut tunnel = Tunnel {
            interface: interface.to_owned(),
            config: Config::default(),
            daemon,
            host,
            names,
            intervals,
            last_look: clock::boot_time(),
            mark: 0,
            rules: [None; 2],
            addresses: BTreeSet::new(),
            guarded: None,
            routes: BTreeSet::new(),
            endpoints: BTreeMap::new(),
            servers: None,
        };
        let result = tunnel.apply(&config);
        tunnel.config = config;
        let result = result.and_then(|()| hooks::run(&hooks, HookTime::PostUp, interface));
        match result {
            Ok(()) => Ok(tunnel),
            Err(error) => {
                tunnel.down(false);
                Err(error)
            }
        }
    }

    /// Takes the interface down, and undoes everything. PreDown hooks run if it `is_up` still.
    pub fn down(&mut self, is_up: bool) {
        let interface = &self.interface;
        let warn = |result: Result<(), String>| {
            if let Err(error) = result {
                log::warn!("{interface}: {error}");
            }
        };
        if is_up {
            hooks::run_all(&self.config.interface.hooks, HookTime::PreDown, interface);
        }
        if self.servers.is_some() {
            warn(dns::unset(interface));
        }
        if self.guarded.is_some() {
            warn(leak_guard::unset(interface).map_err(describe("nftables")));
        }
        for (table, is_v4) in self.rules.into_iter().zip([true, false]) {
            let removed = table.map_or(Ok(()), |table| self.host.remove_rules(table, is_v4));
            warn(removed.map_err(describe("routing rules")));
        }
        self.daemon.stop();
        hooks::run_all(&self.config.interface.hooks, HookTime::PostDown, interface);
    }

    /// Applies another configuration without touching what is equal; returns a note, if any.
    ///
    /// # Errors
    /// The first failure. The earlier configuration is applied again.
    pub fn reload(&mut self, config: Config) -> Result<String, String> {
        let old = std::mem::take(&mut self.config);
        let without = |these: &[Hook], those: &[Hook]| -> Vec<Hook> {
            let is_new = |hook: &&Hook| {
                !those.iter().any(|o| (o.at, &o.command) == (hook.at, &hook.command))
            };
            these.iter().filter(is_new).cloned().collect()
        };
        let removed = without(&old.interface.hooks, &config.interface.hooks);
        let added = without(&config.interface.hooks, &old.interface.hooks);
        let mut errors = Vec::new();
        // A hook that goes is undone by the hooks that go with it.
        if removed.iter().any(|hook| [HookTime::PreUp, HookTime::PostUp].contains(&hook.at)) {
            hooks::run_all(&removed, HookTime::PreDown, &self.interface);
            hooks::run_all(&removed, HookTime::PostDown, &self.interface);
        }
        errors.extend(hooks::run(&added, HookTime::PreUp, &self.interface).err());
        if let Err(error) = self.apply(&config) {
            let restored = self.apply(&old);
            self.config = old;
            return match restored {
                Ok(()) => Err(format!("{error}; the earlier configuration is in force")),
                Err(other) => Err(format!("{error}; then the earlier configuration: {other}")),
            };
        }
        errors.extend(hooks::run(&added, HookTime::PostUp, &self.interface).err());
        let options = |config: &Config| -> Vec<_> {
            config.options.iter().map(|one| (one.name.clone(), one.value.clone())).collect()
        };
        let note = match options(&old) == options(&config) {
            true => "",
            false => "the options in # wg-bounce: take effect at the next start\n",
        };
        self.config = config;
        match errors.is_empty() {
            true => Ok(note.to_owned()),
            false => Err(format!("applied, but {}", errors.join("; "))),
        }
    }

    /// Brings everything but the hooks to what the configuration asks for.
    fn apply(&mut self, config: &Config) -> Result<(), String> {
        let peers = plan::peers(config);
        let [has_v4, has_v6] = [true, false].map(|is_v4| plan::has_default(config, &peers, is_v4));
        let chosen_mark = config.interface.fwmark.unwrap_or(0);
        let before = self.rules.into_iter().flatten().next();
        let table = match (has_v4 || has_v6, chosen_mark, before) {
            (false, ..) => None,
            (true, 0, Some(table)) => Some(table),
            (true, 0, None) => Some(host::free_table().map_err(describe("routing tables"))?),
            (true, mark, _) => Some(mark),
        };
        let mark = table.unwrap_or(chosen_mark);
        self.mark = mark;
        let running = self.daemon.state()?;
        self.daemon.change(plan::changes(&running, &self.endpoints, config, &peers, mark))?;
        self.endpoints = peers.iter().map(|(key, peer)| (*key, peer.endpoint.cloned())).collect();
        self.names.set(&peers);
        self.daemon.name(&peers);
        self.apply_addresses(config)?;
        self.resolve()?;
        self.set_mtu(config.interface.mtu)?;
        self.apply_dns(config)?;
        self.apply_routes(plan::routes(config, &peers, mark))?;
        self.apply_default(config, table, [has_v4, has_v6])
    }

    fn apply_addresses(&mut self, config: &Config) -> Result<(), String> {
        let wanted: Vec<IpNet> = config.interface.addresses.iter().map(|one| one.value).collect();
        // The kernel forgets all routes of an interface without any address: first the new ones.
        self.addresses.extend(&wanted);
        self.add_missing_addresses(&wanted)?;
        self.addresses.retain(|address| !wanted.contains(address));
        while let Some(address) = self.addresses.first().copied() {
            let removed = self.host.remove_address(address);
            removed.map_err(describe(format!("Address {address}")))?;
            self.addresses.remove(&address);
        }
        self.addresses.extend(&wanted);
        // With an address, the kernel removes those of the same network that came later.
        self.add_missing_addresses(&wanted)
    }

    fn add_missing_addresses(&mut self, wanted: &[IpNet]) -> Result<(), String> {
        let present = self.host.addresses().map_err(describe("addresses"))?;
        for address in wanted.iter().filter(|address| !present.contains(address)) {
            self.host.add_address(*address).map_err(describe(format!("Address {address}")))?;
        }
        Ok(())
    }

    fn apply_routes(&mut self, wanted: BTreeSet<Route>) -> Result<(), String> {
        let about =
            |route: &Route| describe(format!("route to {} in table {}", route.prefix, route.table));
        let present = self.host.routes().map_err(describe("routes"))?;
        for route in self.routes.difference(&wanted).filter(|route| present.contains(route)) {
            self.host.remove_route(*route).map_err(about(route))?;
        }
        for route in wanted.difference(&present) {
            self.host.add_route(*route).map_err(about(route))?;
        }
        self.routes = wanted;
        Ok(())
    }

    /// Rules, the table of nftables, and the setting that default routes need.
    fn apply_default(
        &mut self,
        config: &Config,
        table: Option<u32>,
        has_default: [bool; 2],
    ) -> Result<(), String> {
        for (at, is_v4) in [(0, true), (1, false)] {
            let wanted = table.filter(|_| has_default[at]);
            if self.rules[at] == wanted {
                continue;
            }
            // Also those of a process that was killed.
            for table in self.rules[at].take().into_iter().chain(wanted) {
                self.host.remove_rules(table, is_v4).map_err(describe("routing rules"))?;
            }
            if let Some(table) = wanted {
                self.rules[at] = wanted;
                self.host.add_rules(table, is_v4).map_err(describe("routing rules"))?;
            }
        }
        let has = |is_v4: bool| has_default[usize::from(!is_v4)];
        let guarded = table.map(|mark| {
            let addresses = config.interface.addresses.iter().map(|one| one.value.addr());
            Guarded { addresses: addresses.filter(|one| has(one.is_ipv4())).collect(), mark }
        });
        if guarded == self.guarded {
            return Ok(());
        }
        match &guarded {
            Some(Guarded { addresses, mark }) => {
                if has(true) {
                    host::set_src_valid_mark()
                        .map_err(describe("net.ipv4.conf.all.src_valid_mark=1"))?;
                }
                leak_guard::set(&self.interface, addresses, *mark)
                    .map_err(describe("nftables (modprobe nf_tables)"))?;
            }
            None => leak_guard::unset(&self.interface).map_err(describe("nftables"))?,
        }
        self.guarded = guarded;
        Ok(())
    }

    fn apply_dns(&mut self, config: &Config) -> Result<(), String> {
        let wanted = Servers::of(config);
        if self.servers != wanted {
            if self.servers.take().is_some() && wanted.is_none() {
                dns::unset(&self.interface)?;
            }
            if let Some(Servers { addresses, domains }) = &wanted {
                dns::set(&self.interface, addresses, domains)?;
            }
            self.servers = wanted;
        }
        Ok(())
    }

    /// The MTU of the file, or else the largest that fits on the ways to the endpoints; and up.
    fn set_mtu(&mut self, chosen: Option<u32>) -> Result<(), String> {
        let failed = |error| describe("MTU")(error);
        let mtu = match chosen {
            Some(mtu) => mtu,
            None => {
                let of_file = self.endpoints.values().flatten().filter_map(Endpoint::address);
                let hosts: BTreeSet<IpAddr> =
                    of_file.chain(self.names.addresses()).map(|address| address.ip()).collect();
                let mut largest = None;
                for address in hosts {
                    largest = largest.max(self.host.mtu_to(address, self.mark).map_err(failed)?);
                }
                if largest.is_none() {
                    largest = host::mtu_of_default_route().map_err(failed)?;
                }
                largest.unwrap_or(USUAL_MTU).saturating_sub(OVERHEAD)
            }
        };
        self.host.set_link(mtu).map_err(describe(format!("MTU {mtu}")))
    }

    /// Looks host names up, and waits for a while, so that a resolver that answers is in time for
    /// the MTU and for hooks.
    fn resolve(&mut self) -> Result<(), String> {
        let start = clock::boot_time();
        while !self.names.is_empty() && !self.names.are_all_known() {
            let passed = Duration::from_millis(clock::boot_time().since(start).0);
            let left = RESOLVE_TIME_MAX.saturating_sub(passed);
            if left.is_zero() {
                break;
            }
            self.find_names()?;
            if self.names.has_failed() {
                break;
            }
            let mut descriptors = [PollFd::new(self.names.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let _ = poll(&mut descriptors, timeout);
            self.find_names()?;
        }
        Ok(())
    }

    /// Looks at host names again if it is time.
    pub fn look_at_names(&mut self, now: Millis) {
        let has_result = self.names.has_result();
        let is_time = self.next_look(now).is_some_and(|left| left.is_zero());
        if !has_result && !is_time {
            return;
        }
        self.last_look = now;
        let result = match self.find_names() {
            Ok(true) => self.set_mtu(self.config.interface.mtu),
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            log::warn!("{error}");
        }
    }

    /// Sets endpoints that were found, and asks for others; returns whether any was set.
    fn find_names(&mut self) -> Result<bool, String> {
        let running = self.daemon.state()?;
        let (now, wall_time) = (clock::boot_time(), clock::wall_time());
        let found = self.names.found(&running, now, wall_time);
        let changes = found.iter().map(|(key, address)| {
            let mut change = PeerChange::new(*key);
            change.update_only = true;
            change.endpoint = Some(*address);
            Change::Peer(change)
        });
        self.daemon.change(changes.collect())?;
        self.names.look(&running, now, wall_time);
        Ok(!found.is_empty())
    }

    /// The time until host names are to be looked at again; none if there are none.
    pub fn next_look(&self, now: Millis) -> Option<Duration> {
        let left = self.intervals.look.since(now.since(self.last_look));
        (!self.names.is_empty()).then(|| Duration::from_millis(left.0))
    }

    /// The running configuration, for the file. An automatic mark for default routes is not part
    /// of it.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub fn running(&mut self) -> Result<Running, String> {
        let mut state = self.daemon.state()?;
        let chosen_mark = self.config.interface.fwmark.unwrap_or(0);
        if self.rules.contains(&Some(state.fwmark)) {
            state.fwmark = chosen_mark;
        }
        let addresses = self.host.addresses().map_err(describe("addresses"))?;
        let own_key = state.private_key.as_ref().map(keys::public_of);
        Ok(Running { state, addresses, own_key })
    }

    /// Whether the file is to be written at the end (`SaveConfig`).
    pub fn is_saved(&self) -> bool {
        self.config.interface.save
    }

    /// The exit status of the daemon, if it has ended.
    pub fn daemon_status(&mut self) -> Option<ExitStatus> {
        self.daemon.read_messages();
        self.daemon.has_ended()
    }

    /// Sends a signal to the daemon.
    pub fn signal_daemon(&self, signal: Signal) {
        self.daemon.signal(signal);
    }

    /// The descriptor that is readable when the daemon has sent a message.
    pub fn daemon_fd(&self) -> BorrowedFd<'_> {
        self.daemon.as_fd()
    }

    /// The descriptor that is readable when host names were looked up.
    pub fn names_fd(&self) -> BorrowedFd<'_> {
        self.names.as_fd()
    }
}

/// The error about `what` was to be changed.
fn describe(what: impl std::fmt::Display) -> impl Fn(std::io::Error) -> String {
    move |error| format!("{what}: {error}")
}
