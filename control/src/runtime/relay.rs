//! Who forwards from peer to peer: hands the watch's news to the workers, and says so.

use crossbeam_channel::{Receiver, never};
use wg_bounce_dataplane::messages::Command;
use wg_bounce_dataplane::snapshot::Relay;

use super::Runtime;
use crate::forwarding::Mode;
use crate::forwarding::reason::Reason;
use crate::forwarding::verdict::{Verdict, listed};
use crate::forwarding::watch::Update;
use crate::notify;

/// What the control thread knows of relaying.
pub(super) struct RelayState {
    updates: Receiver<Update>,
    /// What is published.
    pub relay: Relay,
    /// Why; none before the watch has looked: until then the kernel forwards.
    verdict: Option<Verdict>,
    /// The epoch that brought the verdict, until every worker has passed it.
    untold: Option<u64>,
    /// How often the verdict has changed.
    changes: u64,
    /// What `--relay direct` passes over, and the log has said so.
    bypassed: Vec<Reason>,
}

impl RelayState {
    /// Begins with the kernel: until the watch has news, or for good where there is none.
    pub(super) fn new(updates: Option<Receiver<Update>>) -> RelayState {
        let by_kernel = || Verdict::new(Mode::Kernel, std::iter::empty());
        let verdict = updates.is_none().then(by_kernel);
        RelayState {
            updates: updates.unwrap_or_else(never),
            relay: Relay::default(),
            untold: verdict.is_some().then_some(0),
            verdict,
            changes: 0,
            bypassed: Vec::new(),
        }
    }

    /// One line about how it is.
    pub(super) fn report(&self) -> String {
        let RelayState { verdict, changes, relay, .. } = self;
        let verdict = verdict.as_ref().map_or("not determined yet".to_owned(), ToString::to_string);
        format!("{verdict}; changes={changes} routes-changed={}", relay.routes)
    }

    /// Says what every worker goes by.
    pub(super) fn settle(&mut self, epoch_reached: u64) {
        if self.untold.is_some_and(|epoch| epoch <= epoch_reached) {
            self.untold = None;
            self.tell();
        }
    }

    /// Says how it is: to the log and to the service manager.
    fn tell(&mut self) {
        let Some(verdict) = &self.verdict else { return };
        match verdict.advice() {
            Some(advice) => log::info!("relay: {verdict}; {advice}"),
            None => log::info!("relay: {verdict}"),
        }
        notify::notify(&notify::status(&format!("relay: {verdict}")));
        let unsaid: Vec<&Reason> = verdict
            .bypassed()
            .into_iter()
            .filter(|reason| !self.bypassed.contains(reason))
            .collect();
        if !unsaid.is_empty() {
            log::info!("relay: packets between peers bypass: {}", listed(&unsaid));
            let unsaid: Vec<Reason> = unsaid.into_iter().cloned().collect();
            self.bypassed.extend(unsaid);
        }
    }
}

impl Runtime {
    /// Publishes what the watch has found.
    pub(super) fn follow_forwarding(&mut self) {
        let mut is_changed = false;
        let before = self.relay.verdict.clone();
        while let Ok(Update { relay, verdict, questions }) = self.relay.updates.try_recv() {
            is_changed = true;
            (self.relay.relay, self.relay.verdict) = (relay, Some(verdict));
            // Read together with the snapshot: no worker goes by it without its socket.
            if let Some(questions) = questions {
                let interface = questions.interface;
                for (worker, socket) in questions.sockets.into_iter().enumerate() {
                    self.parts.engine.command(worker, Command::AskRoutes { socket, interface });
                }
            }
        }
        if is_changed {
            self.publish();
        }
        if self.relay.verdict != before {
            self.relay.changes += u64::from(before.is_some());
            self.relay.untold = Some(self.epoch);
        }
    }
}
