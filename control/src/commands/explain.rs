//! `wg-bounce explain`: asks a running daemon for the way of packets between two addresses.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use wg_bounce_uapi::render::render_explain;
use wg_bounce_uapi::types::{Errno, Explain, Protocol, Service};

use super::answer::Failure;
use super::client::{self, Reply};
use crate::socket_paths;
use crate::uapi_server::socket::SocketFile;

/// Arguments of the command.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Address of one peer
    #[arg(value_name = "SRC")]
    source: IpAddr,

    /// Address of another peer, of the same IP version
    #[arg(value_name = "DST")]
    destination: IpAddr,

    /// Service at DST that the packets are for, as `tcp 443`; otherwise all packets
    #[arg(value_name = "tcp|udp", requires = "port")]
    protocol: Option<Protocol>,

    /// Its port
    #[arg(value_name = "PORT")]
    port: Option<u16>,

    /// Interface; may be left out if only one daemon runs
    #[arg(long = "on", value_name = "NAME")]
    interface: Option<String>,
}

/// Asks, and returns the answer.
pub(super) fn run(arguments: &Arguments) -> Result<String, Failure> {
    let Arguments { source, destination, protocol, port, interface } = arguments;
    if source.is_ipv4() != destination.is_ipv4() {
        let reason = format!("{source} and {destination} are of different IP versions");
        return Err(Failure { code: 2, reason });
    }
    let path = match interface {
        Some(name) => SocketFile::path(&socket_paths::uapi(), name),
        None => only_socket()?,
    };
    let service = protocol.zip(*port).map(|(protocol, port)| Service { protocol, port });
    let question = Explain { source: *source, destination: *destination, service };
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::InvalidData => format!("{}: {error}", path.display()),
        io::ErrorKind::WouldBlock => format!("{}: the daemon does not answer", path.display()),
        _ => format!("cannot ask at {}: {error}", path.display()),
    };
    Ok(ask(&path, &question).map_err(failed)?)
}

/// The one socket of a daemon.
fn only_socket() -> Result<PathBuf, String> {
    let directory = socket_paths::uapi();
    let shown = directory.display();
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(format!("cannot look into {shown}: {error}"));
        }
        entries => entries.into_iter().flatten().flatten().map(|one| one.path()),
    };
    let mut sockets: Vec<PathBuf> =
        entries.filter(|path| path.extension() == Some(OsStr::new("sock"))).collect();
    match (sockets.pop(), sockets.is_empty()) {
        (Some(path), true) => Ok(path),
        (Some(_), false) => {
            Err(format!("{shown} has several sockets: name the interface with --on"))
        }
        (None, _) => Err(format!("no daemon runs: {shown} has no socket")),
    }
}

fn ask(path: &Path, question: &Explain) -> io::Result<String> {
    let Reply { lines, errno } = client::ask(path, &render_explain(question))?;
    if errno == Errno::BUSY {
        let reason = "the daemon is reading the rules, or cannot see its interface";
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    if errno != Errno::OK {
        let reason = format!("the daemon refuses (errno {})", errno.0);
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    Ok(lines
        .iter()
        .filter_map(|line| line.strip_prefix("line="))
        .fold(String::new(), |text, line| text + line + "\n"))
}
