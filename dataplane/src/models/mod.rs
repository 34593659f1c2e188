//! Models of what threads share without locks. Loom runs the code itself, on the stand-ins of
//! [`crate::sync`], in every order and with every value that its atomics allow.
//!
//! `scripts/loom` runs them. They stay small: two or three threads of a few steps each. The rest of
//! a protocol, which is in loops of control or of a worker, is repeated in a model step by step;
//! each says where it is.

mod doorbell;
mod flags;
mod nonces;
mod paths;
mod staging;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use wg_bounce_aead::Key;
use wg_bounce_sys::clock::Millis;

use crate::peer::{Peer, PeerId};
use crate::session::{KeypairInfo, Lifetime, SendSession};

/// Runs a model in all interleavings, and prints how many there were. Loom's own variables
/// (LOOM_MAX_PREEMPTIONS, LOOM_LOG and others) apply.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    let executions = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&executions);
    loom::model(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        model();
    });
    print!("{} executions, ", executions.load(Ordering::Relaxed));
}

/// The time of every model; sessions are young.
const NOW: Millis = Millis(1000);

fn peer() -> Arc<Peer> {
    Arc::new(Peer::new(PeerId(1), [1; 32]))
}

/// A session whose index is `index`.
fn session(index: u32) -> Arc<SendSession> {
    let info = KeypairInfo {
        local_index: index,
        remote_index: index,
        created: NOW,
        is_initiator: false,
        lifetime: Lifetime::default(),
    };
    Arc::new(SendSession::new(Key::new(&[7; 32]), info))
}

/// A record that threads of a model append to, without steps of its own: loom does not see it.
#[derive(Clone)]
struct Record<T>(Arc<Mutex<Vec<T>>>);

impl<T> Record<T> {
    fn new() -> Self {
        Record(Arc::default())
    }

    fn extend(&self, items: impl IntoIterator<Item = T>) {
        self.0.lock().expect("no panic while it is locked").extend(items);
    }

    fn take(&self) -> Vec<T> {
        std::mem::take(&mut self.0.lock().expect("no panic while it is locked"))
    }
}
