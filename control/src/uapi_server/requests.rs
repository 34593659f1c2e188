//! Requests of UAPI clients on their way to the control thread, and the replies.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use nix::sys::eventfd::EventFd;
use wg_bounce_dataplane::peer::PeerId;
use wg_bounce_sys::clock::Millis;
use wg_bounce_uapi::types::{DeviceState, Errno, Request};

use crate::limits::{
    UAPI_CONNECTIONS_MAX, UAPI_IDLE_MIN, UAPI_REQUEST_TIME_MAX, UAPI_REQUESTS_MAX,
};

/// A request on its way to the control thread.
pub struct UapiRequest {
    /// The request.
    pub request: Request,
    /// For the next part of the answer to a `get`: the last peer of the part before.
    pub after: Option<PeerId>,
    /// The way back for the answer.
    pub reply: Reply,
}

/// Accepts one answer. If it is dropped without one, the connection is closed.
pub struct Reply(Sender<Answer>);

/// An answer of the control thread.
pub enum Answer {
    /// To `get`: a part of the state, and its last peer if more follow.
    State(Box<DeviceState>, Option<PeerId>),
    /// To `set`: the errno.
    Done(Errno),
    /// To `explain`: the text.
    Text(String),
}

/// Passes requests to the control thread.
#[derive(Clone)]
pub struct RuntimeHandle {
    requests: Sender<UapiRequest>,
    wake: Arc<EventFd>,
}

/// Limits of a connection, and its clock.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Time to send one request, and to read its reply.
    pub request_time_max: Millis,
    /// Concurrent connections.
    pub connections_max: usize,
    /// Time without progress after which a connection may be closed to make room.
    pub idle_min: Millis,
    /// The monotonic clock.
    pub clock: fn() -> Millis,
}

impl Limits {
    /// The default limits.
    pub fn new(clock: fn() -> Millis) -> Limits {
        Limits {
            request_time_max: UAPI_REQUEST_TIME_MAX,
            connections_max: UAPI_CONNECTIONS_MAX,
            idle_min: UAPI_IDLE_MIN,
            clock,
        }
    }
}

impl Reply {
    /// Sends the answer.
    pub fn send(self, answer: Answer) {
        // Fails if the connection was closed in the meantime.
        let _ = self.0.try_send(answer);
    }
}

impl RuntimeHandle {
    /// A handle to the thread that reads the receiver; `wake` is written with every request.
    pub fn new(wake: Arc<EventFd>) -> (RuntimeHandle, Receiver<UapiRequest>) {
        let (requests, receiver) = bounded(UAPI_REQUESTS_MAX);
        (RuntimeHandle { requests, wake }, receiver)
    }

    /// Sends a request and waits for the answer, or for the part of it `after` a peer; none if the
    /// daemon is shutting down.
    pub(super) fn ask(&self, request: Request, after: Option<PeerId>) -> Option<Answer> {
        let (sender, receiver) = bounded(1);
        self.requests.send(UapiRequest { request, after, reply: Reply(sender) }).ok()?;
        // Fails only if the counter would overflow; then the thread is already being woken.
        let _ = self.wake.write(1);
        receiver.recv().ok()
    }
}
