//! All peers shake hands at the same time, as after a restart of their relay, and each tries again
//! as WireGuard does until it is served.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::thread::sleep;
use std::time::Duration;

use super::crowd::Crowd;
use super::steady::relay_time;
use crate::clock;
use crate::failure::Failure;
use crate::generator::Randomness;
use crate::interrupt::Interrupt;
use crate::statistics::percentile;

/// From an initiation to the next one, with or without a cookie (REKEY_TIMEOUT; whitepaper,
/// section 6.4).
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What is added to that at random, at most (MAX_TIMER_JITTER_MS; messages.h in
/// drivers/net/wireguard).
const JITTER_MAX: Duration = Duration::from_millis(333);

/// From an initiation to the making of the next one, when there is nothing else to do.
const PREPARE_AFTER: Duration = Duration::from_secs(1);

/// Initiations sent in a row before answers are looked for.
const BURST: usize = 16;

/// After so long without any message the generator rests between its looks.
const QUIET: Duration = Duration::from_millis(100);
const REST: Duration = Duration::from_millis(1);

/// What became of the peers.
#[derive(Clone, Debug, Default)]
pub struct Storm {
    /// From a peer's first initiation to its response, sorted (microseconds), of those that got
    /// an authentic one.
    pub answers: Vec<f64>,
    /// Peers that did not.
    pub unserved: u64,
    /// Cookies that came.
    pub cookies: u64,
    /// Answers that came when their peer had sent a newer initiation, or had been served.
    pub late: u64,
    /// Initiations of all, the first ones too.
    pub initiations: u64,
    /// From the first initiation to the last response.
    pub duration: Duration,
    /// CPU time of the relay, to the end; none if the relay is the kernel.
    pub relay: Option<Duration>,
}

impl Storm {
    /// CPU time of the relay in seconds; not a number if the relay is the kernel.
    pub fn relay_seconds(&self) -> f64 {
        self.relay.map_or(f64::NAN, |time| time.as_secs_f64())
    }

    /// What so many percent of the answers took at most (microseconds).
    pub fn answer(&self, percent: f64) -> f64 {
        percentile(&self.answers, percent).unwrap_or(f64::NAN)
    }
}

/// Lets all of `crowd` loose, for at most `patience`.
pub fn run(
    crowd: &mut Crowd<'_>,
    patience: Duration,
    relay: Option<u32>,
    randomness: &mut Randomness,
    interrupt: &Interrupt,
) -> Result<Storm, Failure> {
    for member in &mut crowd.members {
        interrupt.check()?;
        member.initiator.prepare(randomness)?;
    }
    let before = relay_time(relay)?;
    let start = clock::now();
    let initiations = until_served(crowd, start + patience, randomness, interrupt)?;
    let relay = relay_time(relay)?.zip(before).map(|(after, before)| after - before);
    crowd.verify()?;
    let served = crowd.members.iter().filter_map(|member| {
        let (_, at) = member.response?;
        Some((at, at - member.sent_at?))
    });
    let last = served.clone().map(|(at, _)| at).max().unwrap_or(start);
    let mut answers: Vec<f64> = served.map(|(_, took)| took.as_secs_f64() * 1e6).collect();
    answers.sort_by(f64::total_cmp);
    Ok(Storm {
        unserved: (crowd.members.len() - answers.len()) as u64,
        answers,
        cookies: crowd.members.iter().map(|member| member.cookies).sum(),
        late: crowd.late,
        initiations,
        duration: last - start,
        relay,
    })
}

/// Initiations and answers until all have one, or `end`; how many initiations.
fn until_served(
    crowd: &mut Crowd<'_>,
    end: Duration,
    randomness: &mut Randomness,
    interrupt: &Interrupt,
) -> Result<u64, Failure> {
    let mut now = clock::now();
    // When each sends next, the earliest first.
    let mut due: BinaryHeap<Reverse<(Duration, usize)>> =
        (0..crowd.members.len()).map(|number| Reverse((now, number))).collect();
    // Who has sent, and from when on its next initiation may be made.
    let mut unprepared = VecDeque::new();
    let (mut initiations, mut last_event) = (0, now);
    let mut unserved = crowd.members.len();
    while unserved > 0 && now < end {
        interrupt.check()?;
        for _ in 0..BURST {
            let Some(Reverse((at, number))) = due.peek().copied() else { break };
            let is_served = crowd.members[number].response.is_some();
            if at > now && !is_served {
                break;
            }
            due.pop();
            if !is_served {
                crowd.members[number].initiator.prepare(randomness)?;
                crowd.send(number)?;
                initiations += 1;
                last_event = now;
                due.push(Reverse((now + RETRY_AFTER + jitter(randomness)?, number)));
                unprepared.push_back((now + PREPARE_AFTER, number));
            }
        }
        while let Some(arrival) = crowd.receive()? {
            unserved -= usize::from(!arrival.is_cookie);
            last_event = clock::now();
        }
        now = clock::now();
        let is_quiet = now.saturating_sub(last_event) > QUIET;
        if is_quiet && !prepare_next(crowd, &mut unprepared, now, randomness)? {
            sleep(REST);
        }
    }
    Ok(initiations)
}

/// Makes the next initiation of one who waits for an answer; false if there is none to make.
fn prepare_next(
    crowd: &mut Crowd<'_>,
    unprepared: &mut VecDeque<(Duration, usize)>,
    now: Duration,
    randomness: &mut Randomness,
) -> Result<bool, Failure> {
    while let Some((from, number)) = unprepared.front().copied()
        && from <= now
    {
        unprepared.pop_front();
        let member = &mut crowd.members[number];
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
