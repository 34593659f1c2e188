//! A relay with all its peers: built, connected, and then made to work in phases.
//!
//! 1. The relay in its namespace; keys for it and for every peer; `wg setconf`.
//! 2. A handshake of every peer, one after another, and packets until every receiver has some.
//! 3. Phases: slices of sending, with the relay's clock stopped between them while packets are
//!    encrypted and samples decrypted.

use std::net::UdpSocket;
use std::time::Duration;

use serde_json::{Value, json};

use super::direct;
use super::drive::{Generator, Group, Pace, Receiver, Slice};
use super::network::{Network, Path, Role, inner_address};
use super::packet::Flow;
use super::peer::{Randomness, Session, connect};
use super::plan::{GroupPlan, Setup};
use super::pool::{Pool, Source};
use super::receive::{Sampler, Tally};
use super::roster::Roster;
use crate::clock;
use crate::cpu::{self, Threads, record_of_threads};
use crate::failure::Failure;
use crate::implementation::Program;
use crate::interrupt::Interrupt;
use crate::statistics::percentile;

/// Age of the oldest session at which measuring stops: its initiator would make a new one at
/// 120 s (REKEY_AFTER_TIME; whitepaper, section 6.1), and the generator does not.
const SESSION_AGE_MAX: Duration = Duration::from_secs(110);

/// Messages of a pool at most, however small they are: sealing them takes a while.
const POOL_MESSAGES_MAX: usize = 1_000_000;

/// How often every pair sends a train until all receivers have something. The first packets may
/// overtake the keepalive that confirms a session.
const PRIMING_ATTEMPTS_MAX: usize = 20;

/// Longest slice: receivers have to say now and then that they live.
const SLICE_MAX: Duration = Duration::from_secs(4);

/// How long a window is tried.
const WINDOW_TRIAL: Duration = Duration::from_millis(300);

/// How many packets were sent, and how many arrived.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    /// That were sent.
    pub sent: u64,
    /// That arrived.
    pub received: u64,
}

impl Count {
    /// That did not arrive.
    pub fn lost(self) -> u64 {
        self.sent.saturating_sub(self.received)
    }

    fn since(self, before: Count) -> Count {
        Count { sent: self.sent - before.sent, received: self.received - before.received }
    }
}

/// What one phase gave.
#[derive(Clone, Debug, Default)]
pub struct Phase {
    /// Sum of the slices' durations.
    pub duration: Duration,
    /// Packets of all groups.
    pub count: Count,
    /// Packets of each group.
    pub groups: Vec<Count>,
    /// Trains in which they arrived.
    pub trains: u64,
    /// Packets that arrived after a later one, by the counter on the wire.
    pub reordered: u64,
    /// Samples that came after a later one, by the number inside: reordered by the relay before
    /// it gave them their counters.
    pub late_samples: u64,
    /// Messages that arrived and were no packets.
    pub foreign: u64,
    /// CPU time of the relay, while the clock ran; none if the relay is the kernel.
    pub relay: Option<Duration>,
    /// The same by threads, pauses included.
    pub threads: Vec<(String, Duration)>,
    /// Time that the relay's core was busy, whoever used it, while the clock ran.
    pub core: Duration,
    /// How long the clock ran: the slices, and the waiting for lost packets.
    pub wall: Duration,
    /// The most by which the generator was behind its own pace.
    pub lag: Duration,
    /// Packets that were decrypted and found right: their pair and latency.
    pub samples: Vec<(usize, Duration)>,
}

impl Phase {
    /// Packets per second.
    pub fn rate(&self) -> f64 {
        self.count.received as f64 / self.duration.as_secs_f64()
    }

    /// CPU time of the relay in seconds; not a number if the relay is the kernel.
    fn relay_seconds(&self) -> f64 {
        self.relay.map_or(f64::NAN, |time| time.as_secs_f64())
    }

    /// CPU nanoseconds of the relay per packet.
    pub fn nanoseconds_per_packet(&self) -> f64 {
        1e9 * self.relay_seconds() / self.count.received as f64
    }

    /// How much of its core was used (percent).
    pub fn core_percent(&self) -> f64 {
        100.0 * self.core.as_secs_f64() / self.wall.as_secs_f64()
    }

    /// How much of its core the relay itself used (percent).
    pub fn relay_percent(&self) -> f64 {
        100.0 * self.relay_seconds() / self.wall.as_secs_f64()
    }

    /// Packets that did not arrive.
    pub fn lost(&self) -> u64 {
        self.count.lost()
    }

    /// Packets found to be out of order, on the wire or inside.
    pub fn late(&self) -> u64 {
        self.reordered + self.late_samples
    }

    /// Packets per train, as they arrived.
    pub fn train(&self) -> f64 {
        self.count.received as f64 / self.trains as f64
    }

    /// Latency (microseconds) that so many percent of the samples have at most, of all pairs or
    /// of one. Not a number if there are none.
    pub fn latency(&self, pair: Option<usize>, percent: f64) -> f64 {
        let samples = self.samples.iter().filter(|(of, _)| pair.is_none_or(|pair| pair == *of));
        let mut latencies: Vec<Duration> = samples.map(|(_, latency)| *latency).collect();
        latencies.sort();
        percentile(&latencies, percent).map_or(f64::NAN, |it| it.as_secs_f64() * 1e6)
    }

    /// For the JSON lines.
    pub fn record(&self) -> Value {
        json!({
            "seconds": self.duration.as_secs_f64(),
            "sent": self.count.sent,
            "received": self.count.received,
            "lost": self.lost(),
            "trains": self.trains,
            "reordered": self.reordered,
            "reordered_samples": self.late_samples,
            "foreign": self.foreign,
            "packets_per_second": self.rate(),
            "relay_cpu_seconds": self.relay_seconds(),
            "relay_threads": record_of_threads(&self.threads),
            "relay_core_busy_seconds": self.core.as_secs_f64(),
            "wall_seconds": self.wall.as_secs_f64(),
            "nanoseconds_per_packet": self.nanoseconds_per_packet(),
            "lag_seconds": self.lag.as_secs_f64(),
            "samples": self.samples.len(),
            "latency_microseconds": {
                "p50": self.latency(None, 50.0),
                "p99": self.latency(None, 99.0),
                "max": self.latency(None, 100.0),
            },
        })
    }
}

/// A relay, its peers, and what is between them.
pub struct Bench {
    /// The relay.
    pub network: Network,
    generator: Generator,
    core: usize,
    connected_at: Duration,
    /// Samples that came after a later one of their pair, by the number inside.
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
        let roster = Roster::new(pairs, setup.family, &mut Randomness::open()?)?;
        network.configure(&roster.relay, roster.peers())?;
        Bench::connect(network, &roster, plans, setup, interrupt)
    }

    /// Connects the peers of a relay that knows all of them.
    pub fn connect(
        network: Network,
        roster: &Roster,
        plans: &[GroupPlan],
        setup: &Setup,
        interrupt: &Interrupt,
    ) -> Result<Bench, Failure> {
        let paths = plans
            .iter()
            .flat_map(|plan| std::iter::repeat_n([Path::Senders, plan.path], plan.pairs).flatten());
        let sockets = network.sockets(&paths.collect::<Vec<_>>())?;
        let mut randomness = Randomness::open()?;
        let connected_at = clock::now();
        let mut peers = Vec::new();
        for (index, (socket, (keys, _))) in (0..).zip(sockets.into_iter().zip(&roster.ends)) {
            interrupt.check()?;
            let session = connect(&socket, keys, &roster.relay, index, &mut randomness)?;
            peers.push((socket, session));
        }
        let generator = assemble(plans, peers, setup, network.pid(), interrupt)?;
        let core = setup.relay_core;
        let mut bench = Bench { network, generator, core, connected_at, late_samples: 0 };
        bench.prime(plans)?;
        Ok(bench)
    }

    /// A daemon that has ended explains a failure better than its silence can.
    pub fn explain<T>(&mut self, outcome: Result<T, Failure>) -> Result<T, Failure> {
        match outcome {
            Err(Failure::Step(text)) => self.network.check().and(Err(Failure::Step(text))),
            outcome => outcome,
        }
    }

    /// The largest window of at most `window` packets with which nothing is lost.
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

    /// Keeps one group's `window` of packets on their way, for `limit` or so many packets.
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

    /// Sends at these rates (group, packets per second), whatever comes back, for `limit`.
    /// What `sampler` keeps gives its latency.
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

    /// The same from the senders to receivers in the relay's place, with the pairs of one `plan`:
    /// the relay has nothing to do.
    pub fn open_directly(
        &mut self,
        plan: &GroupPlan,
        setup: &Setup,
        rate: f64,
        limit: Duration,
        interrupt: &Interrupt,
    ) -> Result<Phase, Failure> {
        let direct = direct::generator(&self.network, plan, setup, interrupt)?;
        let relayed = std::mem::replace(&mut self.generator, direct);
        let phase = self.open(&[(0, rate)], limit, Sampler::for_latency(rate, limit, plan.train));
        self.generator = relayed;
        phase
    }

    /// Slices until there is none, each with the relay's clock, and samples checked in between.
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
                return Err(Failure::step("the sessions are too old: measure for less time"));
            }
            // Packets are sealed before the clock starts.
            self.generator.prepare()?;
            let before = self.times()?;
            let Some(slice) = slice(&mut self.generator, &phase)? else { break };
            let after = self.times()?;
            phase.duration += slice.duration;
            phase.count.sent += slice.sent;
            phase.count.received += slice.received;
            phase.lag = phase.lag.max(slice.lag);
            phase.wall += after.0 - before.0;
            if let (Some(after), Some(before)) = (after.1, before.1) {
                let so_far = phase.relay.unwrap_or_default();
                phase.relay = Some(so_far + after.saturating_sub(before));
            }
            phase.core += after.2.saturating_sub(before.2);
            phase.samples.extend(self.check_samples()?);
            if slice.received == 0 {
                return Err(Failure::step("nothing arrives any more"));
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

    /// Sends until every receiver has something.
    fn prime(&mut self, plans: &[GroupPlan]) -> Result<(), Failure> {
        for (number, plan) in plans.iter().enumerate() {
            let (train, first) = (plan.train, self.generator.groups[number].first);
            let packets = (plan.pairs * train) as u64;
            let mut attempts = 0;
            loop {
                self.network.check()?;
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

    /// Opens what was kept; pair and latency of each. A packet that is not what it should be is a
    /// failure.
    fn check_samples(&mut self) -> Result<Vec<(usize, Duration)>, Failure> {
        let mut checked = Vec::new();
        for mut sample in self.generator.sampler.kept.drain(..) {
            let wrong =
                |why: &str| Failure::step(format!("what pair {} received: {why}", sample.pair));
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

    /// Of each group, from the beginning.
    fn counts(&self) -> Vec<Count> {
        let count = |group: &Group| {
            let receivers = self.generator.receivers[group.first..].iter().take(group.pairs());
            let received = receivers.map(|receiver| receiver.tally.messages).sum();
            Count { sent: group.pool.messages_sent(), received }
        };
        self.generator.groups.iter().map(count).collect()
    }

    fn threads(&self) -> Threads {
        self.network.pid().map(Threads::of).unwrap_or_default()
    }

    /// The clock, CPU time of the relay if it is a process, and the time that its core was busy.
    fn times(&self) -> Result<(Duration, Option<Duration>, Duration), Failure> {
        let missing = || Failure::step("the relay has no CPU time: it has ended");
        let of = |pid| cpu::of_process(pid).ok_or_else(missing);
        let relay = self.network.pid().map(of).transpose()?;
        let missing = || Failure::step(format!("no core {} in /proc/stat", self.core));
        let core = cpu::of_core(self.core).ok_or_else(missing)?;
        Ok((clock::now(), relay, core))
    }
}

/// Connected peers, sender and receiver by turns, as the generator's pairs.
fn assemble(
    plans: &[GroupPlan],
    peers: Vec<(UdpSocket, Session)>,
    setup: &Setup,
    relay: Option<u32>,
    interrupt: &Interrupt,
) -> Result<Generator, Failure> {
    let (mut groups, mut receivers) = (Vec::new(), Vec::new());
    let mut peers = peers.into_iter();
    for plan in plans {
        let (mut senders, mut sources) = (Vec::new(), Vec::new());
        let first = receivers.len();
        for pair in first..first + plan.pairs {
            let (socket, session) = peers.next().expect("one for each end");
            senders.push(socket);
            let [source, destination] =
                [Role::Sender, Role::Receiver].map(|role| inner_address(role, pair, setup.family));
            let flow = Flow::new(setup.kind, source, destination, plan.size);
            sources.push(Source { flow, session });
            let (socket, session) = peers.next().expect("one for each end");
            receivers.push(Receiver::new(socket, session, plan.size)?);
        }
        let pool = Pool::new(sources, plan.train, setup.is_padded, plan.pool, POOL_MESSAGES_MAX);
        groups.push(Group::new(senders, first, pool)?);
    }
    let sampler = Sampler::new(setup.check_every);
    Generator::new(groups, receivers, sampler, relay, interrupt)
}
