//! The socket file: created with the right mode, replaced if stale, monitored, and removed only
//! while it is ours.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, RenameFlags, renameat2};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::geteuid;
use wg_bounce_sys::clock::Millis;

use super::lock::NameLock;
use crate::limits::{UAPI_BACKLOG, UAPI_LOCK_TIME_MAX};
use crate::socket_paths;

/// The monitored socket file; removed on drop if it is still ours.
pub struct SocketFile {
    path: PathBuf,
    /// Whether it is called after the interface.
    is_named: bool,
    identity: Option<Identity>,
    /// Keeps the inode in use, so that its number is not reused.
    _pin: Option<File>,
    watch: Inotify,
}

/// Device and inode number: tells our socket from a later one at the same path.
type Identity = (u64, u64);

/// A failure to create the socket.
#[derive(Debug)]
pub enum SocketError {
    /// Another process listens on it.
    InUse(PathBuf),
    /// Another process holds the lock of its name, which is at this path.
    Locked(PathBuf),
    /// Its directory, chosen by the operator, belongs to another user or is writable for others.
    OpenToOthers(PathBuf),
    /// A file of another kind exists at its path.
    NotASocket(PathBuf),
    /// A system call failed.
    Failed {
        /// The failed operation and its path.
        what: String,
        /// The error.
        source: io::Error,
    },
}

impl fmt::Display for SocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SocketError::InUse(path) => write!(
                f,
                "the socket {} is in use: another daemon serves an interface with this name \
                 (perhaps in another network namespace); stop it or choose another name",
                path.display()
            ),
            SocketError::Locked(path) => write!(
                f,
                "the lock {} is held by another process, perhaps a start that hangs; stop that \
                 process (fuser {} shows it)",
                path.display(),
                path.display()
            ),
            SocketError::OpenToOthers(path) => write!(
                f,
                "other users could replace sockets in {}: it must belong to you or root, with mode \
                 0700 or 0755",
                path.display()
            ),
            SocketError::NotASocket(path) => {
                write!(f, "{} exists but is not a socket; remove it", path.display())
            }
            SocketError::Failed { what, source } => write!(f, "cannot {what}: {source}"),
        }
    }
}

impl std::error::Error for SocketError {}

impl SocketFile {
    /// The path of the socket of the interface `name`.
    pub fn path(directory: &Path, name: &str) -> PathBuf {
        directory.join(format!("{name}.sock"))
    }

    /// Listens on `NAME.sock` in `directory`, which is created if it is missing. Replaces a stale
    /// socket, on which no process listens.
    ///
    /// # Errors
    /// See [`SocketError`].
    pub fn listen(directory: &Path, name: &str) -> Result<(UnixListener, SocketFile), SocketError> {
        let failed = |what: &str, path: &Path, source: io::Error| SocketError::Failed {
            what: format!("{what} {}", path.display()),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| failed("create the directory", directory, error))?;
        if !socket_paths::is_usual() && is_open_to_others(directory) {
            return Err(SocketError::OpenToOthers(directory.to_owned()));
        }
        // Two daemons that find the same stale socket must not both replace it.
        let lock = lock(directory, name, UAPI_LOCK_TIME_MAX)?;
        let path = SocketFile::path(directory, name);
        remove_stale(&path)?;
        // wg(8) removes a socket that it cannot connect to. So the socket is renamed to its path
        // only once it listens.
        let unnamed = directory.join(format!(".{name}.new"));
        let _ = fs::remove_file(&unnamed); // of a start that was killed
        let listener = bind_private(&unnamed)
            .and_then(|listener| fs::rename(&unnamed, &path).map(|()| listener))
            .map_err(|error| failed("listen on", &path, error))?;
        drop(lock);
        let file = SocketFile::watch(path, true)?;
        Ok((listener, file))
    }

    /// Takes over a listening socket inherited from another program (`WG_UAPI_FD`).
    ///
    /// # Errors
    /// See [`SocketError`].
    pub fn inherit(
        fd: OwnedFd,
        directory: &Path,
        name: &str,
    ) -> Result<(UnixListener, SocketFile), SocketError> {
        let listener = UnixListener::from(fd);
        let failed = |source| SocketError::Failed {
            what: "use the descriptor of WG_UAPI_FD as a listening socket".into(),
            source,
        };
        let address = listener.local_addr().map_err(failed)?;
        listener.set_nonblocking(false).map_err(failed)?;
        let path = match address.as_pathname() {
            Some(path) => path.to_owned(),
            None => SocketFile::path(directory, name),
        };
        let is_named = path.file_name() == SocketFile::path(directory, name).file_name();
        Ok((listener, SocketFile::watch(path, is_named)?))
    }

    /// The interface's name in its path; none for an inherited socket that is called otherwise.
    pub fn name(&self) -> Option<&str> {
        self.path.file_stem().and_then(OsStr::to_str).filter(|_| self.is_named)
    }

    /// Renames it to `NAME.sock`, which must not be a live socket of another daemon.
    ///
    /// # Errors
    /// See [`SocketError`]. It keeps its name.
    pub fn rename(&mut self, name: &str) -> Result<(), SocketError> {
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        let path = SocketFile::path(directory, name);
        let _lock = lock(directory, name, Millis::ZERO)?;
        remove_stale(&path)?;
        let flags = RenameFlags::RENAME_NOREPLACE;
        match renameat2(AT_FDCWD, &self.path, AT_FDCWD, &path, flags) {
            Ok(()) => self.path = path,
            Err(Errno::EEXIST) => return Err(SocketError::InUse(path)),
            Err(errno) => {
                let what = format!("rename {} to {}", self.path.display(), path.display());
                return Err(SocketError::Failed { what, source: errno.into() });
            }
        }
        Ok(())
    }

    fn watch(path: PathBuf, is_named: bool) -> Result<SocketFile, SocketError> {
        let failed = |errno: Errno| SocketError::Failed {
            what: format!("watch {}", path.display()),
            source: errno.into(),
        };
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        let watch = Inotify::init(flags).map_err(failed)?;
        // The directory, not the socket, so that renames are noticed too.
        let events = AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF;
        let directory = path.parent().unwrap_or(Path::new("/"));
        watch.add_watch(directory, events).map_err(failed)?;
        let pin = pin(&path).ok();
        let identity = identity(&path);
        Ok(SocketFile { path, is_named, identity, _pin: pin, watch })
    }

    /// Reads the events that made the descriptor readable; returns whether the socket file still
    /// exists and is ours.
    pub fn is_present(&self) -> bool {
        // Until EAGAIN. The events themselves do not matter, only the current state.
        while self.watch.read_events().is_ok() {}
        self.identity.is_none() || identity(&self.path) == self.identity
    }
}

/// Whether users besides root and this one may create files in a directory, or replace it.
fn is_open_to_others(directory: &Path) -> bool {
    const WRITABLE: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    let is_open = |directory: &Path, is_allowed: fn(u32) -> bool| {
        fs::metadata(directory).map_or(true, |metadata| {
            let is_ours = [0, geteuid().as_raw()].contains(&metadata.uid());
            !is_ours || !is_allowed(metadata.mode())
        })
    };
    is_open(directory, |mode| mode & WRITABLE == 0)
        || directory
            .parent()
            .is_none_or(|parent| is_open(parent, |mode| mode & WRITABLE == 0 || mode & STICKY != 0))
}

impl AsFd for SocketFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some()
            && identity(&self.path) == self.identity
            && let Err(error) = fs::remove_file(&self.path)
        {
            log::warn!("UAPI socket {}: cannot remove: {error}", self.path.display());
        }
    }
}

/// Takes the lock of a name, for which it waits `patience` at most.
fn lock(directory: &Path, name: &str, patience: Millis) -> Result<NameLock, SocketError> {
    NameLock::acquire(directory, name, patience).map_err(|error| {
        let path = NameLock::path(directory, name);
        match error.kind() {
            io::ErrorKind::TimedOut => SocketError::Locked(path),
            _ => SocketError::Failed { what: format!("lock {}", path.display()), source: error },
        }
    })
}

fn identity(path: &Path) -> Option<Identity> {
    let metadata = fs::symlink_metadata(path).ok()?;
    metadata.file_type().is_socket().then(|| (metadata.dev(), metadata.ino()))
}

/// A reference to the file that only keeps its inode in use.
fn pin(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
    OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
}

/// Removes a stale socket, on which no process listens.
fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let failed = |source| SocketError::Failed {
        what: format!("replace the stale socket {}", path.display()),
        source,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match probe(path) {
        Err(Errno::ECONNREFUSED) => fs::remove_file(path).map_err(failed),
        // EAGAIN: the backlog is full, so a process listens.
        Ok(()) | Err(Errno::EAGAIN) => Err(SocketError::InUse(path.to_owned())),
        Err(errno) => Err(failed(errno.into())),
    }
}

/// Connects to a socket without waiting for a place in its backlog: a stopped daemon never gives
/// one.
fn probe(path: &Path) -> Result<(), Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)
}

/// Listens on a socket that is accessible to its owner only, from the start: the file inherits the
/// mode of the unbound socket (`unix_bind_bsd`, net/unix/af_unix.c). A umask would affect the whole
/// process.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&socket, Backlog::new(UAPI_BACKLOG)?)?;
    Ok(UnixListener::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Directory {
            let name = format!("wg-bounce-socket-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name).join("wireguard");
            let _ = fs::remove_dir_all(&path);
            Directory(path)
        }

        fn socket(&self) -> PathBuf {
            self.0.join("wg0.sock")
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(self.0.parent().expect("nested"));
        }
    }

    #[test]
    fn modes_are_tight_and_nothing_is_left_behind() {
        let directory = Directory::new("modes");
        let (_listener, file) = SocketFile::listen(&directory.0, "wg0").expect("free");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&directory.0), 0o700);
        assert_eq!(mode(&directory.socket()), 0o600);
        assert!(file.is_present());
        drop(file);
        assert_eq!(fs::read_dir(&directory.0).expect("readable").count(), 0);
    }

    #[test]
    fn a_live_socket_is_in_use_and_a_stale_one_is_replaced() {
        let directory = Directory::new("live");
        let (listener, mut file) = SocketFile::listen(&directory.0, "wg0").expect("free");
        let error = SocketFile::listen(&directory.0, "wg0").err().expect("taken");
        assert!(matches!(error, SocketError::InUse(_)), "{error}");
        assert!(error.to_string().contains("in use"));
        assert!(file.is_present(), "the second start left it alone");
        drop(listener);
        file.identity = None; // as after a crash: nothing is removed
        drop(file);
        assert!(SocketFile::listen(&directory.0, "wg0").is_ok());
    }

    #[test]
    fn a_socket_with_a_full_backlog_is_in_use() {
        let directory = Directory::new("backlog");
        let (_listener, _file) = SocketFile::listen(&directory.0, "wg0").expect("free");
        let path = directory.socket();
        while probe(&path).is_ok() {}
        assert_eq!(probe(&path), Err(Errno::EAGAIN));
        let error = SocketFile::listen(&directory.0, "wg0").err().expect("taken");
        assert!(matches!(error, SocketError::InUse(_)), "{error}");
    }

    #[test]
    fn the_lock_left_by_a_killed_process_is_taken_over() {
        let directory = Directory::new("lock");
        fs::create_dir_all(&directory.0).expect("made");
        let path = NameLock::path(&directory.0, "wg0");
        fs::write(&path, "").expect("written");
        let lock = NameLock::acquire(&directory.0, "wg0", Millis::ZERO).expect("free");
        assert!(path.exists());
        drop(lock);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_of_another_kind_is_left_alone() {
        let directory = Directory::new("kind");
        fs::create_dir_all(&directory.0).expect("made");
        fs::write(directory.socket(), "precious").expect("written");
        let error = SocketFile::listen(&directory.0, "wg0").err().expect("refused");
        assert!(matches!(error, SocketError::NotASocket(_)), "{error}");
        assert_eq!(fs::read_to_string(directory.socket()).expect("there"), "precious");
    }

    #[test]
    fn deletion_and_replacement_are_noticed() {
        let directory = Directory::new("deleted");
        let (_listener, file) = SocketFile::listen(&directory.0, "wg0").expect("free");
        fs::write(directory.0.join("other"), "").expect("written");
        assert!(file.is_present(), "other files do not matter");
        fs::remove_file(directory.socket()).expect("removed");
        assert!(!file.is_present());
        let _other = UnixListener::bind(directory.socket()).expect("free");
        assert!(!file.is_present(), "another process's");
        drop(file);
        assert!(directory.socket().exists(), "and so it stays");
    }

    #[test]
    fn a_renamed_file_is_not_taken_for_a_deleted_one() {
        let directory = Directory::new("renamed");
        let (_listener, mut file) = SocketFile::listen(&directory.0, "wg0").expect("free");
        let (_other, other_file) = SocketFile::listen(&directory.0, "wg1").expect("free");
        let error = file.rename("wg1").expect_err("taken");
        assert!(matches!(error, SocketError::InUse(_)), "{error}");
        assert!(file.is_present() && other_file.is_present());
        let stale = UnixListener::bind(directory.0.join("wg2.sock")).expect("free");
        drop(stale);
        file.rename("wg2").expect("a stale socket is replaced");
        assert_eq!(file.name(), Some("wg2"));
        assert!(file.is_present() && !directory.socket().exists());
        assert!(UnixStream::connect(directory.0.join("wg2.sock")).is_ok());
        drop((file, other_file));
        assert_eq!(fs::read_dir(&directory.0).expect("readable").count(), 0);
    }

    #[test]
    fn an_inherited_listener_serves() {
        let directory = Directory::new("inherited");
        fs::create_dir_all(&directory.0).expect("made");
        let fd = OwnedFd::from(UnixListener::bind(directory.socket()).expect("free"));
        let (listener, file) = SocketFile::inherit(fd, &directory.0, "wg0").expect("usable");
        let _client = UnixStream::connect(directory.socket()).expect("listening");
        assert!(listener.accept().is_ok());
        drop(file);
        assert!(!directory.socket().exists());
    }
}
