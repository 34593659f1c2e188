//! The replay window: which counters of a session have been accepted (§5.4.6, RFC 6479).
//!
//! A ring of 128 words of 64 bits. Moving forward clears whole words, so one word is always
//! spent: the window remembers 127 × 64 = 8,128 counters behind the greatest one.

use crate::limits::{REJECT_AFTER_MESSAGES, REPLAY_WINDOW};

const WORDS: usize = 128;
const WORD_BITS: u64 = u64::BITS as u64;
const _: () = assert!(REPLAY_WINDOW == (WORDS as u64 - 1) * WORD_BITS);

/// The counters that one session's receiver has accepted. Owned by one worker.
pub struct ReplayWindow {
    /// One more than the greatest accepted counter; zero before the first.
    next: u64,
    accepted: [u64; WORDS],
}

impl Default for ReplayWindow {
    fn default() -> Self {
        ReplayWindow { next: 0, accepted: [0; WORDS] }
    }
}

impl ReplayWindow {
    /// Takes `counter` if it is new and not too old; call it only after authentication.
    #[must_use]
    pub fn accept(&mut self, counter: u64) -> bool {
        if counter >= REJECT_AFTER_MESSAGES {
            return false;
        }
        if counter.saturating_add(REPLAY_WINDOW) < self.next {
            return false;
        }
        let word = counter / WORD_BITS;
        if counter >= self.next {
            // Clear the words between the old greatest counter's and this one's.
            let from = if self.next == 0 { 0 } else { (self.next - 1) / WORD_BITS + 1 };
            let cleared = (word + 1).saturating_sub(from).min(WORDS as u64);
            for index in (word + 1 - cleared)..=word {
                self.accepted[index as usize % WORDS] = 0;
            }
            self.next = counter + 1;
        }
        let bit = 1u64 << (counter % WORD_BITS);
        let slot = &mut self.accepted[word as usize % WORDS];
        let fresh = *slot & bit == 0;
        *slot |= bit;
        fresh
    }
}
