//! The HTTP server of metrics. A thread accepts; a short-lived one serves each client, which has a
//! few seconds.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fmt, fs, thread};

use wg_bounce_sys::clock;

use super::text::{MEDIA_TYPE, render};
use crate::limits::{
    CLIENT_TIME_MAX, METRICS_AGE_MAX, METRICS_HEAD_LEN_MAX, METRICS_REST_LEN_MAX, UAPI_ACCEPT_PAUSE,
};
use crate::status::deadline::{Deadline, Stream};
use crate::status::server::{Admitted, Asker, Clients};

/// The place of the server: an address and a TCP port, or a UNIX socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// TCP.
    Address(SocketAddr),
    /// The path of a UNIX socket.
    Path(PathBuf),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Place, String> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| path.starts_with('/')) {
            return Ok(Place::Path(PathBuf::from(path)));
        }
        // Without an address, this host alone: the metrics name the peers.
        let address = match text.strip_prefix(':') {
            Some(port) => format!("127.0.0.1:{port}").parse(),
            None => text.parse(),
        };
        address.map(Place::Address).map_err(|_| {
            "write 127.0.0.1:9586, [::1]:9586, :9586 for this host alone, or unix:/PATH".to_owned()
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Address(address) => write!(f, "http://{address}/metrics"),
            Place::Path(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A listening socket.
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// UNIX.
    Unix(UnixListener),
}

impl Listener {
    /// Listens. A UNIX socket that is left over is replaced.
    ///
    /// # Errors
    /// Those of bind(2), as EADDRINUSE.
    pub fn open(place: &Place) -> io::Result<Listener> {
        match place {
            Place::Address(address) => TcpListener::bind(address).map(Listener::Tcp),
            Place::Path(path) => {
                let is_socket = |metadata: fs::Metadata| metadata.file_type().is_socket();
                if fs::symlink_metadata(path).is_ok_and(is_socket)
                    && UnixStream::connect(path).is_err()
                {
                    fs::remove_file(path)?;
                }
                UnixListener::bind(path).map(Listener::Unix)
            }
        }
    }

    fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Listener::Tcp(listener) => Ok(Box::new(listener.accept()?.0)),
            Listener::Unix(listener) => Ok(Box::new(listener.accept()?.0)),
        }
    }
}

/// The text that is served.
struct Source {
    asker: Asker,
    has_names: bool,
    /// The last text, and its time. One thread at a time writes a new one.
    last: Mutex<Option<(Duration, Arc<str>)>>,
}

impl Source {
    /// A text that is a second old at most: collecting and writing it for many peers costs time
    /// and memory. None if the daemon is shutting down.
    fn text(&self) -> Option<Arc<str>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::uptime();
        if let Some((time, text)) = &*last
            && now.saturating_sub(*time) < METRICS_AGE_MAX
        {
            return Some(Arc::clone(text));
        }
        let text: Arc<str> = render(self.asker.report()?, self.has_names).into();
        *last = Some((clock::uptime(), Arc::clone(&text)));
        Some(text)
    }
}

/// Starts to serve, on threads that end with the process.
///
/// # Errors
/// The thread cannot be created.
pub fn start(listener: Listener, asker: Asker, has_names: bool) -> io::Result<()> {
    let clients = Arc::new(Clients::default());
    let source = Arc::new(Source { asker, has_names, last: Mutex::new(None) });
    let accept = move || loop {
        let stream = match listener.accept() {
            Ok(stream) => stream,
            Err(error) => {
                log::debug!("metrics: cannot accept: {error}");
                thread::sleep(UAPI_ACCEPT_PAUSE);
                continue;
            }
        };
        // One client too many is not served: its connection is closed here.
        let Some(admitted) = Admitted::new(&clients) else { continue };
        let source = Arc::clone(&source);
        let serve = move || {
            let stream = Deadline::new(stream, CLIENT_TIME_MAX);
            if let Err(error) = serve(stream, &source) {
                log::debug!("metrics: {error}");
            }
            drop(admitted);
        };
        if let Err(error) = thread::Builder::new().name("metrics client".into()).spawn(serve) {
            log::error!("metrics: cannot spawn a thread: {error}");
        }
    };
    thread::Builder::new().name("metrics".into()).spawn(accept).map(drop)
}

/// Serves one request.
fn serve(mut stream: Deadline, source: &Source) -> io::Result<()> {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    let answer = loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        head.extend_from_slice(&buffer[..length]);
        match request(&head) {
            Head::Partial if head.len() < METRICS_HEAD_LEN_MAX => {}
            Head::Partial => break Err("431 Request Header Fields Too Large"),
            Head::Broken => break Err("400 Bad Request"),
            Head::Whole { is_get: false, .. } => break Err("405 Method Not Allowed"),
            Head::Whole { is_known: false, .. } => break Err("404 Not Found"),
            Head::Whole { .. } => break Ok(()),
        }
    };
    let text = answer.and_then(|()| source.text().ok_or("503 Service Unavailable"));
    let (status, media_type, body) = match text {
        Ok(text) => ("200 OK", MEDIA_TYPE, text),
        Err(status) => (status, "text/plain", format!("{status}\n").into()),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n\
         Allow: GET\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    stream.finish()?;
    // If anything were left unread, closing would discard the response on its way (RFC 9112 §9.6).
    let mut rest = stream.take(METRICS_REST_LEN_MAX);
    io::copy(&mut rest, &mut io::sink()).map(drop)
}

/// The head of a request.
enum Head {
    Partial,
    Broken,
    Whole { is_get: bool, is_known: bool },
}

fn request(bytes: &[u8]) -> Head {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Partial) => Head::Partial,
        Err(_) => Head::Broken,
        Ok(httparse::Status::Complete(_)) => {
            let path = request.path.unwrap_or_default();
            let path = path.split('?').next().unwrap_or_default();
            Head::Whole { is_get: request.method == Some("GET"), is_known: path == "/metrics" }
        }
    }
}

#[cfg(test)]
mod tests {
    mod fuzz;

    use super::*;

    #[test]
    fn places_are_read() {
        let place = |text: &str| text.parse::<Place>().map(|place| place.to_string());
        assert_eq!(place(":9586").expect("a port"), "http://127.0.0.1:9586/metrics");
        assert_eq!(place("[::]:9586").expect("an address"), "http://[::]:9586/metrics");
        assert_eq!(place("unix:/run/m.sock").expect("a path"), "unix:/run/m.sock");
        for wrong in ["9586", "unix:m.sock", "localhost:9586", ""] {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }
}
