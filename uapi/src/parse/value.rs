//! Values: keys, numbers, addresses. As strict as wireguard-go, except where noted.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::str::FromStr;

use ipnet::IpNet;
use zeroize::Zeroizing;

use crate::limits::QUOTE_LEN_MAX;
use crate::types::{AllowedIp, Errno, Rejection, SecretKey};

/// Maps an interface name to its index, for the zone of an IPv6 endpoint. Called only for zones
/// that are not numbers; `None` rejects the line.
pub type ZoneResolver<'a> = &'a dyn Fn(&str) -> Option<u32>;

/// The fault in a line `name=value`. The errno is always EINVAL.
#[derive(Clone, Copy)]
pub(super) enum Fault {
    UnknownDeviceKey,
    UnknownPeerKey,
    /// A key that is not 64 hex digits. Its value is never quoted.
    Key,
    Number,
    OnlyTrue,
    Endpoint,
    Zone,
    AllowedIp,
    ProtocolVersion,
}

impl Fault {
    /// The rejection of the line `name=value`.
    pub(super) fn rejection(self, name: &[u8], value: &[u8]) -> Rejection {
        let (name, quoted) = (quote_name(name), quote(value));
        let reason = match self {
            Fault::UnknownDeviceKey => format!("unknown device key {name}"),
            Fault::UnknownPeerKey => format!("unknown peer key {name}"),
            Fault::Key => format!("{name} is not 64 hex digits"),
            Fault::Number => format!("{name} is not a number or out of range: {quoted}"),
            Fault::OnlyTrue => format!("{name} must be true: {quoted}"),
            Fault::Endpoint => format!("{name} is not address:port: {quoted}"),
            Fault::Zone => format!("{name} names an unknown interface: {quoted}"),
            Fault::AllowedIp => format!("{name} is not address/length: {quoted}"),
            Fault::ProtocolVersion => format!("{name} must be 1: {quoted}"),
        };
        Rejection { errno: Errno::INVALID, reason }
    }
}

/// The name of a setting, for error messages. A base64 key on a line of its own ends with `=` and
/// parses as a name, so only text that looks like a name is quoted.
fn quote_name(name: &[u8]) -> &str {
    let plausible = |byte: &u8| byte.is_ascii_lowercase() || *byte == b'_';
    let text = std::str::from_utf8(name).unwrap_or_default();
    if name.len() <= 32 && name.iter().all(plausible) { text } else { "(hidden)" }
}

fn quote(value: &[u8]) -> String {
    let head = &value[..value.len().min(QUOTE_LEN_MAX)];
    format!("\"{}\"", head.escape_ascii())
}

/// 64 hex digits of either case, decoded in constant time.
pub(super) fn key(value: &[u8]) -> Result<SecretKey, Fault> {
    let mut key = Zeroizing::new([0; 32]);
    let digits: &[u8; 64] = value.try_into().map_err(|_| Fault::Key)?;
    base16ct::mixed::decode(digits, key.as_mut_slice()).map_err(|_| Fault::Key)?;
    Ok(key)
}

/// Whether a key is all zeros, in constant time.
pub(super) fn is_zero(key: &SecretKey) -> bool {
    key.iter().fold(0, |sum, byte| sum | byte) == 0
}

/// A decimal number: no sign, no prefix, no space.
pub(super) fn number<N: FromStr>(value: &[u8]) -> Result<N, Fault> {
    // `FromStr` alone would also accept a leading plus.
    if !value.iter().all(u8::is_ascii_digit) {
        return Err(Fault::Number);
    }
    let digits = std::str::from_utf8(value).map_err(|_| Fault::Number)?;
    digits.parse().map_err(|_| Fault::Number)
}

pub(super) fn only_true(value: &[u8]) -> Result<(), Fault> {
    if value == b"true" { Ok(()) } else { Err(Fault::OnlyTrue) }
}

pub(super) fn protocol_version(value: &[u8]) -> Result<(), Fault> {
    if value == b"1" { Ok(()) } else { Err(Fault::ProtocolVersion) }
}

/// `ip:port`, `[ip6]:port` or `[ip6%zone]:port`, where the zone is a number or an interface name.
/// An IPv4-mapped address becomes IPv4, since our IPv6 sockets are IPv6-only.
pub(super) fn endpoint(value: &[u8], zones: ZoneResolver<'_>) -> Result<SocketAddr, Fault> {
    let text = std::str::from_utf8(value).map_err(|_| Fault::Endpoint)?;
    let (host, port) = text.rsplit_once(':').ok_or(Fault::Endpoint)?;
    let port = number(port.as_bytes()).map_err(|_| Fault::Endpoint)?;
    let Some(host) = host.strip_prefix('[') else {
        let address = host.parse().map_err(|_| Fault::Endpoint)?;
        return Ok(SocketAddr::new(IpAddr::V4(address), port));
    };
    let host = host.strip_suffix(']').ok_or(Fault::Endpoint)?;
    let (address, scope) = match host.split_once('%') {
        None => (host, 0),
        Some((address, zone)) => (address, scope(zone, zones)?),
    };
    let address: Ipv6Addr = address.parse().map_err(|_| Fault::Endpoint)?;
    Ok(match address.to_ipv4_mapped() {
        Some(address) => SocketAddr::new(IpAddr::V4(address), port),
        None => SocketAddr::V6(SocketAddrV6::new(address, port, 0, scope)),
    })
}

fn scope(zone: &str, zones: ZoneResolver<'_>) -> Result<u32, Fault> {
    if zone.is_empty() {
        return Err(Fault::Endpoint);
    }
    match number(zone.as_bytes()) {
        Ok(index) => Ok(index),
        Err(_) => zones(zone).ok_or(Fault::Zone),
    }
}

/// `address/length`, or `address` alone for the full length (which wireguard-go rejects). A
/// leading `-` removes the prefix.
pub(super) fn allowed_ip(value: &[u8]) -> Result<AllowedIp, Fault> {
    let text = std::str::from_utf8(value).map_err(|_| Fault::AllowedIp)?;
    let (remove, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| Fault::AllowedIp)?;
    let full = if address.is_ipv4() { 32 } else { 128 };
    let length = length.map_or(Ok(full), |length| number(length.as_bytes()))?;
    let prefix = IpNet::new(address, length).map_err(|_| Fault::AllowedIp)?;
    Ok(AllowedIp { prefix: prefix.trunc(), remove })
}
