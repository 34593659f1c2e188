//! Public keys and names of peers in log lines.

use std::collections::HashMap;
use std::fmt;
use std::sync::{PoisonError, RwLock};

use base64ct::{Base64, Encoding as _};

use crate::config_file::quote::printable;

/// The names of peers in the configuration file, as far as the daemon was told.
static NAMES: RwLock<Option<HashMap<[u8; 32], String>>> = RwLock::new(None);

/// Names these peers, and no others, from now on.
pub(crate) fn set_names(names: impl IntoIterator<Item = ([u8; 32], String)>) {
    let names = names.into_iter().map(|(key, name)| (key, printable(&name).replace('\n', "\\n")));
    let mut names = Some(names.collect());
    std::mem::swap(&mut *NAMES.write().unwrap_or_else(PoisonError::into_inner), &mut names);
    // The old ones are freed here, without the lock.
}

/// The name of a peer.
pub(crate) fn name_of(key: &[u8; 32]) -> Option<String> {
    NAMES.read().unwrap_or_else(PoisonError::into_inner).as_ref()?.get(key).cloned()
}

/// A public key abbreviated as in wireguard-go: its first and last four characters in base64,
/// enough to find it in the output of wg(8); and the name, if it has one.
pub(crate) struct ShortKey<'a>(pub(crate) &'a [u8; 32]);

impl fmt::Display for ShortKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Base64::encode_string(self.0);
        write!(f, "{}…{}", &text[..4], &text[40..])?;
        match name_of(self.0) {
            Some(name) => write!(f, " {name}"),
            None => Ok(()),
        }
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
        set_names([([255; 32], "al\nice".to_owned())]);
        assert_eq!(ShortKey(&[255; 32]).to_string(), "////…//8= al\\nice");
        assert_eq!(ShortKey(&key).to_string(), "AAEC…Hh8=");
    }
}
