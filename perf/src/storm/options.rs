//! The command line of `storm`.

use clap::Args;
use serde_json::{Value, json};

use crate::side_by_side::SideBySide;

/// What `storm` measures, and how.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Peers, each behind an IPv4 address of its own
    #[arg(long, value_name = "N", default_value_t = 1000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub peers: u32,

    /// Handshakes that wait for an answer at a time while the relay's rate is measured
    #[arg(long, value_name = "N", default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub window: u32,

    /// Seconds during which the rate is measured, all peers by turns
    #[arg(long, value_name = "S", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=60))]
    pub seconds: u32,

    /// Seconds after which a peer without an answer counts as never served
    #[arg(long, value_name = "S", default_value_t = 20)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=90))]
    pub patience: u32,

    /// What to measure side by side
    #[command(flatten)]
    pub side_by_side: SideBySide,
}

impl Options {
    /// What is measured, in a line.
    pub fn title(&self) -> String {
        let Options { peers, window, seconds, patience, .. } = self;
        let plural = if *peers == 1 { "" } else { "s" };
        format!(
            "Handshakes of {peers} peer{plural}: all at once for at most {patience} s, then \
             {window} at a time for {seconds} s, {}",
            self.side_by_side.title()
        )
    }

    /// For the JSON lines.
    pub fn record(&self) -> Value {
        json!({
            "peers": self.peers,
            "window": self.window,
            "seconds": self.seconds,
            "patience_seconds": self.patience,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command_line::parse;

    #[test]
    fn without_arguments_a_thousand_peers_come() {
        let options: Options = parse("").expect("all have defaults");
        assert_eq!((options.peers, options.window), (1000, 64));
        assert!(options.title().starts_with("Handshakes of 1000 peers: all at once"));
        assert_eq!(options.record()["patience_seconds"], 20);
    }
}
