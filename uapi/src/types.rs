//! Requests and replies of the protocol.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use zeroize::Zeroizing;

/// A private or preshared key: 32 bytes, zeroed on drop. All zeros means "none".
pub type SecretKey = Zeroizing<[u8; 32]>;

/// The negative errno value in the last line of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// Success.
    pub const OK: Errno = Errno(0);
    /// EPERM: a change that takes a privilege.
    pub const NOT_PERMITTED: Errno = Errno(-1);
    /// EACCES: a port that takes a privilege.
    pub const DENIED: Errno = Errno(-13);
    /// EIO: a line or the request is too long.
    pub const IO: Errno = Errno(-5);
    /// EINVAL: unknown setting or bad value.
    pub const INVALID: Errno = Errno(-22);
    /// EBUSY: the daemon cannot answer now.
    pub const BUSY: Errno = Errno(-16);
    /// EPROTO: a line without `=`.
    pub const PROTOCOL: Errno = Errno(-71);
    /// EADDRINUSE: the listen port is in use.
    pub const ADDRESS_IN_USE: Errno = Errno(-98);
}

/// One operation on a connection.
pub enum Request {
    /// `get=1`.
    Get,
    /// `set=1`.
    Set(SetRequest),
    /// `explain=1`, an operation of ours.
    Explain(Explain),
}

/// A question for the way of packets between two addresses of one IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explain {
    /// The address of one peer.
    pub source: IpAddr,
    /// The address of another one.
    pub destination: IpAddr,
    /// The service that the packets are for; none: all packets.
    pub service: Option<Service>,
}

/// A service at the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its port.
    pub port: u16,
}

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Its name: `tcp` or `udp`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

impl FromStr for Protocol {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Protocol, &'static str> {
        [Protocol::Tcp, Protocol::Udp]
            .into_iter()
            .find(|protocol| protocol.name() == name)
            .ok_or("not tcp or udp")
    }
}

/// A `set`. Changes keep the order of their lines: later lines win, and those before an error
/// still apply.
#[derive(Default)]
pub struct SetRequest {
    /// Changes in the order of the request.
    pub changes: Vec<Change>,
    /// The first invalid line; the changes before it still apply.
    pub rejected: Option<Rejection>,
}

/// The reason why a line or a request was rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The errno of the reply.
    pub errno: Errno,
    /// A message for the log; contains no secret.
    pub reason: String,
}

/// One change of the device.
pub enum Change {
    /// `private_key`; `None` clears it.
    PrivateKey(Option<SecretKey>),
    /// `listen_port`; zero lets the kernel choose.
    ListenPort(u16),
    /// `fwmark`; zero clears it.
    Fwmark(u32),
    /// `replace_peers=true`: remove every peer that the rest of this request does not set.
    ReplacePeers,
    /// `public_key` and the lines up to the next `public_key`.
    Peer(PeerChange),
}

/// The changes of one peer.
pub struct PeerChange {
    /// The peer; created if unknown, unless `update_only` or `remove` is set.
    pub public_key: [u8; 32],
    /// `remove=true`.
    pub remove: bool,
    /// `update_only=true`: do nothing if the peer does not exist.
    pub update_only: bool,
    /// `preshared_key`; all zeros clears it.
    pub preshared_key: Option<SecretKey>,
    /// `endpoint`.
    pub endpoint: Option<SocketAddr>,
    /// `persistent_keepalive_interval` in seconds; zero means off.
    pub persistent_keepalive: Option<u16>,
    /// `replace_allowed_ips=true`: `allowed_ips` replaces the current list.
    pub replace_allowed_ips: bool,
    /// `allowed_ip` in order; `replace_allowed_ips` has already dropped the ones before it.
    pub allowed_ips: Vec<AllowedIp>,
}

impl PeerChange {
    /// An empty change of the peer with this key.
    pub fn new(public_key: [u8; 32]) -> PeerChange {
        PeerChange {
            public_key,
            remove: false,
            update_only: false,
            preshared_key: None,
            endpoint: None,
            persistent_keepalive: None,
            replace_allowed_ips: false,
            allowed_ips: Vec::new(),
        }
    }
}

/// One `allowed_ip` line; host bits are masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllowedIp {
    /// The prefix.
    pub prefix: IpNet,
    /// A leading `-`: remove the prefix from this peer.
    pub remove: bool,
}

/// The device as a `get` reports it.
pub struct DeviceState {
    /// The private key; `None` if not set.
    pub private_key: Option<SecretKey>,
    /// The UDP port, or zero.
    pub listen_port: u16,
    /// The firewall mark; zero means none.
    pub fwmark: u32,
    /// All its peers.
    pub peers: Vec<PeerState>,
}

/// One peer as a `get` reports it.
pub struct PeerState {
    /// Its public key.
    pub public_key: [u8; 32],
    /// Its preshared key; all zeros means none.
    pub preshared_key: SecretKey,
    /// Source address of its last authenticated packet, or the configured one.
    pub endpoint: Option<SocketAddr>,
    /// Time of the last handshake since the Unix epoch in seconds and nanoseconds; zero if none.
    pub last_handshake: (u64, u32),
    /// UDP payload bytes sent.
    pub tx_bytes: u64,
    /// UDP payload bytes received.
    pub rx_bytes: u64,
    /// Persistent keepalive interval in seconds; zero means off.
    pub persistent_keepalive: u16,
    /// Its allowed IPs.
    pub allowed_ips: Vec<IpNet>,
}
