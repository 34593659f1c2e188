//! The status socket, beside that of wg(8): one JSON line asks, one JSON line answers.
//!
//! [`report`] has what is answered, [`server`] serves it, [`client`] asks; [`deadline`] limits the
//! time of a connection. A line has the version
//! of the protocol; what a version has is never changed, only added to.

pub mod client;
pub mod deadline;
pub mod events;
pub mod report;
pub mod server;

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The version of the protocol.
pub const VERSION: u32 = 1;

/// A request.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// The question or order.
    #[serde(flatten)]
    pub verb: Verb,
}

/// The question or order of a request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Verb {
    /// Asks for a [`report::Report`].
    Show,
    /// Asks for each [`events::Event`] from now on, a line each, after an empty reply.
    Events,
    /// Names the peers from now on; the reply is empty.
    Name {
        /// Names by public keys in base64.
        names: BTreeMap<String, String>,
    },
    /// Makes the hub a host with these addresses and this MTU; only with `--tun off`. The reply is
    /// empty.
    Host(Host),
}

/// The hub as a host of its own (`--tun off`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its addresses, with the lengths of their networks' prefixes.
    pub addresses: Vec<IpNet>,
    /// The largest packet that it relays (bytes).
    pub mtu: usize,
}

/// A reply.
#[derive(Serialize, Deserialize)]
pub struct Reply {
    /// [`VERSION`].
    pub version: u32,
    /// The refusal, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The answer to [`Verb::Show`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Arc<report::Report>>,
}
