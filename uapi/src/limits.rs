//! Limits of the parser, each with its reason.

/// Longest line in bytes, without its newline. The longest line defined today holds a key (14 + 64
/// bytes); the rest leaves room for interface names as zones and for future settings.
pub const LINE_LEN_MAX: usize = 4096;

/// Longest request in bytes. The planning size of 100,000 peers and 1,000,000 prefixes takes
/// 20 MB for the peers and 30 MB (IPv4) to 60 MB (long IPv6) for the prefixes.
pub const REQUEST_LEN_MAX: usize = 96 << 20;

/// Most bytes of a rejected value that an error message quotes.
pub(crate) const QUOTE_LEN_MAX: usize = 64;

const _: () =
    assert!(LINE_LEN_MAX < REQUEST_LEN_MAX, "a line must hit its limit before the request does");
const _: () = assert!(QUOTE_LEN_MAX < LINE_LEN_MAX, "a quote is shorter than a line");
