//! Configuration files on disk.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::answer::Failure;
use crate::limits::{CONFIG_FILE_MAX, INTERFACE_NAME_LEN_MAX};

/// The directory of files that are called by the name of their interface.
const DIRECTORY: &str = "/etc/wireguard";

/// A file that was read.
pub(super) struct ConfigFile {
    /// Its path.
    pub path: PathBuf,
    /// The interface that it is called after.
    pub interface: String,
    /// Its content.
    pub text: Zeroizing<String>,
    /// Its permissions, without the type.
    pub mode: u32,
    /// Its owner.
    pub owner: u32,
}

impl ConfigFile {
    /// Reads a file, or that of an interface, as wg-quick(8) finds it.
    pub fn read(file_or_name: &str) -> Result<ConfigFile, Failure> {
        let is_name = is_interface(file_or_name) && !file_or_name.ends_with(".conf");
        let path = match is_name {
            true => Path::new(DIRECTORY).join(format!("{file_or_name}.conf")),
            false => PathBuf::from(file_or_name),
        };
        let interface = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".conf"));
        let Some(interface) = interface.filter(|name| is_interface(name)) else {
            return Err(format!(
                "{}: the file must be called after its interface, as wg0.conf: at most \
                 {INTERFACE_NAME_LEN_MAX} letters, digits and any of _=+.-",
                path.display()
            )
            .into());
        };
        let failed = |error| format!("{}: {error}", path.display());
        let mut file = File::open(&path).map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        let mut text = Zeroizing::new(String::new());
        let limit = CONFIG_FILE_MAX + 1;
        file.by_ref().take(limit).read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 == limit {
            return Err(format!("{}: larger than {CONFIG_FILE_MAX} bytes", path.display()).into());
        }
        let (interface, mode, owner) = (interface.to_owned(), about.mode() & 0o7777, about.uid());
        let path = fs::canonicalize(&path).map_err(failed)?;
        Ok(ConfigFile { path, interface, text, mode, owner })
    }
}

fn is_interface(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_=+.-".contains(&byte);
    (1..=INTERFACE_NAME_LEN_MAX).contains(&name.len()) && name.bytes().all(is_allowed)
}
