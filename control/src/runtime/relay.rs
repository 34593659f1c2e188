//! State of the relay policy in the control thread, and its log lines.

use crossbeam_channel::{Receiver, never};
use wg_bounce_dataplane::snapshot::Relay;
use wg_bounce_sys::PerFamily;

use crate::notify;
use crate::relay_policy::decision::{PolicyDecision, listed};
use crate::relay_policy::mode::Mode;
use crate::relay_policy::reason::Reason;
use crate::relay_policy::watch::Update;

/// The relay policy as known to the control thread.
pub(super) struct RelayState {
    pub updates: Receiver<Update>,
    /// Whether there will be updates: not with `--relay kernel`.
    pub is_watched: bool,
    /// The published policy.
    pub relay: Relay,
    /// The decision behind it; none before the first update.
    pub decision: Option<PolicyDecision>,
    /// The epoch of a decision not logged yet, because some worker has not reached it.
    pub unreported: Option<u64>,
    /// Number of changes of the decision.
    pub changes: u64,
    /// Reasons that `--relay direct` bypasses and that were already logged.
    bypassed: Vec<Reason>,
}

impl RelayState {
    /// Starts without relaying: until the first update, or for good with `--relay kernel`.
    pub(super) fn new(mode: Mode, updates: Option<Receiver<Update>>) -> RelayState {
        let by_kernel = || PolicyDecision::new(Mode::Kernel, std::iter::empty());
        let is_watched = updates.is_some();
        let decision = (!is_watched).then(by_kernel);
        let relaying = mode.without_forwarding();
        RelayState {
            is_watched,
            updates: updates.unwrap_or_else(never),
            relay: Relay { mode: PerFamily { v4: relaying, v6: relaying }, ..Relay::default() },
            unreported: decision.is_some().then_some(0),
            decision,
            changes: 0,
            bypassed: Vec::new(),
        }
    }

    /// The current policy in one line.
    pub(super) fn summary(&self) -> String {
        let RelayState { decision, changes, relay, .. } = self;
        let decision =
            decision.as_ref().map_or("not determined yet".to_owned(), ToString::to_string);
        format!("{decision}; changes={changes} routes-changed={}", relay.routes)
    }

    /// Reports a decision once all workers have reached its epoch.
    pub(super) fn report_reached(&mut self, epoch_reached: u64) {
        if self.unreported.is_some_and(|epoch| epoch <= epoch_reached) {
            self.unreported = None;
            self.report();
        }
    }

    /// Reports the decision to the log and to the service manager.
    fn report(&mut self) {
        let Some(decision) = &self.decision else { return };
        match decision.advice() {
            Some(advice) => log::info!("relay: {decision}; {advice}"),
            None => log::info!("relay: {decision}"),
        }
        notify::notify(&notify::status(&format!("relay: {decision}")));
        let unreported_reasons: Vec<&Reason> = decision
            .bypassed()
            .into_iter()
            .filter(|reason| !self.bypassed.contains(reason))
            .collect();
        if !unreported_reasons.is_empty() {
            log::info!("relay: packets between peers bypass: {}", listed(&unreported_reasons));
            let unreported_reasons: Vec<Reason> = unreported_reasons.into_iter().cloned().collect();
            self.bypassed.extend(unreported_reasons);
        }
    }
}

#[cfg(test)]
mod tests {
    use wg_bounce_dataplane::snapshot::DirectRelay;
    use wg_bounce_sys::Family;

    use super::*;

    /// The watch may be held up for long, for example by a held RTNL lock.
    #[test]
    fn before_the_first_decision_direct_gives_the_kernel_nothing_to_forward() {
        for (mode, expected) in
            [(Mode::Auto, DirectRelay::Never), (Mode::Direct, DirectRelay::LocalOnly)]
        {
            let state = RelayState::new(mode, Some(never()));
            let modes = Family::BOTH.map(|family| *state.relay.mode.of(family));
            assert_eq!(modes, [expected; 2], "{mode:?}");
        }
    }
}
