//! Packet captures: packet sockets (packet(7)), as opened by tcpdump.

use std::io;

use wg_bounce_sys::Family;

use super::kernel::{Interface, Kernel};
use super::reason::{Families, Finding, Reason};
use crate::netlink::parse::malformed;

/// Protocols that a packet socket can select: all, or one that the interface carries.
const ETH_P_ALL: u16 = libc::ETH_P_ALL as u16;
const ETH_P_IP: u16 = libc::ETH_P_IP as u16;
const ETH_P_IPV6: u16 = libc::ETH_P_IPV6 as u16;

/// Packet sockets that receive packets of the interface, from /proc/net/packet.
pub fn captures(kernel: &mut impl Kernel, at: &Interface) -> io::Result<Vec<Finding>> {
    let text = match kernel.listing("packet") {
        Ok(text) => text,
        // The module is not loaded: no packet socket was ever opened.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut findings = Vec::new();
    for line in text.lines().skip(1) {
        findings.extend(capture(line, at).ok_or_else(malformed)?);
    }
    Ok(findings)
}

/// One line: address, references, type, protocol (hexadecimal), interface (zero: all), whether it
/// receives, memory, user, inode. None if it cannot be parsed.
fn capture(line: &str, at: &Interface) -> Option<Option<Finding>> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let &[_, _, _, packets, interface, receives, _, _, inode] = fields.as_slice() else {
        return None;
    };
    let packets = u16::from_str_radix(packets, 16).ok()?;
    let interface: u32 = interface.parse().ok()?;
    let families = match packets {
        ETH_P_ALL => Families::BOTH,
        ETH_P_IP => Families::only(Family::V4),
        ETH_P_IPV6 => Families::only(Family::V6),
        _ => return Some(None),
    };
    let sees = receives != "0" && (interface == 0 || interface == at.index);
    let reason = Reason::Capture { inode: inode.to_owned() };
    Some(sees.then_some(Finding { families, reason }))
}
