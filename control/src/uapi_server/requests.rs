//! Requests of UAPI clients, on their way to the control thread and back.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use nix::sys::eventfd::EventFd;
use wg_bounce_sys::clock::Millis;
use wg_bounce_uapi::types::{DeviceState, Errno, Request};

use crate::limits::{UAPI_CONNECTIONS_MAX, UAPI_REQUEST_TIME_MAX, UAPI_REQUESTS_MAX};

/// A request on its way to the control thread.
pub struct UapiRequest {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes.
    pub reply: Reply,
}

/// Takes one answer. When it is dropped without one, the connection ends.
pub struct Reply(Sender<Answer>);

/// What the control thread answers.
pub enum Answer {
    /// To `get`: everything there is to know.
    State(Box<DeviceState>),
    /// To `set`.
    Done(Errno),
}

/// Reaches the control thread.
#[derive(Clone)]
pub struct RuntimeHandle {
    requests: Sender<UapiRequest>,
    wake: Arc<EventFd>,
}

/// What a connection is allowed; and how it knows the time.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Time for one request, and for taking its answer.
    pub request_time_max: Millis,
    /// Connections at once.
    pub connections_max: usize,
    /// The monotonic clock.
    pub clock: fn() -> Millis,
}

impl Limits {
    /// The usual limits.
    pub fn new(clock: fn() -> Millis) -> Limits {
        Limits {
            request_time_max: UAPI_REQUEST_TIME_MAX,
            connections_max: UAPI_CONNECTIONS_MAX,
            clock,
        }
    }
}

impl Reply {
    /// Gives the answer.
    pub fn send(self, answer: Answer) {
        // The connection may have gone meanwhile; then nobody wants it.
        let _ = self.0.try_send(answer);
    }
}

impl RuntimeHandle {
    /// A way to the thread that reads the receiver; `wake` is written with every call.
    pub fn new(wake: Arc<EventFd>) -> (RuntimeHandle, Receiver<UapiRequest>) {
        let (requests, receiver) = bounded(UAPI_REQUESTS_MAX);
        (RuntimeHandle { requests, wake }, receiver)
    }

    /// Asks, and waits for the answer; none when the daemon is ending.
    pub(super) fn ask(&self, request: Request) -> Option<Answer> {
        let (sender, receiver) = bounded(1);
        self.requests.send(UapiRequest { request, reply: Reply(sender) }).ok()?;
        // Fails only when the counter is about to overflow, and then the thread is awake anyway.
        let _ = self.wake.write(1);
        receiver.recv().ok()
    }
}
