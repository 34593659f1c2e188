//! One measurement: a new relay that knows all the peers, the storm, and then its rate.

use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use super::all_at_once::{self, Storm};
use super::crowd::Crowd;
use super::options::Options;
use super::steady::{self, Steady};
use crate::failure::Failure;
use crate::generator::{Network, Randomness, Relay, Roster};
use crate::implementation::Program;
use crate::interrupt::Interrupt;
use crate::rounds::Measured;
use crate::star::Family;

/// How long a relay still asks for cookies after its load has fallen (one second;
/// `wg_receive_handshake_packet` in drivers/net/wireguard/receive.c).
const CALM: Duration = Duration::from_millis(1200);

/// What one measurement gave.
pub struct Measurement {
    peers: u32,
    /// What the relay's log said of how it runs.
    told: Vec<String>,
    /// All at once.
    pub storm: Storm,
    /// Some handshakes at a time.
    pub steady: Steady,
}

impl Measured for Measurement {
    fn summary(&self) -> String {
        format!(
            "at once: p99 {:.0} ms, {} cookies, {} unserved; {:.0} handshakes/s, {:.0} µs CPU each",
            self.storm.answer(99.0) / 1e3,
            self.storm.cookies,
            self.storm.unserved,
            self.steady.rate(),
            self.steady.nanoseconds_per_handshake() / 1e3
        )
    }

    fn record(&self) -> Value {
        let Measurement { peers, told, storm, steady } = self;
        json!({
            "told": told,
            "peers": peers,
            "completed": storm.answers.len(),
            "unserved": storm.unserved,
            "handshakes_per_second": steady.rate(),
            "cpu_ns_per_handshake": steady.nanoseconds_per_handshake(),
            "answer_us": {
                "p50": storm.answer(50.0),
                "p99": storm.answer(99.0),
                "max": storm.answer(100.0),
            },
            "cookies": storm.cookies,
            "late": storm.late,
            "initiations": storm.initiations,
            "seconds": storm.duration.as_secs_f64(),
            "relay_cpu_seconds": storm.relay_seconds(),
            "steady": {
                "completed": steady.completed,
                "lost": steady.lost,
                "late": steady.late,
                "cookies": steady.cookies,
                "seconds": steady.duration.as_secs_f64(),
                "relay_cpu_seconds": steady.relay_seconds(),
            },
        })
    }
}

/// Measures `program`.
pub fn measure(
    program: &Program,
    options: &Options,
    interrupt: &Interrupt,
) -> Result<Measurement, Failure> {
    let core = options.side_by_side.relay_core;
    let mut network = Network::build(program, Family::V4, core, interrupt)?;
    match run(&network, options, interrupt) {
        // A daemon that has ended explains a failure better than its silence can.
        Err(Failure::Step(text)) => network.check().and(Err(Failure::Step(text))),
        outcome => outcome,
    }
}

fn run(
    network: &Network,
    options: &Options,
    interrupt: &Interrupt,
) -> Result<Measurement, Failure> {
    let mut randomness = Randomness::open()?;
    let roster = Roster::of_single_peers(options.peers as usize, &mut randomness)?;
    network.configure(&roster.relay, roster.peers())?;
    let socket = network.socket_of_many()?;
    let keys = roster.ends.iter().map(|(keys, _)| keys);
    let relay = network.pid();
    // First the storm: it finds a relay that has just been started.
    let mut crowd = Crowd::new(keys, &roster.relay, &socket)?;
    let patience = Duration::from_secs(options.patience.into());
    let storm = all_at_once::run(&mut crowd, patience, relay, &mut randomness, interrupt)?;
    sleep(CALM);
    crowd.restart();
    let limit = Duration::from_secs(options.seconds.into());
    let window = options.window as usize;
    let steady = steady::run(&mut crowd, window, limit, relay, &mut randomness, interrupt)?;
    Ok(Measurement { peers: options.peers, told: network.told(), storm, steady })
}
