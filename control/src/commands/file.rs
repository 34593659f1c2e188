//! Configuration files on disk.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
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
    /// Its group.
    pub group: u32,
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
        let file = File::open(&path).map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        let mut text = Zeroizing::new(String::new());
        let limit = CONFIG_FILE_MAX + 1;
        file.take(limit).read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 == limit {
            return Err(format!("{}: larger than {CONFIG_FILE_MAX} bytes", path.display()).into());
        }
        let (mode, owner, group) = (about.mode() & 0o7777, about.uid(), about.gid());
        let interface = interface.to_owned();
        let path = fs::canonicalize(&path).map_err(failed)?;
        Ok(ConfigFile { path, interface, text, mode, owner, group })
    }
}

/// A configuration file that is being edited. No other `wg-bounce` edits a file of this directory
/// meanwhile.
pub(super) struct Editor {
    /// The file, read since then.
    pub file: ConfigFile,
    directory: Flock<File>,
}

impl Editor {
    /// Waits for other editors, and reads the file.
    pub fn open(file_or_name: &str) -> Result<Editor, Failure> {
        let path = ConfigFile::read(file_or_name)?.path;
        let parent = path.parent().unwrap_or(Path::new("/"));
        let failed = |error| format!("{}: cannot lock: {error}", parent.display());
        let directory = File::open(parent).map_err(failed)?;
        let directory = Flock::lock(directory, FlockArg::LockExclusive)
            .map_err(|(_, errno)| failed(errno.into()))?;
        let file = ConfigFile::read(&path.to_string_lossy())?;
        Ok(Editor { file, directory })
    }

    /// Replaces the file as a whole, with the same owner and permissions.
    pub fn replace(&self, text: &str) -> Result<(), Failure> {
        let path = &self.file.path;
        let failed = |error: io::Error| format!("{}: cannot write: {error}", path.display());
        let temporary = path.with_extension("conf.new");
        // What is left of an editor that was interrupted.
        let _ = fs::remove_file(&temporary);
        let written = self.write(&temporary, text).and_then(|()| fs::rename(&temporary, path));
        if let Err(error) = written {
            let _ = fs::remove_file(&temporary);
            return Err(failed(error).into());
        }
        self.directory.sync_all().map_err(failed)?;
        Ok(())
    }

    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        let mut file = create_secret(path)?;
        file.write_all(text.as_bytes())?;
        let ConfigFile { mode, owner, group, .. } = self.file;
        fchown(&file, Some(owner), Some(group))?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()
    }
}

/// Creates a file that only its owner can read, and that did not exist.
pub(super) fn create_secret(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn is_interface(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_=+.-".contains(&byte);
    (1..=INTERFACE_NAME_LEN_MAX).contains(&name.len()) && name.bytes().all(is_allowed)
}
