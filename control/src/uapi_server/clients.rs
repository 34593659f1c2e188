//! The connected clients. When all connections are in use, the client that has been idle for
//! longest makes room for a new one, so that forgotten connections never lock out `wg`.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use wg_bounce_sys::clock::Millis;

use super::requests::Limits;
use crate::limits::UAPI_ROOM_PAUSE;

/// The state of a connection, in the order in which connections are closed to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Activity {
    /// Between two requests.
    Idle,
    /// In the middle of sending a request or reading a reply.
    Transfer,
    /// Waiting for the daemon's answer: never closed.
    Waiting,
}

/// One connected client.
pub(super) struct Client {
    /// The connection.
    pub stream: UnixStream,
    activity: Mutex<(Activity, Millis)>,
}

impl Client {
    pub(super) fn new(stream: UnixStream, now: Millis) -> Client {
        Client { stream, activity: Mutex::new((Activity::Idle, now)) }
    }

    /// Notes the state that begins now.
    pub(super) fn note(&self, activity: Activity, now: Millis) {
        *lock(&self.activity) = (activity, now);
    }
}

/// A client that counts as connected until this is dropped.
pub(super) struct Admitted {
    pub client: Arc<Client>,
    clients: Arc<Clients>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        lock(&self.clients.connected).retain(|other| !Arc::ptr_eq(other, &self.client));
        self.clients.departed.notify_one();
    }
}

/// All connected clients.
#[derive(Default)]
pub(super) struct Clients {
    connected: Mutex<Vec<Arc<Client>>>,
    departed: Condvar,
}

impl Clients {
    /// Adds a client. Waits for room if all connections are in use: for the first to end, or for
    /// the longest idle one to have been idle long enough to be closed.
    pub(super) fn admit(self: &Arc<Self>, stream: UnixStream, limits: Limits) -> Admitted {
        let mut connected = lock(&self.connected);
        while connected.len() >= limits.connections_max {
            if let Some((client, idle)) = longest_idle(&connected, limits) {
                log::warn!(
                    "UAPI client: closed after {} s without a request (all {} connections in use)",
                    idle.0 / 1000,
                    limits.connections_max
                );
                // Its thread reads the end of the stream and leaves.
                let _ = client.stream.shutdown(Shutdown::Both);
            }
            let waited = self.departed.wait_timeout(connected, UAPI_ROOM_PAUSE);
            connected = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let client = Arc::new(Client::new(stream, (limits.clock)()));
        connected.push(Arc::clone(&client));
        Admitted { client, clients: Arc::clone(self) }
    }
}

/// The client to close, and the time since its last progress.
fn longest_idle(connected: &[Arc<Client>], limits: Limits) -> Option<(&Client, Millis)> {
    let now = (limits.clock)();
    let states = connected.iter().map(|client| (*lock(&client.activity), client));
    let closable = states.filter(|((activity, since), _)| {
        *activity != Activity::Waiting && now.since(*since) >= limits.idle_min
    });
    let ((_, since), client) = closable.min_by_key(|(state, _)| *state)?;
    Some((client, now.since(since)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
