//! The plan: which calls fail, and how. And the state of each worker's thread.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use crate::io::Errno;

/// A kind of call that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// epoll_wait(2), io_uring_enter(2). EINTR ends only a wait that found nothing, at most once a
    /// millisecond, as signals might. EAGAIN and EBUSY, of io_uring_enter alone, submit nothing.
    Wait,
    /// recvmmsg(2), or a multishot RECVMSG: when it is armed, and later.
    Receive,
    /// sendmmsg(2) and sendmsg(2), or SENDMSG: one message of a batch.
    Send,
    /// read(2) of the TUN, or READ_MULTISHOT: when it is armed, and later. EINVAL consumes a frame;
    /// without one the call does what it would do otherwise.
    TunRead,
    /// Arming READ_MULTISHOT: EINVAL in a kernel without it.
    TunArm,
    /// writev(2) to the TUN, or WRITEV.
    TunWrite,
    /// POLL_ADD: the doorbell, and room in a socket.
    Poll,
}

/// In place of an errno: the call panics.
pub const PANIC: Errno = -1;

/// A planned kind of fault.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The calls that fail.
    pub call: Call,
    /// The errnos of which each failing call gets one.
    pub errnos: Vec<Errno>,
    /// Calls that fail, of a thousand.
    pub per_mille: u32,
    /// Calls that fail in all.
    pub count: u32,
}

/// Faults by the workers of this process, until it is dropped. There must be one at a time.
pub struct Injection {
    plan: Arc<Plan>,
}

#[derive(Default)]
struct Plan {
    seed: u64,
    /// Each with the number of calls that may still fail.
    faults: Vec<(Fault, AtomicU32)>,
    injected: Mutex<BTreeMap<(Call, Errno), u64>>,
}

static PLAN: RwLock<Option<Arc<Plan>>> = RwLock::new(None);

/// By the name of the thread: buffers for trains and frames that the worker did not hold when it
/// last began to wait.
static FREE_BUFFERS: Mutex<BTreeMap<String, (usize, usize)>> = Mutex::new(BTreeMap::new());

/// Time between two signals (EINTR).
pub(super) const SIGNAL_INTERVAL: Duration = Duration::from_millis(1);

thread_local! {
    /// The state of a worker's thread; none in other threads.
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
}

/// The state of the layer in one worker.
#[derive(Default)]
struct Worker {
    name: String,
    /// The plan that `random` belongs to.
    plan: Option<Arc<Plan>>,
    random: u64,
}

impl Injection {
    /// Begins to inject `faults`. `seed` and the name of its thread decide which calls of a worker
    /// fail.
    pub fn start(seed: u64, faults: &[Fault]) -> Injection {
        let faults =
            faults.iter().map(|fault| (fault.clone(), AtomicU32::new(fault.count))).collect();
        let plan = Arc::new(Plan { seed, faults, injected: Mutex::default() });
        *PLAN.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&plan));
        Injection { plan }
    }

    /// The number of calls that have failed, by call and errno.
    pub fn injected(&self) -> BTreeMap<(Call, Errno), u64> {
        lock(&self.plan.injected).clone()
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        *PLAN.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// The buffers for trains and frames that each worker did not hold when it last began to wait, by
/// the name of its thread.
pub fn free_buffers() -> BTreeMap<String, (usize, usize)> {
    lock(&FREE_BUFFERS).clone()
}

/// See `calls`.
pub(crate) fn enlist() {
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    lock(&FREE_BUFFERS).remove(&name);
    WORKER.set(Some(Worker { name, ..Worker::default() }));
}

/// See `calls`.
pub(crate) fn note_idle(trains: usize, frames: usize) {
    of_worker(|worker| lock(&FREE_BUFFERS).insert(worker.name.clone(), (trains, frames)));
}

/// Whether this thread is a worker's.
pub(super) fn is_worker() -> bool {
    of_worker(|_| ()).is_some()
}

/// A random number; zero in a thread that is not a worker's.
pub(super) fn random() -> u64 {
    of_worker(Worker::random).unwrap_or(0)
}

/// Runs `body` with the state of this thread, if it is a worker's.
fn of_worker<T>(body: impl FnOnce(&mut Worker) -> T) -> Option<T> {
    WORKER.with_borrow_mut(|worker| worker.as_mut().map(body))
}

/// Whether such calls of this thread may fail.
pub(super) fn is_planned(call: Call) -> bool {
    let plan = PLAN.read().unwrap_or_else(PoisonError::into_inner);
    let is_planned = plan.as_ref().is_some_and(|plan| {
        plan.faults
            .iter()
            .any(|(fault, left)| fault.call == call && left.load(Ordering::Relaxed) > 0)
    });
    is_planned && is_worker()
}

/// The errno with which a call of this thread must fail now, if any.
pub(super) fn draw(call: Call) -> Option<Errno> {
    draw_if(call, |_| true)
}

/// As [`draw`]; only an errno that `can_be` possible.
pub(super) fn draw_if(call: Call, can_be: impl Fn(Errno) -> bool) -> Option<Errno> {
    let errno = of_worker(|worker| worker.draw(call, can_be)).flatten();
    assert!(errno != Some(PANIC), "planned by a test");
    errno
}

/// Takes back what [`draw`] returned: the call could not fail so.
pub(super) fn undo(call: Call, errno: Errno) {
    let Some(plan) = of_worker(|worker| worker.plan.clone()).flatten() else { return };
    for (fault, left) in &plan.faults {
        if fault.call == call && fault.errnos.contains(&errno) {
            left.fetch_add(u32::from(fault.count < u32::MAX), Ordering::Relaxed);
        }
    }
    let mut injected = lock(&plan.injected);
    if let Some(count) = injected.remove(&(call, errno)).filter(|&count| count > 1) {
        injected.insert((call, errno), count - 1);
    }
}

impl Worker {
    /// The errno with which a call must fail now, if any; only one that `can_be` possible.
    fn draw(&mut self, call: Call, can_be: impl Fn(Errno) -> bool) -> Option<Errno> {
        let plan = PLAN.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(plan) = plan else {
            self.plan = None;
            return None;
        };
        if self.plan.as_ref().is_none_or(|known| !Arc::ptr_eq(known, &plan)) {
            let name = self.name.bytes().fold(0, |sum: u64, byte| sum * 31 + u64::from(byte));
            self.random = plan.seed ^ name << 32;
            self.plan = Some(Arc::clone(&plan));
        }
        for (fault, left) in plan.faults.iter().filter(|(fault, _)| fault.call == call) {
            let errno = fault.errnos[self.random() as usize % fault.errnos.len()];
            let is_hit = self.random() % 1000 < u64::from(fault.per_mille);
            let take = |left: u32| left.checked_sub(1);
            if is_hit
                && can_be(errno)
                && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
            {
                *lock(&plan.injected).entry((call, errno)).or_default() += 1;
                return Some(errno);
            }
        }
        None
    }

    /// A random number (SplitMix64).
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
