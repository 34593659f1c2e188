//! Every bound of the protocol's parser, with its reason.

/// Longest line in bytes, without its newline. The longest line that means anything is a key's
/// (14 + 64 bytes); the rest is room for interface names as zones and for keys of the future.
pub const LINE_LEN_MAX: usize = 4096;

/// Longest request in bytes. The planning size of 100,000 peers and 1,000,000 prefixes takes
/// 20 MB for the peers and 30 MB (IPv4) to 60 MB (long IPv6) for the prefixes.
pub const REQUEST_LEN_MAX: usize = 96 << 20;

/// Bytes of a rejected value that the log may see.
pub(crate) const QUOTE_LEN_MAX: usize = 64;

const _: () = assert!(LINE_LEN_MAX < REQUEST_LEN_MAX, "the line's bound must be the one met first");
const _: () = assert!(QUOTE_LEN_MAX < LINE_LEN_MAX, "a quote is a part of a line");
