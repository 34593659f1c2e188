//! The state that a configuration leads to, or that an interface is in.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;

use ipnet::IpNet;
use wg_bounce_uapi::types::SecretKey;

use super::model::{Config, Endpoint, Peer};

/// The state of an interface.
#[derive(Default)]
pub struct State {
    /// The private key.
    pub private_key: Option<SecretKey>,
    /// The UDP port, or zero.
    pub listen_port: u16,
    /// The mark, or zero.
    pub fwmark: u32,
    /// The peers by their public keys.
    pub peers: BTreeMap<[u8; 32], PeerState>,
}

/// The state of a peer.
#[derive(Default)]
pub struct PeerState {
    /// All zeros if there is none.
    pub preshared_key: SecretKey,
    /// The endpoint, if its address is known.
    pub endpoint: Option<SocketAddr>,
    /// Seconds, or zero.
    pub persistent_keepalive: u16,
    /// The prefixes.
    pub allowed_ips: BTreeSet<IpNet>,
    /// The time of the last handshake: seconds since the Unix epoch, or zero.
    pub last_handshake: u64,
    /// Bytes sent.
    pub sent: u64,
}

/// The settings of all sections of one public key.
#[derive(Default)]
pub struct Wanted<'a> {
    /// The name of the peer.
    pub name: Option<&'a str>,
    /// The endpoint, perhaps with a host name.
    pub endpoint: Option<&'a Endpoint>,
    /// The state.
    pub state: PeerState,
}

/// The peers of a configuration by their public keys. As with wg(8), a later section overrides an
/// earlier one, and a prefix belongs to the last peer that has it.
pub fn peers(config: &Config) -> BTreeMap<[u8; 32], Wanted<'_>> {
    let mut peers = BTreeMap::new();
    let mut owners: HashMap<IpNet, [u8; 32]> = HashMap::new();
    for peer in &config.peers {
        let Peer { name, public_key, preshared_key, allowed_ips, endpoint, .. } = peer;
        let wanted: &mut Wanted<'_> = peers.entry(*public_key).or_default();
        wanted.name = name.as_deref().or(wanted.name);
        let state = &mut wanted.state;
        if let Some(key) = preshared_key {
            state.preshared_key = key.clone();
        }
        if let Some(endpoint) = endpoint {
            wanted.endpoint = Some(endpoint);
            state.endpoint = endpoint.address();
        }
        state.persistent_keepalive =
            peer.persistent_keepalive.unwrap_or(state.persistent_keepalive);
        state.allowed_ips = allowed_ips.iter().map(|one| one.value).collect();
        owners.extend(allowed_ips.iter().map(|one| (one.value, *public_key)));
    }
    for (key, wanted) in &mut peers {
        wanted.state.allowed_ips.retain(|prefix| owners.get(prefix) == Some(key));
    }
    peers
}
