//! A relay with all its peers: built, connected, and then measured in phases.
//!
//! 1. The relay in its namespace; keys for it and for every peer; `wg setconf`.
//! 2. A handshake of every peer, one after another, and packets until every receiver has some.
//! 3. Phases: slices of sending. Between them the relay's clock is stopped while packets are
//!    encrypted and samples decrypted.

use std::iter::repeat_n;
use std::mem::replace;
use std::net::IpAddr;
use std::time::Duration;

use super::drive::{Generator, Pace};
use super::keys::{Keys, random_key};
use super::network::{Network, Path, Relay, Step};
use super::peers::Peers;
use super::phase::{Count, Phase};
use super::plan::{GroupPlan, Setup};
use super::receive::Sampler;
use super::session::{Session, connect};
use crate::failure::Failure;
use crate::implementation::Program;
use crate::process::STEP_LIMIT;
use crate::usage::{self, Threads};
use crate::{clock, interrupt};

/// Age of the oldest session at which measuring stops: the generator does not rekey, which its
/// initiator would have to do at 120 s (REKEY_AFTER_TIME; whitepaper, section 6.1).
const SESSION_AGE_MAX: Duration = Duration::from_secs(110);

/// Trains that every pair sends until all receivers have received. The first packets may overtake
/// the keepalive that confirms a session.
const PRIMING_ATTEMPTS_MAX: usize = 20;

/// Longest slice: receivers have to send keepalives in between.
const SLICE_MAX: Duration = Duration::from_secs(4);

/// Shortest slice; less time than this is not used.
const SLICE_MIN: Duration = Duration::from_millis(1);

/// Samples of the latency: enough for a 99.9th percentile, without much memory and time.
const LATENCY_SAMPLES: f64 = 20_000.0;

/// Duration of a trial of a window.
const WINDOW_TRIAL: Duration = Duration::from_millis(300);

/// A relay, its peers, and the paths between them.
pub struct Bench {
    /// The relay.
    pub relay: Relay,
    plans: Vec<GroupPlan>,
    setup: Setup,
    generator: Generator,
    connected_at: Duration,
}

impl Bench {
    /// Builds and connects everything.
    pub fn build(program: &Program, plans: &[GroupPlan], setup: Setup) -> Result<Bench, Failure> {
        let network = Network::build(program, setup.outer, setup.relay_core)?;
        let peers = Peers::new(plans.iter().map(|plan| plan.pairs).sum(), setup.family);
        network.configure(&peers.relay, peers.entries(), STEP_LIMIT)?;
        let public = peers.relay.identity.public();
        Bench::connect(Relay::Local(network), public, &peers.ends, plans, setup)
    }

    /// Connects the `ends` of all pairs to a relay that knows them, and has this public key.
    pub fn connect(
        mut relay: Relay,
        public: &[u8; 32],
        ends: &[(Keys, IpAddr)],
        plans: &[GroupPlan],
        setup: Setup,
    ) -> Result<Bench, Failure> {
        let connected_at = clock::now();
        let shake_hands = || {
            let paths = |it: &GroupPlan| repeat_n([Path::Senders, it.path], it.pairs).flatten();
            let sockets = relay.sockets(&plans.iter().flat_map(paths).collect::<Vec<_>>())?;
            let peers = (0..).zip(sockets.into_iter().zip(ends)).map(|(index, (socket, end))| {
                interrupt::check()?;
                let session = connect(&socket, &end.0, public, index)?;
                Ok((socket, session))
            });
            peers.collect::<Result<Vec<_>, Failure>>()
        };
        let peers = shake_hands().map_err(|failure| relay.explain(failure, Step::Handshakes))?;
        let generator = Generator::new(plans, peers, &setup, false, relay.pid())?;
        let mut bench = Bench { relay, plans: plans.to_vec(), setup, generator, connected_at };
        bench.prime().map_err(|failure| bench.explain(failure))?;
        Ok(bench)
    }

    /// The log lines that say how the relay runs.
    pub fn told(&self) -> Vec<String> {
        self.relay.network().map(|network| network.relay.told()).unwrap_or_default()
    }

    /// As much as the relay can take of a group's packets, for `limit` or until `packets` are sent:
    /// the window, the largest of at most `window` packets without losses, and the results with it.
    pub fn saturate(
        &mut self,
        group: usize,
        mut window: usize,
        packets: u64,
        limit: Duration,
    ) -> Result<(usize, Phase), Failure> {
        loop {
            let trial = Pace::Window { group, window };
            let slice = self.generator.run(&trial, u64::MAX, WINDOW_TRIAL);
            let slice = slice.map_err(|failure| self.explain(failure))?;
            check_samples(&mut self.generator).map_err(|failure| self.explain(failure))?;
            if slice.received >= slice.sent || window <= self.plans[group].train {
                break;
            }
            window -= window.div_ceil(4);
        }
        Ok((window, self.phase(&Pace::Window { group, window }, packets, limit)?))
    }

    /// Sends the first group's packets at `rate` per second for `limit`, whatever arrives, and
    /// samples their latency.
    pub fn at_rate(&mut self, rate: f64, limit: Duration) -> Result<Phase, Failure> {
        let trains = rate * limit.as_secs_f64() / self.plans[0].train as f64;
        let every = ((trains / LATENCY_SAMPLES).ceil() as usize).max(1);
        self.at_rates(&[(0, rate)], limit, Sampler::new(every))
    }

    /// Sends at these rates (group, packets per second) for `limit`, whatever arrives. The samples
    /// of `sampler` give the latency.
    pub fn at_rates(
        &mut self,
        rates: &[(usize, f64)],
        limit: Duration,
        sampler: Sampler,
    ) -> Result<Phase, Failure> {
        let sampler = replace(&mut self.generator.sampler, sampler);
        let phase = self.phase(&Pace::Rates(rates.to_vec()), u64::MAX, limit);
        self.generator.sampler = sampler;
        phase
    }

    /// Like [`Bench::at_rate`], but to receivers in the relay's place, each pair with a key of its
    /// own: the relay is idle.
    pub fn at_rate_directly(&mut self, rate: f64, limit: Duration) -> Result<Phase, Failure> {
        let network = self.relay.network().expect("only a local relay has a direct path");
        let pairs = network.direct_pairs(self.plans[0].pairs)?.into_iter().map(|pair| {
            let key = random_key();
            pair.map(|socket| (socket, Session::shared(key)))
        });
        let peers = pairs.flatten().collect();
        let direct = Generator::new(&self.plans[..1], peers, &self.setup, true, None)?;
        let relayed = replace(&mut self.generator, direct);
        let phase = self.at_rate(rate, limit);
        self.generator = relayed;
        phase
    }

    /// Adds to a failure what the relay explains of it.
    fn explain(&mut self, failure: Failure) -> Failure {
        self.relay.explain(failure, Step::Packets)
    }

    /// Runs slices at this pace, for `limit` or until `packets` are sent.
    fn phase(&mut self, pace: &Pace, packets: u64, limit: Duration) -> Result<Phase, Failure> {
        self.slices(pace, packets, limit).map_err(|failure| self.explain(failure))
    }

    /// Runs slices, and checks samples in between.
    fn slices(&mut self, pace: &Pace, packets: u64, limit: Duration) -> Result<Phase, Failure> {
        let mut phase = Phase::default();
        let mut sent = 0;
        self.generator.receivers.iter_mut().for_each(|receiver| receiver.tally.restart());
        self.generator.groups.iter_mut().for_each(|group| group.sent = 0);
        let threads_before = self.threads();
        while sent < packets && limit.saturating_sub(phase.duration) >= SLICE_MIN {
            if clock::now() - self.connected_at > SESSION_AGE_MAX {
                return Err(Failure::step("the sessions are too old: reduce --seconds"));
            }
            // Seal packets before the clock starts.
            self.generator.prepare()?;
            let (relay, core) = self.cpu_times()?;
            let start = clock::now();
            let left = (limit - phase.duration).min(SLICE_MAX);
            let slice = self.generator.run(pace, packets - sent, left)?;
            let (relay_after, core_after) = self.cpu_times()?;
            phase.wall += clock::now() - start;
            phase.relay = usage::added(phase.relay, relay, relay_after);
            phase.core = usage::added(phase.core, core, core_after);
            sent += slice.sent;
            phase.duration += slice.duration;
            phase.lag = phase.lag.max(slice.lag);
            phase.samples.extend(check_samples(&mut self.generator)?);
            if slice.received == 0 {
                return Err(Failure::step("packets have stopped arriving"));
            }
        }
        phase.threads = self.threads().since(&threads_before);
        for group in &self.generator.groups {
            let mut count = Count { sent: group.sent, received: 0 };
            for receiver in &self.generator.receivers[group.pairs()] {
                count.received += receiver.tally.messages;
                phase.tally.add(&receiver.tally);
            }
            phase.groups.push(count);
            phase.count.sent += count.sent;
            phase.count.received += count.received;
        }
        Ok(phase)
    }

    /// Sends until every receiver has received.
    fn prime(&mut self) -> Result<(), Failure> {
        for (group, plan) in self.plans.iter().enumerate() {
            let (pairs, window) = (plan.pairs, plan.train);
            let mut silent = pairs;
            for _ in 0..PRIMING_ATTEMPTS_MAX {
                let pace = Pace::Window { group, window };
                self.generator.run(&pace, (pairs * window) as u64, SLICE_MAX)?;
                check_samples(&mut self.generator)?;
                let receivers = &self.generator.receivers[self.generator.groups[group].pairs()];
                silent = receivers.iter().filter(|it| it.tally.messages == 0).count();
                if silent == 0 {
                    break;
                }
            }
            if silent > 0 {
                let why = format!("nothing arrives from {silent} of {pairs} senders");
                return Err(Failure::step(why));
            }
        }
        Ok(())
    }

    fn threads(&self) -> Threads {
        self.relay.pid().map(Threads::of).unwrap_or_default()
    }

    /// CPU time of the relay, if it is a process here, and busy time of its core, if that is here.
    fn cpu_times(&self) -> Result<(Option<Duration>, Option<Duration>), Failure> {
        let relay = usage::of_daemon(self.relay.pid())?;
        let missing = |core| Failure::step(format!("no core {core} in /proc/stat"));
        let of = |core| usage::of_core(Some(core)).ok_or_else(|| missing(core));
        let core = self.relay.network().map(|it| of(it.core)).transpose()?;
        Ok((relay, core))
    }
}

/// Opens the samples; pair and latency of each. Fails if a packet is not what a router would have
/// made of it.
fn check_samples(generator: &mut Generator) -> Result<Vec<(usize, Duration)>, Failure> {
    let mut checked = Vec::new();
    for mut sample in generator.sampler.kept.drain(..) {
        let pair = sample.pair;
        let wrong = |why: &str| {
            Failure::step(format!("wrong packet at the receiver of pair {pair}: {why}"))
        };
        let group = generator.groups.iter().find(|group| group.pairs().contains(&pair));
        let group = group.expect("every pair is in a group");
        let receiver = &mut generator.receivers[pair];
        let opened = receiver.session.open(&mut sample.message);
        let (_, plaintext) = opened.ok_or_else(|| wrong("not authentic"))?;
        let arrived = group.pool.check_arrived(pair - group.first, plaintext);
        let (number, sent_at) = arrived.map_err(|why| wrong(&why))?;
        match receiver.last_sample {
            Some(last) if number <= last => receiver.tally.late_samples += 1,
            _ => receiver.last_sample = Some(number),
        }
        checked.push((pair, sample.arrived_at.saturating_sub(sent_at)));
    }
    Ok(checked)
}
