//! Serves the UAPI (the WireGuard configuration protocol) on the interface's socket.
//!
//! One thread accepts connections; one thread per connection reads whole requests, passes them to
//! the control thread and writes the replies. A client that stalls, in either direction, delays no
//! other, and the longest idle one makes room when all connections are in use.

mod clients;
mod connection;
mod lock;
pub mod requests;
pub mod socket;

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread;

use clients::{Client, Clients};
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
    let clients = Arc::new(Clients::default());
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
        let admitted = clients.admit(stream, limits);
        let runtime = runtime.clone();
        let serve = move || serve(&admitted.client, &runtime, limits);
        if let Err(error) = thread::Builder::new().name("uapi client".into()).spawn(serve) {
            log::error!("cannot spawn a thread for a UAPI client: {error}");
        }
    }
}

fn serve(client: &Client, runtime: &RuntimeHandle, limits: Limits) {
    if let Err(error) =
        connection::serve(client, |request, after| runtime.ask(request, after), limits)
    {
        log::debug!("UAPI client disconnected: {error}");
    }
}

#[cfg(test)]
mod tests;
