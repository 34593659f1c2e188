//! The servers and search domains in `DNS`, given to whichever of resolvconf(8) and resolvectl(1)
//! this host has.

use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::process::{Command, Output, Stdio};

/// Uses these servers, and no others, while the interface is up, as with wg-quick(8).
///
/// # Errors
/// The host has neither program, or it failed.
pub(super) fn set(interface: &str, servers: &[IpAddr], domains: &[String]) -> Result<(), String> {
    let mut text: String = servers.iter().map(|one| format!("nameserver {one}\n")).collect();
    if !domains.is_empty() {
        text += &format!("search {}\n", domains.join(" "));
    }
    let name = prefix() + interface;
    match run("resolvconf", &["-a", &name, "-m", "0", "-x"], &text) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => return finished("resolvconf", result),
    }
    let servers: Vec<String> = servers.iter().map(IpAddr::to_string).collect();
    let arguments = ["dns", interface].into_iter().chain(servers.iter().map(String::as_str));
    match run("resolvectl", &arguments.collect::<Vec<_>>(), "") {
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
    finished("resolvectl", run("resolvectl", &arguments.collect::<Vec<_>>(), ""))
}

/// Stops to use them.
///
/// # Errors
/// As for [`set`].
pub(super) fn unset(interface: &str) -> Result<(), String> {
    let name = prefix() + interface;
    match run("resolvconf", &["-d", &name, "-f"], "") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            finished("resolvectl", run("resolvectl", &["revert", interface], ""))
        }
        result => finished("resolvconf", result),
    }
}

fn run(program: &str, arguments: &[&str], input: &str) -> io::Result<Output> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program that reads nothing says itself what is wrong.
        let _ = pipe.write_all(input.as_bytes());
    }
    child.wait_with_output()
}

fn finished(program: &str, result: io::Result<Output>) -> Result<(), String> {
    let output = result.map_err(|error| format!("DNS: {program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let reason = String::from_utf8_lossy(&output.stderr);
            Err(format!("DNS: {program} failed ({}): {}", output.status, reason.trim()))
        }
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
