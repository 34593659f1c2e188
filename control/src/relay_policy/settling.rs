//! The pause before packets that rules kept with the kernel are relayed directly again.
//!
//! The kernel tracks the connections that it has seen. One that it does not see for some seconds is
//! INVALID to it when it comes back, and many firewalls drop its packets then. A firewall that is
//! being reloaded has no rules for a moment: connections must not change their way for that long.

use std::io;

use wg_bounce_sys::clock::Millis;
use wg_bounce_sys::{Family, PerFamily};

use super::kernel::Kernel;
use super::reason::{Finding, Reason};
use crate::limits::RELAY_SETTLING_TIME;

/// The state of one firewall.
#[derive(Debug, Default)]
pub struct Settling(PerFamily<State>);

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
    /// Takes note of `findings` at `now`. Adds a reason for each IP version that still has to wait.
    /// No pause begins if the rules are the same and the peers have other addresses.
    pub fn note(
        &mut self,
        findings: &mut Vec<Finding>,
        tracks_connections: bool,
        has_new_addresses: bool,
        now: Millis,
    ) {
        let may_begin = tracks_connections && !has_new_addresses;
        for family in Family::BOTH {
            let is_found = findings.iter().any(|finding| finding.families.contain(family));
            let state = self.0.of_mut(family);
            *state = match *state {
                _ if is_found => State::Kernel,
                State::Kernel if may_begin => State::Until(now + RELAY_SETTLING_TIME),
                State::Until(end) if tracks_connections && now < end => State::Until(end),
                _ => State::Direct,
            };
            if let State::Until(_) = state {
                findings.push(Finding::of(family, Reason::Settling));
            }
        }
    }

    /// Whether the firewall is to be read again at `now`, because a pause has ended.
    pub fn is_over(&self, now: Millis) -> bool {
        let is_over = |state: State| matches!(state, State::Until(end) if end <= now);
        is_over(self.0.v4) || is_over(self.0.v6)
    }
}

/// Whether the kernel tracks connections in this network namespace. If that cannot be read, it may.
pub fn tracks_connections(kernel: &mut impl Kernel) -> bool {
    match kernel.setting("netfilter/nf_conntrack_count") {
        Ok(count) => count.trim() != "0",
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Millis = Millis(1000 + RELAY_SETTLING_TIME.0);

    fn noted(settling: &mut Settling, mut findings: Vec<Finding>, now: Millis) -> Vec<Finding> {
        settling.note(&mut findings, true, false, now);
        findings
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
        let mut findings = Vec::new();
        settling.note(&mut findings, false, false, Millis(0));
        assert_eq!(findings, []);
    }

    #[test]
    fn other_addresses_begin_no_pause() {
        let mut settling = Settling::default();
        noted(&mut settling, vec![Finding::of_both(Reason::Xdp)], Millis(0));
        let mut findings = Vec::new();
        settling.note(&mut findings, true, true, Millis(0));
        assert_eq!(findings, []);
    }
}
