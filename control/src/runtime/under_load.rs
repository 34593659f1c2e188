//! The under-load state, in which initiators must prove their address with a cookie (§5.3).

use wg_bounce_sys::clock::Millis;

use crate::limits::{UNDER_LOAD_SHARE, UNDER_LOAD_TIME};

/// Remembers when the daemon was last under load (kernel: `under_load`, wireguard-go:
/// `IsUnderLoad`).
#[derive(Default)]
pub(super) struct UnderLoad {
    last: Option<Millis>,
}

impl UnderLoad {
    /// Whether the daemon is under load, given the number of waiting initiations, the capacity of
    /// the lane (none if unbounded), and whether some were dropped.
    pub(super) fn sample(
        &mut self,
        waiting: usize,
        capacity: Option<usize>,
        has_dropped: bool,
        now: Millis,
    ) -> bool {
        if has_dropped || capacity.is_some_and(|capacity| waiting > capacity / UNDER_LOAD_SHARE) {
            self.last = Some(now);
        }
        self.last.is_some_and(|last| now.since(last) < UNDER_LOAD_TIME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_eighth_of_the_lane_is_not_yet_load() {
        let mut load = UnderLoad::default();
        assert!(!load.sample(0, Some(4096), false, Millis(5)));
        assert!(!load.sample(512, Some(4096), false, Millis(5)));
        assert!(load.sample(513, Some(4096), false, Millis(5)));
    }

    #[test]
    fn a_dropped_message_is_load() {
        assert!(UnderLoad::default().sample(1, Some(4096), true, Millis(5)));
    }

    #[test]
    fn load_is_remembered_for_a_second() {
        let mut load = UnderLoad::default();
        assert!(load.sample(4096, Some(4096), false, Millis(100)));
        assert!(load.sample(0, Some(4096), false, Millis(1099)));
        assert!(!load.sample(0, Some(4096), false, Millis(1100)));
    }
}
