//! The command line of `scale`.

use clap::Args;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::generator::{GroupPlan, Kind, Setup, Traffic};
use crate::side_by_side::SideBySide;
use crate::star::Family;

/// Peers at most: each has an address in 10.112.0.0/12.
pub const PEERS_MAX: u32 = 1_000_000;

/// What `--full` adds.
const FULL: u32 = 100_000;

/// A packet of one in so many trains is decrypted and checked.
const CHECK_EVERY: usize = 64;

/// Bytes of packets that are encrypted before the clock starts.
const POOL: usize = 64 << 20;

/// What `scale` measures, and how.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Numbers of peers
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [10, 1000, 10_000])]
    #[arg(value_parser = clap::value_parser!(u32).range(2..=i64::from(PEERS_MAX)))]
    pub peers: Vec<u32>,

    /// Also with 100,000 peers
    #[arg(long)]
    pub full: bool,

    /// Seconds that one step of the configuration may take; who takes longer, or refuses, is not
    /// asked again with more peers
    #[arg(long, value_name = "S", default_value_t = 60)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub limit: u32,

    /// Seconds during which packets are relayed at each number of peers
    #[arg(long, value_name = "S", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=30))]
    pub seconds: u32,

    /// What is sent
    #[command(flatten)]
    pub traffic: Traffic,

    /// Packets on their way at most
    #[arg(long, value_name = "N", default_value_t = 256)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub window: u32,

    /// What to measure side by side
    #[command(flatten)]
    pub side_by_side: SideBySide,
}

impl Options {
    /// Numbers of peers, the smallest first.
    pub fn sizes(&self) -> Vec<u32> {
        let mut sizes = self.peers.clone();
        sizes.extend(self.full.then_some(FULL));
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    /// Fails if the options do not go together.
    pub fn check(&self) -> Result<(), Failure> {
        let ends = 2 * self.traffic.pairs;
        if let Some(size) = self.sizes().into_iter().find(|size| *size < ends) {
            let why =
                format!("--peers {size}: fewer than the {ends} of --pairs {}", self.traffic.pairs);
            return Err(Failure::step(why));
        }
        self.traffic.check(Kind::Tcp, Family::V4)
    }

    /// How the pairs are played.
    pub fn setup(&self) -> Setup {
        Setup {
            kind: Kind::Tcp,
            family: Family::V4,
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
        let sizes: Vec<String> = self.sizes().iter().map(ToString::to_string).collect();
        let Traffic { pairs, size, train } = self.traffic;
        let seconds = self.seconds;
        let plural = if pairs == 1 { "" } else { "s" };
        format!(
            "{} peers; {size}-byte TCP packets between {pairs} pair{plural} of them in trains of \
             {train} for {seconds} s, {}",
            sizes.join(", "),
            self.side_by_side.title()
        )
    }

    /// For the JSON lines.
    pub fn record(&self) -> Value {
        json!({
            "peers": self.sizes(),
            "limit_seconds": self.limit,
            "seconds": self.seconds,
            "pairs": self.traffic.pairs,
            "size": self.traffic.size,
            "train": self.traffic.train,
            "window": self.window,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command_line::parse;

    #[test]
    fn without_arguments_there_are_three_sizes() {
        let options: Options = parse("").expect("all have defaults");
        options.check().expect("they go together");
        assert_eq!(options.sizes(), [10, 1000, 10_000]);
        let full = Options { full: true, peers: vec![100_000, 20, 8], ..options };
        assert_eq!(full.sizes(), [8, 20, 100_000]);
        full.check().expect("they go together");
    }

    #[test]
    fn pairs_are_peers() {
        let options: Options = parse("--pairs 6").expect("well-formed");
        let Err(why) = options.check() else { panic!("12 peers are more than 10") };
        assert_eq!(why.to_string(), "--peers 10: fewer than the 12 of --pairs 6");
    }
}
