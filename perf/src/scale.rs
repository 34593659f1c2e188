//! `scale`: set-up time, memory and CPU time per packet of a relay with many peers.
//!
//! For each number of peers:
//!
//! 1. A new relay. All peers with one `wg setconf`, and the interface up.
//! 2. More peers one by one with `wg set`, and removed again.
//! 3. Packets between a few of the peers.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use crate::daemon::INTERFACE;
use crate::failure::Failure;
use crate::generator::{Bench, Kind, Network, Peers, Relay, Setup, Traffic, encode, random_key};
use crate::implementation::Program;
use crate::options::{Common, Cores, Family, within};
use crate::run::side_by_side;
use crate::usage;

/// Peers that `--full` adds.
const FULL: u32 = 100_000;

/// Memory for packets that are encrypted before the clock starts (MiB).
const POOL: usize = 64;

/// Peers at most: each has an address in 10.112.0.0/12.
pub const PEERS_MAX: u32 = 1_000_000;

/// Peers added one by one by one shell: enough to neglect the shell's start.
const ADDED: u32 = 16;

/// First address of the peers that are only configured.
const IDLE: Ipv4Addr = Ipv4Addr::new(10, 112, 0, 0);
const _: () = assert!(PEERS_MAX + ADDED < 1 << 20, "IDLE is the first address of a /12");

/// Options of `scale`.
#[derive(Args, Clone, Debug, Serialize)]
pub struct Options {
    /// Numbers of peers
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [10, 1000, 10_000])]
    #[arg(value_parser = within::<u32>(2..=PEERS_MAX.into()))]
    #[serde(skip)]
    peers: Vec<u32>,

    /// Add 100,000 peers to the numbers
    #[arg(long)]
    #[serde(skip)]
    full: bool,

    /// Seconds that a step of the configuration may take; an implementation that takes longer, or
    /// refuses, is not tried with more peers
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = within::<u32>(1..=3600))]
    #[serde(rename = "limit_seconds")]
    limit: u32,

    #[command(flatten)]
    #[serde(flatten)]
    traffic: Traffic,

    #[command(flatten)]
    #[serde(flatten)]
    pub common: Common,

    #[command(flatten)]
    #[serde(flatten)]
    cores: Cores,
}

impl Options {
    /// Numbers of peers, ascending.
    fn sizes(&self) -> Vec<u32> {
        let mut sizes = self.peers.clone();
        sizes.extend(self.full.then_some(FULL));
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    /// Fails if the options exclude each other.
    fn check(&self) -> Result<(), Failure> {
        let (pairs, ends) = (self.traffic.pairs, 2 * self.traffic.pairs);
        if let Some(size) = self.sizes().into_iter().find(|size| (*size as usize) < ends) {
            let why = format!("--peers {size}: fewer than the {ends} of --pairs {pairs}");
            return Err(Failure::step(why));
        }
        self.traffic.check(Kind::Tcp, Family::V4)
    }
}

/// Measures with these options. The exit code is a failure if a program that is there failed; too
/// many peers are not a failure.
pub fn run(options: &Options) -> Result<ExitCode, Failure> {
    options.check()?;
    options.cores.prepare_process()?;
    let sizes = options.sizes();
    let mut record = json!(options);
    record["peers"] = json!(sizes);
    side_by_side("scale", record, &options.common, |program| {
        let sizes = until_too_many(&sizes, |peers| with_peers(program, peers, options))?;
        Ok(json!({ "sizes": sizes }))
    })
}

/// Measures all sizes. After too many peers no more are tried; a failure is recorded as such.
fn until_too_many(
    sizes: &[u32],
    mut measure: impl FnMut(u32) -> Result<Outcome, Failure>,
) -> Result<Vec<Value>, Failure> {
    let mut too_many = None;
    let mut records = Vec::new();
    for &peers in sizes {
        let outcome = match too_many {
            Some(fewer) => Ok(Err(format!("not tried: {fewer} peers were too many"))),
            None => measure(peers),
        };
        let mut record = match outcome {
            Ok(Ok(figures)) => figures,
            Ok(Err(why)) => {
                too_many = too_many.or(Some(peers));
                json!({ "failure": why })
            }
            Err(Failure::Interrupted) => return Err(Failure::Interrupted),
            Err(Failure::Step(why)) => json!({ "failure": why, "failed": true }),
        };
        record["peers"] = json!(peers);
        records.push(record);
    }
    Ok(records)
}

/// Result with one number of peers: the figures, or why there are too many peers for the relay.
type Outcome = Result<Value, String>;

fn with_peers(program: &Program, number: u32, options: &Options) -> Result<Outcome, Failure> {
    let setup = Setup::plain(Kind::Tcp, options.cores.relay_core);
    let mut network = Network::build(program, setup.outer, setup.relay_core)?;
    let peers = Peers::new(options.traffic.pairs, setup.family);
    let mut figures = match configure(&network, &peers, number, options.limit) {
        Ok(figures) => figures,
        // A relay that is still running is late or has refused; one that has ended has failed.
        Err(Failure::Step(text)) => return network.relay.check().map(|()| Err(text)),
        Err(failure) => return Err(failure),
    };
    let (public, plans) = (peers.relay.identity.public(), [options.traffic.plan(POOL)]);
    let mut bench = Bench::connect(Relay::Local(network), public, &peers.ends, &plans, setup)?;
    let (window, limit) = (options.traffic.window, options.common.duration());
    let (_, phase) = bench.saturate(0, window, u64::MAX, limit)?;
    figures["phase"] = phase.record();
    figures["ns_per_packet"] = figures["phase"]["nanoseconds_per_packet"].clone();
    Ok(Ok(figures))
}

/// Configures a new relay with `number` peers, `peers` among them, each step within `limit`
/// seconds. Returns the times, and the memory that the peers take.
fn configure(network: &Network, peers: &Peers, number: u32, limit: u32) -> Result<Value, Failure> {
    let limit = Duration::from_secs(limit.into());
    let resident = || network.relay.pid().and_then(usage::resident);
    let time =
        |title: &str, script: String| network.relay.namespace.time(title, "sh -e", &script, limit);
    let before = resident();
    let idle = number.saturating_sub(u32::try_from(peers.ends.len()).expect("a few pairs"));
    let idle = idle_peers(0..idle);
    let all = peers.entries().chain(idle.iter().map(|(key, address)| (key.as_str(), *address)));
    let setconf = network.configure(&peers.relay, all, limit)?;
    let added = idle_peers(PEERS_MAX..PEERS_MAX + ADDED);
    let add = time("adding peers with `wg set`", script(&added, "allowed-ips"))?;
    // A relay that has answered these has also finished deferred work.
    let after = resident();
    let remove = time("removing peers with `wg set`", script(&added, "remove"))?;
    Ok(json!({
        "setconf_seconds": setconf.as_secs_f64(),
        "add_seconds": (add / ADDED).as_secs_f64(),
        "remove_seconds": (remove / ADDED).as_secs_f64(),
        "resident_bytes": after,
        "resident_bytes_without_peers": before,
    }))
}

/// Peers that never send: any 32 bytes serve as a public key.
fn idle_peers(numbers: Range<u32>) -> Vec<(String, IpAddr)> {
    let address = |number| Ipv4Addr::from_bits(IDLE.to_bits() + number).into();
    numbers.map(|number| (encode(&random_key()), address(number))).collect()
}

/// A `wg set` for each of the peers.
fn script(peers: &[(String, IpAddr)], verb: &str) -> String {
    let line = |(key, address): &(String, IpAddr)| {
        let rest = if verb == "remove" { String::new() } else { format!(" {address}/32") };
        format!("wg set {INTERFACE} peer {key} {verb}{rest}\n")
    };
    peers.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Arguments, Subcommand};

    fn parse(line: &str) -> Options {
        match Arguments::from_line(&format!("scale {line}")) {
            Ok(Subcommand::Scale(options)) => options,
            _ => panic!("{line}"),
        }
    }

    #[test]
    fn sizes_ascend() {
        let options = parse("");
        options.check().expect("they go together");
        assert_eq!(options.sizes(), [10, 1000, 10_000]);
        let full = parse("--full --peers 100000,20,8");
        assert_eq!(full.sizes(), [8, 20, 100_000]);
        full.check().expect("they go together");
    }

    #[test]
    fn pairs_are_peers() {
        let Err(why) = parse("--pairs 6").check() else { panic!("12 peers are more than 10") };
        assert_eq!(why.to_string(), "--peers 10: fewer than the 12 of --pairs 6");
    }

    #[test]
    fn too_many_peers_are_not_a_failure() {
        let sizes = until_too_many(&[1, 2, 3, 4], |peers| match peers {
            1 => Err(Failure::step("it ended unexpectedly")),
            2 => Ok(Ok(json!({}))),
            _ => Ok(Err("late".to_owned())),
        });
        let sizes = sizes.expect("no signal");
        assert_eq!(sizes[0]["failed"], true);
        assert_eq!(sizes[1], json!({ "peers": 2 }));
        assert_eq!(sizes[2], json!({ "peers": 3, "failure": "late" }));
        assert_eq!(sizes[3]["failure"], "not tried: 3 peers were too many");
    }

    #[test]
    fn a_peer_is_added_and_removed_by_a_line_each() {
        let peers = [("KEY=".to_owned(), [10, 112, 0, 1].into())];
        assert_eq!(
            script(&peers, "allowed-ips"),
            "wg set wg0 peer KEY= allowed-ips 10.112.0.1/32\n"
        );
        assert_eq!(script(&peers, "remove"), "wg set wg0 peer KEY= remove\n");
    }
}
