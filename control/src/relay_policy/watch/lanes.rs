//! What the watch and the control thread exchange.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use nix::sys::eventfd::EventFd;
use wg_bounce_dataplane::snapshot::Relay;
use wg_bounce_sys::route::RouteSocket;
use wg_bounce_uapi::types::Explain;

use crate::relay_policy::decision::PolicyDecision;
use crate::relay_policy::rules::addresses::Addresses;

/// A change for the control thread.
pub struct Update {
    /// The policy for the workers.
    pub relay: Relay,
    /// The decision behind it.
    pub decision: PolicyDecision,
    /// The means by which workers query routes, one per worker: if the interface was found in
    /// another place. None: it cannot be accessed. Empty: no change.
    pub route_queries: Vec<Option<RouteSocket>>,
    /// The dependence of the policy on the peers' addresses.
    pub dependence: Dependence,
}

/// The dependence of a policy on the peers' addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dependence {
    /// Rules ask for them: the watch wants to know their newest version.
    pub asks: bool,
    /// The oldest version that rules were judged by. None: they were judged without knowing any,
    /// which holds for all.
    pub version: Option<u64>,
}

/// A question.
pub struct Question {
    /// The packets that it is about. The addresses are of one IP version and of different peers.
    pub about: Explain,
    /// The version of the peers' addresses.
    pub version: u64,
    /// Takes the answer; none if the watch cannot answer now.
    pub answer: Box<dyn FnOnce(Option<String>) + Send>,
}

/// The control thread's side of the watch.
pub struct Lanes {
    /// Its decisions.
    pub updates: Receiver<Update>,
    /// The peers' addresses, when it asks for them; each is answered by an update.
    pub addresses: Sender<Addresses>,
    /// Questions of clients.
    pub questions: Sender<Question>,
    /// Written with each of both.
    pub wake: Arc<EventFd>,
}

impl Lanes {
    /// Asks a question. Where too many wait, the answer is none at once.
    pub fn ask(&self, question: Question) {
        if let Err(error) = self.questions.try_send(question) {
            return (error.into_inner().answer)(None);
        }
        // A counter at its limit is readable too.
        let _ = self.wake.write(1);
    }
}
