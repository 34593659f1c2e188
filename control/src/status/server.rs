//! Serves the status socket. A thread accepts; a short-lived one serves each client, which has a
//! few seconds.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use base64ct::{Base64, Encoding as _};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use wg_bounce_sys::clock;

use super::deadline::Deadline;
use super::events::{Change, Event, Following, Lane};
use super::report::Report;
use super::{Host, Reply, Request, VERSION, Verb};
use crate::limits::{
    CLIENT_TIME_MAX, EVENT_CLIENT_LOOK_INTERVAL, EVENTS_WAITING_MAX, STATUS_CLIENTS_MAX,
    STATUS_LINE_LEN_MAX, STATUS_REQUESTS_MAX, UAPI_ACCEPT_PAUSE,
};
use crate::short_key;

/// A request on its way to the control thread, with the way back.
pub enum StatusRequest {
    /// For a report.
    Report(Sender<Arc<Report>>),
    /// For events from now on; the answer says whether that is possible.
    Events(Lane, Sender<bool>),
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

    /// The events from now on; none if there are too many clients, or the daemon is shutting down.
    fn events(&self) -> Option<Following> {
        let (lane, events) = Lane::new(EVENTS_WAITING_MAX);
        let is_admitted = self.ask(|sender| StatusRequest::Events(lane, sender));
        is_admitted.unwrap_or(false).then_some(events)
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
            let served = stream.try_clone().and_then(|copy| {
                let events = serve(Deadline::new(Box::new(copy), CLIENT_TIME_MAX), &asker)?;
                events.map_or(Ok(()), |events| send_events(&stream, &events))
            });
            if let Err(error) = served {
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

/// Serves one request. Returns the events that are to follow, if it asks for them.
fn serve(mut stream: Deadline, asker: &Asker) -> io::Result<Option<Following>> {
    let mut events = None;
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
        Ok(Request { verb: Verb::Events, .. }) => {
            events = asker.events();
            let is_refused = events.is_none();
            answer(
                is_refused.then(|| {
                    "too many clients follow the events, or the daemon is shutting down".to_owned()
                }),
                None,
            )
        }
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
    if events.is_none() {
        stream.finish()?;
    }
    Ok(events)
}

/// Sends events until the client leaves, or takes too long for one.
fn send_events(stream: &UnixStream, following: &Following) -> io::Result<()> {
    stream.set_write_timeout(Some(CLIENT_TIME_MAX))?;
    let mut writer = stream;
    let mut send = |event: &Event| {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        writer.write_all(&line)
    };
    loop {
        match following.events.recv_timeout(EVENT_CLIENT_LOOK_INTERVAL) {
            Ok(event) => send(&event)?,
            Err(RecvTimeoutError::Timeout) if has_left(stream)? => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        let count = following.missed();
        if count > 0 {
            let time = clock::wall_time().as_secs_f64();
            send(&Event { time, change: Change::Missed { count } })?;
        }
    }
}

/// Whether the other side has closed the connection.
fn has_left(stream: &UnixStream) -> io::Result<bool> {
    let mut descriptors = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    poll(&mut descriptors, PollTimeout::ZERO)?;
    // POLLHUP is always reported.
    Ok(descriptors[0].any().unwrap_or(true))
}

#[cfg(test)]
mod tests {
    mod fuzz;
}
