//! Sizes of messages and batches.

/// Bytes before the ciphertext of a message. They are neither changed nor authenticated (§5.4.6).
pub const HEADER_LEN: usize = 16;
/// Bytes of the Poly1305 tag at the end of every message.
pub const TAG_LEN: usize = 16;

/// Messages processed at once. Callers that pass this many at a time fill the lanes best.
pub const BATCH: usize = 64;
