//! A token bucket whose tokens are time: each event costs a span, and credit grows with the clock.

use wg_bounce_sys::clock::Millis;

/// The rate of a [`TokenBucket`].
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Credit that one event costs: a second divided by the events per second.
    pub cost: Millis,
    /// Largest credit: the cost of the largest burst.
    pub burst: Millis,
}

/// One bucket. The rate is an argument, so that many buckets need not store it.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    credit: Millis,
    refilled: Millis,
}

impl TokenBucket {
    /// A bucket with the credit of a whole burst.
    #[must_use]
    pub fn full(rate: &Rate, now: Millis) -> TokenBucket {
        TokenBucket { credit: rate.burst, refilled: now }
    }

    /// Pays for one event at `now`; returns false, and takes nothing, if the credit is too small.
    #[must_use]
    pub fn try_take(&mut self, rate: &Rate, now: Millis) -> bool {
        self.credit = (self.credit + now.since(self.refilled)).min(rate.burst);
        self.refilled = now;
        let is_allowed = self.credit >= rate.cost;
        if is_allowed {
            self.credit = self.credit - rate.cost;
        }
        is_allowed
    }

    /// The time of the last event, paid for or not.
    #[must_use]
    pub fn last_used(&self) -> Millis {
        self.refilled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let rate = Rate { cost: Millis(50), burst: Millis(250) };
        let mut bucket = TokenBucket::full(&rate, Millis(1000));
        assert_eq!((0..10).filter(|_| bucket.try_take(&rate, Millis(1000))).count(), 5);
        assert!(!bucket.try_take(&rate, Millis(1049)));
        assert!(bucket.try_take(&rate, Millis(1050)));
        assert!(!bucket.try_take(&rate, Millis(900)), "a clock that goes back gives no credit");
        let later = Millis(100_000);
        assert_eq!((0..10).filter(|_| bucket.try_take(&rate, later)).count(), 5);
        assert_eq!(bucket.last_used(), later);
    }
}
