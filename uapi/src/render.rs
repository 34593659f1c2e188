//! Renders replies, in wireguard-go's order and format, and requests for clients of the protocol.

use std::fmt::{Display, Write};
use std::net::SocketAddr;

use ipnet::IpNet;
use zeroize::Zeroizing;

use crate::types::{
    Change, DeviceState, Errno, Explain, PeerChange, PeerState, Service, SetRequest,
};

/// Longest text of an `allowed_ip` line in bytes: `allowed_ip=-`, the prefix, the newline.
const ALLOWED_IP_V4_LEN: usize = 12 + "255.255.255.255/32".len() + 1;
const ALLOWED_IP_V6_LEN: usize = 12 + 45 + "/128".len() + 1; // 45: POSIX's INET6_ADDRSTRLEN - 1
/// Longest text of a device's lines, and of a peer's without its allowed IPs, in bytes.
const DEVICE_LEN: usize = 256;
const PEER_LEN: usize = 512;

/// The complete reply to a `get`, with `errno=0` and the empty line. It holds the private and all
/// preshared keys, so it is allocated once, at a size that always suffices, and wiped on drop.
pub fn render_get(state: &DeviceState) -> Zeroizing<String> {
    render_get_part(state, true)
}

/// A part of such a reply: `state` has some of the peers, and nothing else unless it is the first;
/// what ends the reply follows the last.
pub fn render_get_part(state: &DeviceState, is_last: bool) -> Zeroizing<String> {
    let mut text = Text::with_capacity(get_len_max(state));
    if let Some(key) = &state.private_key {
        text.key("private_key", key);
    }
    if state.listen_port != 0 {
        text.line("listen_port", state.listen_port);
    }
    if state.fwmark != 0 {
        text.line("fwmark", state.fwmark);
    }
    for peer in &state.peers {
        render_peer(&mut text, peer);
    }
    if is_last { text.end(Errno::OK) } else { text.unfinished() }
}

/// The reply to a `set`, and to a failed `get`.
pub fn render_errno(errno: Errno) -> String {
    format!("errno={}\n\n", errno.0)
}

/// The reply to an `explain`, with its text.
pub fn render_explanation(text: &str) -> String {
    let lines: String = text.lines().map(|line| format!("line={line}\n")).collect();
    lines + &render_errno(Errno::OK)
}

/// An `explain` as a client sends it.
pub fn render_explain(question: &Explain) -> String {
    let Explain { source, destination, service } = question;
    let service = service.map_or(String::new(), |Service { protocol, port }| {
        format!("protocol={}\nport={port}\n", protocol.name())
    });
    format!("explain=1\nsource={source}\ndestination={destination}\n{service}\n")
}

/// A `set` as a client sends it. `rejected` is ignored.
pub fn render_set(request: &SetRequest) -> Zeroizing<String> {
    let prefixes = request.changes.iter().map(|change| match change {
        Change::Peer(peer) => peer.allowed_ips.len(),
        _ => 0,
    });
    let capacity =
        DEVICE_LEN + request.changes.len() * PEER_LEN + prefixes.sum::<usize>() * ALLOWED_IP_V6_LEN;
    let mut text = Text::with_capacity(capacity);
    text.line("set", 1);
    for change in &request.changes {
        match change {
            Change::PrivateKey(Some(key)) => text.key("private_key", key),
            Change::PrivateKey(None) => text.key("private_key", &[0; 32]),
            Change::ListenPort(port) => text.line("listen_port", port),
            Change::Fwmark(mark) => text.line("fwmark", mark),
            Change::ReplacePeers => text.line("replace_peers", true),
            Change::Peer(peer) => render_peer_change(&mut text, peer),
        }
    }
    text.finish()
}

fn render_peer(text: &mut Text, peer: &PeerState) {
    let (seconds, nanoseconds) = peer.last_handshake;
    text.key("public_key", &peer.public_key);
    text.key("preshared_key", &peer.preshared_key);
    text.line("protocol_version", 1);
    if let Some(endpoint) = &peer.endpoint {
        text.endpoint(endpoint);
    }
    text.line("last_handshake_time_sec", seconds);
    text.line("last_handshake_time_nsec", nanoseconds);
    text.line("tx_bytes", peer.tx_bytes);
    text.line("rx_bytes", peer.rx_bytes);
    text.line("persistent_keepalive_interval", peer.persistent_keepalive);
    for prefix in &peer.allowed_ips {
        text.line("allowed_ip", prefix);
    }
}

fn render_peer_change(text: &mut Text, peer: &PeerChange) {
    text.key("public_key", &peer.public_key);
    if peer.remove {
        text.line("remove", true);
    }
    if peer.update_only {
        text.line("update_only", true);
    }
    if let Some(key) = &peer.preshared_key {
        text.key("preshared_key", key);
    }
    if let Some(endpoint) = &peer.endpoint {
        text.endpoint(endpoint);
    }
    if let Some(seconds) = peer.persistent_keepalive {
        text.line("persistent_keepalive_interval", seconds);
    }
    if peer.replace_allowed_ips {
        text.line("replace_allowed_ips", true);
    }
    for allowed in &peer.allowed_ips {
        let sign = if allowed.remove { "-" } else { "" };
        text.line("allowed_ip", format_args!("{sign}{}", allowed.prefix));
    }
}

fn get_len_max(state: &DeviceState) -> usize {
    let prefix_len = |prefix: &IpNet| match prefix {
        IpNet::V4(_) => ALLOWED_IP_V4_LEN,
        IpNet::V6(_) => ALLOWED_IP_V6_LEN,
    };
    let peer_len =
        |peer: &PeerState| PEER_LEN + peer.allowed_ips.iter().map(prefix_len).sum::<usize>();
    DEVICE_LEN + state.peers.iter().map(peer_len).sum::<usize>()
}

/// Text under construction that never reallocates.
struct Text {
    text: Zeroizing<String>,
    capacity: usize,
}

impl Text {
    fn with_capacity(bytes: usize) -> Text {
        let text = Zeroizing::new(String::with_capacity(bytes));
        Text { capacity: text.capacity(), text }
    }

    fn line(&mut self, name: &str, value: impl Display) {
        self.text.push_str(name);
        self.text.push('=');
        write!(self.text, "{value}").expect("writing to a String cannot fail");
        self.text.push('\n');
    }

    /// A key as lower-case hex, encoded in constant time.
    fn key(&mut self, name: &str, key: &[u8; 32]) {
        let mut digits = Zeroizing::new([0; 64]);
        let hex = base16ct::lower::encode_str(key, digits.as_mut_slice());
        self.line(name, hex.expect("64 digits hold 32 bytes"));
    }

    /// `ip:port` or `[ip6%zone]:port`. The zone is a number, since an interface may be renamed
    /// while a client reads. The flow label is not part of an endpoint.
    fn endpoint(&mut self, endpoint: &SocketAddr) {
        self.line("endpoint", endpoint);
    }

    fn end(mut self, errno: Errno) -> Zeroizing<String> {
        self.line("errno", errno.0);
        self.finish()
    }

    /// Adds the empty line.
    fn finish(mut self) -> Zeroizing<String> {
        self.text.push('\n');
        self.unfinished()
    }

    /// Without the empty line: more follows.
    fn unfinished(self) -> Zeroizing<String> {
        // A reallocation would have left keys in freed memory.
        debug_assert_eq!(self.text.capacity(), self.capacity, "the capacity was too small");
        self.text
    }
}
