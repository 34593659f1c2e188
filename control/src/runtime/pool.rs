//! Threads that help the control thread with handshakes.
//!
//! They compute steps of responses, and touch no other state. The control thread computes a single
//! handshake itself; while many wait, it leaves them all to the helpers, which run at a lower
//! priority than the workers: established peers come before new ones.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};
use nix::sys::eventfd::EventFd;
use rustix::process::{getpriority_process, setpriority_process};
use wg_bounce_sys::clock;

use crate::device::PendingResponse;
use crate::limits::{HELPER_NICE, RESPONSES_PER_HELPER, RESULTS_PER_WAKE};

/// The helpers, and the responses that they have.
pub struct Pool {
    /// None once the pool ends.
    tasks: Option<Sender<Box<PendingResponse>>>,
    results: Receiver<Box<PendingResponse>>,
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    /// Responses submitted and not yet taken back.
    pending: usize,
}

struct Shared {
    /// The control thread was woken, and has not looked since.
    is_rung: AtomicBool,
    wake: Arc<EventFd>,
    /// CPU time of each helper (microseconds).
    micros: Vec<AtomicU64>,
}

impl Pool {
    /// Starts `helpers` threads, which write to `wake` when there are results.
    ///
    /// # Errors
    /// A thread cannot be created.
    pub fn start(helpers: usize, wake: Arc<EventFd>) -> io::Result<Pool> {
        let capacity = helpers * RESPONSES_PER_HELPER;
        let (tasks, of_helpers) = bounded(capacity);
        let (to_control, results) = bounded(capacity);
        let micros = (0..helpers).map(|_| AtomicU64::new(0)).collect();
        let shared = Arc::new(Shared { is_rung: AtomicBool::new(false), wake, micros });
        let helpers = (0..helpers).map(|number| {
            let (tasks, results) = (Receiver::clone(&of_helpers), Sender::clone(&to_control));
            let shared = Arc::clone(&shared);
            let name = format!("handshakes-{number}");
            thread::Builder::new().name(name).spawn(move || help(number, &tasks, &results, &shared))
        });
        let helpers = helpers.collect::<io::Result<Vec<_>>>()?;
        Ok(Pool { tasks: Some(tasks), results, shared, helpers, pending: 0 })
    }

    /// Number of helpers.
    pub(super) fn helpers(&self) -> usize {
        self.helpers.len()
    }

    /// Whether the helpers can take another response.
    pub(super) fn has_room(&self) -> bool {
        self.pending < self.helpers.len() * RESPONSES_PER_HELPER
    }

    /// Lets a helper compute the next step of a response. Gives it back if none has room.
    pub(super) fn submit(
        &mut self,
        pending: Box<PendingResponse>,
    ) -> Result<(), Box<PendingResponse>> {
        match &self.tasks {
            Some(tasks) if self.has_room() => {
                tasks.send(pending).map_err(|error| error.into_inner())?;
                self.pending += 1;
                Ok(())
            }
            _ => Err(pending),
        }
    }

    /// The next response of which a step was computed.
    pub(super) fn take(&mut self) -> Option<Box<PendingResponse>> {
        let pending = self.results.try_recv().ok()?;
        self.pending -= 1;
        Some(pending)
    }

    /// Prepares for the wait for events: results from now on wake the control thread. Those from
    /// before are still to be taken.
    pub(super) fn listen(&self) {
        self.shared.is_rung.store(false, Ordering::SeqCst);
    }

    /// CPU time of all helpers (microseconds).
    pub(super) fn micros(&self) -> u64 {
        self.shared.micros.iter().map(|micros| micros.load(Ordering::Relaxed)).sum()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        drop(self.tasks.take());
        for helper in self.helpers.drain(..) {
            let _ = helper.join();
        }
    }
}

fn help(
    number: usize,
    tasks: &Receiver<Box<PendingResponse>>,
    results: &Sender<Box<PendingResponse>>,
    shared: &Shared,
) {
    lower_priority();
    for mut pending in tasks {
        pending.compute();
        shared.micros[number].store(clock::thread_micros(), Ordering::Relaxed);
        if results.send(pending).is_err() {
            return;
        }
        let is_due = tasks.is_empty() || results.len() >= RESULTS_PER_WAKE;
        if is_due && !shared.is_rung.swap(true, Ordering::SeqCst) {
            let _ = shared.wake.write(1);
        }
    }
}

/// Lowers the priority of this thread.
fn lower_priority() {
    let lowered = getpriority_process(None)
        .and_then(|nice| setpriority_process(None, nice.saturating_add(HELPER_NICE)));
    if let Err(error) = lowered {
        log::debug!("handshakes: cannot lower the priority: {error}");
    }
}
