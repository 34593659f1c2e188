//! Public keys in log lines.

use std::fmt;

/// The alphabet of base64 (RFC 4648, section 4).
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A public key abbreviated as in wireguard-go: its first and last four characters in base64,
/// enough to find it in the output of wg(8).
pub(crate) struct ShortKey<'a>(pub(crate) &'a [u8; 32]);

impl fmt::Display for ShortKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let character = |position: usize| {
            let bit = position * 6;
            let pair = [self.0[bit / 8], self.0.get(bit / 8 + 1).copied().unwrap_or(0)];
            let index = u16::from_be_bytes(pair) >> (10 - bit % 8) & 63;
            char::from(ALPHABET[usize::from(index)])
        };
        // 43 characters carry the key; the 44th is padding.
        let (first, last): (String, String) =
            ((0..4).map(character).collect(), (40..43).map(character).collect());
        write!(f, "{first}…{last}=")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_as_in_base64() {
        let key = std::array::from_fn(|at| at as u8);
        // AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=
        assert_eq!(ShortKey(&key).to_string(), "AAEC…Hh8=");
        assert_eq!(ShortKey(&[255; 32]).to_string(), "////…//8=");
    }
}
