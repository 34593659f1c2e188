//! The command line of `blast`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use serde::{Serialize, Serializer};

use crate::failure::Failure;
use crate::generator::{GroupPlan, Kind, Load, Setup, Traffic, public_key};
use crate::implementation::Choice;
use crate::options::{Common, Cores, Family, within};

/// Options of `blast`.
#[derive(Args, Clone, Debug, Serialize)]
pub struct Options {
    #[command(flatten)]
    #[serde(flatten)]
    pub common: Common,

    #[command(flatten)]
    #[serde(flatten)]
    pub cores: Cores,

    #[command(flatten)]
    #[serde(flatten)]
    pub traffic: Traffic,

    /// End a measurement after this many packets, too
    #[arg(long, value_name = "N")]
    pub packets: Option<u64>,

    /// Protocol of the inner packets
    #[arg(long, value_enum, default_value_t = Kind::Tcp)]
    kind: Kind,

    /// IP version inside the tunnel
    #[arg(long, value_enum, default_value_t = Family::V4)]
    pub family: Family,

    /// IP version that carries the tunnel
    #[arg(long, value_enum, default_value_t = Family::V4)]
    pub outer: Family,

    /// Do not pad packets to a multiple of 16 bytes (boringtun does not)
    #[arg(long)]
    #[serde(rename = "padded", serialize_with = "negated")]
    unpadded: bool,

    /// Also measure latency at these loads: packets per second, or percent of the capacity
    #[arg(long, value_name = "RATE,…", value_delimiter = ',')]
    pub load: Vec<Load>,

    /// Instead measure latency and loss of a thin flow next to heavy flows and a slow receiver
    #[arg(long, visible_alias = "thin", conflicts_with_all = ["load", "packets"])]
    #[serde(rename = "thin")]
    pub fairness: bool,

    /// Rate of the slow receiver's path with --fairness (Mbit/s)
    #[arg(long, value_name = "MBIT", default_value_t = 20)]
    #[arg(value_parser = within::<u32>(1..=100_000))]
    #[serde(rename = "slow_megabits_per_second")]
    pub slow: u32,

    /// Memory for packets that are encrypted before the clock starts (MiB); the clock stops while
    /// it is refilled
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    #[arg(value_parser = within::<usize>(1..=65_536))]
    #[serde(rename = "pool_mib")]
    pool: usize,

    /// Decrypt and check a packet of one in N trains
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = within::<usize>(1..))]
    #[serde(skip)]
    pub check_every: usize,

    /// Worker threads of wg-bounce
    #[arg(long, value_name = "N")]
    workers: Option<u32>,

    /// More arguments for wg-bounce, separated by spaces
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    arguments: Option<String>,

    /// Load this file of nft(8) in the relay's network namespace
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,

    /// Measure the relay at this IP address and UDP port, over this machine's own network
    #[arg(long, value_name = "ADDRESS:PORT", requires_all = ["remote_key", "keys"])]
    #[arg(conflicts_with_all = ["implementations", "workers", "arguments", "fairness"])]
    #[arg(conflicts_with_all = ["relay_core", "outer", "rules"])]
    pub remote: Option<SocketAddr>,

    /// That relay's public key, as printed there by `wg show INTERFACE public-key`
    #[arg(long, value_name = "KEY", value_parser = public_key, requires = "remote")]
    #[serde(skip)]
    pub remote_key: Option<[u8; 32]>,

    /// File with the secret from which the peers' keys are derived
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub keys: Option<PathBuf>,

    /// Print the peers' configuration for `wg addconf` on that relay and exit; creates the file of
    /// --keys if it does not exist
    #[arg(long, requires = "keys", conflicts_with = "remote")]
    #[serde(skip)]
    pub remote_config: bool,
}

impl Options {
    /// The implementations, with the arguments for wg-bounce.
    pub fn choices(&self) -> Vec<Choice> {
        let workers = self.workers.map(|workers| format!("--workers {workers}"));
        let line = [workers, self.arguments.clone()].into_iter().flatten();
        let line = line.collect::<Vec<_>>().join(" ");
        let choices = self.common.implementations.iter().cloned();
        choices.map(|choice| choice.with_arguments(line.split_whitespace())).collect()
    }

    /// Fails if the options exclude each other.
    pub fn check(&self) -> Result<(), Failure> {
        if self.keys.is_some() && self.remote.is_none() && !self.remote_config {
            return Err(Failure::step("--keys requires --remote or --remote-config"));
        }
        self.traffic.check(self.kind, self.family)
    }

    /// Properties of all peers.
    pub fn setup(&self) -> Setup {
        Setup {
            family: self.family,
            outer: self.outer,
            is_padded: !self.unpadded,
            check_every: self.check_every,
            ..Setup::plain(self.kind, self.cores.relay_core)
        }
    }

    /// The pairs that send.
    pub fn plan(&self) -> GroupPlan {
        self.traffic.plan(self.pool)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn negated<S: Serializer>(value: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bool(!value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Arguments, Subcommand};

    fn parse(line: &str) -> Result<Options, clap::Error> {
        match Arguments::from_line(&format!("blast {line}"))? {
            Subcommand::Blast(options) => Ok(options),
            _ => panic!("{line}"),
        }
    }

    #[test]
    fn packets_and_trains_have_limits() {
        for line in ["--size 43", "--size 63 --family 6", "--size 1421", "--train 60"] {
            assert!(parse(line).expect("well-formed").check().is_err(), "{line}");
        }
        for line in ["", "--size 44", "--size 1420 --train 1", "--size 64 --train 64 --family 6"] {
            parse(line).expect("well-formed").check().expect(line);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for line in ["--pairs 0", "--train 65", "--load 0", "--load x%", "--fairness --load 10%"] {
            assert!(parse(line).is_err(), "{line}");
        }
        assert!(parse("--thin").expect("an alias").fairness);
    }

    #[test]
    fn a_remote_relay_needs_an_address_a_key_and_a_file() {
        let key = "jXiI4zvwXWQ3xGzt0PZoZnZ5v0rYHcTXwCcH0iQ4yVg=";
        let line = format!("--remote [fd00::1]:51820 --remote-key {key} --keys file");
        let options = parse(&line).expect("well-formed");
        options.check().expect("they go together");
        assert_eq!(serde_json::json!(options)["remote"], "[fd00::1]:51820");
        for more in ["--thin", "--implementations kernel", "--relay-core 1", "--remote-config"] {
            assert!(parse(&format!("{line} {more}")).is_err(), "{more}");
        }
        for line in ["--remote 10.0.0.1:1", "--remote-key x", "--remote-config"] {
            assert!(parse(line).is_err(), "{line}");
        }
        let low_order = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        for bad in ["x", low_order] {
            assert!(parse(&line.replace(key, bad)).is_err(), "{bad}");
        }
        assert!(parse("--keys file").expect("well-formed").check().is_err());
    }

    #[test]
    fn only_ours_gets_our_arguments() {
        let line = "--workers 8 --arguments --gso=off --implementations wg-bounce-mmsg,boringtun";
        let choices = parse(line).expect("well-formed").choices();
        let plain = ["wg-bounce-mmsg", "boringtun"].map(|it| it.parse::<Choice>().expect("known"));
        let words = ["--workers", "8", "--gso=off"].into_iter();
        assert_eq!(choices[0], plain[0].clone().with_arguments(words));
        assert_ne!(choices[0], plain[0]);
        assert_eq!(choices[1], plain[1]);
    }
}
