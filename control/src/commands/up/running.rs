//! The configuration of a running daemon, as its socket reports it.

use std::str::FromStr;

use wg_bounce_uapi::types::SecretKey;
use zeroize::Zeroizing;

use crate::config_file::state::{PeerState, State};

/// Reads the lines of a reply to `get=1`; lines that only other daemons send are ignored.
///
/// # Errors
/// A value that is none.
pub(super) fn read(lines: &[Zeroizing<String>]) -> Result<State, String> {
    let mut state = State::default();
    let mut peer: Option<([u8; 32], PeerState)> = None;
    for line in lines {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        let of_peer = peer.as_mut().map(|(_, peer)| peer);
        match (name, of_peer) {
            ("private_key", _) => state.private_key = Some(key(value)?),
            ("listen_port", _) => state.listen_port = parse(value)?,
            ("fwmark", _) => state.fwmark = parse(value)?,
            ("public_key", _) => {
                state.peers.extend(peer.take());
                peer = Some((*key(value)?, PeerState::default()));
            }
            ("preshared_key", Some(peer)) => peer.preshared_key = key(value)?,
            ("endpoint", Some(peer)) => peer.endpoint = Some(parse(value)?),
            ("persistent_keepalive_interval", Some(peer)) => {
                peer.persistent_keepalive = parse(value)?;
            }
            ("last_handshake_time_sec", Some(peer)) => peer.last_handshake = parse(value)?,
            ("tx_bytes", Some(peer)) => peer.sent = parse(value)?,
            ("allowed_ip", Some(peer)) => {
                peer.allowed_ips.insert(parse(value)?);
            }
            _ => {}
        }
    }
    state.peers.extend(peer);
    Ok(state)
}

fn parse<T: FromStr>(value: &str) -> Result<T, String> {
    value.parse().map_err(|_| "the daemon's reply cannot be read".to_owned())
}

/// A key in hexadecimal.
fn key(value: &str) -> Result<SecretKey, String> {
    let mut key = Zeroizing::new([0; 32]);
    let failed = "the daemon's reply has a key that cannot be read";
    if value.len() != 2 * key.len() || !value.is_ascii() {
        return Err(failed.to_owned());
    }
    for (byte, at) in key.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&value[at..at + 2], 16).map_err(|_| failed)?;
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_read_and_a_broken_one_refused() {
        let key = "0a".repeat(32);
        let lines = format!(
            "private_key={key}\nlisten_port=51820\nfwmark=7\npublic_key={key}\n\
             preshared_key={key}\nendpoint=[2001:db8::1%2]:9\nallowed_ip=10.0.0.2/32\n\
             allowed_ip=fd00::/64\nlast_handshake_time_sec=5\npublic_key={}\nnew=1",
            "0b".repeat(32)
        );
        let read = |lines: &str| {
            let lines: Vec<_> = lines.lines().map(|line| Zeroizing::new(line.to_owned())).collect();
            super::read(&lines)
        };
        let state = read(&lines).expect("whole");
        assert_eq!((state.listen_port, state.fwmark, state.peers.len()), (51820, 7, 2));
        let peer = &state.peers[&[10; 32]];
        assert_eq!((peer.allowed_ips.len(), peer.last_handshake), (2, 5));
        assert_eq!(peer.endpoint.map(|one| one.port()), Some(9));
        for broken in ["public_key=0", "listen_port=x", "private_key=é"] {
            assert!(read(broken).is_err(), "{broken}");
        }
    }
}
