//! Events of the kernel.

use super::dated::Dated;
use super::system::System;
use super::view::Events;
use super::{Ended, Watch};
use crate::relay_policy::netfilter;
use crate::relay_policy::source::{Change, Source};

impl Watch {
    /// Takes what others sent, and the events of the kernel.
    pub(super) fn take_events(&mut self) -> Result<(), Ended> {
        self.take_addresses();
        self.take_questions();
        let Some(view) = &self.view else { return Ok(()) };
        let asks_for_elements = self.asks_for_elements();
        let mut may_be_gone = false;
        for events in view.read_events(&mut self.announced, asks_for_elements) {
            match events {
                Events::Changes(changes) => {
                    for Change { routes, sources, presence } in changes {
                        self.routes_changed |= routes;
                        self.changed.extend(sources);
                        may_be_gone |= presence;
                    }
                }
                Events::Lost => {
                    log::debug!("relay: netlink events lost, reading everything again");
                    self.events_lost = true;
                    self.routes_changed = true;
                    may_be_gone = true;
                }
            }
        }
        if may_be_gone { self.follow() } else { Ok(()) }
    }

    /// Whether rules of nftables have changed that were not read: the kernel cannot announce every
    /// change, and does not always say so.
    pub(super) fn misses_rules(&mut self) -> bool {
        let asks_for_elements = self.asks_for_elements();
        let Some(view) = self.view.as_ref().filter(|view| view.has_nftables_events()) else {
            return false;
        };
        let generation = view.run(&self.handle, || netfilter::generation(&mut System::default()));
        let Ok(Ok(generation)) = generation else { return true };
        // Its event may have come just now.
        let is_lost = view.read_announced(&mut self.announced).is_none();
        if self.announced.misses(generation) {
            self.announced.lose();
        }
        is_lost || self.announced.concern_rules(asks_for_elements)
    }

    fn asks_for_elements(&self) -> bool {
        self.readings.get(&Source::Nftables).is_some_and(Dated::asks_for_elements)
    }
}
