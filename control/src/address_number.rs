//! IP addresses as numbers.

use std::net::IpAddr;

use ipnet::IpNet;
use wg_bounce_sys::Family;

/// The first and the last address of a prefix.
pub fn ends(prefix: &IpNet) -> (u128, u128) {
    match prefix {
        IpNet::V4(v4) => [v4.network(), v4.broadcast()].map(|end| u128::from(end.to_bits())).into(),
        IpNet::V6(v6) => [v6.network(), v6.broadcast()].map(|end| end.to_bits()).into(),
    }
}

/// The address of a number.
pub fn address(number: u128, family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4((number as u32).into()),
        Family::V6 => IpAddr::V6(number.into()),
    }
}
