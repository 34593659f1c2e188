//! Traffic through the tunnel with ping and iperf3, and their reports.

use std::time::Duration;

use serde_json::Value;

use super::command::{Background, Outcome};
use super::lab::{Lab, Namespace};
use super::wait::{eventually, seconds, within};

/// Longest wait for a reply after ping itself has exited.
const LATE: Duration = Duration::from_secs(2);

/// Pings `target` with ping's own `options`; returns the numbers of requests and replies. After the
/// last request, ping waits no longer than one interval or twice the longest round trip, and on a
/// busy machine it exits before the last reply. The kernel's counters still include that one.
#[track_caller]
pub fn ping(from: &Namespace, target: &str, options: &str) -> (u64, u64) {
    let before = echo_replies(from, target);
    let outcome = from.attempt(&format!("ping -n -q {options} {target}"));
    let summary = outcome.stdout.lines().find(|line| line.contains("packets transmitted"));
    let numbers: Vec<u64> = summary
        .unwrap_or_else(|| panic!("no summary from ping: {outcome:#?}"))
        .split(&[' ', ','])
        .filter_map(|word| word.parse().ok())
        .collect();
    let (sent, mut received) = (numbers[0], numbers[1]);
    if 0 < received && received < sent {
        within(LATE, || {
            received = received.max(echo_replies(from, target) - before).min(sent);
            received == sent
        });
    }
    (sent, received)
}

/// Echo replies of the target's family received in this namespace.
fn echo_replies(namespace: &Namespace, target: &str) -> u64 {
    let counter = if target.contains(':') { "Icmp6InEchoReplies" } else { "IcmpInEchoReps" };
    counters_sum(namespace, &[counter])
}

/// Pings `target` until a reply arrives; panics after ten seconds.
#[track_caller]
pub fn ping_until_answered(from: &Namespace, target: &str) {
    eventually(seconds(10), &format!("{target} answers {}", from.name()), || {
        ping(from, target, "-c 1 -W 1").1 == 1
    });
}

/// An iperf3 server, which serves one client at a time.
pub struct IperfServer {
    _process: Background,
}

impl IperfServer {
    /// Starts the server and waits until it listens.
    pub fn start(lab: &Lab, namespace: &Namespace) -> IperfServer {
        let process = namespace.spawn(lab, "iperf3 --server --forceflush");
        eventually(seconds(5), "iperf3 listens", || {
            !namespace.run("ss -Hltn sport = :5201").trim().is_empty()
        });
        IperfServer { _process: process }
    }
}

/// The report of an iperf3 client.
#[derive(Debug)]
pub struct Iperf {
    report: Value,
}

impl Iperf {
    /// Runs a client with iperf3's own `options`; panics if it fails. The server is busy until the
    /// previous client's last message has crossed the tunnel, and then closes its listening socket
    /// and opens another: a client that connects meanwhile is rejected or reset, and retries.
    ///
    /// With `--bidir`, iperf3 tells its two connections apart by the order in which the server
    /// accepts them. One may overtake the other, since they may have different workers; then both
    /// ends send on the same one, and neither ever reads. This is tried again too.
    #[track_caller]
    pub fn run(from: &Namespace, server: &str, options: &str) -> Iperf {
        let mut outcome = from.attempt(&format!("iperf3 --json --client {server} {options}"));
        within(seconds(5), || {
            let too_early = [
                "unable to connect to server: Connection refused",
                "unable to connect to server: Connection reset by peer",
                // Reset right after it was connected: nothing was measured.
                "unable to receive control message: Connection reset by peer",
                "server is busy",
            ];
            let is_measured = !outcome.stdout.contains("\"connected\":\t[]");
            let is_too_early =
                !is_measured && too_early.iter().any(|error| outcome.stdout.contains(error));
            let must_retry = is_too_early || is_mixed_up(&outcome);
            if must_retry {
                outcome = from.attempt(&format!("iperf3 --json --client {server} {options}"));
            }
            !must_retry
        });
        Iperf::of(outcome)
    }

    /// Starts a client in the background; [`Iperf::finish`] returns its report.
    pub fn spawn(lab: &Lab, from: &Namespace, server: &str, options: &str) -> Background {
        from.spawn(lab, &format!("timeout 60 iperf3 --json --client {server} {options}"))
    }

    /// Waits up to 30 seconds for a background client; panics if it fails.
    #[track_caller]
    pub fn finish(mut client: Background) -> Iperf {
        eventually(seconds(30), "iperf3 ends", || client.has_ended());
        let (code, stdout) = (client.exit_code(), client.output());
        let line = "iperf3".to_owned();
        Iperf::of(Outcome { line, code, stdout, stderr: String::new() })
    }

    /// With `--json`, iperf3 exits with success even after some errors.
    #[track_caller]
    fn of(outcome: Outcome) -> Iperf {
        assert!(outcome.is_ok(), "iperf3 failed: {outcome:#?}");
        let report: Value = serde_json::from_str(&outcome.stdout).expect("iperf3 writes JSON");
        assert!(report.get("error").is_none(), "iperf3 failed: {outcome:#?}");
        Iperf { report }
    }

    /// The receiver's rate (bytes per second).
    pub fn bytes_per_second(&self) -> f64 {
        let end = &self.report["end"];
        let sum = if end["sum_received"].is_object() { &end["sum_received"] } else { &end["sum"] };
        sum["bits_per_second"].as_f64().expect("iperf3 reports a rate") / 8.0
    }

    /// Retransmitted TCP segments as a share of all segments.
    pub fn retransmitted_share(&self, segment: f64) -> f64 {
        let sent = &self.report["end"]["sum_sent"];
        let bytes = sent["bytes"].as_f64().expect("iperf3 reports bytes");
        sent["retransmits"].as_f64().expect("iperf3 reports retransmits") * segment / bytes
    }

    /// UDP datagrams lost (percent).
    pub fn lost_percent(&self) -> f64 {
        self.report["end"]["sum"]["lost_percent"].as_f64().expect("iperf3 reports losses")
    }

    /// UDP datagrams lost.
    pub fn lost(&self) -> u64 {
        self.report["end"]["sum"]["lost_packets"].as_u64().expect("iperf3 reports losses")
    }

    /// The longest time without a byte (whole intervals of iperf3's report).
    pub fn longest_pause(&self) -> Duration {
        let (mut longest, mut pause) = (0.0, 0.0);
        for interval in self.report["intervals"].as_array().expect("iperf3 reports intervals") {
            let sum = &interval["sum"];
            let is_silent = sum["bytes"].as_f64() == Some(0.0);
            let length = sum["seconds"].as_f64().expect("intervals have a length");
            pause = if is_silent { pause + length } else { 0.0 };
            longest = f64::max(longest, pause);
        }
        Duration::from_secs_f64(longest)
    }
}

/// Whether both ends of `--bidir` sent and none received.
fn is_mixed_up(outcome: &Outcome) -> bool {
    let Ok(report) = serde_json::from_str::<Value>(&outcome.stdout) else { return false };
    let bytes = |sum: &str| report["end"][sum]["bytes"].as_u64();
    let both = |side: &str| [format!("sum_{side}"), format!("sum_{side}_bidir_reverse")];
    both("received").iter().all(|sum| bytes(sum) == Some(0))
        && both("sent").iter().all(|sum| bytes(sum) > Some(0))
}

/// Number of times TCP in this namespace detected reordering of its segments. Losses do not count.
pub fn tcp_reorders(namespace: &Namespace) -> u64 {
    counters_sum(namespace, &["TcpExtTCPSACKReorder", "TcpExtTCPTSReorder"])
}

/// The sum of these kernel counters of the namespace.
pub fn counters_sum(namespace: &Namespace, names: &[&str]) -> u64 {
    let text = namespace.run(&format!("nstat -asz {}", names.join(" ")));
    let counters = text.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
    let values = counters.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    values.sum()
}
