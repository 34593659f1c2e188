//! Results of a phase: packets, CPU times and latencies.

use std::time::Duration;

use serde_json::{Value, json};

use super::receive::Tally;
use crate::statistics::{distribution, percentile};

/// Numbers of packets.
#[derive(Clone, Copy, Default)]
pub struct Count {
    /// Packets sent.
    pub sent: u64,
    /// Packets received.
    pub received: u64,
}

impl Count {
    /// Packets lost.
    pub fn lost(self) -> u64 {
        self.sent.saturating_sub(self.received)
    }
}

/// Results of one phase.
#[derive(Default)]
pub struct Phase {
    /// Sum of the slices' durations.
    pub duration: Duration,
    /// Packets of all groups.
    pub count: Count,
    /// Packets of each group.
    pub groups: Vec<Count>,
    /// Arrivals at all receivers.
    pub tally: Tally,
    /// CPU time of the relay while the clock ran; none if it is the kernel or remote.
    pub relay: Option<Duration>,
    /// CPU time of its threads, including pauses of the clock, as JSON.
    pub threads: Value,
    /// Busy time of the relay's core while the clock ran; none if the relay is remote.
    pub core: Option<Duration>,
    /// Time that the clock ran: the slices, and the waits for lost packets.
    pub wall: Duration,
    /// Longest delay of the generator behind its own pace.
    pub lag: Duration,
    /// Pair and latency of each packet that was decrypted and checked.
    pub samples: Vec<(usize, Duration)>,
}

impl Phase {
    /// Packets per second.
    pub fn rate(&self) -> f64 {
        self.count.received as f64 / self.duration.as_secs_f64()
    }

    /// A percentile of the latency in microseconds. NaN without samples.
    pub fn latency(&self, percent: f64) -> f64 {
        let mut latencies: Vec<Duration> = self.samples.iter().map(|(_, it)| *it).collect();
        latencies.sort();
        percentile(&latencies, percent).map_or(f64::NAN, |it| it.as_secs_f64() * 1e6)
    }

    /// The latency of one pair, for the JSON lines.
    pub fn latency_of(&self, pair: usize) -> Value {
        let samples = self.samples.iter().filter(|(of, _)| *of == pair);
        distribution(samples.map(|(_, latency)| *latency).collect())
    }

    /// For the JSON lines.
    pub fn record(&self) -> Value {
        let relay = self.relay.map(|time| time.as_secs_f64());
        json!({
            "seconds": self.duration.as_secs_f64(),
            "sent": self.count.sent,
            "received": self.count.received,
            "lost": self.count.lost(),
            "trains": self.tally.trains,
            "reordered": self.tally.reordered,
            "reordered_samples": self.tally.late_samples,
            "foreign": self.tally.foreign,
            "packets_per_second": self.rate(),
            "relay_cpu_seconds": relay,
            "relay_threads": self.threads,
            "relay_core_busy_seconds": self.core.map(|time| time.as_secs_f64()),
            "wall_seconds": self.wall.as_secs_f64(),
            "nanoseconds_per_packet": relay.map(|time| 1e9 * time / self.count.received as f64),
            "lag_seconds": self.lag.as_secs_f64(),
            "samples": self.samples.len(),
            "latency_microseconds": distribution(self.samples.iter().map(|(_, it)| *it).collect()),
        })
    }
}
