//! A snapshot of all counters, for the log and for metrics.

use std::sync::Arc;

use base64ct::{Base64, Encoding as _};
use wg_bounce_sys::{Family, clock};

use super::state::{Components, Runtime};
use crate::limits::PEERS_LOGGED_MAX;
use crate::short_key::{self, ShortKey};
use crate::status::Host;
use crate::status::report::{self, Report};
use crate::status::server::StatusRequest;

/// Names with their values.
pub type Values = Vec<(&'static str, u64)>;

/// The counters of one worker or peer.
#[derive(Clone, Debug, PartialEq)]
pub struct Counted {
    /// Each counter with its name; the names of drops begin with `drop_`.
    pub values: Values,
    /// Average number of datagrams per train: received, and sent.
    pub train_lengths: (f64, f64),
}

/// All counters at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// Counters of each worker, by index.
    pub workers: Vec<Counted>,
    /// Counters of each peer, with its public key.
    pub peers: Vec<([u8; 32], Counted)>,
    /// Counters of handshakes and sessions.
    pub handshakes: Values,
    /// The relay policy, with its reasons.
    pub relay: String,
}

impl Counted {
    fn of(values: impl Iterator<Item = (&'static str, u64)>, train_lengths: (f64, f64)) -> Counted {
        Counted { values: values.collect(), train_lengths }
    }

    /// The counters that are not zero, as `name=value`; empty if there are none.
    fn words(&self) -> String {
        let mut words = listed(&self.values);
        let (received, sent) = self.train_lengths;
        for (name, length) in [("received_train_length", received), ("sent_train_length", sent)] {
            if length > 0.0 {
                words += &format!(" {name}={length:.1}");
            }
        }
        words
    }
}

impl Runtime {
    /// Reads all counters.
    pub(super) fn statistics(&self) -> Statistics {
        let (device, workers) = (&self.components.device, self.components.engine.counters());
        Statistics {
            workers: workers.map(|one| Counted::of(one.list(), one.train_lengths())).collect(),
            peers: device
                .peers()
                .map(|peer| (peer, &peer.counters))
                .map(|(peer, all)| (peer.public_key, Counted::of(all.list(), all.train_lengths())))
                .collect(),
            handshakes: device
                .counters()
                .list()
                .chain([("drop_queue_full", self.handshakes.dropped)])
                .collect(),
            relay: self.relay.summary(self.components.device.allowed_ips_version()),
        }
    }
}

impl Runtime {
    /// Answers the clients of the status socket.
    pub(super) fn answer_status(&mut self) {
        let requests: Vec<_> = self.components.reports.try_iter().collect();
        // One report for all who wait.
        let mut report = None;
        for request in requests {
            // Sending fails if the client has left.
            let _ = match request {
                StatusRequest::Report(asker) => {
                    let report = report.get_or_insert_with(|| Arc::new(self.report()));
                    asker.try_send(Arc::clone(report)).is_ok()
                }
                StatusRequest::Events(lane, asker) => {
                    asker.try_send(self.announcer.add(lane)).is_ok()
                }
                StatusRequest::Host(host, asker) => asker.try_send(self.set_host(host)).is_ok(),
            };
        }
    }

    /// Makes the hub this host; false if it has an interface, and is the kernel's host.
    pub(super) fn set_host(&mut self, Host { addresses, mtu }: Host) -> bool {
        if !self.components.link.is_absent() {
            return false;
        }
        self.components.link.bring_up(mtu);
        if self.relay.set_addresses(addresses) || mtu != self.mtu {
            self.mtu = mtu;
            self.publish();
        }
        self.set_link(true);
        true
    }

    /// The state of the daemon and its peers.
    pub(super) fn report(&self) -> Report {
        let Components { device, link, .. } = &self.components;
        let statistics = self.statistics();
        let states = device.peer_states().into_iter().zip(statistics.peers);
        let peers = states.map(|(state, (key, counted))| report::Peer {
            public_key: Base64::encode_string(&key),
            name: short_key::name_of(&key),
            has_preshared_key: *state.preshared_key != [0; 32],
            endpoint: state.endpoint,
            allowed_ips: state.allowed_ips,
            latest_handshake: state.last_handshake.0,
            received: state.rx_bytes,
            sent: state.tx_bytes,
            persistent_keepalive: state.persistent_keepalive,
            counters: nonzero(&counted.values),
        });
        Report {
            interface: self.name().to_owned(),
            is_up: link.link().is_up && device.is_up(),
            mtu: link.link().mtu,
            public_key: device.public_key().map(|key| Base64::encode_string(key)),
            listen_port: self.listen_port,
            fwmark: self.fwmark,
            relay: report::Relay {
                ipv4: self.relay.way(Family::V4),
                ipv6: self.relay.way(Family::V6),
                summary: self.relay.decision_text(),
            },
            engine: self.components.describe(),
            time: clock::wall_time().as_secs_f64(),
            workers: statistics.workers.iter().map(|one| nonzero(&one.values)).collect(),
            handshakes: nonzero(&statistics.handshakes),
            peers: peers.collect(),
        }
    }
}

fn nonzero(values: &Values) -> report::Counters {
    let nonzero = values.iter().filter(|(_, value)| *value != 0);
    nonzero.map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

impl Statistics {
    /// The counters of all workers together.
    fn sums(&self) -> Values {
        let mut sums = Values::new();
        for counted in &self.workers {
            sums.resize(counted.values.len(), ("", 0));
            for (sum, (name, value)) in sums.iter_mut().zip(&counted.values) {
                *sum = (name, sum.1 + value);
            }
        }
        sums
    }

    /// Logs the counters, without zeros and without peers whose counters are all zero.
    pub(super) fn log(&self) {
        log::info!("all workers: counters:{}", listed(&self.sums()));
        for (number, counted) in self.workers.iter().enumerate() {
            log::info!("worker {number}: counters:{}", counted.words());
        }
        let active = self.peers.iter().map(|(key, counted)| (key, counted.words()));
        for (key, words) in active.filter(|(_, words)| !words.is_empty()).take(PEERS_LOGGED_MAX) {
            log::info!("peer {}: counters:{words}", ShortKey(key));
        }
        log::info!("relay: {}", self.relay);
        log::info!("handshakes: counters:{}", listed(&self.handshakes));
    }
}

fn listed(values: &Values) -> String {
    let nonzero = values.iter().filter(|(_, value)| *value != 0);
    nonzero.map(|(name, value)| format!(" {name}={value}")).collect()
}
