//! An interface that is up, and the way there and back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::process::ExitStatus;
use std::time::Duration;

use ipnet::IpNet;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use wg_bounce_sys::clock::{self, Millis};
use wg_bounce_uapi::types::{Change, PeerChange};

use super::daemon::{self, Daemon, DaemonOptions};
use super::default_route::{DefaultRoute, Wanted};
use super::dns::{self, Servers};
use super::host::{self, Host, describe};
use super::names::{Intervals, Names};
use super::plan::{self, Endpoints, Had, Peers, Route};
use super::signals::Signals;
use super::{hooks, leak_guard};
use crate::commands::keys;
use crate::config_file::model::{Config, Endpoint, Hook, HookTime};
use crate::config_file::save::Running;
use crate::config_file::state;
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
    default_route: DefaultRoute,
    /// The default route waits for the address of a peer.
    is_held_back: bool,
    addresses: BTreeSet<IpNet>,
    routes: BTreeSet<Route>,
    /// The endpoints in the file that was applied last.
    endpoints: Endpoints,
    servers: Option<Servers>,
    /// The file that was applied last had a private key, and a port.
    had: Had,
    signals: Signals,
}

impl Tunnel {
    /// Brings the interface up. If that fails, everything is as before.
    ///
    /// # Errors
    /// The first failure.
    pub fn up(
        interface: &str,
        config: Config,
        daemon: &DaemonOptions,
        intervals: Intervals,
        mut signals: Signals,
    ) -> Result<Tunnel, String> {
        if !daemon.is_alone {
            daemon::wait_until_free(interface)?;
            // Of a process that was killed. Without nftables it fails, and is not needed yet.
            let _ = leak_guard::unset(interface);
        }
        let hooks = config.interface.hooks.clone();
        let started = hooks::run(&hooks, HookTime::PreUp, interface, &mut signals)
            .and_then(|()| Tunnel::start(interface, daemon, intervals));
        let (daemon, host, names) = match started {
            Ok(started) => started,
            Err(error) => {
                hooks::run_all(&hooks, HookTime::PostDown, interface, &mut signals);
                return Err(error);
            }
        };
        let mut tunnel = Tunnel {
            interface: interface.to_owned(),
            config: Config::default(),
            daemon,
            host,
            names,
            intervals,
            last_look: clock::boot_time(),
            mark: 0,
            default_route: DefaultRoute::none(interface),
            is_held_back: false,
            addresses: BTreeSet::new(),
            routes: BTreeSet::new(),
            endpoints: BTreeMap::new(),
            servers: None,
            had: Had::default(),
            signals,
        };
        if let Err(error) = tunnel.apply(&config) {
            tunnel.config = config;
            tunnel.take_down();
            return Err(error);
        }
        tunnel.config = config;
        let hooked = hooks::run(&hooks, HookTime::PostUp, interface, &mut tunnel.signals);
        if let Err(error) = hooked {
            tunnel.down();
            return Err(error);
        }
        Ok(tunnel)
    }

    fn start(
        interface: &str,
        options: &DaemonOptions,
        intervals: Intervals,
    ) -> Result<(Daemon, Host, Names), String> {
        let daemon = Daemon::start(interface, &options.flags)?;
        let host = Host::new((!options.is_alone).then_some(interface));
        let host = host.map_err(describe(interface))?;
        let names = Names::start(intervals).map_err(describe("the resolver's thread"))?;
        Ok((daemon, host, names))
    }

    /// Takes the interface down, if it is still there, and undoes everything.
    pub fn down(&mut self) {
        let hooks = std::mem::take(&mut self.config.interface.hooks);
        hooks::run_all(&hooks, HookTime::PreDown, &self.interface, &mut self.signals);
        self.config.interface.hooks = hooks;
        self.take_down();
    }

    /// Undoes everything but PreUp and PostUp hooks that PreDown hooks undo.
    fn take_down(&mut self) {
        let mut results = Vec::new();
        if self.servers.is_some() {
            results.push(dns::unset(&self.interface, &mut self.signals));
        }
        results.push(self.default_route.keep(&mut self.host, None));
        for error in results.into_iter().filter_map(Result::err) {
            log::warn!("{error}");
        }
        self.daemon.stop();
        let hooks = &self.config.interface.hooks;
        hooks::run_all(hooks, HookTime::PostDown, &self.interface, &mut self.signals);
    }

    /// Applies another configuration without touching what is equal; returns a note, if any.
    ///
    /// # Errors
    /// The first failure. The earlier configuration is applied again, unless the failure was that
    /// of a PostUp hook.
    pub fn reload(&mut self, config: Config) -> Result<String, String> {
        let old = std::mem::take(&mut self.config);
        let removed = hooks::without(&old.interface.hooks, &config.interface.hooks);
        let added = hooks::without(&config.interface.hooks, &old.interface.hooks);
        let run = |hooks: &[Hook], at, tunnel: &mut Tunnel| {
            hooks::run(hooks, at, &tunnel.interface, &mut tunnel.signals)
        };
        let run_all = |hooks: &[Hook], at, tunnel: &mut Tunnel| {
            hooks::run_all(hooks, at, &tunnel.interface, &mut tunnel.signals);
        };
        let is_up = |hook: &Hook| [HookTime::PreUp, HookTime::PostUp].contains(&hook.at);
        let begun = run(&added, HookTime::PreUp, self);
        if let Err(error) = begun.and_then(|()| self.apply(&config)) {
            let restored = self.apply(&old);
            self.config = old;
            if added.iter().any(is_up) {
                run_all(&added, HookTime::PostDown, self);
            }
            return match restored {
                Ok(()) => Err(format!("{error}; the earlier configuration is in force")),
                Err(other) => Err(format!("{error}; then the earlier configuration: {other}")),
            };
        }
        // A hook that goes is undone by the hooks that go with it.
        if removed.iter().any(is_up) {
            run_all(&removed, HookTime::PreDown, self);
            run_all(&removed, HookTime::PostDown, self);
        }
        let hooked = run(&added, HookTime::PostUp, self);
        let options = |config: &Config| -> Vec<_> {
            config.options.iter().map(|one| (one.name.clone(), one.value.clone())).collect()
        };
        let is_same = options(&old) == options(&config);
        self.config = config;
        match hooked {
            Err(error) => Err(format!("applied, but {error}")),
            Ok(()) if is_same => Ok(String::new()),
            Ok(()) => Ok("the options in # wg-bounce: take effect at the next start\n".to_owned()),
        }
    }

    /// Brings everything but the hooks to what the configuration asks for.
    fn apply(&mut self, config: &Config) -> Result<(), String> {
        let peers = plan::peers(config);
        let chosen_mark = config.interface.fwmark.unwrap_or(0);
        let default = self.wanted_default(config, &peers)?;
        self.mark = default.as_ref().map_or(chosen_mark, |default| default.table);
        // With another mark, our own datagrams leave by the old rules no more. Before that, all
        // other packets must have new ones, else they leave in the clear.
        if let Some(default) = &default
            && self.default_route.table().is_some_and(|table| table != default.table)
        {
            self.default_route.add(&mut self.host, default)?;
        }
        let had = Had::of(config);
        let running = self.daemon.state()?;
        let mut changes = plan::changes(&running, &self.endpoints, config, &peers, self.mark);
        changes.extend(self.had.changes(had));
        self.daemon.change(changes)?;
        self.had = had;
        self.endpoints = plan::endpoints(&peers);
        self.names.set(&peers);
        self.daemon.name(&peers);
        self.apply_addresses(config)?;
        // Without any address, the kernel has forgotten the routes of that IP version.
        if let Some(default) = default.as_ref().filter(|_| self.default_route.table().is_some()) {
            self.default_route.add(&mut self.host, default)?;
        }
        self.resolve()?;
        self.set_mtu(config)?;
        // A name server may be beyond the uplink: a default route that leads to a peer without an
        // address, or other name servers behind such a peer, would keep it out of reach for ever.
        let dns = &config.interface.dns;
        let leads = |prefix: &IpNet| {
            prefix.prefix_len() == 0 || dns.iter().any(|server| prefix.contains(server))
        };
        let is_waiting = |(key, peer): &(&[u8; 32], &state::Wanted<'_>)| {
            let endpoint = running.peers.get(*key).and_then(|peer| peer.endpoint);
            endpoint.is_none()
                && self.names.is_unknown(key)
                && peer.state.allowed_ips.iter().any(leads)
        };
        // What is in place stays.
        let is_new = self.default_route.table().is_none() && self.servers.is_none();
        let waiting = peers.iter().find(is_waiting).filter(|_| is_new);
        let was_held_back = std::mem::replace(&mut self.is_held_back, waiting.is_some());
        if let Some(endpoint) = waiting.and_then(|(_, peer)| peer.endpoint)
            && !was_held_back
        {
            log::warn!(
                "DNS and the default route wait for the address of {}: until then, packets take \
                 other routes",
                endpoint.host
            );
        }
        if waiting.is_none() {
            self.apply_dns(config)?;
        }
        let default = default.filter(|_| waiting.is_none());
        if let Some(default) = &default {
            self.default_route.add(&mut self.host, default)?;
        }
        let table = default.as_ref().map(|default| default.table);
        self.apply_routes(plan::routes(config, &peers, table))?;
        self.default_route.keep(&mut self.host, default.as_ref())
    }

    /// The default route that a configuration asks for.
    fn wanted_default(&self, config: &Config, peers: &Peers<'_>) -> Result<Option<Wanted>, String> {
        let has_default = |is_v4: &bool| plan::has_default(config, peers, *is_v4);
        let is_v4: BTreeSet<bool> = [true, false].into_iter().filter(has_default).collect();
        if is_v4.is_empty() {
            return Ok(None);
        }
        let table = match (config.interface.fwmark.unwrap_or(0), self.default_route.table()) {
            (0, Some(table)) => table,
            (0, None) => host::free_table().map_err(describe("routing tables"))?,
            (mark, _) => mark,
        };
        let addresses = config.interface.addresses.iter().map(|one| one.value.addr());
        Ok(Some(Wanted { table, is_v4, addresses: addresses.collect() }))
    }

    fn apply_addresses(&mut self, config: &Config) -> Result<(), String> {
        let wanted: Vec<IpNet> = config.interface.addresses.iter().map(|one| one.value).collect();
        if self.host.has_none() {
            // The daemon gets them together with the MTU.
            self.addresses = wanted.into_iter().collect();
            return Ok(());
        }
        let obsolete = self.addresses.iter().filter(|address| !wanted.contains(address));
        let obsolete: Vec<IpNet> = obsolete.copied().collect();
        // The kernel forgets all routes of an interface without any address: first the new ones.
        self.addresses.extend(&wanted);
        self.add_missing_addresses(&wanted)?;
        for address in obsolete {
            let removed = self.host.remove_address(address);
            removed.map_err(describe(format!("Address {address}")))?;
            self.addresses.remove(&address);
        }
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

    fn apply_dns(&mut self, config: &Config) -> Result<(), String> {
        let wanted = Servers::of(config);
        if self.servers != wanted {
            if self.servers.take().is_some() && wanted.is_none() {
                dns::unset(&self.interface, &mut self.signals)?;
            }
            if let Some(Servers { addresses, domains }) = &wanted {
                dns::set(&self.interface, addresses, domains, &mut self.signals)?;
            }
            self.servers = wanted;
        }
        Ok(())
    }

    /// The MTU of the file, or else the largest that fits on the ways to the endpoints; and up.
    fn set_mtu(&mut self, config: &Config) -> Result<(), String> {
        let failed = |error| describe("MTU")(error);
        let mtu = match config.interface.mtu {
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
        match self.host.has_none() {
            true => {
                let addresses = config.interface.addresses.iter().map(|one| one.value);
                self.daemon.set_host(addresses.collect(), mtu)
            }
            false => self.host.set_link(mtu).map_err(describe(format!("MTU {mtu}"))),
        }
    }

    /// Looks host names up, and waits for a while, so that a resolver that answers is in time for
    /// the MTU and for hooks.
    fn resolve(&mut self) -> Result<(), String> {
        let end = clock::uptime() + RESOLVE_TIME_MAX;
        while !self.names.are_all_known() {
            self.find_names()?;
            let left = end.saturating_sub(clock::uptime());
            if self.names.are_all_known() || self.names.has_failed() || left.is_zero() {
                break;
            }
            let mut descriptors = [PollFd::new(self.names.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let _ = poll(&mut descriptors, timeout);
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
            Ok(true) => {
                let config = std::mem::take(&mut self.config);
                let result = match self.is_held_back {
                    true => self.apply(&config),
                    false => self.set_mtu(&config),
                };
                self.config = config;
                result
            }
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
        if state.fwmark == self.mark {
            state.fwmark = chosen_mark;
        }
        let mut addresses = self.addresses.clone();
        if !self.host.has_none() {
            addresses = self.host.addresses().map_err(describe("addresses"))?;
        }
        let own_key = state.private_key.as_ref().map(keys::public_of);
        Ok(Running { state, addresses, own_key })
    }

    /// Notes that the running configuration is in the file, which has this one now.
    pub fn note_saved(&mut self, config: &Config) {
        self.endpoints = plan::endpoints(&plan::peers(config));
    }

    /// Whether the interface is missing (`--tun off`).
    pub fn has_no_interface(&self) -> bool {
        self.host.has_none()
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
    pub fn signal_daemon(&mut self, signal: Signal) {
        self.daemon.signal(signal);
    }

    /// The signals of this process.
    pub fn signals(&mut self) -> &mut Signals {
        &mut self.signals
    }

    /// Whether a signal arrived while a child was waited for.
    pub fn has_signal(&self) -> bool {
        self.signals.is_waiting()
    }

    /// The descriptor that is readable when a signal has arrived.
    pub fn signals_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
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
