//! A snapshot of all counters, for the log and for metrics.

use super::state::Runtime;
use crate::limits::PEERS_LOGGED_MAX;
use crate::short_key::ShortKey;

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
