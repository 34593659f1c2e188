//! The configuration that applies to every packet: published whole by control, read once a turn by
//! each worker.

use std::sync::Arc;

use wg_bounce_sys::{Family, PerFamily};

use crate::own_host::OwnHost;
use crate::pairs::Pairs;
use crate::peer::Peer;
use crate::routes::Routes;

/// The configuration as workers see it.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// Counts up with every publication.
    pub epoch: u64,
    /// Allowed IPs of all peers.
    pub routes: Routes<Arc<Peer>>,
    /// BLAKE2s key of mac1 for messages to us (§5.4.4); none without a private key.
    pub mac1_key: Option<[u8; 32]>,
    /// Whether the interface is up and the sockets are bound: else nothing is sent or accepted.
    pub is_up: bool,
    /// The interface's MTU (bytes).
    pub mtu: usize,
    /// The forwarding of packets between peers.
    pub relay: Relay,
}

impl Snapshot {
    /// The largest packet of a family that is forwarded out of the interface (bytes).
    #[must_use]
    pub fn forwarding_mtu(&self, family: Family) -> usize {
        match family {
            Family::V4 => self.mtu,
            Family::V6 => self.relay.mtu_v6.map_or(self.mtu, |mtu| mtu.min(self.mtu)),
        }
    }
}

/// The forwarding of packets between peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relay {
    /// The mode of each address family.
    pub mode: PerFamily<DirectRelay>,
    /// The generation of the kernel's routes, rules, links and forwarding settings: earlier answers
    /// to route queries ([`crate::messages::Command::AskRoutes`]) are stale.
    pub routes: u64,
    /// The interface's MTU for IPv6 (bytes), if it has one of its own
    /// (`net.ipv6.conf.IF.mtu`).
    pub mtu_v6: Option<usize>,
    /// The hub itself as a host, with [`DirectRelay::Alone`].
    pub own_host: Arc<OwnHost>,
    /// The packets that [`DirectRelay::IfRoutedBack`] leaves to the kernel all the same.
    pub exceptions: PerFamily<Vec<Arc<Pairs>>>,
}

impl Relay {
    /// Whether the interface is missing ([`DirectRelay::Alone`]).
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.mode.v4 == DirectRelay::Alone
    }
}

/// The condition under which workers relay packets of one family between peers themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DirectRelay {
    /// Never: every packet goes to the TUN, and the kernel forwards it.
    #[default]
    Never,
    /// If the packet is on the fast path and the kernel's route for it leads back into the
    /// interface; everything else goes to the TUN (`--relay auto` while nothing forbids it).
    IfRoutedBack,
    /// If the packet is on the fast path; any other goes to the TUN where the kernel's route for it
    /// leads back into the interface, and is dropped elsewhere (`--relay direct`).
    Always,
    /// Never, and the kernel gets none of it either: a packet between peers is dropped unless the
    /// kernel's route for it is local (`--relay direct` while forwarding is off, or cannot be
    /// seen). If the kernel forwarded it, it could leave in clear text by another interface.
    LocalOnly,
    /// Always, by the allowed IPs alone. Nothing goes to the kernel, without an interface:
    /// the workers are the router, and answer as the host itself (`--tun off`).
    Alone,
}
