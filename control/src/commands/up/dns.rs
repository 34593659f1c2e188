//! The servers and search domains in `DNS`, given to whichever of resolvconf(8) and resolvectl(1)
//! this host has.

use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::process::{Command, ExitStatus, Stdio};

use wg_bounce_sys::inherit;

use super::signals::Signals;
use crate::config_file::model::Config;

/// The servers for names, and the search domains.
#[derive(PartialEq, Eq)]
pub(super) struct Servers {
    /// The servers.
    pub addresses: Vec<IpAddr>,
    /// The search domains.
    pub domains: Vec<String>,
}

impl Servers {
    /// Those of a configuration. As with wg-quick(8), domains without a server are none.
    pub fn of(config: &Config) -> Option<Servers> {
        let interface = &config.interface;
        let (addresses, domains) = (interface.dns.clone(), interface.search_domains.clone());
        (!addresses.is_empty()).then_some(Servers { addresses, domains })
    }
}

/// Uses these servers, and no others, while the interface is up, as with wg-quick(8).
///
/// # Errors
/// The host has neither program, or it failed.
pub(super) fn set(
    interface: &str,
    servers: &[IpAddr],
    domains: &[String],
    signals: &mut Signals,
) -> Result<(), String> {
    let mut text: String = servers.iter().map(|one| format!("nameserver {one}\n")).collect();
    if !domains.is_empty() {
        text += &format!("search {}\n", domains.join(" "));
    }
    let name = prefix() + interface;
    let arguments = ["-a", &name, "-m", "0", "-x"];
    match run("resolvconf", &arguments, &text, signals) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => return finished("resolvconf", result),
    }
    let servers: Vec<String> = servers.iter().map(IpAddr::to_string).collect();
    let arguments = ["dns", interface].into_iter().chain(servers.iter().map(String::as_str));
    match run("resolvectl", &arguments.collect::<Vec<_>>(), "", signals) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err("DNS: this host has neither resolvconf nor resolvectl: install one of \
                        them, or remove the line"
                .to_owned());
        }
        result => finished("resolvectl", result)?,
    }
    // All names are looked up there, not only those of the search domains.
    let arguments = ["domain", interface, "~."];
    let arguments = arguments.into_iter().chain(domains.iter().map(String::as_str));
    finished("resolvectl", run("resolvectl", &arguments.collect::<Vec<_>>(), "", signals))
}

/// Stops using them.
///
/// # Errors
/// As for [`set`].
pub(super) fn unset(interface: &str, signals: &mut Signals) -> Result<(), String> {
    let name = prefix() + interface;
    match run("resolvconf", &["-d", &name, "-f"], "", signals) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            finished("resolvectl", run("resolvectl", &["revert", interface], "", signals))
        }
        result => finished("resolvconf", result),
    }
}

/// Runs a program; its errors go where those of this process go. It may leave others behind, which
/// keep that open.
fn run(
    program: &str,
    arguments: &[&str],
    input: &str,
    signals: &mut Signals,
) -> io::Result<ExitStatus> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = inherit::unblock_signals(&mut command).spawn()?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program that reads nothing says itself what is wrong.
        let _ = pipe.write_all(input.as_bytes());
    }
    signals.wait(&mut child)
}

fn finished(program: &str, result: io::Result<ExitStatus>) -> Result<(), String> {
    let status = result.map_err(|error| format!("DNS: {program}: {error}"))?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("DNS: {program} failed ({status}): see its message above")),
    }
}

/// The prefix that Debian's resolvconf wants before the name, so that it comes first.
fn prefix() -> String {
    let order = fs::read_to_string("/etc/resolvconf/interface-order").unwrap_or_default();
    let is_prefix = |line: &&str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !line.is_empty() && line.bytes().all(is_allowed)
    };
    let mut lines = order.lines().filter_map(|line| line.strip_suffix('*'));
    lines.find(is_prefix).map_or_else(String::new, |prefix| format!("{prefix}."))
}
