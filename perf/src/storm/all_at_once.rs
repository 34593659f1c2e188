//! Handshakes of all peers at the same time, as after a restart of their relay. Each peer retries
//! as WireGuard does until it is served.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use super::initiators::Initiators;
use crate::clock;
use crate::failure::Failure;
use crate::generator::Randomness;
use crate::interrupt::Interrupt;
use crate::statistics::percentile;
use crate::usage::of_daemon;

/// Time from an initiation to the next one, with or without a cookie (REKEY_TIMEOUT; whitepaper,
/// section 6.4).
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Largest random addition to that (MAX_TIMER_JITTER_MS; messages.h in
/// drivers/net/wireguard).
const JITTER_MAX: Duration = Duration::from_millis(333);

/// Time from an initiation to preparing the next one, if the generator is otherwise idle.
const PREPARE_AFTER: Duration = Duration::from_secs(1);

/// Initiations sent in a row before polling for answers.
const BURST: usize = 16;

/// Time without messages after which the generator sleeps between polls.
const QUIET: Duration = Duration::from_millis(100);
const REST: Duration = Duration::from_millis(1);

/// Starts the handshakes of all `initiators` and retries for at most `patience`; the JSON record.
pub fn run(
    initiators: &mut Initiators<'_>,
    patience: Duration,
    relay: Option<u32>,
    randomness: &mut Randomness,
    interrupt: &Interrupt,
) -> Result<Value, Failure> {
    for member in &mut initiators.members {
        interrupt.check()?;
        member.initiator.prepare(randomness)?;
    }
    let before = of_daemon(relay)?;
    let start = clock::now();
    let initiations = until_served(initiators, start + patience, randomness, interrupt)?;
    let relay = of_daemon(relay)?.zip(before).map(|(after, before)| after - before);
    initiators.verify()?;
    let served = initiators.members.iter().filter_map(|member| {
        let (_, at) = member.response?;
        Some((at, at - member.sent_at?))
    });
    let last = served.clone().map(|(at, _)| at).max().unwrap_or(start);
    let mut answers: Vec<f64> = served.map(|(_, took)| took.as_secs_f64() * 1e6).collect();
    answers.sort_by(f64::total_cmp);
    let [p50, p99, max] = [50.0, 99.0, 100.0].map(|percent| percentile(&answers, percent));
    Ok(json!({
        "completed": answers.len(),
        "unserved": initiators.members.len() - answers.len(),
        "answer_us": { "p50": p50, "p99": p99, "max": max },
        "cookies": initiators.members.iter().map(|member| member.cookies).sum::<u64>(),
        "late": initiators.late,
        "initiations": initiations,
        "seconds": (last - start).as_secs_f64(),
        "relay_cpu_seconds": relay.map(|time| time.as_secs_f64()),
    }))
}

/// Sends initiations until all have a response, or `end`; the number of initiations.
fn until_served(
    initiators: &mut Initiators<'_>,
    end: Duration,
    randomness: &mut Randomness,
    interrupt: &Interrupt,
) -> Result<u64, Failure> {
    let mut now = clock::now();
    // Time of the next initiation of each member, earliest first.
    let mut due: BinaryHeap<Reverse<(Duration, usize)>> =
        (0..initiators.members.len()).map(|number| Reverse((now, number))).collect();
    // Members that have sent, and the time from which the next initiation may be prepared.
    let mut unprepared = VecDeque::new();
    let (mut initiations, mut last_event) = (0, now);
    let mut unserved = initiators.members.len();
    while unserved > 0 && now < end {
        interrupt.check()?;
        for _ in 0..BURST {
            let Some(Reverse((at, number))) = due.peek().copied() else { break };
            let is_served = initiators.members[number].response.is_some();
            if at > now && !is_served {
                break;
            }
            due.pop();
            if !is_served {
                initiators.members[number].initiator.prepare(randomness)?;
                initiators.send(number)?;
                initiations += 1;
                last_event = now;
                due.push(Reverse((now + RETRY_AFTER + jitter(randomness)?, number)));
                unprepared.push_back((now + PREPARE_AFTER, number));
            }
        }
        while let Some(arrival) = initiators.receive()? {
            unserved -= usize::from(!arrival.is_cookie);
            last_event = clock::now();
        }
        now = clock::now();
        let is_quiet = now.saturating_sub(last_event) > QUIET;
        if is_quiet && !prepare_next(initiators, &mut unprepared, now, randomness)? {
            sleep(REST);
        }
    }
    Ok(initiations)
}

/// Prepares the next initiation of a pending member; false if there is none to prepare.
fn prepare_next(
    initiators: &mut Initiators<'_>,
    unprepared: &mut VecDeque<(Duration, usize)>,
    now: Duration,
    randomness: &mut Randomness,
) -> Result<bool, Failure> {
    while let Some((from, number)) = unprepared.front().copied()
        && from <= now
    {
        unprepared.pop_front();
        let member = &mut initiators.members[number];
        if member.response.is_none() {
            return member.initiator.prepare(randomness).map(|()| true);
        }
    }
    Ok(false)
}

fn jitter(randomness: &mut Randomness) -> Result<Duration, Failure> {
    Ok(JITTER_MAX * u32::from(randomness.key()?[0]) / u32::from(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_below_its_bound() {
        let mut randomness = Randomness::open().expect("every Linux has it");
        for _ in 0..100 {
            assert!(jitter(&mut randomness).expect("randomness") <= JITTER_MAX);
        }
    }
}
