//! A relay on another machine, measured over this machine's own network, and the peers that it has
//! to know for that.

use std::net::SocketAddr;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::capacity;
use super::options::Options;
use crate::failure::Failure;
use crate::generator::{Bench, Relay, Seed};
use crate::interrupt::Interrupt;
use crate::record::Row;
use crate::run::in_rounds;

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
