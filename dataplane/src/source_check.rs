//! Checks that the source address of a path still fits its way.
//!
//! The kernel module looks at address and device with each send (`send4`, `send6` in
//! drivers/net/wireguard/socket.c), behind a cache that every change of routes voids. Here control
//! counts the changes of routes, links, addresses and rules ([`Uplinks::epoch`]); a path whose
//! answer is older asks the kernel once. Meanwhile, and beyond the budget of questions, the old
//! answer serves.
//!
//! - An address that is not this host's any longer must not be used, also where
//!   `net.ipv6.ip_nonlocal_bind` would allow it.
//! - Nor an address of the device that the path led through when it was learnt, once the path
//!   leads through another. An address elsewhere (on the loopback device, on a third one) belongs
//!   to neither, and stays.

use std::sync::Arc;

use wg_bounce_sys::clock::Millis;
use wg_bounce_sys::output_route::{Answer, Flow, OutputRoutes};

use crate::limits::{SOURCE_CHECK_INTERVAL, SOURCE_CHECKS_MAX};
use crate::path::{Path, SourceState};
use crate::sync::atomic::{AtomicU32, Ordering};

/// The state of the network around the UDP sockets.
#[derive(Debug)]
pub struct Uplinks {
    /// Grows when routes, links, addresses or rules may have changed; never zero but after four
    /// billion changes, when a path may ask once more.
    epoch: AtomicU32,
    mark: AtomicU32,
    port: AtomicU32,
}

impl Default for Uplinks {
    fn default() -> Self {
        Uplinks { epoch: AtomicU32::new(1), mark: AtomicU32::new(0), port: AtomicU32::new(0) }
    }
}

impl Uplinks {
    /// All answers are old now.
    pub fn note_change(&self) {
        self.epoch.fetch_add(1, Ordering::Release);
    }

    /// The sockets are others now, with this port and mark.
    pub fn set_sockets(&self, port: u16, mark: u32) {
        self.port.store(port.into(), Ordering::Relaxed);
        self.set_mark(mark);
    }

    /// The sockets have another mark now.
    pub fn set_mark(&self, mark: u32) {
        self.mark.store(mark, Ordering::Relaxed);
        self.note_change();
    }

    /// The number of changes so far. What [`Uplinks::flow`] returns afterwards is not older.
    pub(crate) fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Acquire)
    }

    pub(crate) fn flow(&self) -> Flow {
        let mark = self.mark.load(Ordering::Relaxed);
        Flow { mark, port: self.port.load(Ordering::Relaxed) as u16 }
    }
}

/// One thread's means to ask.
pub struct SourceCheck {
    uplinks: Arc<Uplinks>,
    /// None if netlink is refused: addresses stay until a send with them fails.
    routes: Option<OutputRoutes>,
    /// Questions asked since `interval_began`.
    asked: u32,
    interval_began: Millis,
}

impl SourceCheck {
    /// Asks in the network namespace of this thread.
    pub fn open(uplinks: Arc<Uplinks>) -> SourceCheck {
        let routes = OutputRoutes::open()
            .inspect_err(|error| {
                log::warn!("cannot ask for routes ({error}): source addresses do not follow them");
            })
            .ok();
        SourceCheck { uplinks, routes, asked: 0, interval_began: Millis::ZERO }
    }

    /// Brings the answer about a path's source address up to date, if that is old and the budget
    /// allows.
    #[inline]
    pub fn check(&mut self, path: &Path, now: Millis) {
        let epoch = self.uplinks.epoch();
        let known = path.source_state();
        if known.epoch != epoch {
            self.ask(path, SourceState { epoch, ..known }, now);
        }
    }

    #[cold]
    fn ask(&mut self, path: &Path, known: SourceState, now: Millis) {
        let Some(source) = path.endpoint.source else {
            return path.set_source_state(known); // the kernel chooses in any case
        };
        let Some(routes) = &mut self.routes else { return };
        if now.since(self.interval_began) >= SOURCE_CHECK_INTERVAL {
            (self.interval_began, self.asked) = (now, 0);
        }
        if self.asked >= SOURCE_CHECKS_MAX {
            return;
        }
        self.asked += 1;
        let way = routes.way(source, &path.endpoint.remote, self.uplinks.flow());
        if way == Answer::Unknown {
            return; // the old answer serves until there is another
        }
        // For IPv4 the kernel checks the address with the route; for IPv6 it does not.
        let is_checked = source.is_ipv4() && way == Answer::Device(known.device);
        let home = if is_checked { Answer::Unknown } else { routes.home(source) };
        path.set_source_state(judge(known, way, home));
    }
}

/// The state that follows from the way of a path and from the device of its source address.
fn judge(known: SourceState, way: Answer, home: Answer) -> SourceState {
    let is_unfit = match (way, home) {
        (_, Answer::None) | (Answer::None, _) => true,
        (Answer::Device(_), _) if known.device == 0 => false,
        (Answer::Device(way), Answer::Device(home)) => way != known.device && home == known.device,
        (Answer::Device(_), Answer::Unknown) => false,
        (Answer::Unknown, _) => known.is_unfit,
    };
    let device = match way {
        Answer::Device(way) if known.device == 0 => way,
        _ => known.device,
    };
    SourceState { is_unfit, device, ..known }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: u32 = 2;
    const NEW: u32 = 3;
    const THIRD: u32 = 4;

    fn is_unfit(known: SourceState, way: Answer, home: Answer) -> bool {
        judge(known, way, home).is_unfit
    }

    #[test]
    fn an_address_of_the_uplink_that_was_left_is_unfit() {
        let known = SourceState { device: OLD, ..SourceState::default() };
        let [old, new, third] = [OLD, NEW, THIRD].map(Answer::Device);
        assert!(is_unfit(known, new, old));
        for (way, home) in [(old, old), (old, Answer::Unknown), (old, third), (new, third)] {
            assert!(!is_unfit(known, way, home), "{way:?} {home:?}");
        }
        assert!(!is_unfit(known, new, new), "the address moved with the way");
        assert!(!is_unfit(judge(known, new, old), old, Answer::Unknown), "the way is back");
        assert_eq!(judge(known, new, old).device, OLD);
    }

    #[test]
    fn the_first_way_is_remembered_and_the_address_stays() {
        let first = judge(SourceState::default(), Answer::Device(NEW), Answer::Device(OLD));
        assert_eq!(first, SourceState { epoch: 0, device: NEW, is_unfit: false });
    }

    #[test]
    fn an_address_that_is_gone_is_unfit_and_no_reply_changes_nothing() {
        for known in [SourceState::default(), SourceState { device: OLD, ..Default::default() }] {
            assert!(is_unfit(known, Answer::Device(OLD), Answer::None));
            assert!(is_unfit(known, Answer::None, Answer::Unknown));
            for was_unfit in [true, false] {
                let known = SourceState { is_unfit: was_unfit, ..known };
                assert_eq!(judge(known, Answer::Unknown, Answer::Device(OLD)), known);
            }
        }
    }
}
