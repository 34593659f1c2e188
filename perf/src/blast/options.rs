//! The command line of `blast`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::remote::RemoteOptions;

use crate::failure::Failure;
use crate::generator::{Kind, Load, Setup, TRAIN_MAX, check_trains};
use crate::implementation::Choice;
use crate::star::Family;

/// What is measured unless told otherwise.
const DEFAULT: [&str; 4] = ["wg-bounce-uring", "wireguard-go", "boringtun", "gotatun"];

/// What `blast` measures, and how.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Rounds; in each, every implementation is measured once, after one another
    #[arg(long, value_name = "N", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,

    /// Seconds of each measurement during which the relay works
    #[arg(long, value_name = "S", default_value_t = 2)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=30))]
    pub seconds: u32,

    /// Also end a measurement after so many packets
    #[arg(long, value_name = "N")]
    pub packets: Option<u64>,

    /// Pairs of peers: a sender and a receiver each, every one with a socket of its own
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=8000))]
    pub pairs: u32,

    /// Bytes of each inner IP packet
    #[arg(long, value_name = "BYTES", default_value_t = 1408)]
    pub size: usize,

    /// Packets that are sent with one system call (UDP_SEGMENT); 1: every datagram alone
    #[arg(long, value_name = "N", default_value_t = 44)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(TRAIN_MAX)))]
    pub train: u32,

    /// What the inner packets are
    #[arg(long, value_enum, default_value_t = Kind::Tcp)]
    pub kind: Kind,

    /// Which IP inside the tunnel
    #[arg(long, value_enum, default_value_t = Family::V4)]
    pub family: Family,

    /// Which IP carries the tunnel
    #[arg(long, value_enum, default_value_t = Family::V4)]
    pub outer: Family,

    /// Do not pad packets to a multiple of 16 bytes, as boringtun does not
    #[arg(long)]
    pub unpadded: bool,

    /// Packets on their way at a time, at most; less for a daemon that loses some
    #[arg(long, value_name = "N", default_value_t = 512)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub window: u32,

    /// Also measure latency: at so many packets per second, or percent of what it has relayed
    #[arg(long, value_name = "RATE,…", value_delimiter = ',')]
    pub load: Vec<Load>,

    /// Measure instead what happens to a thin flow beside heavy ones, and beside one whose
    /// receiver's path is slow
    #[arg(long, conflicts_with_all = ["load", "packets"])]
    pub thin: bool,

    /// What the slow path of --thin carries (Mbit/s)
    #[arg(long, value_name = "MBIT", default_value_t = 20)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub slow: u32,

    /// Memory for packets that are encrypted before the clock starts (MiB); when it is used up,
    /// the clock stops until it is filled again
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub pool: u32,

    /// Decrypt and check a packet of one in so many trains
    #[arg(long, value_name = "N", default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub check_every: u32,

    /// Core of the relay: all its threads run there
    #[arg(long, value_name = "CPU", default_value_t = 1)]
    pub relay_core: usize,

    /// Core of the generator
    #[arg(long, value_name = "CPU", default_value_t = 0)]
    pub generator_core: usize,

    /// Workers of wg-bounce
    #[arg(long, value_name = "N")]
    pub workers: Option<u32>,

    /// More arguments for wg-bounce, parted by spaces
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    pub arguments: Option<String>,

    /// What to measure, with commas: each a name, or NAME@PATH for a program that lies elsewhere
    /// [default: wg-bounce-uring,wireguard-go,boringtun,gotatun]
    #[arg(long, value_name = "A,B,…", value_delimiter = ',')]
    pub implementations: Option<Vec<Choice>>,

    /// Or a relay on another machine
    #[command(flatten)]
    pub remote: RemoteOptions,

    /// Also write everything as JSON lines at the end of this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl Options {
    /// What to measure, in order, with the arguments that are for ours only.
    pub fn choices(&self) -> Vec<Choice> {
        let choices = self.implementations.clone().unwrap_or_else(|| Choice::named(&DEFAULT));
        let workers = self.workers.map(|workers| format!("--workers {workers}"));
        let words = [workers, self.arguments.clone()].into_iter().flatten().collect::<Vec<_>>();
        let words = words.join(" ");
        let words: Vec<&str> = words.split_whitespace().collect();
        choices.into_iter().map(|choice| choice.with_arguments("wg-bounce", &words)).collect()
    }

    /// Fails if the options do not go together.
    pub fn check(&self) -> Result<(), Failure> {
        self.remote.check()?;
        check_trains(self.kind, self.family, self.size, self.train as usize)
    }

    /// How the peers are played.
    pub fn setup(&self) -> Setup {
        Setup {
            kind: self.kind,
            family: self.family,
            outer: self.outer,
            is_padded: !self.unpadded,
            check_every: self.check_every as usize,
            relay_core: self.relay_core,
        }
    }

    /// What is measured, in a line.
    pub fn title(&self) -> String {
        let Options { rounds, seconds, pairs, size, train, .. } = self;
        let plural = |number: u32| if number == 1 { "" } else { "s" };
        let family = |family| if family == Family::V4 { "IPv4" } else { "IPv6" };
        let kind = if self.kind == Kind::Tcp { "TCP" } else { "UDP" };
        let (outer, place) = match self.remote.remote {
            Some(SocketAddr::V4(address)) => (Family::V4, format!("at {address}")),
            Some(SocketAddr::V6(address)) => (Family::V6, format!("at {address}")),
            None => (self.outer, format!("on core {}", self.relay_core)),
        };
        format!(
            "{pairs} pair{}, {size}-byte {kind} packets{} in trains of {train}, {} in {}, \
             {seconds} s, {rounds} round{}; relay {place}, generator on core {}",
            plural(*pairs),
            if self.unpadded { ", unpadded," } else { "" },
            family(self.family),
            family(outer),
            plural(*rounds),
            self.generator_core,
        )
    }

    /// For the JSON lines.
    pub fn record(&self) -> Value {
        let remote = self.remote.remote;
        let is_outer_v4 = remote.map_or(self.outer == Family::V4, |address| address.is_ipv4());
        json!({
            "rounds": self.rounds,
            "seconds": self.seconds,
            "packets": self.packets,
            "pairs": self.pairs,
            "size": self.size,
            "train": self.train,
            "kind": if self.kind == Kind::Tcp { "tcp" } else { "udp" },
            "family": if self.family == Family::V4 { 4 } else { 6 },
            "outer": if is_outer_v4 { 4 } else { 6 },
            "padded": !self.unpadded,
            "window": self.window,
            "load": self.load.iter().map(|load| load.label()).collect::<Vec<_>>(),
            "thin": self.thin,
            "slow_megabits_per_second": self.slow,
            "pool_mib": self.pool,
            "remote": remote.map(|address| address.to_string()),
            "relay_core": remote.is_none().then_some(self.relay_core),
            "generator_core": self.generator_core,
            "workers": self.workers,
            "arguments": self.arguments,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, clap::Error> {
        crate::command_line::parse(line)
    }

    #[test]
    fn without_arguments_it_is_one_pair_in_long_trains() {
        let options = parse("").expect("all have defaults");
        options.check().expect("they go together");
        assert_eq!((options.pairs, options.train, options.size), (1, 44, 1408));
        let names: Vec<_> = options.choices().iter().map(ToString::to_string).collect();
        assert_eq!(names, DEFAULT);
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for line in ["--size 43", "--size 63 --family 6", "--size 1421", "--train 60"] {
            assert!(parse(line).expect("well-formed").check().is_err(), "{line}");
        }
        for line in ["--size 44", "--size 1420 --train 1", "--size 64 --train 64 --family 6"] {
            parse(line).expect("well-formed").check().expect(line);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in ["--pairs 0", "--train 65", "--load 0", "--load x%", "--thin --load 10%"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_remote_relay_has_all_that_it_needs() {
        let key = "jXiI4zvwXWQ3xGzt0PZoZnZ5v0rYHcTXwCcH0iQ4yVg=";
        let line = format!("--remote [fd00::1]:51820 --remote-key {key} --keys file");
        let options = parse(&line).expect("well-formed");
        options.check().expect("they go together");
        assert!(options.title().contains("IPv4 in IPv6"), "{}", options.title());
        assert!(options.title().contains("relay at [fd00::1]:51820"), "{}", options.title());
        assert_eq!(options.record()["relay_core"], Value::Null);
        for more in ["--thin", "--implementations kernel", "--relay-core 1", "--remote-config"] {
            assert!(parse(&format!("{line} {more}")).is_err(), "{more}");
        }
        for line in ["--remote 10.0.0.1:1", "--remote-key x", "--remote-config"] {
            assert!(parse(line).is_err(), "{line}");
        }
        let nobody = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        for bad in ["x", nobody] {
            assert!(parse(&line.replace(key, bad)).is_err(), "{bad}");
        }
        assert!(parse("--keys file").expect("well-formed").check().is_err());
    }

    #[test]
    fn only_ours_gets_our_arguments() {
        let line = "--workers 8 --arguments --gso=off --implementations wg-bounce-mmsg,boringtun";
        let choices = parse(line).expect("well-formed").choices();
        let plain = Choice::named(&["wg-bounce-mmsg", "boringtun"]);
        let words = ["--workers", "8", "--gso=off"];
        assert_eq!(choices[0], plain[0].clone().with_arguments("wg-bounce", &words));
        assert_ne!(choices[0], plain[0]);
        assert_eq!(choices[1], plain[1]);
    }
}
