//! The replay window: the counters of a session that have been accepted (§5.4.6, RFC 6479).
//!
//! A ring of 128 words of 64 bits. Moving forward clears whole words, so that one word is always
//! lost: the window remembers 127 × 64 = 8,128 counters behind the greatest one.

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
    /// Accepts `counter` if it is new and not too old; call it only after authentication.
    #[must_use]
    pub fn accept(&mut self, counter: u64) -> bool {
        if counter >= REJECT_AFTER_MESSAGES {
            return false;
        }
        // The greatest counter is `next - 1`, and it may be REPLAY_WINDOW ahead.
        if counter + REPLAY_WINDOW + 1 < self.next {
            return false;
        }
        let word = counter / WORD_BITS;
        if counter >= self.next {
            // Clear the words after the old greatest counter's, up to this one's.
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// One more than the window, as in the kernel's selftest (drivers/net/wireguard/selftest/
    /// counter.c), whose cases these are.
    const LIMIT: u64 = REPLAY_WINDOW + 1;

    /// Runs numbered cases of counter and verdict against one fresh window.
    fn run(cases: &[(u32, u64, bool)]) {
        let mut window = ReplayWindow::default();
        for (number, counter, verdict) in cases {
            assert_eq!(window.accept(*counter), *verdict, "case {number}: {counter}");
        }
    }

    #[test]
    fn the_cases_of_the_kernel() {
        run(&[
            (1, 0, true),
            (2, 1, true),
            (3, 1, false),
            (4, 9, true),
            (5, 8, true),
            (6, 7, true),
            (7, 7, false),
            (8, LIMIT, true),
            (9, LIMIT - 1, true),
            (10, LIMIT - 1, false),
            (11, LIMIT - 2, true),
            (12, 2, true),
            (13, 2, false),
            (14, LIMIT + 16, true),
            (15, 3, false),
            (16, LIMIT + 16, false),
            (17, LIMIT * 4, true),
            (18, LIMIT * 4 - (LIMIT - 1), true),
            (19, 10, false),
            (20, LIMIT * 4 - LIMIT, false),
            (21, LIMIT * 4 - (LIMIT + 1), false),
            (22, LIMIT * 4 - (LIMIT - 2), true),
            (23, LIMIT * 4 + 1 - LIMIT, false),
            (24, 0, false),
            (25, REJECT_AFTER_MESSAGES, false),
            (26, REJECT_AFTER_MESSAGES - 1, true),
            (27, REJECT_AFTER_MESSAGES, false),
            (28, REJECT_AFTER_MESSAGES - 1, false),
            (29, REJECT_AFTER_MESSAGES - 2, true),
            (30, REJECT_AFTER_MESSAGES + 1, false),
            (31, REJECT_AFTER_MESSAGES + 2, false),
            (32, u64::MAX, false),
            (33, REJECT_AFTER_MESSAGES - 2, false),
            (34, REJECT_AFTER_MESSAGES - 3, true),
            (35, 0, false),
        ]);
    }

    #[test]
    fn a_full_window_backwards_and_forwards() {
        let mut window = ReplayWindow::default();
        for counter in (1..=REPLAY_WINDOW).rev() {
            assert!(window.accept(counter));
        }
        assert!(window.accept(0), "as far behind as the window reaches");
        assert!(!window.accept(0));
        let mut window = ReplayWindow::default();
        for counter in (2..=LIMIT).rev() {
            assert!(window.accept(counter));
        }
        assert!(window.accept(1));
        assert!(!window.accept(0), "one too far behind");
    }

    /// From every place within a word, jumps around the ring's length forget what they must.
    #[test]
    fn jumps_around_the_length_of_the_ring() {
        let ring = WORDS as u64 * WORD_BITS;
        for start in 0..WORD_BITS * 2 {
            for jump in (ring - 130..ring + 130).chain([WORD_BITS, 2 * ring, 5 * ring + 3]) {
                let mut window = ReplayWindow::default();
                assert!(window.accept(start));
                assert!(window.accept(start + jump));
                assert!(!window.accept(start), "{start} {jump}");
                assert!(window.accept(start + jump - REPLAY_WINDOW.min(jump - 1)));
                assert!(!window.accept(start + jump));
            }
        }
    }

    /// All accepted counters, kept for ever.
    #[derive(Default)]
    struct Model {
        accepted: HashSet<u64>,
        greatest: Option<u64>,
    }

    impl Model {
        fn accept(&mut self, counter: u64) -> bool {
            let is_old = self.greatest.is_some_and(|greatest| {
                u128::from(counter) + u128::from(REPLAY_WINDOW) < u128::from(greatest)
            });
            if counter >= REJECT_AFTER_MESSAGES || is_old || !self.accepted.insert(counter) {
                return false;
            }
            self.greatest = self.greatest.max(Some(counter));
            true
        }
    }

    /// A counter relative to the greatest so far.
    #[derive(Clone, Debug)]
    enum Step {
        Ahead(u64),
        Behind(u64),
        Absolute(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let window = REPLAY_WINDOW;
        let step = prop_oneof![
            6 => (0..4u64).prop_map(Step::Ahead),
            6 => (0..200u64).prop_map(Step::Behind),
            2 => (0..3 * window).prop_map(Step::Ahead),
            3 => (window - 70..window + 70).prop_map(Step::Ahead),
            3 => (window - 70..window + 70).prop_map(Step::Behind),
            1 => (0..1_000u64).prop_map(Step::Absolute),
        ];
        prop::collection::vec(step, 1..400)
    }

    proptest! {
        #[test]
        fn equals_a_set_of_all_counters(
            start in prop_oneof![
                3 => 0..100u64,
                2 => REJECT_AFTER_MESSAGES - 30_000..REJECT_AFTER_MESSAGES,
                1 => any::<u64>(),
            ],
            steps in steps(),
        ) {
            let (mut window, mut model) = (ReplayWindow::default(), Model::default());
            prop_assert_eq!(window.accept(start), model.accept(start));
            for step in steps {
                let greatest = model.greatest.unwrap_or(start);
                let counter = match step {
                    Step::Ahead(by) => greatest.saturating_add(by),
                    Step::Behind(by) => greatest.saturating_sub(by),
                    Step::Absolute(counter) => counter,
                };
                prop_assert_eq!(window.accept(counter), model.accept(counter), "{}", counter);
            }
        }
    }
}
