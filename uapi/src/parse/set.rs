//! Turns the lines of a `set` into changes.

use super::value::{self, Fault, ZoneResolver};
use crate::types::{Change, Errno, PeerChange, Rejection, SetRequest};

/// Reads the lines between `set=1` and the empty line. Stops at the first invalid line: changes
/// before it are kept, lines after it are ignored.
#[derive(Default)]
pub struct SetParser {
    request: SetRequest,
}

/// Parses the lines of a `set`, without `set=1`, up to the first empty line.
pub fn parse_set(text: &str, zones: ZoneResolver<'_>) -> SetRequest {
    let mut parser = SetParser::default();
    for line in text.lines().take_while(|line| !line.is_empty()) {
        parser.line(line.as_bytes(), zones);
    }
    parser.finish()
}

impl SetParser {
    /// Parses one line, given without its newline.
    pub fn line(&mut self, line: &[u8], zones: ZoneResolver<'_>) {
        if self.request.rejected.is_some() {
            return;
        }
        if let Err(rejection) = self.change(line, zones) {
            self.reject(rejection);
        }
    }

    /// Ends the request with an error; the first error wins.
    pub fn reject(&mut self, rejection: Rejection) {
        self.request.rejected.get_or_insert(rejection);
    }

    /// The request so far.
    pub fn finish(self) -> SetRequest {
        self.request
    }

    fn change(&mut self, line: &[u8], zones: ZoneResolver<'_>) -> Result<(), Rejection> {
        let Some(equals) = line.iter().position(|&byte| byte == b'=') else {
            // Not quoted: it may be a key whose name is missing.
            let reason = "line without '='".to_owned();
            return Err(Rejection { errno: Errno::PROTOCOL, reason });
        };
        let (name, value) = (&line[..equals], &line[equals + 1..]);
        let reject = |fault: Fault| fault.rejection(name, value);
        if name == b"public_key" {
            let public_key = value::key(value).map_err(reject)?;
            self.push(Change::Peer(PeerChange::new(*public_key)));
            return Ok(());
        }
        // Lines after a public_key belong to that peer, those before the first to the device.
        if let Some(Change::Peer(peer)) = self.request.changes.last_mut() {
            change_peer(peer, name, value, zones).map_err(reject)
        } else {
            self.push_device_change(device_change(name, value).map_err(reject)?);
            Ok(())
        }
    }

    /// A later line of the same kind wins, so at most one of each kind is kept: a flood of device
    /// lines costs no memory.
    fn push_device_change(&mut self, change: Change) {
        let kind = std::mem::discriminant(&change);
        self.request.changes.retain(|earlier| std::mem::discriminant(earlier) != kind);
        self.push(change);
    }

    /// Adds a change. `Vec` would free the old buffer with its preshared keys in it, so growing
    /// takes them out, which leaves zeros behind.
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

/// Moves a change out and leaves zeros in place of its keys.
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

fn device_change(name: &[u8], value: &[u8]) -> Result<Change, Fault> {
    Ok(match name {
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
    name: &[u8],
    value: &[u8],
    zones: ZoneResolver<'_>,
) -> Result<(), Fault> {
    match name {
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
