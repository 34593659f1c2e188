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
use crate::generator::{Answer, random_key};
use crate::interrupt;
use crate::statistics::distribution;
use crate::usage::{between, of_daemon};

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
    initiators: &mut Initiators,
    patience: Duration,
    relay: Option<u32>,
) -> Result<Value, Failure> {
    for member in &mut initiators.members {
        interrupt::check()?;
        member.initiator.prepare();
    }
    let before = of_daemon(relay)?;
    let start = clock::now();
    let initiations = until_served(initiators, start + patience)?;
    let relay = between(before, of_daemon(relay)?);
    initiators.verify()?;
    let served = initiators.members.iter().filter_map(|member| {
        let (_, at) = member.response?;
        Some((at, at - member.sent_at?))
    });
    let (arrivals, answers): (Vec<_>, Vec<_>) = served.unzip();
    let last = arrivals.into_iter().max().unwrap_or(start);
    Ok(json!({
        "completed": answers.len(),
        "unserved": initiators.members.len() - answers.len(),
        "answer_us": distribution(answers),
        "cookies": initiators.cookies(),
        "late": initiators.late,
        "initiations": initiations,
        "seconds": (last - start).as_secs_f64(),
        "relay_cpu_seconds": relay.map(|time| time.as_secs_f64()),
    }))
}

/// Sends initiations until all have a response, or `end`; the number of initiations.
fn until_served(initiators: &mut Initiators, end: Duration) -> Result<u64, Failure> {
    let mut now = clock::now();
    // Time of the next initiation of each member, earliest first.
    let mut due: BinaryHeap<Reverse<(Duration, usize)>> =
        (0..initiators.members.len()).map(|number| Reverse((now, number))).collect();
    // Members that have sent, and the time from which the next initiation may be prepared.
    let mut unprepared = VecDeque::new();
    let (mut initiations, mut last_event) = (0, now);
    let mut unserved = initiators.members.len();
    while unserved > 0 && now < end {
        interrupt::check()?;
        for _ in 0..BURST {
            let next = due.peek().filter(|Reverse((at, _))| *at <= now);
            let Some(&Reverse((_, number))) = next else { break };
            due.pop();
            if initiators.members[number].response.is_none() {
                initiators.members[number].initiator.prepare();
                initiators.send(number)?;
                initiations += 1;
                last_event = now;
                due.push(Reverse((now + RETRY_AFTER + jitter(), number)));
                unprepared.push_back((now + PREPARE_AFTER, number));
            }
        }
        while let Some((_, answer)) = initiators.receive()? {
            unserved -= usize::from(answer != Answer::Cookie);
            last_event = clock::now();
        }
        now = clock::now();
        if now.saturating_sub(last_event) <= QUIET {
            continue;
        }
        match unprepared.front() {
            Some((from, number)) if *from <= now => {
                let member = &mut initiators.members[*number];
                if member.response.is_none() {
                    member.initiator.prepare();
                }
                unprepared.pop_front();
            }
            _ => sleep(REST),
        }
    }
    Ok(initiations)
}

fn jitter() -> Duration {
    JITTER_MAX * u32::from(random_key()[0]) / u32::from(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_below_its_bound() {
        for _ in 0..100 {
            assert!(jitter() <= JITTER_MAX);
        }
    }
}
