//! Strict reading of bytes that come from the kernel.

use std::io;

/// The error for every reply of the kernel that cannot be parsed.
pub fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kernel sent a reply that cannot be parsed")
}

/// The first `N` bytes.
///
/// # Errors
/// There are fewer.
pub fn array<const N: usize>(bytes: &[u8]) -> io::Result<[u8; N]> {
    bytes.first_chunk().copied().ok_or_else(malformed)
}

/// A string, up to its first NUL.
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
