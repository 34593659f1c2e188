//! Detection of losses: packets in flight are lost when nothing has arrived for a while although
//! the generator was polling, and the relay, if it is a process, is idle.

use std::time::Duration;

use crate::usage;

/// Time that one poll counts at most: while the generator waits for its core, answers wait for it.
const POLL_MAX: Duration = Duration::from_millis(5);

/// Time limit for a relay that is not idle: one that spins never is.
const PATIENCE: Duration = Duration::from_secs(5);

/// Measures for how long nothing has arrived.
pub struct LossDetector {
    /// Silence after which packets in flight are lost.
    limit: Duration,
    relay: Option<u32>,
    polled_at: Duration,
    /// Silence so far, counted poll by poll.
    silence: Duration,
    /// Time spent waiting for a relay that was not idle.
    waited: Duration,
    /// The relay was idle after the last poll. It may have become so since, by sending what arrives
    /// now: only a further poll that finds nothing shows a loss.
    is_suspected: bool,
}

impl LossDetector {
    /// Starts at `now`. `relay` is the relay's process, if known.
    pub fn new(limit: Duration, relay: Option<u32>, now: Duration) -> LossDetector {
        let (silence, waited) = (Duration::ZERO, Duration::ZERO);
        LossDetector { limit, relay, polled_at: now, silence, waited, is_suspected: false }
    }

    /// Restarts: something has arrived, or was sent, at `now`.
    pub fn reset(&mut self, now: Duration) {
        *self = LossDetector::new(self.limit, self.relay, now);
    }

    /// Records a poll at `now` that found nothing. Returns whether packets in flight are lost, and
    /// then restarts.
    pub fn is_loss(&mut self, now: Duration) -> bool {
        let relay = self.relay;
        self.is_loss_unless(now, || relay.is_some_and(usage::has_work))
    }

    fn is_loss_unless(&mut self, now: Duration, has_work: impl FnOnce() -> bool) -> bool {
        if self.is_suspected {
            self.reset(now);
            return true;
        }
        self.silence += now.saturating_sub(self.polled_at).min(POLL_MAX);
        self.polled_at = now;
        if self.silence <= self.limit {
            return false;
        }
        self.waited += self.silence;
        self.silence = Duration::ZERO;
        if self.waited <= PATIENCE && has_work() {
            return false;
        }
        self.is_suspected = true;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(200);
    const MS: Duration = Duration::from_millis(1);

    /// Polls every millisecond, without arrivals: the number of polls until a loss.
    fn polls(detector: &mut LossDetector, from: Duration, has_work: bool) -> u32 {
        let is_loss = |poll: &u32| detector.is_loss_unless(from + *poll * MS, || has_work);
        (1..100_000).find(is_loss).expect("it ends")
    }

    #[test]
    fn an_idle_relay_has_lost_what_does_not_arrive() {
        let mut detector = LossDetector::new(LIMIT, None, Duration::ZERO);
        assert_eq!(polls(&mut detector, Duration::ZERO, false), 202);
        assert_eq!(polls(&mut detector, 202 * MS, false), 202, "and again");
    }

    #[test]
    fn an_arrival_restarts_it() {
        let mut detector = LossDetector::new(LIMIT, None, Duration::ZERO);
        assert!((1..=200).all(|poll| !detector.is_loss_unless(poll * MS, || false)));
        detector.reset(200 * MS);
        assert_eq!(polls(&mut detector, 200 * MS, false), 202);
    }

    #[test]
    fn an_arrival_clears_the_suspicion() {
        let mut detector = LossDetector::new(LIMIT, None, Duration::ZERO);
        assert!((1..=201).all(|poll| !detector.is_loss_unless(poll * MS, || false)));
        detector.reset(201 * MS);
        assert!(!detector.is_loss_unless(202 * MS, || false), "it was on its way");
    }

    #[test]
    fn a_pause_of_the_generator_is_not_silence() {
        let mut detector = LossDetector::new(LIMIT, None, Duration::ZERO);
        let pause = Duration::from_secs(3);
        assert!(!detector.is_loss_unless(pause, || false));
        assert_eq!(polls(&mut detector, pause, false), 197);
    }

    #[test]
    fn a_busy_relay_is_waited_for_but_not_forever() {
        let mut detector = LossDetector::new(LIMIT, None, Duration::ZERO);
        let polls = polls(&mut detector, Duration::ZERO, true);
        assert!((5001..5400).contains(&polls), "{polls}");
    }

    #[test]
    fn this_thread_has_work() {
        assert!(usage::has_work(std::process::id()), "it is running");
        assert!(!usage::has_work(u32::MAX), "there is no such process");
    }
}
