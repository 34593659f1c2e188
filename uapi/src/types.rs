//! The protocol's requests and answers as values.

use std::net::SocketAddr;

use ipnet::IpNet;
use zeroize::Zeroizing;

/// A private or preshared key: 32 bytes, zeroed on drop. All zeros means "none".
pub type SecretKey = Zeroizing<[u8; 32]>;

/// Negative errno values of an answer's last line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// Success.
    pub const OK: Errno = Errno(0);
    /// EIO: the request cannot be read (a line too long).
    pub const IO: Errno = Errno(-5);
    /// EINVAL: unknown key or bad value.
    pub const INVALID: Errno = Errno(-22);
    /// EPROTO: a line without `=`.
    pub const PROTOCOL: Errno = Errno(-71);
    /// EADDRINUSE: the listen port is taken.
    pub const ADDRESS_IN_USE: Errno = Errno(-98);
}

/// One operation on a connection.
pub enum Request {
    /// `get=1`.
    Get,
    /// `set=1`.
    Set(SetRequest),
}

/// A `set`, in the order in which its lines came: later lines win, and an error leaves what
/// stands before it applied.
#[derive(Default)]
pub struct SetRequest {
    /// What to change.
    pub changes: Vec<Change>,
    /// The line that could not be understood; what stands before it is applied all the same.
    pub rejected: Option<Rejection>,
}

/// A line that could not be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// What the answer says.
    pub errno: Errno,
    /// For the log: what is wrong, without any secret.
    pub reason: String,
}

/// One change of the device.
pub enum Change {
    /// `private_key`; none clears it.
    PrivateKey(Option<SecretKey>),
    /// `listen_port`; zero lets the kernel choose.
    ListenPort(u16),
    /// `fwmark`; zero means none.
    Fwmark(u32),
    /// `replace_peers=true`: every peer not set by this request goes, from here on.
    ReplacePeers,
    /// `public_key` and the lines up to the next one.
    Peer(PeerChange),
}

/// The changes of one peer.
pub struct PeerChange {
    /// The peer; created if unknown, unless `update_only` or `remove`.
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
    /// `replace_allowed_ips=true`: the list below replaces the present one.
    pub replace_allowed_ips: bool,
    /// `allowed_ip`, in order (those before a `replace_allowed_ips` are gone already).
    pub allowed_ips: Vec<AllowedIp>,
}

impl PeerChange {
    /// A change that says nothing yet but which peer it is about.
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
    /// Written with a leading `-`: take it from this peer.
    pub remove: bool,
}

/// What `get` answers.
pub struct DeviceState {
    /// None: not set.
    pub private_key: Option<SecretKey>,
    /// The bound port.
    pub listen_port: u16,
    /// Zero: none.
    pub fwmark: u32,
    /// All peers.
    pub peers: Vec<PeerState>,
}

/// What `get` answers of one peer.
pub struct PeerState {
    /// The peer.
    pub public_key: [u8; 32],
    /// All zeros: none.
    pub preshared_key: SecretKey,
    /// Where it was last seen.
    pub endpoint: Option<SocketAddr>,
    /// Wall clock of the last handshake since the epoch: seconds and nanoseconds, zero if none.
    pub last_handshake: (u64, u32),
    /// UDP payload bytes sent.
    pub tx_bytes: u64,
    /// UDP payload bytes received.
    pub rx_bytes: u64,
    /// Seconds; zero means off.
    pub persistent_keepalive: u16,
    /// Its allowed IPs.
    pub allowed_ips: Vec<IpNet>,
}
