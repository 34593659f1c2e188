//! A configuration.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use wg_bounce_uapi::types::SecretKey;

use super::lines::Place;
use super::quote::hide_keys;

/// A configuration.
#[derive(Default)]
pub struct Config {
    /// The `[Interface]` section.
    pub interface: Interface,
    /// The `[Peer]` sections, in order. A public key may be in several: the last one counts.
    pub peers: Vec<Peer>,
    /// Options of wg-bounce, from comments `# wg-bounce: OPTION = VALUE`.
    pub options: Vec<DaemonOption>,
}

/// The `[Interface]` section.
#[derive(Default)]
pub struct Interface {
    /// `# Name = …`: the name of this host.
    pub name: Option<String>,
    /// `PrivateKey`.
    pub private_key: Option<SecretKey>,
    /// `ListenPort`.
    pub listen_port: Option<Placed<u16>>,
    /// `FwMark`; zero for `off`.
    pub fwmark: Option<u32>,
    /// `Address`, with the length of its network.
    pub addresses: Vec<Placed<IpNet>>,
    /// The addresses in `DNS`.
    pub dns: Vec<IpAddr>,
    /// The search domains in `DNS`.
    pub search_domains: Vec<String>,
    /// `MTU` (bytes).
    pub mtu: Option<u32>,
    /// `Table`.
    pub table: Table,
    /// `PreUp`, `PostUp`, `PreDown` and `PostDown`, in the order of the file.
    pub hooks: Vec<Hook>,
    /// `SaveConfig`.
    pub save: bool,
}

/// The routing table for the peers' prefixes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Table {
    /// The main table, or one of its own for default routes.
    #[default]
    Auto,
    /// None: no routes are added.
    Off,
    /// The table of this number.
    Number(u32),
}

/// A command that is run at a change of the interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The change.
    pub at: HookTime,
    /// The line for bash, with `%i` for the interface.
    pub command: String,
    /// Its place.
    pub place: Place,
}

/// The time of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookTime {
    /// Before the interface is configured.
    PreUp,
    /// When it is up.
    PostUp,
    /// Before it is taken down.
    PreDown,
    /// When it is gone.
    PostDown,
}

/// A `[Peer]` section.
#[derive(Default)]
pub struct Peer {
    /// `# Name = …`, `# friendly_name = …` or `[Peer] # …`.
    pub name: Option<String>,
    /// `PublicKey`.
    pub public_key: [u8; 32],
    /// `PresharedKey`.
    pub preshared_key: Option<SecretKey>,
    /// `AllowedIPs`, without the bits behind their lengths.
    pub allowed_ips: Vec<Placed<IpNet>>,
    /// `Endpoint`.
    pub endpoint: Option<Endpoint>,
    /// `PersistentKeepalive` (seconds); zero for `off`.
    pub persistent_keepalive: Option<u16>,
    /// The place of its heading.
    pub place: Place,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// An IP address, IPv6 without brackets and perhaps with a zone, or a host name.
    pub host: String,
    /// The UDP port.
    pub port: u16,
}

impl Endpoint {
    /// The address, unless a host name has to be looked up first.
    pub fn address(&self) -> Option<SocketAddr> {
        let Endpoint { host, port } = self;
        match host.contains(':') {
            true => format!("[{host}]:{port}").parse().ok(),
            false => format!("{host}:{port}").parse().ok(),
        }
    }
}

/// An option of wg-bounce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonOption {
    /// Its name, without dashes before it.
    pub name: String,
    /// Its value.
    pub value: String,
    /// The place of its name.
    pub place: Place,
}

/// A value and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed<T> {
    /// The value.
    pub value: T,
    /// Its place.
    pub place: Place,
}

impl Peer {
    /// Its name for messages: that of the file, or else where it is.
    pub fn title(&self) -> String {
        let line = self.place.line;
        match &self.name {
            Some(name) => format!("{} (line {line})", hide_keys(name)),
            None => format!("the peer in line {line}"),
        }
    }
}
