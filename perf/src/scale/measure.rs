//! One measurement: at each number of peers a new relay, its configuration, and packets between a
//! few of the peers.

use std::time::Duration;

use serde_json::{Value, json};

use super::configure::{Configured, Late, configure};
use super::options::Options;
use crate::failure::Failure;
use crate::generator::{Bench, Network, Phase, Randomness, Roster};
use crate::implementation::Program;
use crate::interrupt::Interrupt;
use crate::rounds::Measured;

/// What a relay took with one number of peers.
pub struct Figures {
    /// To configure it.
    pub configured: Configured,
    /// Packets between the pairs.
    pub phase: Phase,
}

impl Figures {
    /// Bytes in memory with all peers; not a number if the relay is the kernel.
    pub fn resident(&self) -> f64 {
        self.configured.resident.map_or(f64::NAN, |(_, after)| after as f64)
    }
}

/// Why there are no figures.
pub enum Trouble {
    /// So many peers are too many for it, which is a result, too: it took longer than it may, or
    /// refused them.
    TooMany(String),
    /// It failed.
    Failed(String),
}

impl Trouble {
    /// In words.
    pub fn text(&self) -> &str {
        match self {
            Trouble::TooMany(text) | Trouble::Failed(text) => text,
        }
    }
}

/// One number of peers.
pub struct Size {
    peers: u32,
    /// What it gave.
    pub outcome: Result<Figures, Trouble>,
}

impl Size {
    fn record(&self) -> Value {
        let mut record = json!({ "peers": self.peers });
        match &self.outcome {
            Ok(Figures { configured, phase }) => {
                record["setconf_seconds"] = configured.setconf.as_secs_f64().into();
                record["add_seconds"] = configured.add.as_secs_f64().into();
                record["remove_seconds"] = configured.remove.as_secs_f64().into();
                record["resident_bytes"] = json!(configured.resident.map(|(_, after)| after));
                record["resident_bytes_without_peers"] =
                    json!(configured.resident.map(|(before, _)| before));
                record["ns_per_packet"] = json!(phase.nanoseconds_per_packet());
                record["phase"] = phase.record();
            }
            Err(trouble) => record["failure"] = trouble.text().into(),
        }
        record
    }
}

/// What one measurement gave.
pub struct Measurement {
    /// For each number of peers, in order.
    pub sizes: Vec<Size>,
}

impl Measurement {
    /// Whether something failed; too many peers are no failure.
    pub fn has_failed(&self) -> bool {
        self.sizes.iter().any(|size| matches!(size.outcome, Err(Trouble::Failed(_))))
    }
}

impl Measured for Measurement {
    fn summary(&self) -> String {
        let size = |Size { peers, outcome }: &Size| match outcome {
            Ok(figures) => format!(
                "{peers} peers: {:.2} s, {:.0} MiB, {:.0} ns/packet",
                figures.configured.setconf.as_secs_f64(),
                figures.resident() / MEBIBYTE,
                figures.phase.nanoseconds_per_packet()
            ),
            Err(trouble) => format!("{peers} peers: {}", trouble.text()),
        };
        self.sizes.iter().map(size).collect::<Vec<_>>().join("; ")
    }

    fn record(&self) -> Value {
        json!({ "sizes": self.sizes.iter().map(Size::record).collect::<Vec<_>>() })
    }
}

/// Bytes.
pub const MEBIBYTE: f64 = (1 << 20) as f64;

/// Measures `program` with every number of peers until they are too many for it.
pub fn measure(
    program: &Program,
    options: &Options,
    interrupt: &Interrupt,
) -> Result<Measurement, Failure> {
    let mut sizes = Vec::new();
    let mut too_many: Option<u32> = None;
    for peers in options.sizes() {
        let outcome = match too_many {
            Some(fewer) => Err(Trouble::TooMany(format!("not tried: {fewer} peers were too many"))),
            None => match with_peers(program, peers, options, interrupt) {
                Err(Failure::Interrupted) => return Err(Failure::Interrupted),
                Err(Failure::Step(text)) => Err(Trouble::Failed(text)),
                Ok(outcome) => outcome,
            },
        };
        if too_many.is_none() && matches!(outcome, Err(Trouble::TooMany(_))) {
            too_many = Some(peers);
        }
        sizes.push(Size { peers, outcome });
    }
    Ok(Measurement { sizes })
}

fn with_peers(
    program: &Program,
    peers: u32,
    options: &Options,
    interrupt: &Interrupt,
) -> Result<Result<Figures, Trouble>, Failure> {
    let setup = options.setup();
    let mut network = Network::build(program, setup.outer, setup.relay_core, interrupt)?;
    let pairs = options.traffic.pairs as usize;
    let roster = Roster::new(pairs, setup.family, &mut Randomness::open()?)?;
    let limit = Duration::from_secs(options.limit.into());
    let configured = match configure(&network, &roster, peers, limit) {
        Ok(Ok(configured)) => configured,
        Ok(Err(Late(what))) => {
            let text = format!("{what} took longer than {} s", options.limit);
            return Ok(Err(Trouble::TooMany(text)));
        }
        // One that lives has refused; one that has ended has failed.
        Err(Failure::Step(text)) => return network.check().map(|()| Err(Trouble::TooMany(text))),
        Err(failure) => return Err(failure),
    };
    let (public, plans) = (roster.relay.identity.public(), [options.plan()]);
    let mut bench = Bench::connect(network, public, &roster.ends, &plans, &setup, interrupt)?;
    let outcome = relay(&mut bench, options);
    let phase = bench.explain(outcome)?;
    Ok(Ok(Figures { configured, phase }))
}

fn relay(bench: &mut Bench, options: &Options) -> Result<Phase, Failure> {
    let window = bench.find_window(0, options.window as usize)?;
    bench.closed(0, window, u64::MAX, Duration::from_secs(options.seconds.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_peers_are_no_failure() {
        let with = |trouble| {
            let size = Size { peers: 10, outcome: Err(trouble) };
            Measurement { sizes: vec![size] }
        };
        let late = with(Trouble::TooMany("`wg setconf` took longer than 60 s".to_owned()));
        assert!(!late.has_failed());
        assert_eq!(late.summary(), "10 peers: `wg setconf` took longer than 60 s");
        let failure = &late.record()["sizes"][0]["failure"];
        assert_eq!(failure, "`wg setconf` took longer than 60 s");
        assert!(with(Trouble::Failed("it ended by itself".to_owned())).has_failed());
    }
}
