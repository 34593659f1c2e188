//! A relay on another machine, measured over this machine's own network, and the peers that it has
//! to know for that.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::capacity;
use super::options::Options;
use crate::failure::Failure;
use crate::generator::{Bench, Relay, Seed, public_key};
use crate::interrupt::Interrupt;
use crate::record::Row;
use crate::run::in_rounds;

/// The remote relay.
#[derive(Args, Clone, Debug, Serialize)]
pub struct RemoteOptions {
    /// Measure the relay at this IP address and UDP port, over this machine's own network
    #[arg(long, value_name = "ADDRESS:PORT", requires_all = ["remote_key", "keys"])]
    #[arg(conflicts_with_all = ["implementations", "workers", "arguments", "fairness"])]
    #[arg(conflicts_with_all = ["relay_core", "outer"])]
    pub remote: Option<SocketAddr>,

    /// That relay's public key, as printed there by `wg show INTERFACE public-key`
    #[arg(long, value_name = "KEY", value_parser = public_key, requires = "remote")]
    #[serde(skip)]
    remote_key: Option<[u8; 32]>,

    /// File with the secret from which the peers' keys are derived
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    keys: Option<PathBuf>,

    /// Print the peers' configuration for `wg addconf` on that relay and exit; creates the file of
    /// --keys if it does not exist
    #[arg(long, requires = "keys", conflicts_with = "remote")]
    #[serde(skip)]
    pub remote_config: bool,
}

impl RemoteOptions {
    /// Fails if the options exclude each other.
    pub fn check(&self) -> Result<(), Failure> {
        if self.keys.is_some() && self.remote.is_none() && !self.remote_config {
            return Err(Failure::step("--keys requires --remote or --remote-config"));
        }
        Ok(())
    }
}

/// Prints the configuration for the relay.
pub fn print_config(options: &Options) -> Result<ExitCode, Failure> {
    let path = options.remote.keys.as_deref().expect("required");
    let sections = Seed::read_or_create(path)?.sections(options.traffic.pairs as usize);
    print!(
        "# {} pairs of peers of `wg-bounce-perf blast --remote`. On the relay, as root:\n\
         #   wg addconf wg0 THIS-FILE\n\
         #   ip route replace 10.64.0.0/10 dev wg0\n\
         #   ip -6 route replace fd77::/48 dev wg0\n\
         #   sysctl net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1\n{sections}",
        options.traffic.pairs
    );
    Ok(ExitCode::SUCCESS)
}

/// Measures the relay at `address`, in rounds.
pub fn run(
    address: SocketAddr,
    options: &Options,
    interrupt: &Interrupt,
) -> Result<ExitCode, Failure> {
    let (public, path) =
        options.remote.remote_key.zip(options.remote.keys.as_deref()).expect("required");
    let ends = Seed::read(path)?.ends(options.traffic.pairs as usize, options.family);
    let mut record = json!(options);
    record["relay_core"] = Value::Null;
    record["outer"] = json!(if address.is_ipv4() { 4 } else { 6 });
    let row = Row { label: address.to_string(), family: "remote".into(), ..Row::default() };
    in_rounds("blast", record, &options.common, vec![(row, Some(address))], |address| {
        let (relay, plans) = (Relay::Remote(*address), [options.plan()]);
        let mut bench = Bench::connect(relay, &public, &ends, &plans, &options.setup(), interrupt)?;
        bench.explained(|bench| capacity::phases(bench, options))
    })
}
