//! Serves the UAPI (the WireGuard configuration protocol) on the interface's socket.
//!
//! One thread accepts connections; one thread per connection reads whole requests, passes them to
//! the control thread and writes the replies. A client that stalls, in either direction, delays no
//! other.

mod connection;
pub mod requests;
pub mod socket;

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;

use requests::{Limits, RuntimeHandle};

use crate::limits::UAPI_ACCEPT_PAUSE;

/// Starts to serve, on threads that end with the process.
///
/// # Errors
/// The thread cannot be created.
pub fn start(listener: UnixListener, runtime: RuntimeHandle, limits: Limits) -> io::Result<()> {
    let accept = move || accept(&listener, &runtime, limits);
    thread::Builder::new().name("uapi".into()).spawn(accept).map(drop)
}

fn accept(listener: &UnixListener, runtime: &RuntimeHandle, limits: Limits) {
    // Each connection holds a clone, so the reference count is the number of connections.
    let presence = Arc::new(());
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                log::error!("cannot accept a UAPI client: {error}");
                thread::sleep(UAPI_ACCEPT_PAUSE);
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
