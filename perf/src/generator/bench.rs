//! A relay with all its peers: built, connected, and then measured in phases.
//!
//! 1. The relay in its namespace; keys for it and for every peer; `wg setconf`.
//! 2. A handshake of every peer, one after another, and packets until every receiver has some.
//! 3. Phases: slices of sending. Between them the relay's clock is stopped while packets are
//!    encrypted and samples decrypted.

use std::net::IpAddr;
use std::time::Duration;

use super::assemble::{direct, shake_hands, through_relay};
use super::drive::{Generator, Group, Pace, Receiver, Slice};
use super::keys::{Keys, Randomness};
use super::network::Network;
use super::peers::Peers;
use super::phase::{Count, Phase};
use super::plan::{GroupPlan, Setup};
use super::receive::{Sampler, Tally};
use super::relay::{Relay, Step};
use crate::clock;
use crate::failure::Failure;
use crate::implementation::Program;
use crate::interrupt::Interrupt;
use crate::usage::{self, Threads};

/// Age of the oldest session at which measuring stops: the generator does not rekey, which its
/// initiator would have to do at 120 s (REKEY_AFTER_TIME; whitepaper, section 6.1).
const SESSION_AGE_MAX: Duration = Duration::from_secs(110);

/// Trains that every pair sends until all receivers have received. The first packets may overtake
/// the keepalive that confirms a session.
const PRIMING_ATTEMPTS_MAX: usize = 20;

/// Longest slice: receivers have to send keepalives in between.
const SLICE_MAX: Duration = Duration::from_secs(4);

/// Duration of a trial of a window.
const WINDOW_TRIAL: Duration = Duration::from_millis(300);

/// Clock and CPU times at one moment.
struct Times {
    now: Duration,
    /// CPU time of the relay, if it is a process here.
    relay: Option<Duration>,
    /// Busy time of the relay's core, if that is here.
    core: Option<Duration>,
}

/// A relay, its peers, and the paths between them.
pub struct Bench {
    /// The relay.
    pub relay: Relay,
    generator: Generator,
    connected_at: Duration,
    /// Samples that came after a later one of their pair, by the sequence number inside.
    late_samples: u64,
}

impl Bench {
    /// Builds and connects everything.
    pub fn build(
        program: &Program,
        plans: &[GroupPlan],
        setup: &Setup,
        interrupt: &Interrupt,
    ) -> Result<Bench, Failure> {
        let network = Network::build(program, setup.outer, setup.relay_core, interrupt)?;
        let pairs = plans.iter().map(|plan| plan.pairs).sum();
        let peers = Peers::new(pairs, setup.family, &mut Randomness::open()?)?;
        network.configure(&peers.relay, peers.entries())?;
        let public = peers.relay.identity.public();
        Bench::connect(Relay::Local(network), public, &peers.ends, plans, setup, interrupt)
    }

    /// Connects the `ends` of all pairs to a relay that knows them, and has this public key.
    pub fn connect(
        mut relay: Relay,
        public: &[u8; 32],
        ends: &[(Keys, IpAddr)],
        plans: &[GroupPlan],
        setup: &Setup,
        interrupt: &Interrupt,
    ) -> Result<Bench, Failure> {
        let connected_at = clock::now();
        let peers = match shake_hands(&relay, public, ends, plans, interrupt) {
            Ok(peers) => peers,
            Err(failure) => return Err(relay.explain(failure, Step::Handshakes)),
        };
        let generator = through_relay(plans, peers, setup, relay.pid(), interrupt)?;
        let mut bench = Bench { relay, generator, connected_at, late_samples: 0 };
        bench.explained(|bench| bench.prime(plans))?;
        Ok(bench)
    }

    /// Sends at `rate` like [`Bench::open`], but to receivers in the relay's place, with the pairs
    /// of one `plan`: the relay is idle.
    pub fn open_directly(
        &mut self,
        plan: &GroupPlan,
        setup: &Setup,
        rate: f64,
        limit: Duration,
        interrupt: &Interrupt,
    ) -> Result<Phase, Failure> {
        let network = self.relay.network().expect("only a local relay has a direct path");
        let direct = direct(network, plan, setup, interrupt)?;
        let relayed = std::mem::replace(&mut self.generator, direct);
        let phase = self.open(&[(0, rate)], limit, Sampler::for_latency(rate, limit, plan.train));
        self.generator = relayed;
        phase
    }

    /// Runs `phases`, and adds to a failure what the relay explains of it.
    pub fn explained<T>(
        &mut self,
        phases: impl FnOnce(&mut Bench) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        phases(self).map_err(|failure| self.relay.explain(failure, Step::Packets))
    }

    /// The log lines that say how the relay runs.
    pub fn told(&self) -> Vec<String> {
        self.relay.network().map(Network::told).unwrap_or_default()
    }

    /// The largest window of at most `window` packets without losses.
    pub fn find_window(&mut self, group: usize, window: usize) -> Result<usize, Failure> {
        let mut window = window;
        loop {
            let slice = self.generator.closed(group, window, u64::MAX, WINDOW_TRIAL)?;
            self.check_samples()?;
            if slice.received >= slice.sent || window <= self.generator.groups[group].pool.train() {
                return Ok(window);
            }
            window -= window.div_ceil(4);
        }
    }

    /// Keeps a `window` of one group's packets in flight, for `limit` or until `packets` are sent.
    pub fn closed(
        &mut self,
        group: usize,
        window: usize,
        packets: u64,
        limit: Duration,
    ) -> Result<Phase, Failure> {
        self.phase(|generator, so_far| {
            let left = limit.saturating_sub(so_far.duration).min(SLICE_MAX);
            let packets = packets.saturating_sub(so_far.count.sent);
            if left < Duration::from_millis(1) || packets == 0 {
                return Ok(None);
            }
            generator.closed(group, window, packets, left).map(Some)
        })
    }

    /// Sends at these rates (group, packets per second) for `limit`, whatever arrives. The samples
    /// of `sampler` give the latency.
    pub fn open(
        &mut self,
        rates: &[(usize, f64)],
        limit: Duration,
        sampler: Sampler,
    ) -> Result<Phase, Failure> {
        let pace = |(group, rate): &(usize, f64)| {
            let train = self.generator.groups[*group].pool.train() as f64;
            Pace { group: *group, interval: Duration::from_secs_f64(train / rate) }
        };
        let paces: Vec<Pace> = rates.iter().map(pace).collect();
        let sampler = std::mem::replace(&mut self.generator.sampler, sampler);
        let phase = self.phase(|generator, so_far| {
            let left = limit.saturating_sub(so_far.duration).min(SLICE_MAX);
            if left < Duration::from_millis(1) {
                return Ok(None);
            }
            generator.open(&paces, left).map(Some)
        });
        self.generator.sampler = sampler;
        phase
    }

    /// Runs slices until `slice` returns none, and checks samples in between.
    fn phase(
        &mut self,
        mut slice: impl FnMut(&mut Generator, &Phase) -> Result<Option<Slice>, Failure>,
    ) -> Result<Phase, Failure> {
        let mut phase = Phase::default();
        let (tally_before, counts_before) = (self.tally(), self.counts());
        let late_before = self.late_samples;
        let threads_before = self.threads();
        loop {
            if clock::now() - self.connected_at > SESSION_AGE_MAX {
                return Err(Failure::step("the sessions are too old: reduce --seconds"));
            }
            // Seal packets before the clock starts.
            self.generator.prepare()?;
            let before = self.times()?;
            let Some(slice) = slice(&mut self.generator, &phase)? else { break };
            let after = self.times()?;
            phase.duration += slice.duration;
            phase.count.sent += slice.sent;
            phase.count.received += slice.received;
            phase.lag = phase.lag.max(slice.lag);
            phase.wall += after.now - before.now;
            phase.relay = added(phase.relay, before.relay, after.relay);
            phase.core = added(phase.core, before.core, after.core);
            phase.samples.extend(self.check_samples()?);
            if slice.received == 0 {
                return Err(Failure::step("packets have stopped arriving"));
            }
        }
        phase.threads = self.threads().since(&threads_before);
        let tally = self.tally();
        phase.trains = tally.trains - tally_before.trains;
        phase.reordered = tally.reordered - tally_before.reordered;
        phase.foreign = tally.foreign - tally_before.foreign;
        phase.late_samples = self.late_samples - late_before;
        let counts = self.counts().into_iter().zip(counts_before);
        phase.groups = counts.map(|(now, before)| now.since(before)).collect();
        Ok(phase)
    }

    /// Sends until every receiver has received.
    fn prime(&mut self, plans: &[GroupPlan]) -> Result<(), Failure> {
        for (number, plan) in plans.iter().enumerate() {
            let (train, first) = (plan.train, self.generator.groups[number].first);
            let packets = (plan.pairs * train) as u64;
            let mut attempts = 0;
            loop {
                self.generator.closed(number, train, packets, SLICE_MAX)?;
                self.check_samples()?;
                let of_group = &self.generator.receivers[first..first + plan.pairs];
                let silent = of_group.iter().filter(|it| it.tally.messages == 0).count();
                attempts += 1;
                if silent == 0 {
                    break;
                }
                if attempts == PRIMING_ATTEMPTS_MAX {
                    let pairs = plan.pairs;
                    let why = format!("nothing arrives from {silent} of {pairs} senders");
                    return Err(Failure::step(why));
                }
            }
        }
        Ok(())
    }

    /// Opens the samples; pair and latency of each. Fails if a packet is not what a router would
    /// have made of it.
    fn check_samples(&mut self) -> Result<Vec<(usize, Duration)>, Failure> {
        let mut checked = Vec::new();
        for mut sample in self.generator.sampler.kept.drain(..) {
            let wrong = |why: &str| {
                Failure::step(format!(
                    "wrong packet at the receiver of pair {}: {why}",
                    sample.pair
                ))
            };
            let mut groups = self.generator.groups.iter().rev();
            let group = groups.find(|group| group.first <= sample.pair);
            let group = group.expect("the first group begins with the first pair");
            let receiver = &mut self.generator.receivers[sample.pair];
            let plaintext =
                receiver.open(&mut sample.message).ok_or_else(|| wrong("not authentic"))?;
            let sender = sample.pair - group.first;
            let (number, sent_at) =
                group.pool.check_arrived(sender, plaintext).map_err(|why| wrong(&why))?;
            match receiver.last_sample {
                Some(last) if number <= last => self.late_samples += 1,
                _ => receiver.last_sample = Some(number),
            }
            checked.push((sample.pair, sample.arrived_at.saturating_sub(sent_at)));
        }
        Ok(checked)
    }

    fn tally(&self) -> Tally {
        let mut sum = Tally::default();
        for Receiver { tally, .. } in &self.generator.receivers {
            sum.trains += tally.trains;
            sum.reordered += tally.reordered;
            sum.foreign += tally.foreign;
        }
        sum
    }

    /// Packets of each group, from the beginning.
    fn counts(&self) -> Vec<Count> {
        let count = |group: &Group| {
            let receivers = self.generator.receivers[group.first..].iter().take(group.pairs());
            let received = receivers.map(|receiver| receiver.tally.messages).sum();
            Count { sent: group.pool.messages_sent(), received }
        };
        self.generator.groups.iter().map(count).collect()
    }

    fn threads(&self) -> Threads {
        self.relay.pid().map(Threads::of).unwrap_or_default()
    }

    /// Clock and CPU times now.
    fn times(&self) -> Result<Times, Failure> {
        let relay = usage::of_daemon(self.relay.pid())?;
        let missing = |core| Failure::step(format!("no core {core} in /proc/stat"));
        let of = |core| usage::of_core(Some(core)).ok_or_else(|| missing(core));
        let core = self.relay.network().map(|it| of(it.core())).transpose()?;
        Ok(Times { now: clock::now(), relay, core })
    }
}

/// A sum of times plus the time between two more, if known.
fn added(
    sum: Option<Duration>,
    before: Option<Duration>,
    after: Option<Duration>,
) -> Option<Duration> {
    Some(sum.unwrap_or_default() + after?.saturating_sub(before?))
}
