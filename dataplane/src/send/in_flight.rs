//! The bound of the bytes that one socket has in flight: what leaves in [`IN_FLIGHT_TIME`].
//!
//! A queue of the network counts packets, or is as long as it likes; what waits there cannot be
//! overtaken. So only as much goes there as keeps the uplink busy, and the rest waits in
//! [`super::fair_queue`]. The rate is measured while something waits, and only then: from the
//! moment at which a socket was left full until it has room again.

use std::time::Duration;

use crate::limits::{IN_FLIGHT_INITIAL, IN_FLIGHT_MIN, IN_FLIGHT_TIME, SEND_BYTES_MAX};

/// The bound for one socket, in the unit of SIOCOUTQ throughout.
#[derive(Debug)]
pub struct InFlight {
    bound: usize,
    max: usize,
    /// Whether the bound is more than a guess.
    is_measured: bool,
    /// When the socket was last left full, and the bytes that were in flight then.
    full: Option<(Duration, usize)>,
}

impl InFlight {
    /// For a new socket, which never has more than `max` bytes in flight.
    pub fn new(max: usize) -> InFlight {
        InFlight { bound: IN_FLIGHT_INITIAL.min(max), max, is_measured: false, full: None }
    }

    /// Bytes in flight at most.
    pub fn bound(&self) -> usize {
        self.bound
    }

    /// Bytes of a train at most: what leaves in a quarter of the time, so that a train neither
    /// delays the next flow for long nor exceeds the burst that a policer lets pass.
    pub fn train_max(&self) -> usize {
        match self.is_measured {
            true => (self.bound / 4).min(SEND_BYTES_MAX),
            false => SEND_BYTES_MAX,
        }
    }

    /// Records that at time `now` the socket was left with this many bytes in flight while more
    /// waits for room.
    pub fn note_full(&mut self, now: Duration, in_flight: usize) {
        self.full = Some((now, in_flight));
    }

    /// Adapts the bound: at time `now` there is room again, with this many bytes in flight.
    ///
    /// If nothing is in flight, the uplink was idle although something waited, so that the bound is
    /// too small, whatever the rate: for the time that it takes to wake up, or for a device that
    /// reports late. One step at most halves or doubles it, as a single measurement can be far
    /// off: a shaper lets bursts pass, and a busy CPU delays.
    pub fn adapt(&mut self, now: Duration, in_flight: usize) {
        let Some((since, before)) = self.full.take() else { return };
        if in_flight > self.bound / 2 {
            return; // not woken for room
        }
        let elapsed = now.saturating_sub(since).as_micros().max(1);
        let left = before.saturating_sub(in_flight) as u128 * IN_FLIGHT_TIME.as_micros() / elapsed;
        let measured = usize::try_from(left).unwrap_or(usize::MAX);
        let wanted = if in_flight == 0 { measured.max(2 * self.bound) } else { measured };
        let step = wanted.clamp(self.bound / 2, 2 * self.bound);
        self.bound = step.max(IN_FLIGHT_MIN).min(self.max);
        self.is_measured = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bound after many rounds on an uplink of `rate` bytes per second, with a wake-up that
    /// takes `late`.
    fn settled(rate: f64, late: Duration) -> usize {
        let mut bound = InFlight::new(32 << 20);
        let mut now = Duration::ZERO;
        for _ in 0..100 {
            bound.note_full(now, bound.bound());
            let half = Duration::from_secs_f64(bound.bound() as f64 / 2.0 / rate);
            now += half + late;
            let gone = rate * (half + late).as_secs_f64();
            bound.adapt(now, (bound.bound() as f64 - gone).max(0.0) as usize);
        }
        bound.bound()
    }

    #[test]
    fn the_bound_follows_the_rate() {
        for rate in [2_500_000.0, 12_500_000.0, 125_000_000.0, 1_250_000_000.0] {
            let bound = settled(rate, Duration::from_micros(50)) as f64;
            let time = bound / rate;
            assert!((0.0035..0.0045).contains(&time), "{time} s at {rate} B/s");
        }
        assert_eq!(settled(10_000.0, Duration::ZERO), IN_FLIGHT_MIN, "never below two datagrams");
    }

    #[test]
    fn late_wake_ups_do_not_idle_the_uplink() {
        let bound = settled(125_000_000.0, Duration::from_millis(10)) as f64;
        assert!(bound / 125_000_000.0 > 0.010, "{bound} bytes leave before the wake-up");
    }

    #[test]
    fn a_device_without_a_queue_is_not_bounded() {
        let mut bound = InFlight::new(1 << 20);
        for round in 0..10 {
            bound.note_full(Duration::from_millis(round), 0);
            bound.adapt(Duration::from_millis(round), 0);
        }
        assert_eq!((bound.bound(), bound.train_max()), (1 << 20, SEND_BYTES_MAX));
    }
}
