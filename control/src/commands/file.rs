//! Configuration files on disk.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;
use wg_bounce_sys::clock;
use zeroize::Zeroizing;

use super::answer::Failure;
use crate::config_file::model::Config;
use crate::config_file::problem::Severity;
use crate::config_file::read;
use crate::limits::{CONFIG_FILE_MAX, EDIT_WAIT_MAX, INTERFACE_NAME_LEN_MAX, NAME_WAIT_PAUSE};

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
    about: Metadata,
}

impl ConfigFile {
    /// Reads a file, or that of an interface, as wg-quick(8) finds it.
    pub fn read(file_or_name: &str) -> Result<ConfigFile, Failure> {
        let (path, interface) = ConfigFile::locate(file_or_name)?;
        let failed = |error| format!("{}: {error}", path.display());
        ConfigFile::load(fs::canonicalize(&path).map_err(failed)?, interface)
    }

    /// The path of a file, or of that of an interface, and the name of the interface.
    pub fn locate(file_or_name: &str) -> Result<(PathBuf, String), Failure> {
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
        let interface = interface.to_owned();
        Ok((path, interface))
    }

    fn load(path: PathBuf, interface: String) -> Result<ConfigFile, Failure> {
        let failed = |error| format!("{}: {error}", path.display());
        let file = File::open(&path).map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        let mut bytes = Zeroizing::new(Vec::new());
        file.take(CONFIG_FILE_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > CONFIG_FILE_MAX {
            return Err(format!("{}: larger than {CONFIG_FILE_MAX} bytes", path.display()).into());
        }
        let text = match str::from_utf8(&bytes) {
            Ok(text) => Zeroizing::new(text.to_owned()),
            Err(error) => {
                let read = &bytes[..error.valid_up_to()];
                let line = 1 + read.iter().filter(|byte| **byte == b'\n').count();
                let path = path.display();
                return Err(format!(
                    "{path}:{line}: not in UTF-8: convert it, as with iconv -f latin1 -t utf-8"
                )
                .into());
            }
        };
        Ok(ConfigFile { path, interface, text, about })
    }

    /// Its configuration.
    ///
    /// # Errors
    /// It has errors: the first one, with its place.
    pub fn config(&self) -> Result<Config, Failure> {
        let (config, mut problems) = read::read(&self.text);
        problems.retain(|problem| problem.severity == Severity::Error);
        let path = self.path.display();
        match problems.as_slice() {
            [] => Ok(config),
            [problem] => Err(format!("{path}:{problem}").into()),
            [problem, others @ ..] => {
                let count = others.len();
                Err(format!("{path}:{problem} ({count} more: wg-bounce check {path})").into())
            }
        }
    }

    /// Whether other users can change it, and so run commands as this user.
    pub fn can_others_write(&self) -> bool {
        let is_ours = |about: &Metadata| [0, geteuid().as_raw()].contains(&about.uid());
        let is_open = |about: &Metadata| about.mode() & 0o022 != 0 || !is_ours(about);
        let directory = self.path.parent().map(fs::metadata);
        // In a directory with the sticky bit, others cannot replace the file.
        let is_replaceable =
            |directory: &Metadata| is_open(directory) && directory.mode() & 0o1000 == 0;
        is_open(&self.about)
            || directory.is_none_or(|one| one.is_ok_and(|one| is_replaceable(&one)))
    }

    /// Its permissions, without the type.
    pub fn mode(&self) -> u32 {
        self.about.mode() & 0o7777
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
        let ConfigFile { path, interface, .. } = ConfigFile::read(file_or_name)?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        let failed = |error| format!("{}: cannot lock: {error}", parent.display());
        let directory = File::open(parent).map_err(failed)?;
        let directory = lock(directory).map_err(failed)?;
        Ok(Editor { file: ConfigFile::load(path, interface)?, directory })
    }

    /// Replaces the file as a whole, with the same owner and permissions.
    pub fn replace(&self, text: &str) -> Result<(), Failure> {
        let path = &self.file.path;
        let failed = |error: io::Error| format!("{}: cannot write: {error}", path.display());
        let name = path.file_name().unwrap_or_default().display();
        let temporary = path.with_file_name(format!(".{name}.{}.new", std::process::id()));
        // Left by a killed process with this number; the lock excludes living ones.
        let _ = fs::remove_file(&temporary);
        let mut file = create_secret(&temporary).map_err(failed)?;
        let written = self.write(&mut file, text).and_then(|()| fs::rename(&temporary, path));
        if let Err(error) = written {
            let _ = fs::remove_file(&temporary);
            return Err(failed(error).into());
        }
        // The file is there even if that fails.
        let _ = self.directory.sync_all();
        Ok(())
    }

    fn write(&self, file: &mut File, text: &str) -> io::Result<()> {
        file.write_all(text.as_bytes())?;
        let about = &self.file.about;
        fchown(&*file, Some(about.uid()), Some(about.gid()))?;
        file.set_permissions(Permissions::from_mode(self.file.mode()))?;
        file.sync_all()?;
        let now = fs::metadata(&self.file.path)?;
        let stamp =
            |about: &Metadata| (about.ino(), about.size(), about.mtime(), about.mtime_nsec());
        match stamp(&now) == stamp(about) {
            true => Ok(()),
            false => Err(io::Error::other("another program has just changed it: try again")),
        }
    }
}

/// Locks a directory. Who holds the lock for long may be anybody who can read the directory.
fn lock(mut directory: File) -> io::Result<Flock<File>> {
    let deadline = clock::uptime() + EDIT_WAIT_MAX;
    loop {
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Ok(locked),
            Err((_, Errno::EWOULDBLOCK)) if clock::uptime() > deadline => {
                return Err(io::Error::other("another process holds the lock: see fuser -v on it"));
            }
            Err((unlocked, Errno::EWOULDBLOCK)) => directory = unlocked,
            Err((_, errno)) => return Err(errno.into()),
        }
        thread::sleep(NAME_WAIT_PAUSE);
    }
}

/// Creates a file that only its owner can read, and that did not exist.
pub(super) fn create_secret(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Whether wg-quick(8) takes this for the name of an interface.
pub(super) fn is_interface(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_=+.-".contains(&byte);
    (1..=INTERFACE_NAME_LEN_MAX).contains(&name.len()) && name.bytes().all(is_allowed)
}
