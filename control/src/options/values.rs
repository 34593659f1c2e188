//! The parsers of values that clap does not know.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::limits::INTERFACE_NAME_LEN_MAX;

/// Checks `name` as the kernel does (`dev_valid_name` in net/core/dev.c).
pub(super) fn parse_name(name: &str) -> Result<String, String> {
    if name.len() > INTERFACE_NAME_LEN_MAX {
        return Err(format!("an interface name is at most {INTERFACE_NAME_LEN_MAX} bytes long"));
    }
    if name.is_empty() || name == "." || name == ".." {
        return Err("not a valid interface name".into());
    }
    let forbidden = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if let Some(c) = name.chars().find(|&c| forbidden(c)) {
        return Err(format!("an interface name cannot contain {c:?}"));
    }
    if name.replacen("%d", "", 1).contains('%') {
        return Err("an interface name may contain % only as a single %d".into());
    }
    Ok(name.to_owned())
}

/// An address with the length of its network's prefix; that of a host without one.
pub(super) fn parse_address(text: &str) -> Result<IpNet, String> {
    let host = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| host()).map_err(|_| "not an IP address with a prefix length".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_as_the_kernel_does() {
        for good in ["wg0", "wg%d", "a", "wg.100", "fifteen-bytes-a"] {
            assert!(parse_name(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "sixteen-bytes-ab", "%d%d", "wg%s"] {
            assert!(parse_name(bad).is_err(), "{bad}");
        }
    }
}
