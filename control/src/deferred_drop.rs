//! Deferred drop: control keeps values that workers may still hold, so that it drops the keys, and
//! thereby zeroes them, and not the packet path.

use std::sync::Arc;

/// Withdrawn values; each is dropped once no worker refers to it.
pub struct DeferredDrop<T> {
    kept: Vec<Arc<T>>,
}

impl<T> Default for DeferredDrop<T> {
    fn default() -> Self {
        DeferredDrop { kept: Vec::new() }
    }
}

impl<T> DeferredDrop<T> {
    /// Keeps `value` until no worker refers to it.
    pub fn retire(&mut self, value: Arc<T>) {
        self.kept.push(value);
    }

    /// Drops entries whose only reference is ours (`strong_count == 1`). No new reference can
    /// appear, because the value was withdrawn before.
    pub fn sweep(&mut self) {
        self.kept.retain(|value| Arc::strong_count(value) > 1);
    }

    /// Whether there is nothing left to drop.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_goes_when_its_last_other_holder_has_gone() {
        let mut deferred_drop = DeferredDrop::default();
        let (held, free) = (Arc::new(1), Arc::new(2));
        let weak = (Arc::downgrade(&held), Arc::downgrade(&free));
        deferred_drop.retire(Arc::clone(&held));
        deferred_drop.retire(free);
        deferred_drop.sweep();
        assert!(weak.0.upgrade().is_some() && weak.1.upgrade().is_none());
        drop(held);
        assert!(weak.0.upgrade().is_some(), "only a sweep drops it");
        deferred_drop.sweep();
        assert!(deferred_drop.is_empty() && weak.0.upgrade().is_none());
    }
}
