//! `wg-bounce show`: the state of running daemons and their peers.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use wg_bounce_sys::clock;

use super::answer::{Answer, Failure};
use crate::config_file::quote::printable;
use crate::socket_paths;
use crate::status::report::{self, Counters, Peer, Report, Way};
use crate::status::{Verb, client};

/// Arguments of the command.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Interface [default: all that wg-bounce runs]
    #[arg(value_name = "NAME")]
    interface: Option<String>,

    /// Print JSON, one line for each interface
    #[arg(long, conflicts_with = "check")]
    json: bool,

    /// Print nothing while all is well; otherwise fail, and say why: the daemon does not answer, or
    /// its interface is down. For monitoring and HEALTHCHECK
    #[arg(long, requires = "interface")]
    check: bool,

    /// Measure rates for this long; 0 for no rates
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = parse_seconds)]
    interval: f64,
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.0..=3600.0).contains(seconds));
    seconds.ok_or_else(|| "a number from 0 to 3600 is needed".to_owned())
}

/// Prints the state, as `wg show` does, with rates and the relay.
pub(super) fn run(arguments: &Arguments) -> Result<Answer, Failure> {
    let first = match &arguments.interface {
        Some(name) => vec![report(name)?],
        None => running()?,
    };
    if arguments.check {
        return match first.iter().find(|report| !report.is_up) {
            Some(report) => Err(format!("the interface {} is down", report.interface).into()),
            None => Ok(String::new().into()),
        };
    }
    if arguments.json {
        let lines = first.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>();
        let lines = lines.map_err(|error| error.to_string())?;
        return Ok(lines.into_iter().map(|line| line + "\n").collect::<String>().into());
    }
    let mut second = None;
    if arguments.interval > 0.0 {
        thread::sleep(Duration::from_secs_f64(arguments.interval));
        let again = first.iter().map(|first| report(&first.interface));
        second = Some(again.collect::<Result<Vec<_>, _>>()?);
    }
    let texts = first.iter().enumerate().map(|(at, first)| match &second {
        Some(second) => text(&second[at], Some(first)),
        None => text(first, None),
    });
    Ok(texts.collect::<Vec<_>>().join("\n").into())
}

/// The reports of all daemons.
fn running() -> Result<Vec<Report>, Failure> {
    let directory = socket_paths::status();
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("{}: {error}", directory.display()).into()),
    };
    let names = entries.flatten().filter_map(|entry| {
        Path::new(&entry.file_name()).to_str()?.strip_suffix(".sock").map(str::to_owned)
    });
    // A socket may belong to a daemon that was killed.
    let mut reports: Vec<Report> = names.filter_map(|name| report(&name).ok()).collect();
    reports.sort_by(|one, other| one.interface.cmp(&other.interface));
    Ok(reports)
}

/// The failure of a request to the daemon of this interface.
pub(super) fn failure(interface: &str, error: &io::Error) -> Failure {
    let reason = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            format!("wg-bounce does not run {interface}")
        }
        io::ErrorKind::PermissionDenied => format!("{interface}: {error}: use sudo"),
        _ => format!("{interface}: {error}"),
    };
    reason.into()
}

/// The report of a daemon.
pub(super) fn report(interface: &str) -> Result<Report, Failure> {
    let reply = client::ask(interface, Verb::Show).map_err(|error| failure(interface, &error))?;
    let report = reply.report.and_then(Arc::into_inner);
    Ok(report.ok_or_else(|| format!("{interface}: the daemon has sent no report"))?)
}

/// A report as text; rates since an earlier one.
fn text(report: &Report, earlier: Option<&Report>) -> String {
    let mut text = format!("interface: {}\n", report.interface);
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name}: {}", printable(value));
    };
    line("public key", report.public_key.as_deref().unwrap_or("(none)"));
    line("listening port", &report.listen_port.to_string());
    if report.fwmark != 0 {
        line("fwmark", &format!("{:#x}", report.fwmark));
    }
    line("state", if report.is_up { "up" } else { "down" });
    line("MTU", &report.mtu.to_string());
    line("relay", &report.relay.summary);
    let sums = sums(report);
    let count = |name: &str| sums.get(name).copied().unwrap_or(0);
    if let Some(share) = share_of_direct(&sums) {
        let (packets, bytes) = (count("relayed"), count("relayed_bytes"));
        let rate = rate(earlier, report, |report| self::sums(report).get("relayed_bytes").copied());
        line("relayed", &format!("{packets} packets, {}{rate}; {share}", bytes_text(bytes)));
    }
    let drops = drops(&sums);
    if !drops.is_empty() {
        line("dropped", &drops);
    }
    line("engine", &report.engine);
    let earlier_peers = earlier.map_or(&[][..], |earlier| &earlier.peers);
    let by_key: HashMap<&str, &Peer> =
        earlier_peers.iter().map(|peer| (peer.public_key.as_str(), peer)).collect();
    // As wg(8): who was heard from last comes first.
    let mut peers: Vec<&Peer> = report.peers.iter().collect();
    peers.sort_by_key(|peer| std::cmp::Reverse(peer.latest_handshake));
    for peer in peers {
        let before = by_key.get(peer.public_key.as_str()).copied();
        text += "\n";
        text += &peer_text(peer, before.zip(earlier), report);
    }
    text
}

fn peer_text(peer: &Peer, before: Option<(&Peer, &Report)>, report: &Report) -> String {
    let title = match &peer.name {
        Some(name) => format!("{} ({})", peer.public_key, printable(name)),
        None => peer.public_key.clone(),
    };
    let mut text = format!("peer: {title}\n");
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name}: {value}");
    };
    if peer.has_preshared_key {
        line("preshared key", "(hidden)");
    }
    if let Some(endpoint) = peer.endpoint {
        line("endpoint", &endpoint.to_string());
    }
    let prefixes: Vec<String> = peer.allowed_ips.iter().map(ToString::to_string).collect();
    let prefixes = if prefixes.is_empty() { "(none)".to_owned() } else { prefixes.join(", ") };
    line("allowed ips", &prefixes);
    if peer.latest_handshake != 0 {
        let ago = clock::wall_time().as_secs().saturating_sub(peer.latest_handshake);
        line("latest handshake", &ago_text(ago));
    }
    if (peer.received, peer.sent) != (0, 0) {
        let rate = |of: fn(&Peer) -> u64| {
            before.map_or(String::new(), |(peer_before, earlier)| {
                let bytes = of(peer).saturating_sub(of(peer_before));
                rate_text(bytes, report.time - earlier.time)
            })
        };
        let received = bytes_text(peer.received) + " received" + &rate(|peer| peer.received);
        let sent = bytes_text(peer.sent) + " sent" + &rate(|peer| peer.sent);
        line("transfer", &format!("{received}, {sent}"));
    }
    if peer.persistent_keepalive != 0 {
        line("persistent keepalive", &format!("every {} seconds", peer.persistent_keepalive));
    }
    let drops = drops(&peer.counters);
    if !drops.is_empty() {
        line("dropped", &drops);
    }
    text
}

/// The counters of all workers together.
pub(super) fn sums(report: &Report) -> Counters {
    let mut sums = Counters::new();
    for (name, value) in report.workers.iter().flatten() {
        *sums.entry(name.clone()).or_default() += value;
    }
    sums
}

/// The share of the packets that came from peers and went to others without the kernel.
pub(super) fn share_of_direct(sums: &Counters) -> Option<String> {
    let count = |name: &str| sums.get(name).copied().unwrap_or(0);
    let (direct, kernel) = (count("relayed"), count("tun_packets_written"));
    let percent = direct as f64 * 100.0 / (direct + kernel) as f64;
    (direct + kernel > 0).then(|| {
        format!("{percent:.0} % {}, {:.0} % to the interface", Way::Direct.name(), 100.0 - percent)
    })
}

/// The reasons for dropped packets, with their counts.
pub(super) fn drops(counters: &Counters) -> String {
    let drops = report::drops(counters)
        .map(|(reason, count)| format!("{} {count}", reason.replace('_', " ")));
    drops.collect::<Vec<_>>().join(", ")
}

fn rate(earlier: Option<&Report>, now: &Report, of: impl Fn(&Report) -> Option<u64>) -> String {
    let Some(earlier) = earlier else { return String::new() };
    let bytes = of(now).unwrap_or(0).saturating_sub(of(earlier).unwrap_or(0));
    rate_text(bytes, now.time - earlier.time)
}

/// ` (12.3 Mbit/s)`.
fn rate_text(bytes: u64, seconds: f64) -> String {
    match seconds > 0.0 {
        true => format!(" ({})", bit_rate(bytes, seconds)),
        false => String::new(),
    }
}

/// `12.3 Mbit/s`.
pub(super) fn bit_rate(bytes: u64, seconds: f64) -> String {
    let mut rate = bytes as f64 * 8.0 / seconds;
    let mut unit = 0;
    let units = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s"];
    while rate >= 1000.0 && unit + 1 < units.len() {
        rate /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{rate:.0} {}", units[unit]),
        _ => format!("{rate:.1} {}", units[unit]),
    }
}

/// A number of bytes as wg(8) writes it.
fn bytes_text(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut name) = (bytes as f64, "B");
    for unit in units {
        if value < 1024.0 {
            break;
        }
        (value, name) = (value / 1024.0, unit);
    }
    if name == "B" { format!("{bytes} B") } else { format!("{value:.2} {name}") }
}

/// A time ago, as wg(8) writes it.
pub(super) fn ago_text(seconds: u64) -> String {
    if seconds == 0 {
        return "now".to_owned();
    }
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (unit, length) in
        [("year", 31_536_000), ("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1)]
    {
        let count = rest / length;
        rest %= length;
        if count > 0 {
            parts.push(format!("{count} {unit}{}", if count == 1 { "" } else { "s" }));
        }
    }
    parts.join(", ") + " ago"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_wg_writes_them() {
        assert_eq!(
            [0, 1023, 1024, 1_572_864].map(bytes_text),
            ["0 B", "1023 B", "1.00 KiB", "1.50 MiB"]
        );
        assert_eq!(ago_text(0), "now");
        assert_eq!(ago_text(3_661), "1 hour, 1 minute, 1 second ago");
        assert_eq!(ago_text(2 * 86_400), "2 days ago");
        assert_eq!(rate_text(1_250_000, 1.0), " (10.0 Mbit/s)");
        assert_eq!(rate_text(7, 1.0), " (56 bit/s)");
        assert_eq!(rate_text(7, 0.0), "");
    }
}
