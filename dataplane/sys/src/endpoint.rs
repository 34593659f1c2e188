//! The two addresses of a UDP path.

use std::net::{IpAddr, SocketAddr};

use crate::per_family::Family;

/// The two ends of a UDP path: the peer's address, and the local address it talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The remote address and port (with a scope for link-local IPv6).
    pub remote: SocketAddr,
    /// The local address that the remote end sent to. Replies leave from it while it exists.
    pub source: Option<IpAddr>,
}

impl Endpoint {
    /// The address family.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.remote.ip())
    }
}
