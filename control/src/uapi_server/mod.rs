//! Serves the configuration protocol on the interface's socket.
//!
//! One thread accepts, one thread per connection reads whole requests, asks the control thread
//! and writes the answer: a client that stalls, in either direction, holds up nobody else.

mod connection;
pub mod socket;

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use nix::sys::eventfd::EventFd;
use wg_bounce_sys::clock::Millis;
use wg_bounce_uapi::types::{DeviceState, Errno, Request};

/// Connections at once: each costs a thread, and only root can connect.
const CONNECTIONS_MAX: usize = 64;

/// Requests that wait for the control thread; one per connection at most.
const REQUESTS_MAX: usize = CONNECTIONS_MAX;

/// A client gets this long to finish the request it began, and to take the answer.
const REQUEST_TIME_MAX: Millis = Millis::from_secs(30);

/// Wait before accepting again when the process has run out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
        Limits { request_time_max: REQUEST_TIME_MAX, connections_max: CONNECTIONS_MAX, clock }
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
        let (requests, receiver) = bounded(REQUESTS_MAX);
        (RuntimeHandle { requests, wake }, receiver)
    }

    /// Asks, and waits for the answer; none when the daemon is ending.
    fn ask(&self, request: Request) -> Option<Answer> {
        let (sender, receiver) = bounded(1);
        self.requests.send(UapiRequest { request, reply: Reply(sender) }).ok()?;
        // Fails only when the counter is about to overflow, and then the thread is awake anyway.
        let _ = self.wake.write(1);
        receiver.recv().ok()
    }
}

/// Begins to serve, in threads of its own that end with the process.
///
/// # Errors
/// The thread cannot be created.
pub fn start(listener: UnixListener, runtime: RuntimeHandle, limits: Limits) -> io::Result<()> {
    let accept = move || accept(&listener, &runtime, limits);
    thread::Builder::new().name("uapi".into()).spawn(accept).map(drop)
}

fn accept(listener: &UnixListener, runtime: &RuntimeHandle, limits: Limits) {
    // Each connection holds a clone: the count tells how many there are.
    let presence = Arc::new(());
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                log::error!("cannot accept a UAPI client: {error}");
                thread::sleep(ACCEPT_PAUSE);
                continue;
            }
        };
        if Arc::strong_count(&presence) > limits.connections_max {
            log::warn!(
                "UAPI client refused ({} are connected, the maximum)",
                limits.connections_max
            );
            continue;
        }
        let (runtime, presence) = (runtime.clone(), Arc::clone(&presence));
        let serve = move || {
            serve(&stream, &runtime, limits);
            drop(presence);
        };
        if let Err(error) = thread::Builder::new().name("uapi client".into()).spawn(serve) {
            log::error!("cannot spawn a thread for a UAPI client: {error}");
        }
    }
}

fn serve(stream: &UnixStream, runtime: &RuntimeHandle, limits: Limits) {
    if let Err(error) = connection::serve(stream, |request| runtime.ask(request), limits) {
        log::debug!("UAPI client disconnected: {error}");
    }
}

#[cfg(test)]
mod tests;
