//! The directories of the sockets: below /var/run, or below another directory (`--socket-dir`).

use std::path::{self, Path, PathBuf};
use std::sync::{PoisonError, RwLock};

/// The directory in which wg(8) has its own, in `wireguard`.
const DEFAULT: &str = "/var/run";

static BASE: RwLock<Option<PathBuf>> = RwLock::new(None);

/// Sets the directory in which the others are.
pub fn set_base(base: &Path) {
    // A start in the background changes to another directory.
    let base = path::absolute(base).unwrap_or_else(|_| base.to_owned());
    *BASE.write().unwrap_or_else(PoisonError::into_inner) = Some(base);
}

/// The directory in which the others are.
pub fn base() -> PathBuf {
    let base = BASE.read().unwrap_or_else(PoisonError::into_inner);
    base.clone().unwrap_or_else(|| DEFAULT.into())
}

/// Whether the directory is the usual one, in which only root can create others.
pub fn is_usual() -> bool {
    base() == Path::new(DEFAULT)
}

/// The directory of UAPI sockets: by default the one in which wg(8) looks for them.
pub fn uapi() -> PathBuf {
    base().join("wireguard")
}

/// The directory of status sockets. wg(8) would take those in its own for interfaces.
pub fn status() -> PathBuf {
    base().join("wg-bounce")
}

/// The directory of the sockets of `wg-bounce up`.
pub fn up() -> PathBuf {
    status().join("up")
}
