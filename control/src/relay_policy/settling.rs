//! The pause before packets that rules kept with the kernel are relayed directly again.
//!
//! The kernel tracks the connections that it has seen. One that it does not see for some seconds is
//! INVALID to it when it comes back, and many firewalls drop its packets then. A firewall that is
//! being reloaded has no rules for a moment: connections must not change their way for that long.

use std::sync::Arc;

use wg_bounce_dataplane::pairs::Pairs;
use wg_bounce_sys::clock::Millis;
use wg_bounce_sys::{Family, PerFamily};

use super::reading::Reading;
use super::reason::{Finding, Reason};
use crate::limits::{RELAY_SETTLING_MAX, RELAY_SETTLING_TIME};

/// The state of one firewall.
#[derive(Debug, Default)]
pub struct Settling {
    all: PerFamily<State>,
    of_pairs: PerFamily<OfPairs>,
}

/// Judgements about pairs of addresses.
#[derive(Debug, Default)]
struct OfPairs {
    /// The last one.
    last: Vec<Arc<Pairs>>,
    /// Earlier ones, which apply too until these times.
    earlier: Vec<(Vec<Arc<Pairs>>, Millis)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// It leaves relaying to the workers.
    #[default]
    Direct,
    /// It gives reasons against that.
    Kernel,
    /// It gave reasons, and gives none now; relaying begins at this time.
    Until(Millis),
}

impl Settling {
    /// Takes note of a reading at `now`. Adds a reason for each IP version that still has to wait,
    /// and the judgements about pairs that still apply. No pause begins if the rules are the same
    /// and the peers have other addresses.
    pub fn note(
        &mut self,
        reading: &mut Reading,
        tracks_connections: bool,
        has_new_addresses: bool,
        now: Millis,
    ) {
        let may_begin = tracks_connections && !has_new_addresses;
        for family in Family::BOTH {
            let is_of_family = |finding: &Finding| finding.families.contain(family);
            let is_found = reading.findings.iter().any(is_of_family);
            let state = self.all.of_mut(family);
            *state = match *state {
                _ if is_found => State::Kernel,
                State::Kernel if may_begin => State::Until(now + RELAY_SETTLING_TIME),
                State::Until(end) if tracks_connections && now < end => State::Until(end),
                _ => State::Direct,
            };
            let of_pairs = self.of_pairs.of_mut(family);
            let pairs = reading.pairs.of_mut(family);
            let before = std::mem::replace(&mut of_pairs.last, pairs.clone());
            of_pairs.earlier.retain(|(_, end)| now < *end && tracks_connections);
            if may_begin && !is_found && !before.is_empty() && before != *pairs {
                of_pairs.earlier.push((before, now + RELAY_SETTLING_TIME));
            }
            if of_pairs.earlier.len() > RELAY_SETTLING_MAX {
                *state = State::Until(now + RELAY_SETTLING_TIME);
                of_pairs.earlier.clear();
            }
            let earlier: Vec<_> = of_pairs.earlier.iter().flat_map(|(pairs, _)| pairs).collect();
            if earlier.iter().any(|pairs| pairs.any(|one| one.all)) {
                reading.of_pairs.push(Finding::of(family, Reason::Settling));
            }
            pairs.extend(earlier.into_iter().cloned());
            if let State::Until(_) = state {
                reading.findings.push(Finding::of(family, Reason::Settling));
            }
        }
    }

    /// Whether the firewall is to be read again at `now`, because a pause has ended.
    pub fn is_over(&self, now: Millis) -> bool {
        Family::BOTH.into_iter().any(|family| {
            let all = *self.all.of(family);
            let is_over = |(_, end): &(_, Millis)| *end <= now;
            matches!(all, State::Until(end) if end <= now)
                || self.of_pairs.of(family).earlier.iter().any(is_over)
        })
    }
}

#[cfg(test)]
mod tests {
    use wg_bounce_dataplane::pairs::Exceptions;

    use super::*;

    fn alike(syn: bool) -> Pairs {
        Pairs::Alike(Exceptions { syn, ..Exceptions::NONE })
    }

    const LATER: Millis = Millis(1000 + RELAY_SETTLING_TIME.0);

    fn noted(settling: &mut Settling, findings: Vec<Finding>, now: Millis) -> Vec<Finding> {
        let mut reading = Reading::from(findings);
        settling.note(&mut reading, true, false, now);
        reading.findings
    }

    #[test]
    fn what_was_with_the_kernel_waits_there() {
        let mut settling = Settling::default();
        let now = Millis(1000);
        assert_eq!(noted(&mut settling, vec![], now), [], "at the start");
        let xdp = || vec![Finding::of(Family::V6, Reason::Xdp)];
        assert_eq!(noted(&mut settling, xdp(), now), xdp());
        let waits = [Finding::of(Family::V6, Reason::Settling)];
        assert_eq!(noted(&mut settling, vec![], now), waits);
        let before = Millis(LATER.0 - 1);
        assert_eq!(noted(&mut settling, vec![], before), waits);
        assert!(!settling.is_over(before) && settling.is_over(LATER));
        assert_eq!(noted(&mut settling, vec![], LATER), []);
        assert!(!settling.is_over(LATER));
    }

    #[test]
    fn a_new_reason_begins_the_pause_again() {
        let mut settling = Settling::default();
        let xdp = || vec![Finding::of_both(Reason::Xdp)];
        noted(&mut settling, xdp(), Millis(0));
        noted(&mut settling, vec![], Millis(0));
        noted(&mut settling, xdp(), Millis(1000));
        noted(&mut settling, vec![], Millis(1000));
        assert_eq!(noted(&mut settling, vec![], Millis(LATER.0 - 1)).len(), 2);
    }

    #[test]
    fn without_connections_there_is_no_pause() {
        let mut settling = Settling::default();
        noted(&mut settling, vec![Finding::of_both(Reason::Xdp)], Millis(0));
        let mut reading = Reading::default();
        settling.note(&mut reading, false, false, Millis(0));
        assert_eq!(reading.findings, []);
    }

    #[test]
    fn other_addresses_begin_no_pause() {
        let mut settling = Settling::default();
        noted(&mut settling, vec![Finding::of_both(Reason::Xdp)], Millis(0));
        let mut reading = Reading::default();
        settling.note(&mut reading, true, true, Millis(0));
        assert_eq!(reading.findings, []);
    }

    #[test]
    fn pairs_that_were_with_the_kernel_wait_there() {
        let noted = |settling: &mut Settling, list: &[bool], is_other, now| {
            let mut reading = Reading::default();
            reading.pairs.v4 = list.iter().map(|syn| Arc::new(alike(*syn))).collect();
            settling.note(&mut reading, true, is_other, now);
            assert_eq!(reading.findings, []);
            reading.pairs.v4.iter().map(|one| **one == alike(true)).collect::<Vec<_>>()
        };
        let mut settling = Settling::default();
        let now = Millis(1000);
        assert_eq!(noted(&mut settling, &[true], false, now), [true]);
        assert_eq!(noted(&mut settling, &[], false, now), [true], "it waits");
        assert_eq!(noted(&mut settling, &[false], false, Millis(LATER.0 - 1)), [false, true]);
        assert!(settling.is_over(LATER));
        assert_eq!(noted(&mut settling, &[false], false, LATER), [false]);
        let mut settling = Settling::default();
        noted(&mut settling, &[true], false, now);
        assert!(noted(&mut settling, &[], true, now).is_empty(), "other addresses");
    }

    #[test]
    fn rules_that_change_all_the_time_leave_everything_to_the_kernel() {
        let mut settling = Settling::default();
        let max = RELAY_SETTLING_MAX as u64;
        // Each change is well within the pause after the one before, and all are not.
        for round in 0..20 * max {
            let mut reading = Reading::default();
            reading.pairs.v6 = vec![Arc::new(alike(round % 2 == 0))];
            settling.note(&mut reading, true, false, Millis(100 * round));
            let waits = reading.findings == [Finding::of(Family::V6, Reason::Settling)];
            assert_eq!(waits, round > max, "{round}");
        }
    }
}
