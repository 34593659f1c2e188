//! WireGuard messages on the wire (§5.4): types, offsets and sizes, and the header of data.
//!
//! All integers are little-endian. A message begins with its type in one byte and three zeros.

/// Message type of a handshake initiation (§5.4.2).
pub const INITIATION: u8 = 1;
/// Message type of a handshake response (§5.4.3).
pub const RESPONSE: u8 = 2;
/// Message type of a cookie reply (§5.4.7).
pub const COOKIE_REPLY: u8 = 3;
/// Message type of transport data (§5.4.6).
pub const DATA: u8 = 4;

/// Bytes of a handshake initiation.
pub const INITIATION_LEN: usize = 148;
/// Bytes of a handshake response.
pub const RESPONSE_LEN: usize = 92;
/// Bytes of a cookie reply.
pub const COOKIE_REPLY_LEN: usize = 64;
/// Bytes of the longest handshake message.
pub const HANDSHAKE_LEN_MAX: usize = INITIATION_LEN;

/// Bytes before the ciphertext of transport data: type, receiver index, counter.
pub const DATA_HEADER_LEN: usize = 16;
/// Bytes of the Poly1305 tag that ends every ciphertext.
pub const TAG_LEN: usize = 16;
/// Bytes that transport data adds to its plaintext; also the length of a keepalive.
pub const DATA_OVERHEAD: usize = DATA_HEADER_LEN + TAG_LEN;

/// Bytes of mac1, and of mac2, at the end of initiations and responses (§5.4.4).
pub const MAC_LEN: usize = 16;

/// The kind of a datagram, by its type and length alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A handshake initiation of the right length.
    Initiation,
    /// A handshake response of the right length, for this receiver index.
    Response(u32),
    /// A cookie reply of the right length, for this receiver index.
    CookieReply(u32),
    /// Transport data of at least a keepalive's length.
    Data(DataHeader),
}

/// The header of transport data (§5.4.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataHeader {
    /// The index that the receiver chose for this session.
    pub receiver: u32,
    /// The nonce of this message.
    pub counter: u64,
}

/// Classifies a datagram; `None` for everything that is not a WireGuard message.
pub fn classify(datagram: &[u8]) -> Option<Kind> {
    let (head, _) = datagram.split_first_chunk::<4>()?;
    match (*head, datagram.len()) {
        ([INITIATION, 0, 0, 0], INITIATION_LEN) => Some(Kind::Initiation),
        ([RESPONSE, 0, 0, 0], RESPONSE_LEN) => Some(Kind::Response(u32_at(datagram, 8))),
        ([COOKIE_REPLY, 0, 0, 0], COOKIE_REPLY_LEN) => Some(Kind::CookieReply(u32_at(datagram, 4))),
        ([DATA, 0, 0, 0], length) if length >= DATA_OVERHEAD => Some(Kind::Data(DataHeader {
            receiver: u32_at(datagram, 4),
            counter: u64::from_le_bytes(datagram[8..16].try_into().expect("eight bytes")),
        })),
        _ => None,
    }
}

/// Type and first index of a message, by its first bytes alone: the receiver's index in data and
/// cookie replies, the sender's in initiations and responses.
pub fn kind_and_index(message: &[u8]) -> Option<(u8, u32)> {
    match *message.first_chunk::<8>()? {
        [kind @ INITIATION..=DATA, 0, 0, 0, ..] => Some((kind, u32_at(message, 4))),
        _ => None,
    }
}

/// Writes the header of transport data over the first [`DATA_HEADER_LEN`] bytes.
pub fn write_data_header(message: &mut [u8], header: DataHeader) {
    message[..4].copy_from_slice(&[DATA, 0, 0, 0]);
    message[4..8].copy_from_slice(&header.receiver.to_le_bytes());
    message[8..16].copy_from_slice(&header.counter.to_le_bytes());
}

/// Length of the plaintext with its padding: a multiple of 16, but never above the interface
/// MTU (bytes; `calculate_skb_padding` in drivers/net/wireguard/send.c).
pub fn padded_len(length: usize, mtu: usize) -> usize {
    if mtu == 0 {
        return length.next_multiple_of(crate::limits::PADDING_MULTIPLE);
    }
    let last_unit = if length > mtu { length % mtu } else { length };
    let padded = last_unit.next_multiple_of(crate::limits::PADDING_MULTIPLE).min(mtu);
    length + (padded - last_unit)
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_headers_read_back() {
        let header = DataHeader { receiver: 0x0403_0201, counter: u64::MAX - 1 };
        let mut message = [0u8; DATA_OVERHEAD];
        write_data_header(&mut message, header);
        assert_eq!(classify(&message), Some(Kind::Data(header)));
        assert_eq!(message[4], 1, "the low byte of the index comes first: steering reads it");
    }

    #[test]
    fn wrong_lengths_and_types_are_rejected() {
        assert_eq!(classify(&[]), None);
        assert_eq!(classify(&[DATA, 0, 0]), None);
        assert_eq!(classify(&[DATA; DATA_OVERHEAD]), None, "reserved bytes must be zero");
        let mut initiation = [0u8; INITIATION_LEN];
        initiation[0] = INITIATION;
        assert_eq!(classify(&initiation), Some(Kind::Initiation));
        assert_eq!(classify(&initiation[..INITIATION_LEN - 1]), None);
        let mut data = [0u8; DATA_OVERHEAD];
        data[0] = DATA;
        assert_eq!(classify(&data[..DATA_OVERHEAD - 1]), None);
        data[0] = 5;
        assert_eq!(classify(&data), None);
    }

    #[test]
    fn padding_stays_within_the_mtu() {
        assert_eq!(padded_len(0, 1420), 0);
        assert_eq!(padded_len(1, 1420), 16);
        assert_eq!(padded_len(1408, 1420), 1408);
        assert_eq!(padded_len(1409, 1420), 1420);
        assert_eq!(padded_len(1420, 1420), 1420);
        assert_eq!(padded_len(1421, 1420), 1436, "the rest beyond the MTU is padded alone");
        assert_eq!(padded_len(17, 0), 32);
    }
}
