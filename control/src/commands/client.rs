//! Requests to a running daemon.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use wg_bounce_uapi::types::Errno;
use zeroize::Zeroizing;

use crate::limits::CLIENT_TIME_MAX;

/// The reply to a request.
pub(super) struct Reply {
    /// Its lines without the last one.
    pub lines: Vec<Zeroizing<String>>,
    /// The last one.
    pub errno: Errno,
}

/// Asks the daemon whose socket is at `path`.
///
/// # Errors
/// Those of the socket; WouldBlock: the daemon does not answer. InvalidData: it does not know the
/// request.
pub(super) fn ask(path: &Path, request: &str) -> io::Result<Reply> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(CLIENT_TIME_MAX))?;
    stream.set_write_timeout(Some(CLIENT_TIME_MAX))?;
    stream.write_all(request.as_bytes())?;
    let mut lines = Vec::new();
    for line in BufReader::new(stream).lines() {
        let line = Zeroizing::new(line?);
        match line.strip_prefix("errno=").map(str::parse) {
            Some(Ok(errno)) => return Ok(Reply { lines, errno: Errno(errno) }),
            _ => lines.push(line),
        }
    }
    let reason = "the daemon does not know this request, or has ended";
    Err(io::Error::new(io::ErrorKind::InvalidData, reason))
}
