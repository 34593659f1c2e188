//! The sending half of a session, which any worker may use, and what both halves know: indexes,
//! age and role. The receiving half is [`crate::receive_session`].

use wg_bounce_aead::Key;
use wg_bounce_sys::clock::Millis;

use crate::limits::{
    KEEPALIVE_TIMEOUT, REJECT_AFTER_MESSAGES, REJECT_AFTER_TIME, REKEY_AFTER_MESSAGES,
    REKEY_AFTER_TIME, REKEY_TIMEOUT,
};
use crate::sync::atomic::{AtomicU64, Ordering};

/// The ages that end a session. Tests shorten them; everything else uses the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// The initiator starts the next handshake when it sends on a session of this age.
    pub rekey_after: Millis,
    /// The initiator starts it when it receives on a session of this age (§6.2).
    pub last_minute_after: Millis,
    /// Nothing is sent or received on a session of this age.
    pub reject_after: Millis,
}

impl Default for Lifetime {
    fn default() -> Self {
        Lifetime {
            rekey_after: REKEY_AFTER_TIME,
            last_minute_after: REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT,
            reject_after: REJECT_AFTER_TIME,
        }
    }
}

/// The facts that both halves of a session share (`struct noise_keypair` of the kernel module).
#[derive(Clone, Copy, Debug)]
pub struct KeypairInfo {
    /// The index that we chose; its low byte is the number of the worker that receives.
    pub local_index: u32,
    /// The index that the peer chose; every data header carries it.
    pub remote_index: u32,
    /// The time at which the session was derived.
    pub created: Millis,
    /// Whether we began the handshake: only its initiator renews a session by age (§6.2).
    pub is_initiator: bool,
    /// The ages that end it.
    pub lifetime: Lifetime,
}

impl KeypairInfo {
    /// Whether the session is young enough to send and receive at `now` (§6.1).
    pub fn is_within_age(&self, now: Millis) -> bool {
        now.since(self.created) < self.lifetime.reject_after
    }

    /// Whether a message received at `now` asks for the next handshake (§6.2; the kernel's
    /// `keep_key_fresh`, receive.c).
    pub fn wants_last_minute_rekey(&self, now: Millis) -> bool {
        self.is_initiator && now.since(self.created) >= self.lifetime.last_minute_after
    }
}

/// The sending half: an immutable key and one counter, shared by all workers.
pub struct SendSession {
    /// The key of this direction.
    pub key: Key,
    /// Indexes, age and role.
    pub info: KeypairInfo,
    /// The next nonce; at [`REJECT_AFTER_MESSAGES`] the session is dead.
    counter: AtomicU64,
}

/// Consecutive nonces of one session, each to be used once. Neither `Copy` nor `Clone`.
#[derive(Debug)]
pub struct Nonces {
    next: u64,
    end: u64,
}

impl SendSession {
    /// A session whose first message has counter zero.
    pub fn new(key: Key, info: KeypairInfo) -> Self {
        SendSession { key, info, counter: AtomicU64::new(0) }
    }

    /// Messages sent or reserved so far.
    pub fn sent(&self) -> u64 {
        self.counter.load(Ordering::Relaxed)
    }

    /// Whether the session may still send at `now` (§6.1: age and number of messages).
    pub fn is_alive(&self, now: Millis) -> bool {
        self.info.is_within_age(now) && self.sent() < REJECT_AFTER_MESSAGES
    }

    /// Whether a message sent at `now` asks for the next handshake (§6.2).
    pub fn wants_rekey(&self, now: Millis) -> bool {
        let info = &self.info;
        self.sent() >= REKEY_AFTER_MESSAGES
            || (info.is_initiator && now.since(info.created) >= info.lifetime.rekey_after)
    }

    /// Reserves `count` nonces. Refuses when that would cross [`REJECT_AFTER_MESSAGES`], and
    /// then the session is dead: no later, smaller reservation succeeds either.
    #[must_use]
    pub fn reserve(&self, count: u64) -> Option<Nonces> {
        let mut next = self.counter.load(Ordering::Relaxed);
        loop {
            let end = next.checked_add(count).filter(|&end| end <= REJECT_AFTER_MESSAGES);
            let replacement = end.unwrap_or(REJECT_AFTER_MESSAGES);
            match self.counter.compare_exchange_weak(
                next,
                replacement,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return end.map(|end| Nonces { next, end }),
                Err(current) => next = current,
            }
        }
    }

    /// Ends the session: no nonce is reserved after this, and what was sealed and has not left must
    /// not leave.
    pub fn end(&self) {
        self.counter.fetch_max(REJECT_AFTER_MESSAGES, Ordering::Relaxed);
    }

    /// Moves the counter forward, so that tests reach the limits.
    #[doc(hidden)]
    pub fn skip_to(&self, counter: u64) {
        self.counter.fetch_max(counter, Ordering::Relaxed);
    }
}

impl Iterator for Nonces {
    type Item = u64;
    fn next(&mut self) -> Option<u64> {
        (self.next < self.end).then(|| {
            let nonce = self.next;
            self.next += 1;
            nonce
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> SendSession {
        let info = KeypairInfo {
            local_index: 1,
            remote_index: 2,
            created: Millis(1),
            is_initiator: true,
            lifetime: Lifetime::default(),
        };
        SendSession::new(Key::new(&[7; 32]), info)
    }

    #[test]
    fn nonces_come_once_and_in_order() {
        let session = session();
        let first: Vec<u64> = session.reserve(3).expect("fresh").collect();
        let second: Vec<u64> = session.reserve(2).expect("fresh").collect();
        assert_eq!((first, second), (vec![0, 1, 2], vec![3, 4]));
    }

    #[test]
    fn the_last_nonce_is_used_and_none_beyond() {
        let session = session();
        session.skip_to(REJECT_AFTER_MESSAGES - 2);
        assert_eq!(session.reserve(2).expect("two are left").count(), 2);
        assert!(session.reserve(1).is_none());
        assert!(!session.is_alive(Millis(1)));
    }

    #[test]
    fn a_refused_reservation_kills_the_session() {
        let session = session();
        session.skip_to(REJECT_AFTER_MESSAGES - 2);
        assert!(session.reserve(3).is_none());
        assert!(session.reserve(1).is_none(), "no smaller reservation passes afterwards");
    }

    #[test]
    fn an_ended_session_stays_dead() {
        let session = session();
        session.end();
        assert!(session.reserve(1).is_none() && !session.is_alive(Millis(1)));
    }

    #[test]
    fn threads_never_share_a_nonce() {
        let session = session();
        let mut all: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|size| {
                    let session = &session;
                    scope.spawn(move || {
                        (0..1000)
                            .flat_map(|_| session.reserve(size + 1).expect("alive"))
                            .collect::<Vec<u64>>()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
        });
        all.sort_unstable();
        assert_eq!(all, (0..10_000).collect::<Vec<u64>>());
    }

    #[test]
    fn age_ends_a_session() {
        let session = session();
        assert!(session.is_alive(Millis(180_000)));
        assert!(!session.is_alive(Millis(180_001)));
    }
}
