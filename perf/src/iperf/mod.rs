//! `iperf`: throughput of TCP or UDP through the tunnel.
//!
//! 1. A new topology of daemons, so that no measurement inherits state from another.
//! 2. iperf3's server in the sink's namespace.
//! 3. CPU times, iperf3's client in the source's namespace, CPU times.

mod iperf3;

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::implementation::Choice;
use crate::interrupt::{self, POLL};
use crate::options::{Common, Family, within};
use crate::process::STEP_LIMIT;
use crate::run::side_by_side;
use crate::topology::Topology;
use crate::usage::{self, Threads};

/// Streams of one iperf3 at most (its `MAX_STREAMS`).
const STREAMS_MAX: u64 = 128;

/// Time that iperf3 has for connecting and reporting.
const IPERF_GRACE: Duration = Duration::from_secs(20);

/// Options of `iperf`.
#[derive(Args, Clone, Debug, Serialize)]
pub struct Options {
    #[command(flatten)]
    #[serde(flatten)]
    pub common: Common,

    /// Parallel streams
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = within::<u32>(1..=STREAMS_MAX))]
    streams: u32,

    /// Send UDP instead of TCP, at this rate in Mbit/s for all streams together
    #[arg(long, value_name = "MBIT", value_parser = within::<u32>(1..=1_000_000))]
    #[serde(rename = "udp_megabits_per_second")]
    udp: Option<u32>,

    /// Direction of the payload
    #[arg(long, value_enum, default_value_t = Direction::Forward)]
    direction: Direction,

    /// Daemons between the two iperf3
    #[arg(long, value_enum, default_value_t = Shape::Pair)]
    topology: Shape,

    /// IP version inside the tunnel
    #[arg(long, value_enum, default_value_t = Family::V4)]
    family: Family,

    /// Implementation of both clients in the relay topology [default: wg-bounce-uring]
    #[arg(long, value_name = "NAME")]
    #[serde(skip)]
    clients: Option<Choice>,
}

/// Direction of the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Direction {
    /// From the client to the server
    Forward,
    /// From the server to the client (iperf3 --reverse)
    Reverse,
    /// Both at once (iperf3 --bidir); figures are totals
    Both,
}

/// Daemons between the two iperf3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Shape {
    /// Two daemons of one implementation
    Pair,
    /// A client, a relay whose kernel forwards, and another client
    Relay,
}

/// Measures with these options. The exit code is a failure if a program that is there failed.
pub fn run(options: &Options) -> Result<ExitCode, Failure> {
    if options.topology == Shape::Pair && options.clients.is_some() {
        return Err(Failure::step("--clients requires --topology relay"));
    }
    let choice = options.clients.clone();
    let choice = choice.unwrap_or_else(|| "wg-bounce-uring".parse().expect("a known name"));
    let is_relay = options.topology == Shape::Relay;
    let client = is_relay.then(|| {
        let unusable = |why| Failure::step(format!("--clients {choice}: {why}"));
        choice.locate().map_err(unusable)
    });
    let client = client.transpose()?;
    let mut record = json!(options);
    record["clients"] = json!(is_relay.then(|| choice.to_string()));
    side_by_side("iperf", record, &options.common, |program| {
        let client = client.as_ref().unwrap_or(program);
        let mut topology = Topology::build(program, client, 1 + usize::from(is_relay))?;
        // A daemon that has ended explains a failure better than iperf3 can.
        measure(&topology, options).map_err(|failure| failure.or(topology.check()))
    })
}

fn measure(topology: &Topology, options: &Options) -> Result<Value, Failure> {
    let sink = &topology.sink().daemon.namespace;
    let _server = sink.spawn("iperf3 --server --one-off")?;
    interrupt::wait_until(POLL, STEP_LIMIT, "the start of iperf3's server", || {
        Ok(!sink.run("ss -Hltn sport = :5201")?.trim().is_empty())
    })?;
    let line = client_line(options, topology.sink().address(options.family));
    let limit = options.common.duration() + IPERF_GRACE;
    let (before, machine_before) = times(topology)?;
    let text = topology.source().daemon.namespace.run_within(&line, limit)?;
    let (after, machine) = times(topology)?;
    let figures = iperf3::parse(&text, options.udp.is_some()).map_err(Failure::Step)?;
    let daemons = topology.members.iter().zip(after.iter().zip(&before)).enumerate();
    let daemons = daemons.map(|(index, (member, ((now, threads), (then, threads_then))))| {
        let time = usage::between(*then, *now).map(|time| time.as_secs_f64());
        json!({
            "role": member.daemon.namespace.role,
            "measured": options.topology == Shape::Pair || index == 0,
            "cpu_seconds": time,
            "threads": threads.since(threads_then),
            "told": member.daemon.told(),
        })
    });
    Ok(json!({
        "iperf3": figures,
        "daemons": daemons.collect::<Vec<_>>(),
        "machine_cpu_seconds": machine.saturating_sub(machine_before).as_secs_f64(),
    }))
}

/// iperf3's client as a command line.
fn client_line(options: &Options, server: IpAddr) -> String {
    let Options { common: Common { seconds, .. }, streams, .. } = options;
    let udp = options.udp.map_or_else(String::new, |megabits| {
        // iperf3's --bitrate applies to each stream.
        format!("--udp --bitrate {}", u64::from(megabits) * 1_000_000 / u64::from(*streams))
    });
    let direction = match options.direction {
        Direction::Forward => "",
        Direction::Reverse => "--reverse",
        Direction::Both => "--bidir",
    };
    format!(
        "iperf3 --json --interval 0 --client {server} --time {seconds} --parallel {streams} \
         {udp} {direction}"
    )
}

/// CPU times of each daemon (none if it is the kernel) and of its threads, and of the machine.
type Times = (Vec<(Option<Duration>, Threads)>, Duration);

fn times(topology: &Topology) -> Result<Times, Failure> {
    let pids = topology.members.iter().map(|member| member.daemon.pid());
    let of =
        |pid: Option<u32>| Ok((usage::of_daemon(pid)?, pid.map(Threads::of).unwrap_or_default()));
    let machine = usage::of_core(None).ok_or_else(|| Failure::step("cannot read /proc/stat"))?;
    Ok((pids.map(of).collect::<Result<_, Failure>>()?, machine))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Arguments, Subcommand};

    fn parse(line: &str) -> Result<Options, clap::Error> {
        match Arguments::from_line(&format!("iperf {line}"))? {
            Subcommand::Iperf(options) => Ok(options),
            _ => panic!("{line}"),
        }
    }

    #[test]
    fn every_argument_is_understood() {
        let options = parse(
            "--rounds 3 --seconds 400 --streams 16 --topology relay --family 6 --json out.jsonl \
             --udp 800 --direction both \
             --implementations wireguard-go,wg-bounce-mmsg@/old --clients boringtun",
        )
        .expect("well-formed");
        assert_eq!(options.common.json, Some("out.jsonl".into()));
        let names: Vec<_> = options.common.implementations.iter().map(Choice::to_string).collect();
        assert_eq!(names, ["wireguard-go", "wg-bounce-mmsg@/old"]);
        assert_eq!(options.clients.as_ref().map(Choice::to_string), Some("boringtun".to_owned()));
        let line = client_line(&options, [10, 77, 0, 3].into());
        let wanted = "--client 10.77.0.3 --time 400 --parallel 16 --udp --bitrate 50000000 --bidir";
        assert!(line.ends_with(wanted), "{line}");
        assert_eq!(
            json!(options),
            json!({
                "rounds": 3, "seconds": 400, "streams": 16, "udp_megabits_per_second": 800,
                "direction": "both", "topology": "relay", "family": 6,
            })
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "--rounds 0",
            "--seconds 0",
            "--seconds 3601",
            "--streams 0",
            "--streams 129",
            "--family 5",
            "--udp 0",
            "--direction up",
            "--topology ring",
            "--implementations openvpn",
            "--implementations wireguard-go,,boringtun",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
