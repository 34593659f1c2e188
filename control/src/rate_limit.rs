//! Rate limit of handshakes per source under load: a token bucket per IPv4 address or IPv6 /64
//! (§5.3; ratelimiter.c).

use std::collections::HashMap;
use std::net::IpAddr;

use wg_bounce_dataplane::token_bucket::TokenBucket;
use wg_bounce_sys::clock::Millis;

use crate::limits::{RATE, RATE_ENTRIES_MAX, RATE_ENTRY_AGE_MAX};
use crate::source_prefix::SourcePrefix;

/// Token buckets by source. The size is bounded; silent sources are forgotten.
#[derive(Debug, Default)]
pub struct RateLimiter {
    buckets: HashMap<SourcePrefix, TokenBucket>,
    swept: Millis,
}

impl RateLimiter {
    /// Whether a message from `address` may be handled at `now`; if so, its tokens are taken.
    pub fn allow(&mut self, address: IpAddr, now: Millis) -> bool {
        if now.since(self.swept) >= RATE_ENTRY_AGE_MAX {
            self.buckets.retain(|_, bucket| now.since(bucket.last_used()) < RATE_ENTRY_AGE_MAX);
            self.swept = now;
        }
        let source = SourcePrefix::of(address);
        if let Some(bucket) = self.buckets.get_mut(&source) {
            return bucket.try_take(&RATE, now);
        }
        if self.buckets.len() >= RATE_ENTRIES_MAX {
            return false;
        }
        let mut bucket = TokenBucket::full(&RATE, now);
        let is_allowed = bucket.try_take(&RATE, now);
        self.buckets.insert(source, bucket);
        is_allowed
    }

    /// Deadline of the next [`RateLimiter::sweep`], which frees memory after an attack.
    pub fn sweep_at(&self) -> Option<Millis> {
        (!self.buckets.is_empty()).then(|| self.swept + RATE_ENTRY_AGE_MAX + RATE_ENTRY_AGE_MAX)
    }

    /// Forgets silent sources; frees the memory when none is left.
    pub fn sweep(&mut self, now: Millis) {
        self.buckets.retain(|_, bucket| now.since(bucket.last_used()) < RATE_ENTRY_AGE_MAX);
        self.swept = now;
        if self.buckets.is_empty() {
            self.buckets = HashMap::new();
        }
    }

    /// Sources in the table.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const A: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

    fn allowed(limiter: &mut RateLimiter, address: IpAddr, now: u64, count: usize) -> usize {
        (0..count).filter(|_| limiter.allow(address, Millis(now))).count()
    }

    #[test]
    fn a_burst_of_five_then_twenty_a_second() {
        let mut limiter = RateLimiter::default();
        assert_eq!(allowed(&mut limiter, A, 1000, 10), 5);
        assert_eq!(allowed(&mut limiter, A, 1049, 1), 0);
        assert_eq!(allowed(&mut limiter, A, 1050, 2), 1);
        let mut count = 0;
        for millis in 1051..=2050 {
            count += allowed(&mut limiter, A, millis, 3);
        }
        assert_eq!(count, 20);
    }

    #[test]
    fn sources_do_not_punish_each_other() {
        let mut limiter = RateLimiter::default();
        assert_eq!(allowed(&mut limiter, A, 1000, 10), 5);
        assert_eq!(allowed(&mut limiter, B, 1000, 10), 5);
    }

    #[test]
    fn a_64_prefix_is_one_source() {
        let mut limiter = RateLimiter::default();
        let inside = |last: u16| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, last));
        let count = (0..10).filter(|&last| limiter.allow(inside(last), Millis(1000))).count();
        assert_eq!(count, 5);
        let outside = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 1));
        assert!(limiter.allow(outside, Millis(1000)));
    }

    #[test]
    fn the_table_is_bounded_and_empties() {
        let mut limiter = RateLimiter::default();
        for address in 0..RATE_ENTRIES_MAX as u32 {
            assert!(limiter.allow(IpAddr::V4(address.into()), Millis(1)));
        }
        assert!(!limiter.allow(IpAddr::V4(u32::MAX.into()), Millis(1)));
        assert_eq!(limiter.len(), RATE_ENTRIES_MAX);
        assert!(limiter.allow(IpAddr::V4(u32::MAX.into()), Millis(2000)), "others have expired");
        assert_eq!(limiter.len(), 1);
        assert!(limiter.sweep_at().is_some());
        limiter.sweep(Millis(4000));
        assert!(limiter.is_empty() && limiter.sweep_at().is_none());
    }
}
