//! Values of settings. An error says what is expected, without the name of the setting; it never
//! quotes a key.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use base64ct::{Base64, Encoding as _};
use ipnet::IpNet;
use wg_bounce_uapi::types::SecretKey;
use zeroize::Zeroizing;

use super::model::{Endpoint, Table};
use super::quote::quote;

/// Characters of a key in base64.
const KEY_LEN: usize = 44;

/// The smallest MTU of an interface with IPv4 (RFC 791), and the largest of a TUN interface.
const MTU_MIN: u32 = 68;
const MTU_MAX: u32 = 65_535;

/// A key in base64, decoded in constant time.
///
/// # Errors
/// It has another length, or is not base64.
pub fn key(text: &str) -> Result<SecretKey, String> {
    let mut key = Zeroizing::new([0; 32]);
    if text.len() != KEY_LEN {
        let count = text.chars().count();
        return Err(format!("a key has {KEY_LEN} characters of base64, this one has {count}"));
    }
    match Base64::decode(text, key.as_mut_slice()) {
        Ok(decoded) if decoded.len() == 32 => Ok(key),
        _ => Err("a key is in base64, with = at the end; this one is not".to_owned()),
    }
}

/// A number of this type, decimal.
///
/// # Errors
/// It is none, or out of range.
pub fn number<N: FromStr>(text: &str, range: &str) -> Result<N, String> {
    // `FromStr` alone would also accept a plus.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits);
    number.ok_or_else(|| format!("{} is not a number {range}", quote(text)))
}

/// `off` or a mark, decimal or hexadecimal.
///
/// # Errors
/// It is neither.
pub fn fwmark(text: &str) -> Result<u32, String> {
    let mark = match text.strip_prefix("0x") {
        _ if text.eq_ignore_ascii_case("off") => Some(0),
        Some(digits) if !digits.starts_with('+') => u32::from_str_radix(digits, 16).ok(),
        Some(_) => None,
        None => number(text, "").ok(),
    };
    mark.ok_or_else(|| format!("{} is not a mark: write off, 51820 or 0xca6c", quote(text)))
}

/// `off` or seconds.
///
/// # Errors
/// It is neither.
pub fn keepalive(text: &str) -> Result<u16, String> {
    let is_off = text.eq_ignore_ascii_case("off");
    let seconds = if is_off { Ok(0) } else { number(text, "") };
    seconds.map_err(|_| {
        let text = quote(text);
        format!("{text} is not off, nor a number of seconds from 0 to 65535; 25 is usual")
    })
}

/// An address, with the length of its network; without one, the whole address.
///
/// # Errors
/// It is none.
pub fn network(text: &str) -> Result<IpNet, String> {
    if text.contains(char::is_whitespace) {
        return Err(format!("{} needs commas between addresses", quote(text)));
    }
    let network = match text.split_once('/') {
        Some((_, length)) if !length.bytes().all(|byte| byte.is_ascii_digit()) => None,
        Some(_) => text.parse().ok(),
        None => text.parse::<IpAddr>().ok().map(IpNet::from),
    };
    network.ok_or_else(|| match text.split_once('/') {
        Some((address, length)) if address.parse::<IpAddr>().is_ok() => {
            let longest = if address.contains(':') { 128 } else { 32 };
            format!("{} is not a length from /0 to /{longest}", quote(&format!("/{length}")))
        }
        _ => {
            let text = quote(text);
            format!("{text} is not an address: write 10.0.0.2/32, 10.0.0.0/24 or fd00::/64")
        }
    })
}

/// `HOST:PORT`; IPv6 in brackets, or before the last colon.
///
/// # Errors
/// It is something else.
pub fn endpoint(text: &str) -> Result<Endpoint, String> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let is_host = |host: &str| is_address(host) || is_name(host);
    if text.parse::<Ipv6Addr>().is_ok() && !is_host(host) {
        return Err(format!("an IPv6 address needs brackets and a port: [{text}]:51820"));
    }
    let Some(port) = port else {
        return Err(format!("the port is missing: {}", quote(&format!("{text}:51820"))));
    };
    let port = number(port, "from 1 to 65535").and_then(|port: u16| match port {
        0 => Err("\"0\" is not a number from 1 to 65535".to_owned()),
        port => Ok(port),
    });
    let port = port.map_err(|error| format!("as a port, {error}"))?;
    match is_host(host) {
        true => Ok(Endpoint { host: host.to_owned(), port }),
        false => Err(format!("{} is neither an IP address nor a host name", quote(host))),
    }
}

/// Whether a text is an IP address, perhaps with a zone.
pub fn is_address(text: &str) -> bool {
    match text.split_once('%') {
        Some((address, zone)) => address.parse::<Ipv6Addr>().is_ok() && is_name(zone),
        None => text.parse::<IpAddr>().is_ok(),
    }
}

/// Whether a text may be the name of a host, a domain or an interface.
pub fn is_name(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !text.is_empty() && text.bytes().all(is_allowed)
}

/// `auto`, `off` or a routing table.
///
/// # Errors
/// It is something else.
pub fn table(text: &str) -> Result<Table, String> {
    // linux/rtnetlink.h
    match text {
        "auto" => Ok(Table::Auto),
        "off" => Ok(Table::Off),
        "default" => Ok(Table::Number(253)),
        "main" => Ok(Table::Number(254)),
        "local" => Ok(Table::Number(255)),
        _ => number(text, "").map(Table::Number).map_err(|_| {
            let text = quote(text);
            format!("{text} is not auto, off, main, or the number of a routing table")
        }),
    }
}

/// A size that an interface may have.
///
/// # Errors
/// It is none.
pub fn mtu(text: &str) -> Result<u32, String> {
    let range = format!("of bytes from {MTU_MIN} to {MTU_MAX}; 1420 is usual");
    let mtu = number(text, &range)?;
    match (MTU_MIN..=MTU_MAX).contains(&mtu) {
        true => Ok(mtu),
        false => Err(format!("{} is not a number {range}", quote(text))),
    }
}

/// `true` or `false`.
///
/// # Errors
/// It is neither.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        _ if text.eq_ignore_ascii_case("true") => Ok(true),
        _ if text.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err(format!("{} is neither true nor false", quote(text))),
    }
}
