//! A relay on another machine: what `blast` measures of it over this machine's own network, and
//! the peers that the relay has to know for that.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use wg_bounce_control::noise::Identity;

use super::capacity;
use super::options::Options;
use crate::failure::Failure;
use crate::generator::{Remote, Seed, decode, prepare_process};
use crate::interrupt::Interrupt;
use crate::lines::Lines;
use crate::machine::Machine;
use crate::rounds::{Entry, exit_code, measure_in_rounds};

/// Where the relay is, and whom it knows.
#[derive(Args, Clone, Debug, Default)]
pub struct RemoteOptions {
    /// Measure the relay at this IP address and UDP port instead, from this machine's own network
    #[arg(long, value_name = "ADDRESS:PORT", requires_all = ["remote_key", "keys"])]
    #[arg(conflicts_with_all = ["implementations", "workers", "arguments", "thin"])]
    #[arg(conflicts_with_all = ["relay_core", "outer"])]
    pub remote: Option<SocketAddr>,

    /// That relay's public key, as `wg show INTERFACE public-key` prints it there
    #[arg(long, value_name = "KEY", value_parser = public_key, requires = "remote")]
    pub remote_key: Option<[u8; 32]>,

    /// File with the secret from which the keys of the peers are made
    #[arg(long, value_name = "FILE")]
    pub keys: Option<PathBuf>,

    /// Print what that relay has to know of the peers, for `wg addconf`, and end; makes the file
    /// of --keys if there is none
    #[arg(long, requires = "keys", conflicts_with = "remote")]
    pub remote_config: bool,
}

impl RemoteOptions {
    /// Fails if the options do not go together.
    pub fn check(&self) -> Result<(), Failure> {
        if self.keys.is_some() && self.remote.is_none() && !self.remote_config {
            return Err(Failure::step("--keys: is for --remote and --remote-config only"));
        }
        Ok(())
    }
}

fn public_key(text: &str) -> Result<[u8; 32], String> {
    let key = decode(text).ok_or("not 32 bytes in base64, as `wg` prints a key")?;
    // Some numbers are no key: whoever uses them shares the same secret with everybody.
    let secret = Identity::new(&[1; 32]).static_static(&key);
    secret.map(|_| key).ok_or_else(|| "nobody's public key".to_owned())
}

/// Prints what the relay has to know.
pub fn print_config(options: &Options) -> Result<(), Failure> {
    let Some(path) = &options.remote.keys else { return Ok(()) };
    let sections = Seed::read_or_make(path)?.sections(options.pairs as usize);
    print!(
        "# {} pairs of peers of `wg-bounce-perf blast --remote`. On the relay, as root:\n\
         #   wg addconf wg0 THIS-FILE\n\
         #   ip route replace 10.64.0.0/10 dev wg0\n\
         #   ip -6 route replace fd77::/48 dev wg0\n\
         #   sysctl net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1\n{sections}",
        options.pairs
    );
    Ok(())
}

/// Measures the relay at `address`, in rounds.
pub fn run(
    address: SocketAddr,
    options: &Options,
    interrupt: &Interrupt,
) -> Result<ExitCode, Failure> {
    let RemoteOptions { remote_key: Some(public), keys: Some(path), .. } = &options.remote else {
        return Err(Failure::step("--remote: needs --remote-key and --keys"));
    };
    let ends = Seed::read(path)?.ends(options.pairs as usize, options.family);
    let machine = Machine::here();
    prepare_process(options.generator_core)?;
    let mut lines = Lines::begin(options.json.as_deref(), "blast", &machine, &options.record())?;
    let relay = Remote::new(address, *public);
    let mut entries = [Entry::of(address.to_string(), "remote", relay)];
    lines.write(&entries[0].record())?;
    measure_in_rounds(&mut entries, options.rounds, &mut lines, |relay| {
        capacity::measure_remote(relay, &ends, options, interrupt)
    })?;
    println!("{}\n{machine}\n", options.title());
    capacity::print(&[entries[0].row()], options);
    println!("The relay is on another machine: what it costs there is not known here (–).");
    Ok(exit_code(&entries))
}
