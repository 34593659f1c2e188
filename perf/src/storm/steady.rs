//! The relay's rate of handshakes, with a window of them in flight.
//!
//! In each lap every peer shakes hands once. Initiations are prepared before the clock starts, and
//! sessions derived after it has stopped.

use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use super::initiators::Initiators;
use crate::clock;
use crate::failure::Failure;
use crate::generator::{LossDetector, Randomness};
use crate::interrupt::Interrupt;
use crate::usage::of_daemon;

/// Pause between two laps: a relay drops a peer's initiation that follows another within 20 ms
/// (INITIATIONS_PER_SECOND; messages.h in drivers/net/wireguard).
const LAP_PAUSE: Duration = Duration::from_millis(50);

/// Laps at most, however short they are.
const LAPS_MAX: usize = 100;

/// Silence after which handshakes in flight are lost, if the relay is idle.
const SILENCE: Duration = Duration::from_millis(300);

/// Totals of the laps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Steady {
    /// Responses, all authentic.
    pub completed: u64,
    /// Handshakes without a response.
    pub lost: u64,
    /// Answers to handshakes that had been given up.
    pub late: u64,
    /// Cookie replies. After its first, a peer retries at once.
    pub cookies: u64,
    /// From the first initiation to the last response of each lap.
    pub duration: Duration,
    /// CPU time of the relay; none if it is the kernel.
    pub relay: Option<Duration>,
}

impl Steady {
    /// Handshakes per second.
    pub fn rate(&self) -> f64 {
        self.completed as f64 / self.duration.as_secs_f64()
    }

    /// CPU time of the relay in seconds; NaN if it is the kernel.
    fn relay_seconds(&self) -> f64 {
        self.relay.map_or(f64::NAN, |time| time.as_secs_f64())
    }

    /// CPU nanoseconds of the relay per handshake.
    pub fn nanoseconds_per_handshake(&self) -> f64 {
        1e9 * self.relay_seconds() / self.completed as f64
    }

    /// For the JSON lines.
    pub fn record(&self) -> Value {
        json!({
            "completed": self.completed,
            "lost": self.lost,
            "late": self.late,
            "cookies": self.cookies,
            "seconds": self.duration.as_secs_f64(),
            "relay_cpu_seconds": self.relay_seconds(),
        })
    }
}

/// Runs laps with `window` handshakes in flight, for about `limit`.
pub fn run(
    initiators: &mut Initiators<'_>,
    window: usize,
    limit: Duration,
    relay: Option<u32>,
    randomness: &mut Randomness,
    interrupt: &Interrupt,
) -> Result<Steady, Failure> {
    let mut steady = Steady::default();
    for _ in 0..LAPS_MAX {
        for member in &mut initiators.members {
            interrupt.check()?;
            member.begin();
            member.initiator.prepare(randomness)?;
        }
        sleep(LAP_PAUSE);
        let before = of_daemon(relay)?;
        lap(initiators, window, relay, &mut steady, interrupt)?;
        let lap = of_daemon(relay)?.zip(before).map(|(after, before)| after - before);
        steady.relay = lap.map(|lap| steady.relay.unwrap_or_default() + lap);
        initiators.verify()?;
        if steady.completed == 0 {
            return Err(Failure::step("the relay answers no handshake"));
        }
        if steady.duration >= limit {
            break;
        }
    }
    steady.late = initiators.late;
    Ok(steady)
}

/// One handshake of every peer.
fn lap(
    initiators: &mut Initiators<'_>,
    window: usize,
    relay: Option<u32>,
    steady: &mut Steady,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    let (start, mut next, mut waiting) = (clock::now(), 0, 0);
    let mut losses = LossDetector::new(SILENCE, relay, start);
    while next < initiators.members.len() || waiting > 0 {
        interrupt.check()?;
        while waiting < window && next < initiators.members.len() {
            initiators.send(next)?;
            next += 1;
            waiting += 1;
        }
        while let Some(arrival) = initiators.receive()? {
            losses.reset(clock::now());
            if !arrival.is_cookie {
                waiting = waiting.saturating_sub(1);
            } else if initiators.members[arrival.member].cookies == 1 {
                initiators.send(arrival.member)?;
            }
        }
        if losses.is_loss(clock::now()) {
            waiting = 0;
        }
    }
    let responses = initiators.members.iter().filter_map(|member| member.response);
    let last = responses.clone().map(|(_, at)| at).max().unwrap_or(start);
    let completed = responses.count() as u64;
    steady.duration += last - start;
    steady.completed += completed;
    steady.lost += initiators.members.len() as u64 - completed;
    steady.cookies += initiators.members.iter().map(|member| member.cookies).sum::<u64>();
    Ok(())
}
