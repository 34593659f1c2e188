//! The socket through which other commands reach a running `wg-bounce up`: a line of JSON for the
//! request, and one for the reply.

use std::env;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::hooks::HOOK;
use crate::limits::UP_REQUEST_TIME_MAX;
use crate::socket_paths;
use crate::status::deadline::Deadline;
use crate::uapi_server::socket::{SocketError, SocketFile};

/// The version of the protocol.
const VERSION: u32 = 1;

/// The longest line (bytes).
const LINE_LEN_MAX: u64 = 4096;

/// The action that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verb {
    /// Take the interface down, and end.
    Down,
    /// Apply the file as it is now.
    Reload,
    /// Write the running configuration to the file.
    Save,
}

/// A request.
#[derive(Serialize, Deserialize)]
struct Request {
    version: u32,
    request: Verb,
}

/// A reply: an error, or what was done.
#[derive(Serialize, Deserialize)]
struct Reply {
    version: u32,
    error: Option<String>,
    #[serde(default)]
    text: String,
}

/// The socket of this process, which is removed on drop.
pub(super) struct Requests {
    listener: UnixListener,
    _file: SocketFile,
}

/// A request that waits for its reply.
pub(super) struct Waiting {
    /// The action.
    pub verb: Verb,
    stream: UnixStream,
}

/// A path for a file of this interface that only root can reach.
pub(super) fn private_path(interface: &str, kind: &str) -> PathBuf {
    socket_paths::up().join(format!(".{interface}.{kind}"))
}

impl Requests {
    /// Listens for requests about this interface. Only one process can.
    ///
    /// # Errors
    /// Another one does.
    pub fn listen(interface: &str) -> Result<Requests, String> {
        match SocketFile::listen(&socket_paths::up(), interface) {
            Ok((listener, file)) => {
                listener.set_nonblocking(true).map_err(|error| error.to_string())?;
                Ok(Requests { listener, _file: file })
            }
            Err(SocketError::InUse(_)) => Err(format!(
                "another wg-bounce up runs {interface}: stop it with wg-bounce down {interface}"
            )),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The next request, if there is one. A caller that sends something else is told so.
    pub fn next(&self) -> Option<Waiting> {
        let (stream, _) = self.listener.accept().ok()?;
        match read_request(&stream) {
            Ok(verb) => Some(Waiting { verb, stream }),
            Err(error) => {
                reply(&stream, Err(error));
                None
            }
        }
    }

    /// The descriptor that is readable when there is a request.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Waiting {
    /// Ends it with this result.
    pub fn reply(self, result: Result<String, String>) {
        reply(&self.stream, result);
    }
}

fn read_request(stream: &UnixStream) -> Result<Verb, String> {
    stream.set_nonblocking(false).map_err(|error| error.to_string())?;
    // Nothing else happens meanwhile.
    let read = || {
        let stream = Deadline::new(Box::new(stream.try_clone()?), UP_REQUEST_TIME_MAX);
        let mut line = String::new();
        BufReader::new(stream.take(LINE_LEN_MAX)).read_line(&mut line)?;
        Ok(line)
    };
    let line = read().map_err(|error: io::Error| error.to_string())?;
    let request: Request =
        serde_json::from_str(&line).map_err(|error| format!("not a request: {error}"))?;
    match request.version {
        VERSION => Ok(request.request),
        other => Err(format!("version {other} of a request; this process knows {VERSION}")),
    }
}

fn reply(mut stream: &UnixStream, result: Result<String, String>) {
    let (text, error) = match result {
        Ok(text) => (text, None),
        Err(error) => (String::new(), Some(error)),
    };
    // The caller may have left.
    if let Ok(line) = serde_json::to_string(&Reply { version: VERSION, error, text }) {
        let _ = stream.write_all(format!("{line}\n").as_bytes());
    }
}

/// Asks the process that runs this interface.
///
/// # Errors
/// There is none, or it refuses.
pub(super) fn ask(interface: &str, verb: Verb) -> Result<String, String> {
    if env::var_os(HOOK).is_some_and(|of| of == interface) {
        return Err(format!(
            "this is a hook of {interface}, whose wg-bounce up waits for its end: it cannot do \
             anything else now (SaveConfig = true saves at the end)"
        ));
    }
    let path = SocketFile::path(&socket_paths::up(), interface);
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => format!(
            "no wg-bounce up runs {interface}; an interface of wg-quick up is taken down with \
             wg-quick down {interface}"
        ),
        io::ErrorKind::PermissionDenied => format!("{}: {error}: use sudo", path.display()),
        _ => format!("{}: {error}", path.display()),
    };
    let mut stream = UnixStream::connect(&path).map_err(failed)?;
    let request = Request { version: VERSION, request: verb };
    let request = serde_json::to_string(&request).map_err(|error| error.to_string())?;
    stream.write_all(format!("{request}\n").as_bytes()).map_err(failed)?;
    // Hooks may take their time.
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).map_err(failed)?;
    let reply: Reply = serde_json::from_str(&line)
        .map_err(|_| format!("{}: the process ended before it had replied", path.display()))?;
    match reply.error {
        None => Ok(reply.text),
        Some(error) => Err(error),
    }
}
