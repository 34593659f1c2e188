//! `wg-bounce explain`: asks a running daemon for the way of packets between two addresses.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser};
use wg_bounce_uapi::render::render_explain;
use wg_bounce_uapi::types::{Errno, Explain, Protocol, Service};

use crate::limits::EXPLAIN_TIME_MAX;
use crate::options::UsageError;
use crate::uapi_server::socket::{DIRECTORY, SocketFile};

/// Says whether packets between two peers are relayed directly, and which rules of the firewall
/// they meet, in both directions
#[derive(Parser)]
#[command(name = "wg-bounce explain")]
struct Arguments {
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

/// Whether the arguments are for this command. (An interface may be called so behind an option.)
pub(super) fn is_meant() -> bool {
    std::env::args_os().nth(1).is_some_and(|word| word == "explain")
}

/// Asks, and prints the answer. Exit codes: 0 with an answer, 1 without, 2 for wrong usage.
pub(super) fn run() -> ExitCode {
    let arguments = match Arguments::try_parse_from(std::env::args_os().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            return ExitCode::from(UsageError::new(error, &Arguments::command()).print());
        }
    };
    match answer(&arguments) {
        Ok(text) => {
            // The reader may have seen enough.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(Failure { code, reason }) => {
            eprintln!("wg-bounce explain: {reason}");
            ExitCode::from(code)
        }
    }
}

/// A failure, with the exit code.
struct Failure {
    code: u8,
    reason: String,
}

impl From<String> for Failure {
    fn from(reason: String) -> Failure {
        Failure { code: 1, reason }
    }
}

fn answer(arguments: &Arguments) -> Result<String, Failure> {
    let Arguments { source, destination, protocol, port, interface } = arguments;
    if source.is_ipv4() != destination.is_ipv4() {
        let reason = format!("{source} and {destination} are of different IP versions");
        return Err(Failure { code: 2, reason });
    }
    let path = match interface {
        Some(name) => SocketFile::path(Path::new(DIRECTORY), name),
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
    let entries = match fs::read_dir(DIRECTORY) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(format!("cannot look into {DIRECTORY}: {error}"));
        }
        entries => entries.into_iter().flatten().flatten().map(|one| one.path()),
    };
    let mut sockets: Vec<PathBuf> =
        entries.filter(|path| path.extension() == Some(OsStr::new("sock"))).collect();
    match (sockets.pop(), sockets.is_empty()) {
        (Some(path), true) => Ok(path),
        (Some(_), false) => {
            Err(format!("{DIRECTORY} has several sockets: name the interface with --on"))
        }
        (None, _) => Err(format!("no daemon runs: {DIRECTORY} has no socket")),
    }
}

fn ask(path: &Path, question: &Explain) -> io::Result<String> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(EXPLAIN_TIME_MAX))?;
    stream.set_write_timeout(Some(EXPLAIN_TIME_MAX))?;
    stream.write_all(render_explain(question).as_bytes())?;
    let mut text = String::new();
    for line in BufReader::new(stream).lines() {
        match line?.split_once('=') {
            Some(("line", line)) => text += &format!("{line}\n"),
            Some(("errno", "0")) => return Ok(text),
            Some(("errno", errno)) if errno == Errno::BUSY.0.to_string() => {
                let reason = "the daemon is reading the rules, or cannot see its interface";
                return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
            }
            Some(("errno", errno)) => {
                let reason = format!("the daemon refuses (errno {errno})");
                return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
            }
            _ => {}
        }
    }
    let reason = "the daemon does not know `explain`, or has ended";
    Err(io::Error::new(io::ErrorKind::InvalidData, reason))
}
