//! Events: changes of peers and of the relay, as they happen.

use std::net::SocketAddr;

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
    /// This client was too slow: events are missing here.
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
