//! What a stretch of work by the relay gave.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cpu::record_of_threads;
use crate::statistics::percentile;

/// How many packets were sent, and how many arrived.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    /// That were sent.
    pub sent: u64,
    /// That arrived.
    pub received: u64,
}

impl Count {
    /// That did not arrive.
    pub fn lost(self) -> u64 {
        self.sent.saturating_sub(self.received)
    }

    /// Since an earlier count.
    pub fn since(self, before: Count) -> Count {
        Count { sent: self.sent - before.sent, received: self.received - before.received }
    }
}

/// What one phase gave.
#[derive(Clone, Debug, Default)]
pub struct Phase {
    /// Sum of the slices' durations.
    pub duration: Duration,
    /// Packets of all groups.
    pub count: Count,
    /// Packets of each group.
    pub groups: Vec<Count>,
    /// Trains in which they arrived.
    pub trains: u64,
    /// Packets that arrived after a later one, by the counter on the wire.
    pub reordered: u64,
    /// Samples that came after a later one, by the number inside: reordered by the relay before
    /// it gave them their counters.
    pub late_samples: u64,
    /// Messages that arrived and were no packets.
    pub foreign: u64,
    /// CPU time of the relay, while the clock ran; none if the relay is the kernel or elsewhere.
    pub relay: Option<Duration>,
    /// The same by threads, pauses included.
    pub threads: Vec<(String, Duration)>,
    /// Time that the relay's core was busy, whoever used it, while the clock ran; none if the
    /// relay is elsewhere.
    pub core: Option<Duration>,
    /// How long the clock ran: the slices, and the waiting for lost packets.
    pub wall: Duration,
    /// The most by which the generator was behind its own pace.
    pub lag: Duration,
    /// Packets that were decrypted and found right: their pair and latency.
    pub samples: Vec<(usize, Duration)>,
}

impl Phase {
    /// Packets per second.
    pub fn rate(&self) -> f64 {
        self.count.received as f64 / self.duration.as_secs_f64()
    }

    /// CPU time of the relay in seconds; not a number if it is not known.
    fn relay_seconds(&self) -> f64 {
        self.relay.map_or(f64::NAN, |time| time.as_secs_f64())
    }

    /// The same of its core.
    fn core_seconds(&self) -> f64 {
        self.core.map_or(f64::NAN, |time| time.as_secs_f64())
    }

    /// CPU nanoseconds of the relay per packet.
    pub fn nanoseconds_per_packet(&self) -> f64 {
        1e9 * self.relay_seconds() / self.count.received as f64
    }

    /// How much of its core was used (percent).
    pub fn core_percent(&self) -> f64 {
        100.0 * self.core_seconds() / self.wall.as_secs_f64()
    }

    /// How much of its core the relay itself used (percent).
    pub fn relay_percent(&self) -> f64 {
        100.0 * self.relay_seconds() / self.wall.as_secs_f64()
    }

    /// Packets that did not arrive.
    pub fn lost(&self) -> u64 {
        self.count.lost()
    }

    /// Packets found to be out of order, on the wire or inside.
    pub fn late(&self) -> u64 {
        self.reordered + self.late_samples
    }

    /// Packets per train, as they arrived.
    pub fn train(&self) -> f64 {
        self.count.received as f64 / self.trains as f64
    }

    /// Latency (microseconds) that so many percent of the samples have at most, of all pairs or
    /// of one. Not a number if there are none.
    pub fn latency(&self, pair: Option<usize>, percent: f64) -> f64 {
        let samples = self.samples.iter().filter(|(of, _)| pair.is_none_or(|pair| pair == *of));
        let mut latencies: Vec<Duration> = samples.map(|(_, latency)| *latency).collect();
        latencies.sort();
        percentile(&latencies, percent).map_or(f64::NAN, |it| it.as_secs_f64() * 1e6)
    }

    /// For the JSON lines.
    pub fn record(&self) -> Value {
        json!({
            "seconds": self.duration.as_secs_f64(),
            "sent": self.count.sent,
            "received": self.count.received,
            "lost": self.lost(),
            "trains": self.trains,
            "reordered": self.reordered,
            "reordered_samples": self.late_samples,
            "foreign": self.foreign,
            "packets_per_second": self.rate(),
            "relay_cpu_seconds": self.relay_seconds(),
            "relay_threads": record_of_threads(&self.threads),
            "relay_core_busy_seconds": self.core_seconds(),
            "wall_seconds": self.wall.as_secs_f64(),
            "nanoseconds_per_packet": self.nanoseconds_per_packet(),
            "lag_seconds": self.lag.as_secs_f64(),
            "samples": self.samples.len(),
            "latency_microseconds": {
                "p50": self.latency(None, 50.0),
                "p99": self.latency(None, 99.0),
                "max": self.latency(None, 100.0),
            },
        })
    }
}
