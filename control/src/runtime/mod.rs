//! The control thread's loop: waits, feeds the device, and carries out its outputs.
//!
//! One turn:
//! 1. Wait for the workers, the kernel, a signal, a UAPI client, or the device's next deadline.
//! 2. Check for a reason to exit: signals, the interface, the socket, failed workers.
//! 3. Process events: the relay policy, notices, UAPI requests, then a few handshake messages. Each
//!    lane gets a bounded share of every turn, so that a flood of one starves no other.
//! 4. If there was nothing else to do, compute what later handshakes need. Handle the device's
//!    deadline.
//! 5. Answer the UAPI clients whose changes every worker has seen; drop withdrawn sessions that no
//!    worker holds; send handshake messages, and wake the workers that have commands.

mod configure;
mod events;
mod execute;
mod fair_queue;
mod handshake_queues;
mod handshakes;
mod listener;
mod pending_replies;
mod pool;
mod reachable;
mod relay;
mod state;
mod statistics;
mod under_load;

use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use wg_bounce_dataplane::engine::Failure;
use wg_bounce_sys::clock;

use crate::deferred_drop::DeferredDrop;
use crate::device::{Input, Now};
use crate::limits::{
    HANDSHAKES_BEGUN_PER_TURN, LINK_LOOK_INTERVAL, PEERS_PER_TURN, PREPARED_PER_TURN,
    REQUESTS_PER_TURN, SWEEP_INTERVAL,
};
use crate::link::Presence;
use crate::logging;
use crate::status::Host;
use crate::uplinks::UplinkWatch;
use events::Announcer;
use handshake_queues::Handshakes;
use pending_replies::PendingReplies;
use reachable::ReachablePeers;
use relay::RelayState;

pub use pool::Pool;
pub use state::{Components, Ending, Runtime};
use state::{Listener, now};

/// The descriptors that are readable.
#[derive(Default)]
struct Readable {
    wake: bool,
    link: bool,
    signals: bool,
    socket: bool,
    uplinks: bool,
}

impl Runtime {
    /// Publishes the first snapshot. The link is usually still down, and no port bound. Without an
    /// interface, the hub is `host`; without one, it waits for it.
    ///
    /// # Errors
    /// No UDP socket can be opened.
    pub fn new(mut components: Components, host: Option<Host>) -> io::Result<Runtime> {
        drop(components.engine.bind(0, 0)?);
        let mtu = components.link.link().mtu;
        let relay = match components.link.is_absent() {
            true => RelayState::without_interface(),
            false => RelayState::new(components.relay_mode, components.relay_policy.take()),
        };
        let threads = components.pool.helpers();
        let reachable = components.state_writer.take();
        let reachable = reachable.map(ReachablePeers::new);
        let announcer = Announcer::new(components.device.session_lifetime());
        let mut runtime = Runtime {
            components,
            announcer,
            outputs: Vec::new(),
            response: None,
            unsent: Vec::new(),
            handshakes: Handshakes::new(threads, clock::boot_time()),
            replies: PendingReplies::default(),
            withdrawn: DeferredDrop::default(),
            relay,
            uplinks: UplinkWatch::open(),
            listener: Listener::default(),
            listen_port: 0,
            fwmark: 0,
            mtu,
            next_look: clock::boot_time(),
            reachable,
            epoch: 0,
        };
        runtime.publish();
        if let Some(host) = host {
            runtime.set_host(host);
        }
        runtime.offer_route_queries();
        runtime.set_link(runtime.components.link.link().is_up);
        runtime.follow_name();
        Ok(runtime)
    }

    /// Runs until there is a reason to exit.
    pub fn run(&mut self) -> Ending {
        let mut is_busy = false;
        loop {
            self.flush();
            let timeout = if is_busy { PollTimeout::ZERO } else { self.timeout() };
            let readable = match self.wait(timeout) {
                Ok(readable) => readable,
                Err(errno) => return Ending::Failed(format!("cannot poll for events: {errno}")),
            };
            if let Some(ending) = self.poll_exit(&readable) {
                return ending;
            }
            is_busy = self.process_events();
            if !is_busy {
                is_busy = self.components.device.prepare(PREPARED_PER_TURN);
            }
            if self.components.device.next_deadline().is_some_and(|at| at <= clock::boot_time()) {
                self.handle(Input::Deadline);
            }
            // Before a client is told that its change is made.
            self.flush();
            let epoch = self.components.engine.epoch_reached();
            self.replies.answer_reached(epoch);
            let version = self.components.device.allowed_ips_version();
            self.relay.report_reached(epoch, version);
            self.withdrawn.sweep();
            let Now { monotonic, wall } = now();
            self.announcer.end_sessions(monotonic, wall);
            if let Some(reachable) = &mut self.reachable {
                reachable.keep(&self.components.device, monotonic, wall);
            }
            self.follow_sockets(epoch);
        }
    }

    /// The interface's name as `wg` knows it.
    pub fn name(&self) -> &str {
        let name = self.components.socket.name();
        name.unwrap_or(&self.components.link.link().name)
    }

    /// Stops the workers, and releases the interface and the socket.
    pub fn stop(self) {
        // The socket first: a client must not find a daemon that no longer answers.
        drop(self.components.socket);
        drop(self.components.status);
        drop(self.components.requests);
        let Now { monotonic, wall } = now();
        let peers = self.components.device.reachable(monotonic);
        self.components.engine.stop();
        // Last, for the disk may be slow.
        if let Some(reachable) = self.reachable {
            reachable.finish(peers, wall);
        }
    }

    fn timeout(&self) -> PollTimeout {
        let now = clock::boot_time();
        let until_deadline = self.components.device.next_deadline().map(|at| at.since(now));
        let until_events = self.uplinks.resumes_in(now);
        let until_end = self.announcer.next_end().map(|at| at.since(now));
        let until_sweep = (!self.withdrawn.is_empty()).then_some(SWEEP_INTERVAL);
        let until_try = self.handshakes.pause();
        let until_look = self.components.link.must_look().then(|| self.next_look.since(now));
        let until_state = self.reachable.as_ref().and_then(ReachablePeers::due);
        let until_state = until_state.map(|at| at.since(now));
        let until_bind = self.retry_at().map(|at| at.since(now));
        let spans = [
            until_deadline,
            until_events,
            until_end,
            until_sweep,
            until_try,
            until_look,
            until_bind,
            until_state,
        ];
        match spans.into_iter().flatten().min() {
            Some(span) => i32::try_from(span.0)
                .ok()
                .and_then(|millis| PollTimeout::try_from(millis).ok())
                .unwrap_or(PollTimeout::MAX),
            None => PollTimeout::NONE,
        }
    }

    fn wait(&self, timeout: PollTimeout) -> Result<Readable, Errno> {
        let components = &self.components;
        let uplinks = self.uplinks.descriptor(clock::boot_time());
        let mut descriptors = [
            components.wake.as_fd(),
            components.link.descriptor().unwrap_or(components.wake.as_fd()),
            components.signals.as_fd(),
            components.socket.as_fd(),
            uplinks.unwrap_or(components.wake.as_fd()),
        ]
        .map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut descriptors, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Readable::default()),
            Err(errno) => return Err(errno),
        }
        let [wake, events, signals, socket, changes] =
            descriptors.map(|descriptor| descriptor.any().unwrap_or(true));
        let link = events && !components.link.is_absent();
        let uplinks = changes && uplinks.is_some();
        Ok(Readable { wake, link, signals, socket, uplinks })
    }

    /// Handles signals, the interface, the socket and failures of workers. Returns a reason to
    /// exit, if there is one.
    fn poll_exit(&mut self, readable: &Readable) -> Option<Ending> {
        if readable.wake {
            // Cleared before the lanes are read: anything queued later wakes the loop again.
            let _ = self.components.wake.read();
        }
        if readable.signals
            && let Ok(Some(info)) = self.components.signals.read_signal()
        {
            match Signal::try_from(info.ssi_signo as i32).unwrap_or(Signal::SIGTERM) {
                Signal::SIGUSR1 => self.statistics().log(),
                // Sent to all processes of the unit, perhaps: the parent has to do something first.
                signal if self.components.parent.is_some_and(|parent| parent != info.ssi_pid) => {
                    log::info!("{signal} ignored: wg-bounce up takes the interface down");
                }
                signal => return Some(Ending::Signal(signal)),
            }
        }
        if let Ok(failure) = self.components.events.failures.try_recv() {
            return Some(match failure {
                Failure::InterfaceGone => Ending::InterfaceDeleted,
                Failure::Fatal(reason) => Ending::Failed(reason),
            });
        }
        if readable.uplinks {
            // Before the workers are told: they must see what the events are about.
            self.uplinks.take_events(clock::boot_time());
            self.components.engine.note_route_change();
        }
        let is_due = || self.components.link.must_look() && self.next_look <= clock::boot_time();
        if (readable.link || is_due()) && self.follow_link() == Presence::Deleted {
            return Some(Ending::InterfaceDeleted);
        }
        (readable.socket && !self.components.socket.is_present()).then_some(Ending::SocketDeleted)
    }

    /// Follows the link: its state, its MTU and its name.
    fn follow_link(&mut self) -> Presence {
        let before = self.components.link.link().clone();
        let was_lost = self.components.link.is_lost();
        self.next_look = clock::boot_time() + LINK_LOOK_INTERVAL;
        match self.components.link.read() {
            Ok(Presence::Present) => {}
            Ok(Presence::Deleted) => return Presence::Deleted,
            Err(_) if was_lost => return Presence::Present,
            Err(error) => {
                // Assuming that it is up does no harm: a write to a link that is down fails.
                log::error!(
                    "interface {}: link monitoring failed, assuming the interface is up: {error}",
                    before.name
                );
                self.set_link(true);
                return Presence::Present;
            }
        }
        let link = self.components.link.link().clone();
        if was_lost {
            log::info!("interface {}: link monitoring resumed", link.name);
        }
        if link != before {
            log::debug!(
                "interface {}: link is {} (MTU {})",
                link.name,
                if link.is_up { "up" } else { "down" },
                link.mtu
            );
        }
        // A move takes the interface down, and may keep its index.
        if link.index != before.index || self.components.link.was_down() {
            self.offer_route_queries();
        }
        if link.mtu != self.mtu {
            self.mtu = link.mtu;
            self.publish();
        }
        if self.components.link.was_down() {
            self.set_link(false);
        }
        self.set_link(link.is_up);
        if link.name != before.name || self.components.link.was_down() {
            self.follow_name();
        }
        Presence::Present
    }

    /// Renames the socket, for `wg show NAME`, and the log's lines after the interface. A name in
    /// another namespace does not count: the sockets of all namespaces share a directory.
    fn follow_name(&mut self) {
        let Components { link, socket, status, .. } = &mut self.components;
        let new = &link.link().name;
        let Some(old) = socket.name().map(str::to_owned).filter(|old| old != new) else { return };
        if !link.is_in_our_namespace() {
            return;
        }
        match socket.rename(new) {
            Ok(()) => {
                logging::set_interface(new);
                if let Some(status) = status
                    && let Err(error) = status.rename(new)
                {
                    log::error!("interface {new}: status socket remains {old}.sock: {error}");
                }
                log::info!("interface {new}: renamed (was {old}), the UAPI socket too");
            }
            Err(error) => log::error!("interface {new}: UAPI socket remains {old}.sock: {error}"),
        }
    }

    /// Processes a bounded number of events of every lane; returns true if more are waiting.
    fn process_events(&mut self) -> bool {
        self.follow_relay_policy();
        self.process_notices();
        for _ in 0..REQUESTS_PER_TURN {
            let Ok(request) = self.components.requests.try_recv() else { break };
            // What was made before must leave before: the change may take long.
            self.flush();
            self.handle_request(request);
        }
        self.answer_status();
        self.process_handshakes();
        let Components { events, requests, .. } = &self.components;
        !(events.peers.is_empty() && requests.is_empty()) || self.has_handshakes()
    }

    /// Handles notices about peers, until they have begun a turn's share of handshakes.
    fn process_notices(&mut self) {
        let begun = |runtime: &Runtime| runtime.components.device.counters().initiations_sent;
        let last = begun(self) + HANDSHAKES_BEGUN_PER_TURN;
        for _ in 0..PEERS_PER_TURN {
            if begun(self) >= last {
                break;
            }
            let Ok(peer) = self.components.events.peers.try_recv() else { break };
            self.handle(Input::Peer(peer));
        }
    }
}
