//! Everything that is counted, read at one moment: what logs and metrics show.

use super::state::Runtime;
use crate::limits::PEERS_LOGGED_MAX;
use crate::short_key::ShortKey;

/// Names with their values.
pub type Values = Vec<(&'static str, u64)>;

/// The counters of one worker or peer.
#[derive(Clone, Debug, PartialEq)]
pub struct Counted {
    /// Each counter by its name; drops begin with `drop_`.
    pub values: Values,
    /// Datagrams in a train, on average: received, and sent.
    pub train_lengths: (f64, f64),
}

/// All counters at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// Of each worker, by number.
    pub workers: Vec<Counted>,
    /// Of each peer, with its public key.
    pub peers: Vec<([u8; 32], Counted)>,
    /// Of handshakes and sessions.
    pub handshakes: Values,
    /// Who forwards from peer to peer, and why.
    pub relay: String,
}

impl Counted {
    fn of(values: impl Iterator<Item = (&'static str, u64)>, train_lengths: (f64, f64)) -> Counted {
        Counted { values: values.collect(), train_lengths }
    }

    /// Those that are not zero, as words; empty if there are none.
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
            handshakes: device.counters().list().collect(),
            relay: self.relay.summary(),
        }
    }
}

impl Statistics {
    /// Writes them to the log; zeros are left out, and peers of which nothing is to be said.
    pub(super) fn log(&self) {
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
