//! State of the relay policy in the control thread, and its log lines.

use std::sync::Arc;

use ipnet::IpNet;
use wg_bounce_dataplane::own_host::OwnHost;
use wg_bounce_dataplane::snapshot::{DirectRelay, Relay};
use wg_bounce_sys::{Family, PerFamily};
use wg_bounce_uapi::types::{Errno, Explain};

use crate::device::Device;
use crate::notify;
use crate::relay_policy::decision::{PolicyDecision, listed};
use crate::relay_policy::mode::Mode;
use crate::relay_policy::reason::Reason;
use crate::relay_policy::rules::addresses::Addresses;
use crate::relay_policy::watch::{Dependence, Lanes, Question, Update};
use crate::status::report::Way;
use crate::uapi_server::requests::{Answer, Reply};

/// The relay policy as known to the control thread.
pub(super) struct RelayState {
    /// None with `--relay kernel`: there will be no updates.
    lanes: Option<Lanes>,
    /// The policy.
    pub relay: Relay,
    /// Its dependence on the peers' addresses.
    pub dependence: Dependence,
    /// The version of them that the watch was told last.
    shared: Option<u64>,
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
    pub(super) fn new(mode: Mode, lanes: Option<Lanes>) -> RelayState {
        let by_kernel = || PolicyDecision::new(Mode::Kernel, [].iter(), [].iter());
        let decision = lanes.is_none().then(by_kernel);
        let relaying = mode.without_forwarding();
        RelayState {
            lanes,
            dependence: Dependence::default(),
            shared: None,
            relay: Relay { mode: PerFamily { v4: relaying, v6: relaying }, ..Relay::default() },
            unreported: decision.is_some().then_some(0),
            decision,
            changes: 0,
            bypassed: Vec::new(),
        }
    }

    /// Without an interface, everything between peers is relayed, by allowed IPs alone.
    pub(super) fn without_interface() -> RelayState {
        let mut state = RelayState::new(Mode::Kernel, None);
        state.decision = Some(PolicyDecision::alone());
        state.relay.mode = PerFamily { v4: DirectRelay::Alone, v6: DirectRelay::Alone };
        state
    }

    /// Makes the hub a host with these addresses. False if it has them already.
    pub(super) fn set_addresses(&mut self, addresses: Vec<IpNet>) -> bool {
        let host = OwnHost::new(addresses);
        let is_new = *self.relay.own_host != host;
        if is_new {
            self.relay.own_host = Arc::new(host);
        }
        is_new
    }

    /// Whether there will be updates.
    pub(super) fn is_watched(&self) -> bool {
        self.lanes.is_some()
    }

    /// The next update that waits.
    pub(super) fn next_update(&self) -> Option<Update> {
        self.lanes.as_ref()?.updates.try_recv().ok()
    }

    /// The policy for workers that know this version of the peers' addresses. Where `auto` judged
    /// rules by older ones, nothing is relayed until they are judged again.
    pub(super) fn at(&self, version: u64) -> Relay {
        let Dependence { version: judged, .. } = self.dependence;
        let is_current = judged.is_none_or(|judged| judged == version);
        let relay = self.relay.clone();
        let mode = relay.mode.map(|mode| match mode {
            DirectRelay::IfRoutedBack if !is_current => DirectRelay::Never,
            mode => mode,
        });
        Relay { mode, ..relay }
    }

    /// Whether rules ask for newer addresses of the peers than they were judged by.
    fn awaits_judgement(&self, version: u64) -> bool {
        self.dependence.asks && self.dependence.version != Some(version)
    }

    /// Tells the watch the peers' addresses, if it asks for newer ones and has judged everything by
    /// the last ones: collecting them costs time, and many changes come in a row.
    pub(super) fn share_addresses(&mut self, device: &Device) {
        self.share(device.allowed_ips_version(), device.allowed_ips());
    }

    fn share(&mut self, version: u64, prefixes: impl Iterator<Item = IpNet>) {
        let Some(lanes) = self.lanes.as_ref().filter(|_| self.awaits_judgement(version)) else {
            return;
        };
        if self.shared != self.dependence.version {
            return;
        }
        let addresses = Addresses::new(version, prefixes);
        if lanes.addresses.try_send(addresses).is_ok() {
            self.shared = Some(version);
            // A counter at its limit is readable too.
            let _ = lanes.wake.write(1);
        }
    }

    /// Explains the way of packets between two addresses of different peers: `before` and what the
    /// watch knows.
    pub(super) fn explain(&self, about: Explain, version: u64, before: String, reply: Reply) {
        let Some(lanes) = &self.lanes else {
            if self.relay.is_alone() {
                return reply.send(Answer::Text(before + "outcome: direct (--tun off)\n"));
            }
            return reply.send(Answer::Text(before + "outcome: by the kernel (--relay kernel)\n"));
        };
        let answer = |text: Option<String>| {
            reply.send(match text {
                Some(text) => Answer::Text(before + &text),
                None => Answer::Done(Errno::BUSY),
            });
        };
        lanes.ask(Question { about, version, answer: Box::new(answer) });
    }

    /// The decision, with its reasons.
    pub(super) fn decision_text(&self) -> String {
        self.decision.as_ref().map_or("not determined yet".to_owned(), ToString::to_string)
    }

    /// The current policy in one line, for this version of the peers' addresses.
    pub(super) fn summary(&self, version: u64) -> String {
        let RelayState { changes, relay, .. } = self;
        let decision = self.decision_text();
        let awaits = self.awaits_judgement(version);
        let more = if awaits { "; rules are being judged for new allowed IPs" } else { "" };
        format!("{decision}{more}; changes={changes} routes-changed={}", relay.routes)
    }

    /// The way of packets between peers that the rules leave to the workers.
    pub(super) fn way(&self, family: Family) -> Way {
        match *self.relay.mode.of(family) {
            DirectRelay::Always | DirectRelay::IfRoutedBack | DirectRelay::Alone => Way::Direct,
            DirectRelay::Never => Way::Kernel,
            DirectRelay::LocalOnly => Way::Dropped,
        }
    }

    /// Reports a decision once all workers have reached its epoch, unless another one is due for
    /// this version of the peers' addresses.
    pub(super) fn report_reached(&mut self, epoch_reached: u64, version: u64) {
        let is_reached = self.unreported.is_some_and(|epoch| epoch <= epoch_reached);
        if is_reached && !self.awaits_judgement(version) {
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
    use crossbeam_channel::{Receiver, bounded, never};
    use nix::sys::eventfd::EventFd;
    use wg_bounce_sys::Family;

    use super::*;

    fn state(mode: Mode) -> (RelayState, Receiver<Addresses>) {
        let (addresses, of_watch) = bounded(1);
        let (questions, _) = bounded(1);
        let wake = Arc::new(EventFd::new().expect("a descriptor"));
        let lanes = Lanes { updates: never(), addresses, questions, wake };
        (RelayState::new(mode, Some(lanes)), of_watch)
    }

    /// The watch may be held up for long, for example by a held RTNL lock.
    #[test]
    fn before_the_first_decision_direct_gives_the_kernel_nothing_to_forward() {
        for (mode, expected) in
            [(Mode::Auto, DirectRelay::Never), (Mode::Direct, DirectRelay::LocalOnly)]
        {
            let (state, _) = state(mode);
            let modes = Family::BOTH.map(|family| *state.relay.mode.of(family));
            assert_eq!(modes, [expected; 2], "{mode:?}");
        }
    }

    #[test]
    fn a_judgement_by_other_addresses_relays_nothing() {
        let (mut state, _) = state(Mode::Auto);
        let relaying = |state: &RelayState, version| *state.at(version).mode.of(Family::V6);
        state.relay.mode.v6 = DirectRelay::IfRoutedBack;
        assert_eq!(relaying(&state, 7), DirectRelay::IfRoutedBack, "it holds for any");
        state.dependence = Dependence { asks: true, version: Some(7) };
        assert_eq!(relaying(&state, 7), DirectRelay::IfRoutedBack);
        assert_eq!(relaying(&state, 8), DirectRelay::Never);
        state.relay.mode.v6 = DirectRelay::Always;
        assert_eq!(relaying(&state, 8), DirectRelay::Always, "rules do not matter to it");
    }

    #[test]
    fn addresses_are_shared_once_the_last_ones_were_judged() {
        let (mut state, of_watch) = state(Mode::Auto);
        let share = |state: &mut RelayState, version, prefixes: &[&str]| {
            let prefixes = prefixes.iter().map(|prefix| prefix.parse().expect("a prefix"));
            state.share(version, prefixes);
            of_watch.try_recv().ok().map(|addresses| addresses.version)
        };
        assert_eq!(share(&mut state, 1, &["10.0.0.1/32"]), None, "not asked for");
        state.dependence = Dependence { asks: true, version: None };
        assert_eq!(share(&mut state, 1, &["10.0.0.1/32"]), Some(1));
        assert_eq!(share(&mut state, 2, &[]), None, "the last ones are being judged");
        assert!(state.awaits_judgement(2));
        state.dependence.version = Some(1);
        assert_eq!(share(&mut state, 1, &["10.0.0.1/32"]), None, "it has them");
        assert_eq!(share(&mut state, 2, &[]), Some(2));
    }
}
