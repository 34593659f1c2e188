//! Public keys in log lines.

use std::fmt;

use base64ct::{Base64, Encoding as _};

/// A public key abbreviated as in wireguard-go: its first and last four characters in base64,
/// enough to find it in the output of wg(8).
pub(crate) struct ShortKey<'a>(pub(crate) &'a [u8; 32]);

impl fmt::Display for ShortKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Base64::encode_string(self.0);
        write!(f, "{}…{}", &text[..4], &text[40..])
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
