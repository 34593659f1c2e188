//! The directories of the sockets: below /var/run, or below another directory (`--socket-dir`).

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The directory in which wg(8) has its own, in `wireguard`.
pub const DEFAULT: &str = "/var/run";

static BASE: OnceLock<PathBuf> = OnceLock::new();

/// Sets the directory in which the others are, once for the process: the first one counts.
pub fn set_base(base: &Path) {
    let _ = BASE.set(base.to_owned());
}

/// The directory in which the others are.
pub fn base() -> &'static Path {
    BASE.get().map_or(Path::new(DEFAULT), PathBuf::as_path)
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
