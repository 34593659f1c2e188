//! Carries out the outputs of the device, and publishes snapshots.

use std::fmt;
use std::mem;

use wg_bounce_dataplane::engine::SentFrom;
use wg_bounce_dataplane::messages::Command;
use wg_bounce_dataplane::peer::Peer;
use wg_bounce_dataplane::session::SendSession;
use wg_bounce_dataplane::snapshot::Snapshot;
use wg_bounce_dataplane::wire::{self, Kind, kind_and_index};
use wg_bounce_sys::Endpoint;
use wg_bounce_sys::route::RouteSocket;

use super::state::{Components, Runtime, now};
use crate::device::{Input, LogEvent, Now, Output};
use crate::netlink::message::Protocol;
use crate::netlink::socket::NetlinkSocket;
use crate::relay_policy::watch::Update;
use crate::short_key::ShortKey;

impl Runtime {
    /// Passes an input to the device, and carries out its outputs. Messages leave, and workers are
    /// woken, at the end of the turn.
    pub(super) fn handle(&mut self, input: Input<'_>) {
        self.components.device.handle(input, now(), &mut self.outputs);
        self.execute();
        while let Some(mut response) = self.response.take() {
            if self.handshakes.need_help() {
                match self.components.pool.submit(response) {
                    Ok(()) => continue,
                    Err(returned) => response = returned,
                }
            }
            response.compute();
            self.components.device.handle(Input::Computed(response), now(), &mut self.outputs);
            self.execute();
        }
    }

    /// Carries out the outputs of the device, in order.
    pub(super) fn execute(&mut self) {
        let mut outputs = mem::take(&mut self.outputs);
        for output in outputs.drain(..) {
            match output {
                Output::Command { worker, command } => {
                    self.components.engine.command(worker, command)
                }
                Output::SetSession { peer, session } => {
                    log_session(&peer, session.as_deref());
                    let Now { monotonic, wall } = now();
                    self.announcer.session(&peer, session.is_some(), monotonic, wall);
                    if let Some(old) = peer.set_session(session) {
                        self.withdrawn.retire(old);
                    }
                }
                Output::Compute(response) => self.response = Some(response),
                Output::Cookie { to, reply } => self.components.pool.send_cookie(to, reply),
                Output::Send { peer, to, message } => self.unsent.push((peer, to, message)),
                Output::Publish => self.publish(),
                Output::Log(event) => self.log(&event),
            }
        }
        self.outputs = outputs;
    }

    /// Ends a turn: sends the messages of all its inputs, and wakes the workers that have commands.
    /// Each message and each wake-up interrupts another CPU, and its answer may interrupt this one.
    pub(super) fn flush(&mut self) {
        let mut unsent = mem::take(&mut self.unsent);
        for (peer, to, message) in unsent.drain(..) {
            self.send(&peer, to, &message);
        }
        self.unsent = unsent;
        self.components.engine.ring_bells();
    }

    fn send(&mut self, peer: &Peer, to: Endpoint, message: &[u8]) {
        // Before it leaves: it may be routed into the interface.
        if let Some((_, index)) = kind_and_index(message) {
            peer.set_handshake_index(index);
        }
        let sent_from = match self.components.engine.send_handshake(peer, &to, message) {
            Ok(sent_from) => sent_from,
            // The device retries on its own.
            Err(error) => {
                let kind = message_kind(message);
                log::debug!("{}: cannot send {kind}: {error}", Named(peer));
                return;
            }
        };
        log::debug!("{}: sent {}", Named(peer), message_kind(message));
        peer.counters.sent_bytes.add(message.len() as u64);
        if sent_from == SentFrom::Anywhere {
            peer.forget_source(to);
        }
    }

    /// Publishes a snapshot for the workers.
    pub(super) fn publish(&mut self) {
        let device = &self.components.device;
        let snapshot = Snapshot {
            epoch: 0, // set by the engine
            routes: device.routes(),
            mac1_key: device.mac1_key(),
            is_up: device.is_up(),
            mtu: self.mtu,
            relay: self.relay.at(device.allowed_ips_version()),
        };
        self.epoch = self.components.engine.publish(snapshot);
        self.relay.share_addresses(device);
    }

    /// Publishes the updates of the relay policy.
    pub(super) fn follow_relay_policy(&mut self) {
        let mut is_changed = false;
        let before = self.relay.decision.clone();
        while let Some(update) = self.relay.next_update() {
            let Update { relay, decision, route_queries, dependence } = update;
            is_changed = true;
            (self.relay.relay, self.relay.decision) = (relay, Some(decision));
            self.relay.dependence = dependence;
            // Workers read this command together with the snapshot, so none uses the new policy
            // without its socket.
            for (worker, socket) in route_queries.into_iter().enumerate() {
                self.components.engine.command(worker, Command::AskRoutes(socket));
            }
        }
        if is_changed {
            self.publish();
        }
        if self.relay.decision != before {
            self.announcer.relay(&self.relay.decision_text(), now().wall);
            self.relay.changes += u64::from(before.is_some());
            self.relay.unreported = Some(self.epoch);
        }
    }

    /// With `--relay kernel` the watch does not run, but workers need the kernel's routes for the
    /// source of ICMP errors. In another network namespace than ours they do without.
    pub(super) fn offer_route_queries(&mut self) {
        let Components { link, engine, .. } = &mut self.components;
        if self.relay.is_watched() || link.is_absent() {
            return;
        }
        let is_here = link.is_in_our_namespace();
        let interface = link.link().index;
        for worker in 0..engine.counters().count() {
            if !is_here {
                engine.command(worker, Command::AskRoutes(None));
                continue;
            }
            match NetlinkSocket::open(Protocol::Route, &[]) {
                Ok(socket) => {
                    let socket = RouteSocket::new(socket.into(), interface);
                    engine.command(worker, Command::AskRoutes(Some(socket)));
                }
                Err(error) => log::warn!(
                    "worker {worker}: cannot open a netlink socket for route queries: {error}"
                ),
            }
        }
    }
}

impl Runtime {
    /// Logs an event of the device, and tells the clients of the status socket.
    fn log(&mut self, event: &LogEvent) {
        let wall = now().wall;
        match event {
            LogEvent::StaleTimestamp { peer, from, behind } => {
                let why = format!(
                    "its timestamp is {} s older than an earlier one (its clock was set back, or \
                     an old message was replayed)",
                    behind.as_secs_f32()
                );
                self.announcer.refused(&peer.public_key, Some(from.remote), &why, wall);
                log::warn!("{}: handshake refused: {why}", Named(peer));
            }
            LogEvent::UnknownKey { key, from } => {
                let why = "no peer has this public key";
                self.announcer.refused(key, Some(from.remote), why, wall);
                log::debug!("{}: handshake refused: no peer has its public key", from.remote);
            }
            LogEvent::Roamed(peer) => {
                self.announcer.roamed(peer, wall);
                log::debug!("{}: roamed", Named(peer));
            }
            other => log_event(other),
        }
    }
}

fn log_event(event: &LogEvent) {
    match event {
        LogEvent::ClockBehind { peer, behind } => log::warn!(
            "{}: the last handshake had a timestamp {} s ahead of the clock, which was set back; \
             after a restart of this daemon, such peers refuse its handshakes for that time",
            Named(peer),
            behind.as_secs()
        ),
        LogEvent::PrefixMoved { prefix, from, to } => {
            log::info!("{}: allowed IP {prefix} moved here from {}", Named(to), Named(from))
        }
        LogEvent::MorePrefixesMoved(count) => {
            log::info!("UAPI set: {count} more allowed IPs moved from peer to peer");
        }
        LogEvent::StaleTimestamp { .. } | LogEvent::UnknownKey { .. } | LogEvent::Roamed(_) => {}
    }
}

fn log_session(peer: &Peer, session: Option<&SendSession>) {
    let peer = Named(peer);
    match session {
        Some(session) if session.info.is_initiator => {
            log::debug!("{peer}: session established (initiator)");
        }
        Some(_) => log::debug!("{peer}: session established (responder)"),
        None => log::debug!("{peer}: session closed"),
    }
}

/// The subject of a log line about a peer: its key, and its endpoint if one is known.
struct Named<'a>(&'a Peer);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = ShortKey(&self.0.public_key);
        match self.0.endpoint() {
            Some(endpoint) => write!(f, "peer {key} ({})", endpoint.remote),
            None => write!(f, "peer {key}"),
        }
    }
}

fn message_kind(message: &[u8]) -> &'static str {
    match wire::classify(message) {
        Some(Kind::Initiation) => "handshake initiation",
        _ => "handshake response",
    }
}
