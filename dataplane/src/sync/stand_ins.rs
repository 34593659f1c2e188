//! Stand-ins for what loom cannot look into: arc-swap, crossbeam's bounded channel, and an eventfd.
//! None of them orders more than the original promises.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::Arc;

use crossbeam_channel::{TryRecvError, TrySendError};
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Condvar, Mutex};

/// A shared pointer that is swapped whole: a load acquires, a swap also releases.
pub struct ArcSwapOption<T> {
    /// The index of the present value.
    current: AtomicUsize,
    /// Every value so far. The lock is never held across a step of loom.
    values: std::sync::Mutex<Vec<Option<Arc<T>>>>,
}

/// A loaded pointer.
pub struct Guard<T>(T);

impl<T> Deref for Guard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> ArcSwapOption<T> {
    pub fn empty() -> Self {
        ArcSwapOption { current: AtomicUsize::new(0), values: vec![None].into() }
    }

    pub fn load(&self) -> Guard<Option<Arc<T>>> {
        Guard(self.value(self.current.load(Ordering::Acquire)))
    }

    pub fn store(&self, value: Option<Arc<T>>) {
        drop(self.swap(value));
    }

    pub fn swap(&self, value: Option<Arc<T>>) -> Option<Arc<T>> {
        let next = self.add(value);
        self.value(self.current.swap(next, Ordering::AcqRel))
    }

    pub fn rcu(&self, mut change: impl FnMut(&Option<Arc<T>>) -> Option<Arc<T>>) {
        let mut known = self.current.load(Ordering::Acquire);
        loop {
            let next = self.add(change(&self.value(known)));
            let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
            match self.current.compare_exchange(known, next, success, failure) {
                Ok(_) => return,
                Err(current) => known = current,
            }
        }
    }

    fn add(&self, value: Option<Arc<T>>) -> usize {
        let mut values = self.values.lock().expect("no model panics here");
        values.push(value);
        values.len() - 1
    }

    fn value(&self, index: usize) -> Option<Arc<T>> {
        self.values.lock().expect("no model panics here")[index].clone()
    }
}

/// A lane that holds a single item, so that models find it full.
pub struct Receiver<T>(Arc<Mutex<VecDeque<T>>>);

/// The sending end of a lane.
pub struct Sender<T>(Arc<Mutex<VecDeque<T>>>);

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Sender(Arc::clone(&self.0))
    }
}

pub fn bounded<T>(_capacity: usize) -> (Sender<T>, Receiver<T>) {
    let items = Arc::new(Mutex::new(VecDeque::new()));
    (Sender(Arc::clone(&items)), Receiver(items))
}

impl<T> Sender<T> {
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        let mut items = self.0.lock().expect("no model panics here");
        if !items.is_empty() {
            return Err(TrySendError::Full(item));
        }
        items.push_back(item);
        Ok(())
    }

    pub fn is_full(&self) -> bool {
        !self.0.lock().expect("no model panics here").is_empty()
    }
}

impl<T> Receiver<T> {
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        let mut items = self.0.lock().expect("no model panics here");
        items.pop_front().ok_or(TryRecvError::Empty)
    }

    pub fn try_iter(&self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.try_recv().ok())
    }

    pub fn is_empty(&self) -> bool {
        self.0.lock().expect("no model panics here").is_empty()
    }
}

/// A nonblocking eventfd: a counter that is readable while it is not zero.
#[derive(Default)]
pub struct EventFd {
    count: Mutex<u64>,
    rung: Condvar,
}

/// EAGAIN, the only error that a nonblocking eventfd has here.
#[derive(Debug)]
pub struct WouldBlock;

impl EventFd {
    pub fn write(&self, count: u64) -> Result<usize, WouldBlock> {
        *self.count.lock().expect("no model panics here") += count;
        self.rung.notify_all();
        Ok(size_of::<u64>())
    }

    pub fn read(&self) -> Result<u64, WouldBlock> {
        match std::mem::take(&mut *self.count.lock().expect("no model panics here")) {
            0 => Err(WouldBlock),
            count => Ok(count),
        }
    }

    /// Waits until it is readable, as poll(2) does.
    pub fn wait(&self) {
        let mut count = self.count.lock().expect("no model panics here");
        while *count == 0 {
            count = self.rung.wait(count).expect("no model panics here");
        }
    }
}
