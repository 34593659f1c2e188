//! Events: changes of peers and of the relay, as they happen.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use serde::{Deserialize, Serialize};

/// An event with its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Seconds since the Unix epoch.
    pub time: f64,
    /// The event itself.
    #[serde(flatten)]
    pub change: Change,
}

/// A change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Change {
    /// A peer has a session, after a time without one.
    Connected(About),
    /// A peer has the next session.
    Rekeyed(About),
    /// A peer sends from another address or port.
    Roamed(About),
    /// A peer's session has ended, or is too old.
    Gone(About),
    /// A handshake was refused.
    Refused {
        /// Its sender, as far as known.
        #[serde(flatten)]
        about: About,
        /// The reason.
        reason: String,
    },
    /// The forwarding between peers has changed.
    Relay {
        /// As in a report.
        summary: String,
    },
    /// This client was too slow: events are missing before this.
    Missed {
        /// Their number.
        count: u64,
    },
}

/// A peer, or another sender of a handshake.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// The public key in base64.
    pub public_key: String,
    /// Its name in the configuration file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The address and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
}

/// The way of events to a client that follows them.
pub struct Lane {
    events: Sender<Arc<Event>>,
    /// Events that found it full.
    missed: Arc<AtomicU64>,
}

/// The other end of a [`Lane`].
pub struct Following {
    /// The events.
    pub events: Receiver<Arc<Event>>,
    missed: Arc<AtomicU64>,
}

impl Lane {
    /// Both ends, for at most this many events at once.
    pub fn new(events_max: usize) -> (Lane, Following) {
        let (sender, receiver) = bounded(events_max);
        let missed = Arc::new(AtomicU64::new(0));
        let following = Following { events: receiver, missed: Arc::clone(&missed) };
        (Lane { events: sender, missed }, following)
    }

    /// Sends an event, or counts that it could not; false if the client has left.
    pub fn send(&self, event: &Arc<Event>) -> bool {
        match self.events.try_send(Arc::clone(event)) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.missed.fetch_add(1, Ordering::Relaxed);
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }

    /// Whether the client has not left.
    pub fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.missed) > 1
    }
}

impl Following {
    /// The number of events that are missing, once: after all that wait.
    pub fn missed(&self) -> u64 {
        match self.events.is_empty() {
            true => self.missed.swap(0, Ordering::Relaxed),
            false => 0,
        }
    }
}
