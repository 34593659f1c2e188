//! When that which is on its way counts as lost: nothing has come for a while, although the
//! generator was there to see it, and the relay, if it is a process, has nothing left to do.

use std::time::Duration;

use crate::cpu;

/// What one look adds at most: while the generator itself waits for its core, answers wait for it.
const LOOK_MAX: Duration = Duration::from_millis(5);

/// How long a relay that has something to do is waited for. One that spins has it forever.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long nothing has come.
pub struct Silence {
    /// How long it lasts until something is lost.
    limit: Duration,
    relay: Option<u32>,
    looked_at: Duration,
    /// As seen by looks in short intervals.
    lasted: Duration,
    /// Waited in vain for a relay that had something to do.
    waited: Duration,
}

impl Silence {
    /// Begins at `now`. `relay` is its process, if that is known.
    pub fn new(limit: Duration, relay: Option<u32>, now: Duration) -> Silence {
        Silence { limit, relay, looked_at: now, lasted: Duration::ZERO, waited: Duration::ZERO }
    }

    /// Something has come, or been sent, at `now`.
    pub fn end(&mut self, now: Duration) {
        *self = Silence::new(self.limit, self.relay, now);
    }

    /// A look at `now` has found nothing. Whether it is to be looked for no longer; then the
    /// silence begins anew.
    pub fn is_loss(&mut self, now: Duration) -> bool {
        let relay = self.relay;
        self.is_loss_unless(now, || relay.is_some_and(cpu::has_work))
    }

    fn is_loss_unless(&mut self, now: Duration, has_work: impl FnOnce() -> bool) -> bool {
        self.lasted += now.saturating_sub(self.looked_at).min(LOOK_MAX);
        self.looked_at = now;
        if self.lasted <= self.limit {
            return false;
        }
        self.waited += self.lasted;
        self.lasted = Duration::ZERO;
        let is_loss = self.waited > PATIENCE || !has_work();
        if is_loss {
            self.end(now);
        }
        is_loss
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(200);
    const MS: Duration = Duration::from_millis(1);

    /// Looks every millisecond, in vain: after how many it is a loss.
    fn looks(silence: &mut Silence, from: Duration, has_work: bool) -> u32 {
        let is_loss = |look: &u32| silence.is_loss_unless(from + *look * MS, || has_work);
        (1..100_000).find(is_loss).expect("it ends")
    }

    #[test]
    fn a_relay_at_rest_has_lost_what_does_not_come() {
        let mut silence = Silence::new(LIMIT, None, Duration::ZERO);
        assert_eq!(looks(&mut silence, Duration::ZERO, false), 201);
        assert_eq!(looks(&mut silence, 201 * MS, false), 201, "and again");
    }

    #[test]
    fn what_comes_ends_it() {
        let mut silence = Silence::new(LIMIT, None, Duration::ZERO);
        assert!((1..=200).all(|look| !silence.is_loss_unless(look * MS, || false)));
        silence.end(200 * MS);
        assert_eq!(looks(&mut silence, 200 * MS, false), 201);
    }

    #[test]
    fn a_pause_of_the_generator_is_no_silence() {
        let mut silence = Silence::new(LIMIT, None, Duration::ZERO);
        let pause = Duration::from_secs(3);
        assert!(!silence.is_loss_unless(pause, || false));
        assert_eq!(looks(&mut silence, pause, false), 196);
    }

    #[test]
    fn a_relay_with_work_is_waited_for_but_not_forever() {
        let mut silence = Silence::new(LIMIT, None, Duration::ZERO);
        let looks = looks(&mut silence, Duration::ZERO, true);
        assert!((5001..5400).contains(&looks), "{looks}");
    }

    #[test]
    fn who_looks_has_work() {
        assert!(cpu::has_work(std::process::id()), "this thread runs");
        assert!(!cpu::has_work(u32::MAX), "there is no such process");
    }
}
