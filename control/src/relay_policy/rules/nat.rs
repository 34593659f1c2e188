//! The new addresses and ports of nftables' `nat`.

use std::io;

use wg_bounce_sys::Family;

use super::registers::{Registers, Slot};
use super::{NewAddress, NewPort};
use crate::netlink::attribute::{Attribute, find, need};
use crate::netlink::numbers::{
    NFTA_NAT_FAMILY, NFTA_NAT_REG_ADDR_MAX, NFTA_NAT_REG_ADDR_MIN, NFTA_NAT_REG_PROTO_MAX,
    NFTA_NAT_REG_PROTO_MIN,
};
use crate::netlink::parse::malformed;

/// The address that a translation writes, if the rule has it itself.
///
/// # Errors
/// InvalidData: the expression is malformed.
pub fn new_address(registers: &Registers, data: &[Attribute<'_>]) -> io::Result<NewAddress> {
    let family = ip_version(need(data, NFTA_NAT_FAMILY)?.u32_be()?);
    let first = register(data, NFTA_NAT_REG_ADDR_MIN)?;
    let (Some(family), Some(first)) = (family, first) else { return Ok(NewAddress::Any) };
    let last = register(data, NFTA_NAT_REG_ADDR_MAX)?.unwrap_or(first);
    let words = if family == Family::V4 { 1 } else { 4 };
    let address = |register| {
        let slots = registers.from(register)?.get(..words).ok_or_else(malformed)?;
        Ok::<_, io::Error>(slots.iter().try_fold(0u128, |bits, slot| match slot {
            Slot::Data(word) => Some(bits << 32 | u128::from(u32::from_be_bytes(*word))),
            _ => None,
        }))
    };
    Ok(match (address(first)?, address(last)?) {
        (Some(first), Some(last)) => NewAddress::Within(family, first, last),
        _ => NewAddress::Any,
    })
}

/// The port that a translation writes: the first two bytes of a register.
///
/// # Errors
/// InvalidData: the expression is malformed.
pub fn new_port(registers: &Registers, data: &[Attribute<'_>]) -> io::Result<NewPort> {
    let Some(first) = register(data, NFTA_NAT_REG_PROTO_MIN)? else { return Ok(NewPort::Same) };
    let last = register(data, NFTA_NAT_REG_PROTO_MAX)?.unwrap_or(first);
    let port = |register| {
        Ok::<_, io::Error>(match registers.from(register)?.first() {
            Some(Slot::Data([high, low, ..])) => Some(u16::from_be_bytes([*high, *low])),
            _ => None,
        })
    };
    Ok(match (port(first)?, port(last)?) {
        (Some(first), Some(last)) => NewPort::Within(first, last),
        _ => NewPort::Any,
    })
}

fn register(data: &[Attribute<'_>], kind: u16) -> io::Result<Option<u32>> {
    find(data, kind).map(|one| one.u32_be()).transpose()
}

/// The IP version of NFPROTO_*.
pub fn ip_version(family: u32) -> Option<Family> {
    match family.cast_signed() {
        libc::NFPROTO_IPV4 => Some(Family::V4),
        libc::NFPROTO_IPV6 => Some(Family::V6),
        _ => None,
    }
}
