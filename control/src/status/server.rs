//! Serves the status socket. A thread accepts; a short-lived one serves each client, which has a
//! few seconds.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use base64ct::{Base64, Encoding as _};
use crossbeam_channel::{Receiver, Sender, bounded};
use nix::sys::eventfd::EventFd;

use super::deadline::Deadline;
use super::report::Report;
use super::{Host, Reply, Request, VERSION, Verb};
use crate::limits::{
    CLIENT_TIME_MAX, STATUS_CLIENTS_MAX, STATUS_LINE_LEN_MAX, STATUS_REQUESTS_MAX,
    UAPI_ACCEPT_PAUSE,
};
use crate::short_key;

/// A request on its way to the control thread, with the way back.
pub enum StatusRequest {
    /// For a report.
    Report(Sender<Arc<Report>>),
    /// To be this host; the answer says whether that was possible.
    Host(Host, Sender<bool>),
}

const ENDING: &str = "the daemon is shutting down";

/// Asks the control thread.
#[derive(Clone)]
pub struct Asker {
    requests: Sender<StatusRequest>,
    wake: Arc<EventFd>,
}

impl Asker {
    /// The side of the server, and that of the control thread, which `wake` wakes.
    pub fn new(wake: Arc<EventFd>) -> (Asker, Receiver<StatusRequest>) {
        let (requests, receiver) = bounded(STATUS_REQUESTS_MAX);
        (Asker { requests, wake }, receiver)
    }

    /// A report; none if the daemon is shutting down.
    pub fn report(&self) -> Option<Arc<Report>> {
        self.ask(StatusRequest::Report)
    }

    /// Makes the hub this host; false if it has an interface. None as above.
    fn set_host(&self, host: Host) -> Option<bool> {
        self.ask(|sender| StatusRequest::Host(host, sender))
    }

    fn ask<T>(&self, request: impl FnOnce(Sender<T>) -> StatusRequest) -> Option<T> {
        let (sender, receiver) = bounded(1);
        self.requests.send(request(sender)).ok()?;
        // It fails only if the counter is full; then the thread is being woken already.
        let _ = self.wake.write(1);
        receiver.recv().ok()
    }
}

/// Starts to serve, on threads that end with the process.
///
/// # Errors
/// The thread cannot be created.
pub fn start(listener: UnixListener, asker: Asker) -> io::Result<()> {
    let clients = Arc::new(Clients::default());
    let accept = move || loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                log::debug!("status socket: cannot accept: {error}");
                thread::sleep(UAPI_ACCEPT_PAUSE);
                continue;
            }
        };
        // One client too many is not served: its connection is closed here.
        let Some(admitted) = Admitted::new(&clients) else { continue };
        let asker = asker.clone();
        let serve = move || {
            let stream = Deadline::new(Box::new(stream), CLIENT_TIME_MAX);
            if let Err(error) = serve(stream, &asker) {
                log::debug!("status socket: {error}");
            }
            drop(admitted);
        };
        if let Err(error) = thread::Builder::new().name("status client".into()).spawn(serve) {
            log::error!("status socket: cannot spawn a thread: {error}");
        }
    };
    thread::Builder::new().name("status".into()).spawn(accept).map(drop)
}

/// The number of clients that are being served.
pub type Clients = AtomicUsize;

/// A client that counts until this is dropped.
pub struct Admitted(Arc<Clients>);

impl Admitted {
    /// Counts one more client, unless there are enough.
    pub fn new(clients: &Arc<Clients>) -> Option<Admitted> {
        let admitted = Admitted(Arc::clone(clients));
        (clients.fetch_add(1, Ordering::Relaxed) < STATUS_CLIENTS_MAX).then_some(admitted)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves one request.
fn serve(mut stream: Deadline, asker: &Asker) -> io::Result<()> {
    let mut line = Vec::new();
    BufReader::new((&mut stream).take(STATUS_LINE_LEN_MAX)).read_until(b'\n', &mut line)?;
    let answer = |error: Option<String>, report| Reply { version: VERSION, error, report };
    let reply = match serde_json::from_slice::<Request>(&line) {
        Err(error) => answer(Some(format!("not a request: {error}")), None),
        Ok(Request { version, .. }) if version != VERSION => {
            let reason = format!("version {version} of a request; this daemon knows {VERSION}");
            answer(Some(reason), None)
        }
        Ok(Request { verb: Verb::Show, .. }) => match asker.report() {
            Some(report) => answer(None, Some(report)),
            None => answer(Some(ENDING.to_owned()), None),
        },
        Ok(Request { verb: Verb::Host(host), .. }) => match asker.set_host(host) {
            Some(true) => answer(None, None),
            Some(false) => answer(Some("this daemon has an interface".to_owned()), None),
            None => answer(Some(ENDING.to_owned()), None),
        },
        Ok(Request { verb: Verb::Name { names }, .. }) => {
            let mut known = Vec::with_capacity(names.len());
            for (key, name) in names {
                let mut bytes = [0; 32];
                if Base64::decode(&key, &mut bytes).is_ok_and(|bytes| bytes.len() == 32) {
                    known.push((bytes, name));
                }
            }
            short_key::set_names(known);
            answer(None, None)
        }
    };
    let mut text = serde_json::to_vec(&reply)?;
    text.push(b'\n');
    stream.write_all(&text)?;
    stream.finish()
}
