//! The command line of `iperf`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::implementation::Choice;
use crate::star::Family;

/// Streams that one iperf3 can have (its `MAX_STREAMS`).
const STREAMS_MAX: i64 = 128;

/// What is measured unless told otherwise.
const DEFAULT: [&str; 5] =
    ["wg-bounce-uring", "wg-bounce-mmsg", "wireguard-go", "boringtun", "gotatun"];

/// What `iperf` measures, and how.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Rounds; in each, every implementation is measured once, after one another
    #[arg(long, value_name = "N", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,

    /// Seconds of each measurement
    #[arg(long, value_name = "S", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,

    /// Streams at a time
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=STREAMS_MAX))]
    pub streams: u32,

    /// UDP instead of TCP, at so many Mbit/s, all streams together
    #[arg(long, value_name = "MBIT")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub udp: Option<u32>,

    /// Which way the payload goes
    #[arg(long, value_enum, default_value_t = Direction::Forward)]
    pub direction: Direction,

    /// What is between the two iperf3
    #[arg(long, value_enum, default_value_t = Topology::Pair)]
    pub topology: Topology,

    /// Which IP inside the tunnel
    #[arg(long, value_enum, default_value_t = Family::V4)]
    pub family: Family,

    /// What to measure, with commas: each a name, or NAME@PATH for a program that lies elsewhere
    /// [default: wg-bounce-uring,wg-bounce-mmsg,wireguard-go,boringtun,gotatun]
    #[arg(long, value_name = "A,B,…", value_delimiter = ',')]
    pub implementations: Option<Vec<Choice>>,

    /// Relay topology: what both clients run, whatever the relay is [default: wg-bounce-uring]
    #[arg(long, value_name = "NAME")]
    pub clients: Option<Choice>,

    /// Also write everything as JSON lines at the end of this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl Options {
    /// What to measure, in order.
    pub fn choices(&self) -> Vec<Choice> {
        self.implementations.clone().unwrap_or_else(|| Choice::named(&DEFAULT))
    }

    /// What the clients of a relay run.
    pub fn client(&self) -> Choice {
        self.clients.clone().unwrap_or_else(|| Choice::named(&DEFAULT[..1]).swap_remove(0))
    }

    /// What is measured, in a line.
    pub fn title(&self) -> String {
        let Options { rounds, seconds, streams, .. } = self;
        let plural = |number: u32| if number == 1 { "" } else { "s" };
        let family = if self.family == Family::V4 { "IPv4" } else { "IPv6" };
        let topology = match self.topology {
            Topology::Pair => "pair (client daemon – veth – server daemon)".to_owned(),
            Topology::Relay => {
                format!("relay (client – relay – client; both clients {})", self.client())
            }
        };
        let protocol = match self.udp {
            None => "TCP".to_owned(),
            Some(megabits) => format!("UDP at {megabits} Mbit/s"),
        };
        let direction = match self.direction {
            Direction::Forward => "",
            Direction::Reverse => ", reverse",
            Direction::Both => ", both directions",
        };
        format!(
            "iperf3, {protocol}, {streams} stream{}{direction}, {seconds} s, {family} inside, \
             {topology}, {rounds} round{}",
            plural(*streams),
            plural(*rounds)
        )
    }

    /// For the JSON lines.
    pub fn record(&self) -> Value {
        json!({
            "rounds": self.rounds,
            "seconds": self.seconds,
            "streams": self.streams,
            "udp_megabits_per_second": self.udp,
            "direction": match self.direction {
                Direction::Forward => "forward",
                Direction::Reverse => "reverse",
                Direction::Both => "both",
            },
            "topology": if self.topology == Topology::Pair { "pair" } else { "relay" },
            "family": if self.family == Family::V4 { 4 } else { 6 },
            "clients": (self.topology == Topology::Relay).then(|| self.client().to_string()),
        })
    }
}

/// Which way the payload goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Direction {
    /// From the client that connects
    Forward,
    /// Towards it (iperf3 --reverse)
    Reverse,
    /// Both ways at once (iperf3 --bidir); figures are of both together
    Both,
}

/// What is between the two iperf3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Topology {
    /// Two daemons of one implementation
    Pair,
    /// A client, a relay whose kernel forwards, and another client
    Relay,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, clap::Error> {
        crate::command_line::parse(line)
    }

    fn names(choices: &[Choice]) -> Vec<String> {
        choices.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn without_arguments_everything_is_measured() {
        let options = parse("").expect("all have defaults");
        assert_eq!(names(&options.choices()), DEFAULT);
        assert_eq!(options.client().to_string(), DEFAULT[0]);
        assert_eq!((options.topology, options.family), (Topology::Pair, Family::V4));
    }

    #[test]
    fn every_argument_is_understood() {
        let options = parse(
            "--rounds 3 --seconds 4 --streams 16 --topology relay --family 6 --json out.jsonl \
             --udp 800 --direction both \
             --implementations wireguard-go,wg-bounce-mmsg@/old --clients boringtun",
        )
        .expect("well-formed");
        assert_eq!((options.rounds, options.seconds, options.streams), (3, 4, 16));
        assert_eq!((options.topology, options.family), (Topology::Relay, Family::V6));
        assert_eq!(names(&options.choices()), ["wireguard-go", "wg-bounce-mmsg@/old"]);
        assert_eq!(options.client().to_string(), "boringtun");
        assert_eq!(options.json, Some(PathBuf::from("out.jsonl")));
        assert_eq!(
            options.title(),
            "iperf3, UDP at 800 Mbit/s, 16 streams, both directions, 4 s, IPv6 inside, relay \
             (client – relay – client; both clients boringtun), 3 rounds"
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "--rounds 0",
            "--seconds 0",
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
