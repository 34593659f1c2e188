//! Who forwards from peer to peer: hands the watch's news to the workers, and says so.

use crossbeam_channel::{Receiver, never};
use wg_bounce_dataplane::snapshot::Relay;

use crate::notify;
use crate::relay_policy::decision::{PolicyDecision, listed};
use crate::relay_policy::mode::Mode;
use crate::relay_policy::reason::Reason;
use crate::relay_policy::watch::Update;

/// What the control thread knows of relaying.
pub(super) struct RelayState {
    pub updates: Receiver<Update>,
    /// What is published.
    pub relay: Relay,
    /// Why; none before the watch has looked: until then the kernel forwards.
    pub decision: Option<PolicyDecision>,
    /// The epoch that brought the decision, until every worker has passed it.
    pub unreported: Option<u64>,
    /// How often the decision has changed.
    pub changes: u64,
    /// What `--relay direct` passes over, and the log has said so.
    bypassed: Vec<Reason>,
}

impl RelayState {
    /// Begins with the kernel: until the watch has news, or for good where there is none.
    pub(super) fn new(updates: Option<Receiver<Update>>) -> RelayState {
        let by_kernel = || PolicyDecision::new(Mode::Kernel, std::iter::empty());
        let decision = updates.is_none().then(by_kernel);
        RelayState {
            updates: updates.unwrap_or_else(never),
            relay: Relay::default(),
            unreported: decision.is_some().then_some(0),
            decision,
            changes: 0,
            bypassed: Vec::new(),
        }
    }

    /// One line about how it is.
    pub(super) fn summary(&self) -> String {
        let RelayState { decision, changes, relay, .. } = self;
        let decision =
            decision.as_ref().map_or("not determined yet".to_owned(), ToString::to_string);
        format!("{decision}; changes={changes} routes-changed={}", relay.routes)
    }

    /// Says what every worker goes by.
    pub(super) fn report_reached(&mut self, epoch_reached: u64) {
        if self.unreported.is_some_and(|epoch| epoch <= epoch_reached) {
            self.unreported = None;
            self.report();
        }
    }

    /// Says how it is: to the log and to the service manager.
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
