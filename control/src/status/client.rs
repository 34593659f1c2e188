//! Requests to the status socket of a daemon.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write as _};
use std::os::unix::net::UnixStream;

use base64ct::{Base64, Encoding as _};

use super::{Reply, Request, VERSION, Verb};
use crate::config_file::state::Wanted;
use crate::limits::CLIENT_TIME_MAX;
use crate::socket_paths;
use crate::uapi_server::socket::SocketFile;

/// Tells the daemon of this interface the names of all peers that have one.
///
/// # Errors
/// As for [`ask`].
pub fn name_peers(interface: &str, peers: &BTreeMap<[u8; 32], Wanted<'_>>) -> io::Result<()> {
    let name = |(key, peer): (&[u8; 32], &Wanted<'_>)| {
        Some((Base64::encode_string(key), peer.name?.to_owned()))
    };
    let names = peers.iter().filter_map(name).collect();
    ask(interface, Verb::Name { names }).map(drop)
}

/// Asks the daemon of this interface.
///
/// # Errors
/// Those of the socket: `NotFound` and `ConnectionRefused`: there is no such daemon; `WouldBlock`:
/// it does not answer. `InvalidData`: it refuses, or is of another version.
pub fn ask(interface: &str, verb: Verb) -> io::Result<Reply> {
    open(interface, verb).map(|(reply, _)| reply)
}

/// The events of this interface from now on, a line of JSON each.
///
/// # Errors
/// As for [`ask`].
pub fn events(interface: &str) -> io::Result<impl BufRead> {
    let (_, lines) = open(interface, Verb::Events)?;
    lines.get_ref().set_read_timeout(None)?;
    Ok(lines)
}

/// The reply to a request, and what follows it.
fn open(interface: &str, verb: Verb) -> io::Result<(Reply, BufReader<UnixStream>)> {
    let path = SocketFile::path(&socket_paths::status(), interface);
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(CLIENT_TIME_MAX))?;
    stream.set_write_timeout(Some(CLIENT_TIME_MAX))?;
    let mut line = serde_json::to_vec(&Request { version: VERSION, verb })?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let (mut line, mut lines) = (Vec::new(), BufReader::new(stream));
    lines.read_until(b'\n', &mut line)?;
    let reply: Reply = serde_json::from_slice(&line)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    match reply.error {
        Some(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        None => Ok((reply, lines)),
    }
}
