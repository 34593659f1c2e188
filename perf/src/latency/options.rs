//! The command line of `latency`.

use clap::Args;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::generator::{GroupPlan, Kind, Load, Setup, Traffic};
use crate::side_by_side::SideBySide;
use crate::star::Family;

/// A packet of one in so many trains is checked while the relay's capacity is looked for.
const CHECK_EVERY: usize = 64;

/// Bytes of packets that are encrypted before the clock starts.
const POOL: usize = 128 << 20;

/// What `latency` measures, and how.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// At which loads: packets per second, or percent of what the implementation relays at most
    #[arg(long, value_name = "RATE,…", value_delimiter = ',', default_value = "10%,50%,80%")]
    pub load: Vec<Load>,

    /// Seconds at each load
    #[arg(long, value_name = "S", default_value_t = 2)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10))]
    pub seconds: u32,

    /// What is sent
    #[command(flatten)]
    pub traffic: Traffic,

    /// Which IP inside the tunnel
    #[arg(long, value_enum, default_value_t = Family::V4)]
    pub family: Family,

    /// Packets on their way at most while the capacity is looked for
    #[arg(long, value_name = "N", default_value_t = 512)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub window: u32,

    /// What to measure side by side
    #[command(flatten)]
    pub side_by_side: SideBySide,
}

impl Options {
    /// Fails if the options do not go together.
    pub fn check(&self) -> Result<(), Failure> {
        self.traffic.check(Kind::Udp, self.family)
    }

    /// How the peers are played. Datagrams: a relay's kernel that coalesced them to segments of
    /// TCP would have some wait for others.
    pub fn setup(&self) -> Setup {
        Setup {
            kind: Kind::Udp,
            family: self.family,
            outer: Family::V4,
            is_padded: true,
            check_every: CHECK_EVERY,
            relay_core: self.side_by_side.relay_core,
        }
    }

    /// What is sent.
    pub fn plan(&self) -> GroupPlan {
        self.traffic.plan(POOL)
    }

    /// What is measured, in a line.
    pub fn title(&self) -> String {
        let Traffic { pairs, size, train } = self.traffic;
        let seconds = self.seconds;
        let plural = if pairs == 1 { "" } else { "s" };
        let family = if self.family == Family::V4 { "IPv4" } else { "IPv6" };
        format!(
            "Latency: {pairs} pair{plural}, {size}-byte UDP packets in trains of {train}, \
             {family} in IPv4, {seconds} s at each load, {}",
            self.side_by_side.title()
        )
    }

    /// For the JSON lines.
    pub fn record(&self) -> Value {
        json!({
            "load": self.load.iter().map(|load| load.label()).collect::<Vec<_>>(),
            "seconds": self.seconds,
            "pairs": self.traffic.pairs,
            "size": self.traffic.size,
            "train": self.traffic.train,
            "family": if self.family == Family::V4 { 4 } else { 6 },
            "window": self.window,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command_line::parse;

    #[test]
    fn without_arguments_there_are_three_loads() {
        let options: Options = parse("").expect("all have defaults");
        options.check().expect("they go together");
        let labels: Vec<_> = options.load.iter().map(|load| load.label()).collect();
        assert_eq!(labels, ["10%", "50%", "80%"]);
        assert_eq!(options.record()["load"], json!(labels));
    }
}
