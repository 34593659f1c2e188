//! Threads that help the control thread with handshakes.
//!
//! Helpers compute steps of responses, another thread seals and sends cookie replies, and they
//! touch no other state. The control thread computes a single handshake itself; while many wait, it
//! leaves them all to the helpers. These threads run at a lower priority than the workers:
//! established peers come before new ones, and these before cookies.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};
use getrandom::SysRng;
use nix::sys::eventfd::EventFd;
use rand_core::UnwrapErr;
use rustix::process::{getpriority_process, setpriority_process};
use wg_bounce_dataplane::engine::CookieSender;
use wg_bounce_sys::{Endpoint, clock};

use crate::cookie::CookieReply;
use crate::device::PendingResponse;
use crate::limits::{COOKIES_NICE, HELPER_NICE, TASKS_PER_HELPER, TASKS_PER_WAKE};

/// The helpers, and the responses that they have.
pub struct Pool {
    /// Responses and cookie replies; none once the pool ends.
    tasks: Option<(Sender<Box<PendingResponse>>, Sender<Unsealed>)>,
    results: Receiver<Box<PendingResponse>>,
    shared: Arc<Shared>,
    helpers: usize,
    threads: Vec<JoinHandle<()>>,
    /// Responses submitted and not yet taken back.
    pending: usize,
}

/// A cookie reply and its destination.
type Unsealed = (Endpoint, CookieReply);

struct Shared {
    /// The control thread was woken, and has not looked since.
    is_rung: AtomicBool,
    wake: Arc<EventFd>,
    /// CPU time of each helper (microseconds).
    micros: Vec<AtomicU64>,
}

impl Pool {
    /// Starts `helpers` threads, at least one, and one that sends cookie replies by `sender`. They
    /// write to `wake` when there are results, or room for more.
    ///
    /// # Errors
    /// A thread cannot be created.
    pub fn start(helpers: usize, wake: Arc<EventFd>, sender: CookieSender) -> io::Result<Pool> {
        let (responses, of_helpers) = bounded(helpers * TASKS_PER_HELPER);
        let (to_control, results) = bounded(helpers * TASKS_PER_HELPER);
        let micros = (0..helpers).map(|_| AtomicU64::new(0)).collect();
        let shared = Arc::new(Shared { is_rung: AtomicBool::new(false), wake, micros });
        let threads = (0..helpers).map(|number| {
            let (responses, results) = (Receiver::clone(&of_helpers), Sender::clone(&to_control));
            let shared = Arc::clone(&shared);
            start_thread(format!("handshakes-{number}"), HELPER_NICE, move || {
                help(number, &responses, &results, &shared);
            })
        });
        let mut threads = threads.collect::<io::Result<Vec<_>>>()?;
        let (cookies, of_sender) = bounded(TASKS_PER_HELPER);
        let of_cookies = Arc::clone(&shared);
        threads.push(start_thread("cookies".into(), COOKIES_NICE, move || {
            send_cookies(&of_sender, &sender, &of_cookies);
        })?);
        let tasks = Some((responses, cookies));
        Ok(Pool { tasks, results, shared, helpers, threads, pending: 0 })
    }

    /// Number of helpers.
    pub(super) fn helpers(&self) -> usize {
        self.helpers
    }

    /// Whether the helpers can take another response.
    pub(super) fn has_room(&self) -> bool {
        self.pending < self.helpers * TASKS_PER_HELPER
    }

    /// Whether another cookie reply can be sent.
    pub(super) fn has_room_for_cookie(&self) -> bool {
        self.tasks.as_ref().is_some_and(|(_, cookies)| !cookies.is_full())
    }

    /// Lets a helper compute the next step of a response. Gives it back if none has room.
    pub(super) fn submit(
        &mut self,
        pending: Box<PendingResponse>,
    ) -> Result<(), Box<PendingResponse>> {
        match &self.tasks {
            Some((responses, _)) if self.has_room() => {
                responses.send(pending).map_err(|error| error.into_inner())?;
                self.pending += 1;
                Ok(())
            }
            _ => Err(pending),
        }
    }

    /// Sends a cookie reply; without room, it is lost, and the sender of the message retries.
    pub(super) fn send_cookie(&self, to: Endpoint, reply: CookieReply) {
        if let Some((_, cookies)) = &self.tasks {
            let _ = cookies.try_send((to, reply));
        }
    }

    /// The next response of which a step was computed.
    pub(super) fn take(&mut self) -> Option<Box<PendingResponse>> {
        let pending = self.results.try_recv().ok()?;
        self.pending -= 1;
        Some(pending)
    }

    /// Prepares for the wait for events: results and room from now on wake the control thread.
    /// Those from before are still to be taken.
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
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Wakes the control thread, unless it is awake.
    fn wake_control(&self) {
        if !self.is_rung.swap(true, Ordering::SeqCst) {
            let _ = self.wake.write(1);
        }
    }
}

fn help(
    number: usize,
    responses: &Receiver<Box<PendingResponse>>,
    results: &Sender<Box<PendingResponse>>,
    shared: &Shared,
) {
    for mut pending in responses {
        pending.compute();
        shared.micros[number].store(clock::thread_micros(), Ordering::Relaxed);
        if results.send(pending).is_err() {
            return;
        }
        if responses.len() <= TASKS_PER_WAKE || results.len() >= TASKS_PER_WAKE {
            shared.wake_control();
        }
    }
}

fn send_cookies(cookies: &Receiver<Unsealed>, sender: &CookieSender, shared: &Shared) {
    for (to, reply) in cookies {
        let message = reply.seal(&mut UnwrapErr(SysRng));
        match sender.send(&to, &message) {
            Ok(()) => log::debug!("{}: sent cookie reply", to.remote),
            Err(error) => log::debug!("{}: cannot send cookie reply: {error}", to.remote),
        }
        if cookies.len() <= TASKS_PER_WAKE {
            shared.wake_control();
        }
    }
}

/// Starts a thread whose nice value is `nice` above that of this one.
fn start_thread(
    name: String,
    nice: i32,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name).spawn(move || {
        let lowered = getpriority_process(None)
            .and_then(|current| setpriority_process(None, current.saturating_add(nice)));
        if let Err(error) = lowered {
            log::debug!("handshakes: cannot lower the priority: {error}");
        }
        work();
    })
}
