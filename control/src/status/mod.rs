//! The status socket, beside that of wg(8): one JSON line asks, one JSON line answers.
//!
//! [`report`] has what is answered, [`server`] serves it, [`client`] asks; [`deadline`] limits the
//! time of a connection. A line has the version
//! of the protocol; what a version has is never changed, only added to.

pub mod client;
pub mod deadline;
pub mod report;
pub mod server;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The directory of the sockets. wg(8) would take those in its own for interfaces.
pub const DIRECTORY: &str = "/var/run/wg-bounce";

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
    /// Names the peers from now on; the reply is empty.
    Name {
        /// Names by public keys in base64.
        names: BTreeMap<String, String>,
    },
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
