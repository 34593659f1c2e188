//! The tables of legacy iptables, read with the socket options that `iptables-legacy` itself uses
//! (`do_ipt_get_ctl` in net/ipv4/netfilter/ip_tables.c, `do_ip6t_get_ctl` for IPv6). For control
//! only.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// IPT_SO_GET_INFO and IPT_SO_GET_ENTRIES; IPv6 has the same numbers.
const GET_INFO: i32 = 64;
const GET_ENTRIES: i32 = 65;

/// Bytes of a table's name with the terminating zero (XT_TABLE_MAXNAMELEN).
const NAME_LEN: usize = 32;
/// Bytes of `struct ipt_getinfo`: the name, a mask of hooks, five offsets of the first entries and
/// five of the policies, the number of entries and their size (four bytes each).
pub const INFO_LEN: usize = NAME_LEN + 4 * (1 + 5 + 5 + 2);
/// Offset of the entries in `struct ipt_get_entries`: after name and size, aligned for counters.
const ENTRIES_OFFSET: usize = 40;

/// Opens a socket for [`info`] and [`entries`], in the network namespace of this thread.
///
/// # Errors
/// EAFNOSUPPORT: this kernel lacks the family. EMFILE, ENFILE: too many open files.
pub fn open(is_v6: bool) -> io::Result<OwnedFd> {
    let family = if is_v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    Ok(socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?)
}

/// The outline of a table: a `struct ipt_getinfo`.
///
/// # Errors
/// ENOENT: the table does not exist. ENOPROTOOPT: the kernel has no legacy tables. EPERM: no
/// CAP_NET_ADMIN. ENAMETOOLONG: not a valid table name.
pub fn info(socket: &OwnedFd, is_v6: bool, table: &str) -> io::Result<[u8; INFO_LEN]> {
    let mut info = [0; INFO_LEN];
    write_name(&mut info, table)?;
    get(socket, is_v6, GET_INFO, &mut info)?;
    Ok(info)
}

/// The entries of a table, which are `size` bytes according to its outline.
///
/// # Errors
/// EAGAIN: the size has changed since; read the outline again. Others as for [`info`].
pub fn entries(socket: &OwnedFd, is_v6: bool, table: &str, size: u32) -> io::Result<Vec<u8>> {
    let mut answer = vec![0; ENTRIES_OFFSET + size as usize];
    write_name(&mut answer, table)?;
    answer[NAME_LEN..NAME_LEN + 4].copy_from_slice(&size.to_ne_bytes());
    get(socket, is_v6, GET_ENTRIES, &mut answer)?;
    answer.drain(..ENTRIES_OFFSET);
    Ok(answer)
}

fn write_name(field: &mut [u8], table: &str) -> io::Result<()> {
    if table.len() >= NAME_LEN {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    field[..table.len()].copy_from_slice(table.as_bytes());
    Ok(())
}

fn get(socket: &OwnedFd, is_v6: bool, option: i32, value: &mut [u8]) -> io::Result<()> {
    let level = if is_v6 { libc::SOL_IPV6 } else { libc::SOL_IP };
    let mut length = value.len() as libc::socklen_t;
    // SAFETY: the kernel reads and writes at most `length` bytes of `value`, which has that length.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, option, value.as_mut_ptr().cast(), &mut length)
    };
    if result == 0 && length as usize == value.len() {
        return Ok(());
    }
    Err(if result == 0 { io::ErrorKind::InvalidData.into() } else { io::Error::last_os_error() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_table_is_an_error() {
        let socket = open(false).expect("IPv4");
        assert!(info(&socket, false, "no-such-table").is_err());
        assert!(info(&socket, false, &"x".repeat(NAME_LEN)).is_err());
        assert!(entries(&socket, false, "no-such-table", 64).is_err());
    }
}
