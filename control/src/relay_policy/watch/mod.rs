//! The thread that monitors all sources of findings in the interface's network namespace, and sends
//! its decisions to the control thread.
//!
//! 1. Find the namespace of the interface (`view`): subscribe first, then read every source. When
//!    the interface was moved or renamed, or has another index, start again. Nothing stays in
//!    another namespace than the daemon's own, since it would keep that alive.
//! 2. Wait for events of the kernel; poll the sources without events every half second.
//! 3. Read the sources that may have changed, and decide. A source that changes while it is read is
//!    read again.
//! 4. Send changes: at once, then at most every few milliseconds, however fast routes change.

mod dated;
mod events;
mod lanes;
mod pace;
mod questions;
mod returns;
mod system;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use wg_bounce_dataplane::snapshot::Relay;
use wg_bounce_sys::clock::{self, Millis};
use wg_bounce_sys::route::RouteSocket;
use wg_bounce_sys::tun::TunHandle;
use wg_bounce_sys::{Family, PerFamily};

use super::announced::Announced;
use super::connections;
use super::decision::PolicyDecision;
use super::mode::Mode;
use super::reading::Known;
use super::reason::{Finding, Reason};
use super::routing;
use super::rules::addresses::Addresses;
use super::settling::Settling;
use super::source::Source;
use crate::limits::{
    CONNECTIONS_PAUSE_MIN, CONNECTIONS_PAUSES, RELAY_POLL_INTERVAL, RELAY_QUESTIONS_MAX,
    RELAY_UPDATE_INTERVAL, RELAY_UPDATES_MAX,
};
use dated::{Dated, exceptions, of_helpers};
pub use lanes::{Dependence, Lanes, Question, Update};
use pace::Pace;
use system::System;
use view::View;

/// Starts the thread; `wake` is written with each update.
///
/// # Errors
/// The thread cannot be spawned, or there are too many descriptors.
pub fn start(
    handle: TunHandle,
    mode: Mode,
    workers: usize,
    wake: Arc<EventFd>,
) -> io::Result<Lanes> {
    let (updates, decisions) = bounded(RELAY_UPDATES_MAX);
    let (addresses, of_peers) = bounded(1);
    let (questions, of_clients) = bounded(RELAY_QUESTIONS_MAX);
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let news = Arc::new(EventFd::from_flags(flags)?);
    let lanes = Lanes { updates: decisions, addresses, questions, wake: Arc::clone(&news) };
    let watch = Watch {
        handle: Arc::new(handle),
        mode,
        workers,
        updates,
        wake,
        news,
        of_peers,
        of_clients,
        questions: Vec::new(),
        addresses: None,
        addresses_unanswered: false,
        view: None,
        readings: BTreeMap::new(),
        settling: BTreeMap::new(),
        changed: BTreeSet::new(),
        announced: Announced::default(),
        pace: Pace::default(),
        connections_next: None,
        events_lost: false,
        routes: 0,
        routes_changed: false,
        mtu_v6: None,
        route_queries: Vec::new(),
        reported: None,
    };
    thread::Builder::new().name("relay-policy".into()).spawn(move || watch.run())?;
    Ok(lanes)
}

/// The reason for which the watch ends.
enum Ended {
    /// The interface was deleted.
    Deleted,
    /// The control thread has ended.
    Alone,
}

struct Watch {
    handle: Arc<TunHandle>,
    mode: Mode,
    workers: usize,
    updates: Sender<Update>,
    wake: Arc<EventFd>,
    /// Written with the peers' addresses.
    news: Arc<EventFd>,
    of_peers: Receiver<Addresses>,
    of_clients: Receiver<Question>,
    /// Questions that wait for an answer.
    questions: Vec<Question>,
    /// The peers' addresses, once they were asked for.
    addresses: Option<Addresses>,
    /// New ones have come since the last update.
    addresses_unanswered: bool,
    /// None while the interface cannot be accessed.
    view: Option<View>,
    readings: BTreeMap<Source, Dated>,
    settling: BTreeMap<Source, Settling>,
    /// Sources to be read again.
    changed: BTreeSet<Source>,
    /// The events of nftables since its rules were read.
    announced: Announced,
    /// The time to read nftables again; until then they wait among `changed`.
    pace: Pace,
    /// Time to look at translated connections again, while they are a reason.
    connections_next: Option<Millis>,
    /// Everything is to be read again at the next look: not at once, since events that come too
    /// fast are lost all the time.
    events_lost: bool,
    /// See [`Relay::routes`].
    routes: u64,
    routes_changed: bool,
    /// See [`Relay::mtu_v6`].
    mtu_v6: Option<usize>,
    route_queries: Vec<Option<RouteSocket>>,
    /// What was reported last.
    reported: Option<(Relay, PolicyDecision, Dependence)>,
}

impl Watch {
    fn run(mut self) {
        // The control thread detects a deletion on its own.
        let (Ended::Deleted | Ended::Alone) = self.watch();
    }

    fn watch(&mut self) -> Ended {
        let (mut next_look, mut next_update) = (clock::boot_time(), clock::boot_time());
        loop {
            let now = clock::boot_time();
            if next_look <= now {
                if let Err(ended) = self.look() {
                    return ended;
                }
                next_look = now + RELAY_POLL_INTERVAL;
            }
            let is_due = |source: &Source| self.is_due(*source, now);
            let has_news = self.routes_changed || self.changed.iter().any(is_due);
            if has_news && next_update <= now {
                if let Err(ended) = self.update() {
                    return ended;
                }
                next_update = clock::boot_time() + RELAY_UPDATE_INTERVAL;
                continue;
            }
            if has_news {
                // Further events accumulate in the meantime, and are read at once.
                wait(&mut [], next_update.min(next_look).since(now));
            } else {
                let next = if self.changed.is_empty() { next_look } else { self.nftables_next() };
                self.wait_for_events(next.min(next_look).since(now));
            }
            if let Err(ended) = self.take_events() {
                return ended;
            }
        }
    }

    /// Whether a changed source may be read at `now`.
    fn is_due(&self, source: Source, now: Millis) -> bool {
        source != Source::Nftables || self.nftables_next() <= now
    }

    /// The time to read nftables again.
    fn nftables_next(&self) -> Millis {
        let nftables = self.readings.get(&Source::Nftables);
        self.pace.next(nftables.is_some_and(|dated| dated.reading.is_unfinished))
    }

    /// Marks the sources without events for reading.
    fn look(&mut self) -> Result<(), Ended> {
        self.follow()?;
        if self.misses_rules() {
            self.changed.insert(Source::Nftables);
        }
        if let Some(view) = &self.view {
            let is_polled = |source: &Source| {
                source.is_polled() || *source == Source::Nftables && !view.has_nftables_events()
            };
            self.changed.extend(Source::ALL.into_iter().filter(is_polled));
            // What could not be read may be readable now, without an event.
            let is_failure = |one: &Finding| matches!(one.reason, Reason::Unreadable { .. });
            let failed = self
                .readings
                .iter()
                .filter(|(_, dated)| dated.reading.findings.iter().any(is_failure));
            self.changed.extend(failed.map(|(source, _)| *source));
            let now = clock::boot_time();
            let settled = self.settling.iter().filter(|(_, one)| one.is_over(now));
            self.changed.extend(settled.map(|(source, _)| *source));
            if self.connections_next.is_some_and(|at| at <= now) {
                self.changed.insert(Source::Connections);
            }
            self.routes_changed |= !view.has_events();
            if !view.has_events() || std::mem::take(&mut self.events_lost) {
                self.changed.extend(Source::ALL);
            }
        }
        Ok(())
    }

    /// Starts again if the interface was moved or renamed, or has another index.
    fn follow(&mut self) -> Result<(), Ended> {
        let is_current = match &self.view {
            Some(view) => view.is_current(&self.handle),
            None => Ok(false),
        };
        match is_current {
            Ok(true) => Ok(()),
            Ok(false) => self.open(),
            Err(error) => self.lose(&error),
        }
    }

    fn open(&mut self) -> Result<(), Ended> {
        let opened = View::open(&self.handle).and_then(|view| {
            let sockets = view.route_query_sockets(&self.handle, self.workers)?;
            Ok((sockets, view))
        });
        match opened {
            Ok((route_queries, view)) => {
                log::debug!("relay: monitoring interface {}", view.interface.name);
                self.route_queries = route_queries.into_iter().map(Some).collect();
                self.view = Some(view);
                self.changed.extend(Source::ALL);
                (self.announced, self.pace) = (Announced::default(), Pace::default());
                self.routes_changed = true;
                Ok(())
            }
            Err(error) => self.lose(&error),
        }
    }

    /// Discards all findings until the interface can be accessed again.
    fn lose(&mut self, error: &io::Error) -> Result<(), Ended> {
        if error.raw_os_error() == Some(Errno::EBADFD as i32) {
            return Err(Ended::Deleted);
        }
        let is_denied = error.kind() == io::ErrorKind::PermissionDenied;
        let reason = Reason::Unreadable {
            what: "the interface's network namespace",
            error: error.to_string(),
            capability: is_denied.then_some("CAP_SYS_ADMIN"),
            hides_forwarding: true,
        };
        if self.view.take().is_some() {
            self.route_queries = (0..self.workers).map(|_| None).collect();
        }
        self.readings = BTreeMap::from([(Source::Link, vec![Finding::of_both(reason)].into())]);
        self.changed.clear();
        self.routes_changed = true;
        Ok(())
    }

    /// Reads the sources that may have changed; sends an update if the decision or the routes
    /// changed.
    fn update(&mut self) -> Result<(), Ended> {
        let asked = self.questions.len();
        if let Err(error) = self.read_sources() {
            // The interface was moved just now, or is gone.
            self.open()?;
            if self.read_sources().is_err() {
                self.lose(&error)?;
            }
        }
        let of_helpers = of_helpers(self.readings.values());
        let findings = self.readings.values().flat_map(|dated| &dated.reading.findings);
        let findings = findings.chain(&of_helpers);
        let of_pairs = self.readings.values().flat_map(|dated| &dated.reading.of_pairs);
        let decision = PolicyDecision::new(self.mode, findings, of_pairs);
        let (exceptions, dependence) = (exceptions(self.readings.values()), self.dependence());
        let is_syn_by_kernel = PerFamily::each(|family| {
            exceptions.of(family).iter().any(|pairs| pairs.any(|one| one.syn))
        });
        let decision = decision.with_syn_by_kernel(is_syn_by_kernel);
        self.routes += u64::from(std::mem::take(&mut self.routes_changed));
        let mode = PerFamily::each(|family| decision.relaying(family));
        let (routes, mtu_v6) = (self.routes, self.mtu_v6);
        let relay = Relay { mode, routes, mtu_v6, exceptions, ..Relay::default() };
        let reported = Some((relay.clone(), decision.clone(), dependence));
        let owes_answer = std::mem::take(&mut self.addresses_unanswered);
        if self.reported != reported || owes_answer {
            let before = std::mem::replace(&mut self.reported, reported);
            let route_queries = std::mem::take(&mut self.route_queries);
            let update = Update { relay, decision, route_queries, dependence };
            self.updates.send(update).map_err(|_| Ended::Alone)?;
            // A counter at its limit is readable too.
            let _ = self.wake.write(1);
            if let (Some(view), Some((before, ..)), Some((relay, ..))) =
                (&self.view, &before, &self.reported)
            {
                returns::forget(view, &self.handle, before, relay);
            }
        }
        // Unless nftables, for example, is read later.
        if self.changed.is_empty() {
            self.answer_questions(asked);
        }
        Ok(())
    }

    fn dependence(&self) -> Dependence {
        // No rule is asked with `--relay direct`.
        if self.mode != Mode::Auto {
            return Dependence::default();
        }
        let asking = || self.readings.values().filter(|dated| dated.asks_for_addresses());
        let version = asking().filter_map(|dated| dated.version).min();
        Dependence { asks: asking().next().is_some(), version }
    }

    fn read_sources(&mut self) -> io::Result<()> {
        let Some(view) = &self.view else { return Ok(()) };
        let start = clock::boot_time();
        // Once a pause has ended, what is still translated matters.
        if self.settling.values().any(|one| one.is_over(start)) {
            self.changed.insert(Source::Connections);
        }
        if self.mode != Mode::Auto {
            self.changed.remove(&Source::Connections);
        }
        let (changed, later): (BTreeSet<Source>, _) = std::mem::take(&mut self.changed)
            .into_iter()
            .partition(|source| self.is_due(*source, start));
        self.changed = later;
        if changed.is_empty() {
            return Ok(());
        }
        let at = &view.interface;
        let addresses = self.addresses.as_ref();
        let version = addresses.map(|all| all.version);
        let nftables = self.readings.get(&Source::Nftables);
        let may_take_long = nftables.is_some_and(|dated| dated.reading.is_unfinished);
        let mut system = System { announced: Some((view, &mut self.announced)) };
        let read = || {
            let mtu = changed
                .contains(&Source::Settings(Family::V6))
                .then(|| routing::mtu_v6(&mut system, at));
            let read = |source: &Source| {
                let last = self.readings.get(source);
                let begun = clock::thread_micros();
                let known = Known {
                    addresses,
                    before: last.and_then(|dated| dated.at(at, version)),
                    rules: last.and_then(|dated| dated.reading.rules()),
                    may_take_long,
                };
                let reading = source.read(&mut system, at, known);
                let cost = Millis((clock::thread_micros() - begun) / 1000);
                (*source, Dated { reading, version, interface: Some(at.clone()), cost })
            };
            let readings: Vec<_> = changed.iter().map(read).collect();
            let has_firewall = changed.iter().any(|source| source.is_firewall());
            (readings, mtu, has_firewall && connections::are_tracked(&mut system))
        };
        let (mut readings, mtu, tracks_connections) = view.run(&self.handle, read)?;
        if changed.contains(&Source::Nftables) {
            let nftables = readings.iter().find(|(one, _)| *one == Source::Nftables);
            self.announced.clear(nftables.and_then(|(_, dated)| dated.reading.generation));
            self.pace.note(start, clock::boot_time(), may_take_long);
        }
        if let Some((_, dated)) = readings.iter().find(|(one, _)| *one == Source::Connections) {
            let pause = Millis(CONNECTIONS_PAUSES * dated.cost.0).max(CONNECTIONS_PAUSE_MIN);
            let next = clock::boot_time() + pause;
            self.connections_next = dated.reading.has_translations().then_some(next);
        }
        // Nothing waits with `--relay direct`, which bypasses firewalls anyway.
        let must_settle = tracks_connections && self.mode == Mode::Auto;
        for (source, dated) in readings.iter_mut().filter(|(source, _)| source.is_firewall()) {
            let settling = self.settling.entry(*source).or_default();
            let before = self.readings.get(source);
            let is_other = before.is_some_and(|before| {
                before.asks_for_addresses() && before.version != dated.version
            });
            if is_other {
                self.changed.insert(Source::Connections);
            }
            settling.note(&mut dated.reading, must_settle, is_other, start);
        }
        let unfinished = readings.iter().filter(|(_, dated)| dated.reading.is_unfinished);
        self.changed.extend(unfinished.map(|(source, _)| *source));
        self.readings.extend(readings);
        let matters = |source: &Source| source.is_firewall() || *source == Source::Connections;
        if changed.iter().any(matters) {
            self.leave_out_translations();
        }
        self.mtu_v6 = mtu.unwrap_or(self.mtu_v6);
        Ok(())
    }

    /// Leaves out translated connections of pairs that rules keep with the kernel anyway.
    fn leave_out_translations(&mut self) {
        let of_rules = PerFamily::each(|family| {
            let firewalls = self.readings.iter().filter(|(source, _)| source.is_firewall());
            firewalls.flat_map(|(_, dated)| dated.reading.pairs.of(family)).cloned().collect()
        });
        if let Some(dated) = self.readings.get_mut(&Source::Connections) {
            connections::leave_out(&mut dated.reading, &of_rules);
        }
    }

    fn wait_for_events(&self, span: Millis) {
        let descriptors = self.view.iter().flat_map(View::descriptors).chain([self.news.as_fd()]);
        let mut descriptors: Vec<PollFd<'_>> =
            descriptors.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        wait(&mut descriptors, span);
    }

    /// Takes the peers' addresses, if there are new ones.
    fn take_addresses(&mut self) {
        // EAGAIN: nothing was written.
        let _ = self.news.read();
        if let Ok(addresses) = self.of_peers.try_recv() {
            self.addresses = Some(addresses);
            self.addresses_unanswered = true;
            // Other readings hold for any addresses.
            let asking = self.readings.iter().filter(|(_, dated)| dated.asks_for_addresses());
            self.changed.extend(asking.map(|(source, _)| *source));
            self.changed.insert(Source::Connections);
        }
    }
}

/// Waits for events. An error (EINTR, ENOMEM) does not matter: the next poll is due anyway.
fn wait(descriptors: &mut [PollFd<'_>], span: Millis) {
    let _ = poll(descriptors, PollTimeout::try_from(span.0).unwrap_or(PollTimeout::MAX));
}
