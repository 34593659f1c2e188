//! The state of a daemon and its peers, as JSON.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Counters by their names, as SIGUSR1 logs them; those that are zero may be absent.
pub type Counters = BTreeMap<String, u64>;

/// The dropped packets among counters, by reason.
pub fn drops(counters: &Counters) -> impl Iterator<Item = (&str, u64)> {
    counters.iter().filter_map(|(name, value)| Some((name.strip_prefix("drop_")?, *value)))
}

/// The state of a daemon.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The interface.
    pub interface: String,
    /// Whether the interface is up, and so the UDP sockets are bound.
    pub is_up: bool,
    /// The MTU of the interface (bytes).
    pub mtu: usize,
    /// The public key in base64, if there is a private key.
    pub public_key: Option<String>,
    /// The UDP port; zero until one is chosen.
    pub listen_port: u16,
    /// The mark of our own datagrams; zero means none.
    pub fwmark: u32,
    /// The forwarding between peers, of IPv4 and of IPv6.
    pub relay: Relay,
    /// The I/O backend, offloads, AEAD and DH in use.
    pub engine: String,
    /// The time of the report: seconds since the Unix epoch.
    pub time: f64,
    /// The counters of each worker.
    pub workers: Vec<Counters>,
    /// The counters of handshakes and sessions.
    pub handshakes: Counters,
    /// The peers, in the order in which they were added.
    pub peers: Vec<Peer>,
}

/// The forwarding of packets between peers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Relay {
    /// IPv4.
    pub ipv4: Way,
    /// IPv6.
    pub ipv6: Way,
    /// Both, with the reasons.
    pub summary: String,
}

/// The way of packets between peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// From worker to peer.
    Direct,
    /// Through the interface and the kernel.
    #[default]
    Kernel,
    /// They are dropped.
    Dropped,
}

/// The state of a peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Its public key in base64.
    pub public_key: String,
    /// Its name in the configuration file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether it has a preshared key.
    pub has_preshared_key: bool,
    /// Its current endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// Its prefixes.
    pub allowed_ips: Vec<IpNet>,
    /// The time of the last handshake: seconds since the Unix epoch; zero if there was none.
    pub latest_handshake: u64,
    /// Bytes received, as `wg show transfer` counts them.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
    /// Seconds; zero means off.
    pub persistent_keepalive: u16,
    /// Its counters.
    pub counters: Counters,
}

impl Way {
    /// As in the text of a report.
    pub fn name(self) -> &'static str {
        match self {
            Way::Direct => "direct",
            Way::Kernel => "kernel",
            Way::Dropped => "dropped",
        }
    }
}
