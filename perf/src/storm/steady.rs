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
use crate::generator::LossDetector;
use crate::interrupt;
use crate::usage::{added, of_daemon};

/// Pause between two laps: a relay drops a peer's initiation that follows another within 20 ms
/// (INITIATIONS_PER_SECOND; messages.h in drivers/net/wireguard).
const LAP_PAUSE: Duration = Duration::from_millis(50);

/// Laps at most, however short they are.
const LAPS_MAX: usize = 100;

/// Silence after which handshakes in flight are lost, if the relay is idle.
const SILENCE: Duration = Duration::from_millis(300);

/// Totals of the laps.
#[derive(Default)]
struct Steady {
    /// Responses, all authentic.
    completed: u64,
    /// Handshakes without a response.
    lost: u64,
    /// Cookie replies. After its first, a peer retries at once.
    cookies: u64,
    /// From the first initiation to the last response of each lap.
    duration: Duration,
    /// CPU time of the relay; none if it is the kernel.
    relay: Option<Duration>,
}

/// Runs laps with `window` handshakes in flight, for about `limit`, and adds its figures to
/// `record`.
pub fn run(
    initiators: &mut Initiators,
    window: usize,
    limit: Duration,
    relay: Option<u32>,
    record: &mut Value,
) -> Result<(), Failure> {
    let mut steady = Steady::default();
    for _ in 0..LAPS_MAX {
        for member in &mut initiators.members {
            interrupt::check()?;
            member.begin();
            member.initiator.prepare();
        }
        sleep(LAP_PAUSE);
        let before = of_daemon(relay)?;
        lap(initiators, window, relay, &mut steady)?;
        steady.relay = added(steady.relay, before, of_daemon(relay)?);
        initiators.verify()?;
        if steady.completed == 0 {
            return Err(Failure::step("the relay answers no handshake"));
        }
        if steady.duration >= limit {
            break;
        }
    }
    let Steady { completed, lost, cookies, duration, relay } = steady;
    let (seconds, relay) = (duration.as_secs_f64(), relay.map(|time| time.as_secs_f64()));
    record["handshakes_per_second"] = json!(completed as f64 / seconds);
    record["cpu_ns_per_handshake"] = json!(relay.map(|time| 1e9 * time / completed as f64));
    record["steady"] = json!({
        "completed": completed,
        "lost": lost,
        "late": initiators.late,
        "cookies": cookies,
        "seconds": seconds,
        "relay_cpu_seconds": relay,
    });
    Ok(())
}

/// One handshake of every peer.
fn lap(
    initiators: &mut Initiators,
    window: usize,
    relay: Option<u32>,
    steady: &mut Steady,
) -> Result<(), Failure> {
    let (start, mut next, mut waiting) = (clock::now(), 0, 0);
    let mut losses = LossDetector::new(SILENCE, relay, start);
    while next < initiators.members.len() || waiting > 0 {
        interrupt::check()?;
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
    steady.cookies += initiators.cookies();
    Ok(())
}
