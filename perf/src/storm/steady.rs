//! Handshakes one after another, so many at a time: what a relay can do.
//!
//! Laps: in each, every peer shakes hands once. Initiations are made before the clock starts, and
//! sessions derived after it has stopped.

use std::thread::sleep;
use std::time::Duration;

use super::crowd::Crowd;
use crate::clock;
use crate::cpu;
use crate::failure::Failure;
use crate::generator::{Randomness, Silence};
use crate::interrupt::Interrupt;

/// Between two laps: a relay passes over a peer's initiation that follows another within 20 ms
/// (INITIATIONS_PER_SECOND; messages.h in drivers/net/wireguard).
const LAP_PAUSE: Duration = Duration::from_millis(50);

/// Laps at most, however short they are.
const LAPS_MAX: usize = 100;

/// When nothing has been answered for so long, and the relay rests, what is waited for has been
/// lost.
const SILENCE: Duration = Duration::from_millis(300);

/// What the laps gave together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Steady {
    /// Responses, all authentic.
    pub completed: u64,
    /// Handshakes that were begun and not answered.
    pub lost: u64,
    /// Answers that came when their handshake had been given up.
    pub late: u64,
    /// Cookies that came instead. After its first a peer tries again at once.
    pub cookies: u64,
    /// From the first initiation to the last response of each lap.
    pub duration: Duration,
    /// CPU time of the relay meanwhile; none if the relay is the kernel.
    pub relay: Option<Duration>,
}

impl Steady {
    /// Handshakes per second.
    pub fn rate(&self) -> f64 {
        self.completed as f64 / self.duration.as_secs_f64()
    }

    /// CPU time of the relay in seconds; not a number if the relay is the kernel.
    pub fn relay_seconds(&self) -> f64 {
        self.relay.map_or(f64::NAN, |time| time.as_secs_f64())
    }

    /// CPU nanoseconds of the relay per handshake.
    pub fn nanoseconds_per_handshake(&self) -> f64 {
        1e9 * self.relay_seconds() / self.completed as f64
    }

    /// How much of its core the relay used (percent).
    pub fn relay_percent(&self) -> f64 {
        100.0 * self.relay_seconds() / self.duration.as_secs_f64()
    }
}

/// Laps of `crowd`, with `window` handshakes at a time, for about `limit`.
pub fn run(
    crowd: &mut Crowd<'_>,
    window: usize,
    limit: Duration,
    relay: Option<u32>,
    randomness: &mut Randomness,
    interrupt: &Interrupt,
) -> Result<Steady, Failure> {
    let mut steady = Steady::default();
    for _ in 0..LAPS_MAX {
        for member in &mut crowd.members {
            interrupt.check()?;
            member.begin();
            member.initiator.prepare(randomness)?;
        }
        sleep(LAP_PAUSE);
        let before = relay_time(relay)?;
        lap(crowd, window, relay, &mut steady, interrupt)?;
        let lap = relay_time(relay)?.zip(before).map(|(after, before)| after - before);
        steady.relay = lap.map(|lap| steady.relay.unwrap_or_default() + lap);
        crowd.verify()?;
        if steady.completed == 0 {
            return Err(Failure::step("the relay answers no handshake"));
        }
        if steady.duration >= limit {
            break;
        }
    }
    steady.late = crowd.late;
    Ok(steady)
}

/// Every peer once.
fn lap(
    crowd: &mut Crowd<'_>,
    window: usize,
    relay: Option<u32>,
    steady: &mut Steady,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    let (start, mut next, mut waiting) = (clock::now(), 0, 0);
    let mut silence = Silence::new(SILENCE, relay, start);
    while next < crowd.members.len() || waiting > 0 {
        interrupt.check()?;
        while waiting < window && next < crowd.members.len() {
            crowd.send(next)?;
            next += 1;
            waiting += 1;
        }
        while let Some(arrival) = crowd.receive()? {
            silence.end(clock::now());
            if !arrival.is_cookie {
                waiting = waiting.saturating_sub(1);
            } else if crowd.members[arrival.member].cookies == 1 {
                crowd.send(arrival.member)?;
            }
        }
        if silence.is_loss(clock::now()) {
            waiting = 0;
        }
    }
    let responses = crowd.members.iter().filter_map(|member| member.response);
    let last = responses.clone().map(|(_, at)| at).max().unwrap_or(start);
    let completed = responses.count() as u64;
    steady.duration += last - start;
    steady.completed += completed;
    steady.lost += crowd.members.len() as u64 - completed;
    steady.cookies += crowd.members.iter().map(|member| member.cookies).sum::<u64>();
    Ok(())
}

/// CPU time of the relay so far, if it is a process.
pub fn relay_time(pid: Option<u32>) -> Result<Option<Duration>, Failure> {
    let gone = || Failure::step("the relay has no CPU time: it has ended");
    pid.map(|pid| cpu::of_process(pid).ok_or_else(gone)).transpose()
}
