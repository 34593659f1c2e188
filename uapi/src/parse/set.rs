//! The lines of a `set` as changes, in their order.

use super::ZoneResolver;
use super::value::{self, Fault};
use crate::types::{Change, Errno, PeerChange, Rejection, SetRequest};

/// Reads what stands between `set=1` and the empty line. The first faulty line ends it: what
/// stands before stays, what comes after is ignored.
#[derive(Default)]
pub struct SetParser {
    request: SetRequest,
}

/// Reads the lines of a `set`, without `set=1`; an empty line ends it.
pub fn parse_set(text: &str, zones: ZoneResolver<'_>) -> SetRequest {
    let mut parser = SetParser::default();
    for line in text.lines().take_while(|line| !line.is_empty()) {
        parser.line(line.as_bytes(), zones);
    }
    parser.finish()
}

impl SetParser {
    /// Takes one line, without its newline.
    pub fn line(&mut self, line: &[u8], zones: ZoneResolver<'_>) {
        if self.request.rejected.is_some() {
            return;
        }
        if let Err(rejection) = self.change(line, zones) {
            self.reject(rejection);
        }
    }

    /// Ends the request with an error, unless one has ended it before.
    pub fn reject(&mut self, rejection: Rejection) {
        self.request.rejected.get_or_insert(rejection);
    }

    /// The request so far.
    pub fn finish(self) -> SetRequest {
        self.request
    }

    fn change(&mut self, line: &[u8], zones: ZoneResolver<'_>) -> Result<(), Rejection> {
        let Some(equals) = line.iter().position(|&byte| byte == b'=') else {
            // The line is not quoted: it may be a key whose name was forgotten.
            let reason = "a line without =".to_owned();
            return Err(Rejection { errno: Errno::PROTOCOL, reason });
        };
        let (key, value) = (&line[..equals], &line[equals + 1..]);
        if key == b"public_key" {
            let public_key = value::key(value).map_err(|fault| fault.of(key, value))?;
            self.push(Change::Peer(PeerChange::new(*public_key)));
            return Ok(());
        }
        // A peer's keys belong to the last public_key; before the first they are the device's.
        if let Some(Change::Peer(peer)) = self.request.changes.last_mut() {
            change_peer(peer, key, value, zones).map_err(|fault| fault.of(key, value))
        } else {
            let change = device_change(key, value).map_err(|fault| fault.of(key, value))?;
            self.push_device_change(change);
            Ok(())
        }
    }

    /// A later line of the same kind wins, so at most one of each kind is kept: a request of
    /// nothing but short device lines costs no memory.
    fn push_device_change(&mut self, change: Change) {
        let kind = std::mem::discriminant(&change);
        self.request.changes.retain(|earlier| std::mem::discriminant(earlier) != kind);
        self.push(change);
    }

    /// Adds a change. Growing the list moves the old one's preshared keys by copies that are
    /// wiped; `Vec` itself would free them as they are.
    fn push(&mut self, change: Change) {
        let changes = &mut self.request.changes;
        if changes.len() == changes.capacity() {
            let mut grown = Vec::with_capacity((2 * changes.len()).max(4));
            grown.extend(changes.iter_mut().map(take_wiping));
            *changes = grown;
        }
        changes.push(change);
    }
}

/// Moves a change out so that no secret stays where it was.
fn take_wiping(change: &mut Change) -> Change {
    match change {
        Change::PrivateKey(key) => Change::PrivateKey(key.as_mut().map(std::mem::take)),
        Change::ListenPort(port) => Change::ListenPort(*port),
        Change::Fwmark(mark) => Change::Fwmark(*mark),
        Change::ReplacePeers => Change::ReplacePeers,
        Change::Peer(peer) => Change::Peer(PeerChange {
            preshared_key: peer.preshared_key.as_mut().map(std::mem::take),
            allowed_ips: std::mem::take(&mut peer.allowed_ips),
            ..*peer
        }),
    }
}

fn device_change(key: &[u8], value: &[u8]) -> Result<Change, Fault> {
    Ok(match key {
        b"private_key" => {
            let secret = value::key(value)?;
            Change::PrivateKey((!value::is_zero(&secret)).then_some(secret))
        }
        b"listen_port" => Change::ListenPort(value::number(value)?),
        b"fwmark" => Change::Fwmark(value::number(value)?),
        b"replace_peers" => {
            value::only_true(value)?;
            Change::ReplacePeers
        }
        _ => return Err(Fault::UnknownDeviceKey),
    })
}

fn change_peer(
    peer: &mut PeerChange,
    key: &[u8],
    value: &[u8],
    zones: ZoneResolver<'_>,
) -> Result<(), Fault> {
    match key {
        b"remove" => {
            value::only_true(value)?;
            peer.remove = true;
        }
        b"update_only" => {
            value::only_true(value)?;
            peer.update_only = true;
        }
        b"preshared_key" => peer.preshared_key = Some(value::key(value)?),
        b"endpoint" => peer.endpoint = Some(value::endpoint(value, zones)?),
        b"persistent_keepalive_interval" => {
            peer.persistent_keepalive = Some(value::number(value)?);
        }
        b"replace_allowed_ips" => {
            value::only_true(value)?;
            peer.replace_allowed_ips = true;
            peer.allowed_ips.clear();
        }
        b"allowed_ip" => peer.allowed_ips.push(value::allowed_ip(value)?),
        b"protocol_version" => value::protocol_version(value)?,
        _ => return Err(Fault::UnknownPeerKey),
    }
    Ok(())
}
