//! A relay with all its peers: built, connected, and then made to work in phases.
//!
//! 1. The relay in its namespace; keys for it and for every peer; `wg setconf`.
//! 2. A handshake of every peer, one after another, and packets until every receiver has some.
//! 3. Phases: slices of sending, with the relay's clock stopped between them while packets are
//!    encrypted and samples decrypted.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use super::direct;
use super::drive::{Generator, Group, Pace, Receiver, Slice};
use super::network::{Network, Path, Role, inner_address};
use super::packet::Flow;
use super::peer::{Keys, Randomness, Session, connect};
use super::phase::{Count, Phase};
use super::plan::{GroupPlan, Setup};
use super::pool::{Pool, Source};
use super::receive::{Sampler, Tally};
use super::relay::{Relay, Step};
use super::roster::Roster;
use crate::clock;
use crate::cpu::{self, Threads};
use crate::failure::Failure;
use crate::implementation::Program;
use crate::interrupt::Interrupt;

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

/// What the clocks say.
struct Times {
    now: Duration,
    /// CPU time of the relay, if it is a process here.
    relay: Option<Duration>,
    /// Time that the relay's core was busy, if that is here.
    core: Option<Duration>,
}

/// A relay, its peers, and what is between them.
pub struct Bench<R: Relay = Network> {
    /// The relay, and the way to it.
    pub relay: R,
    generator: Generator,
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
        let public = roster.relay.identity.public();
        Bench::connect(network, public, &roster.ends, plans, setup, interrupt)
    }

    /// As [`Bench::open`], but from the senders to receivers in the relay's place, with the pairs
    /// of one `plan`: the relay has nothing to do.
    pub fn open_directly(
        &mut self,
        plan: &GroupPlan,
        setup: &Setup,
        rate: f64,
        limit: Duration,
        interrupt: &Interrupt,
    ) -> Result<Phase, Failure> {
        let direct = direct::generator(&self.relay, plan, setup, interrupt)?;
        let relayed = std::mem::replace(&mut self.generator, direct);
        let phase = self.open(&[(0, rate)], limit, Sampler::for_latency(rate, limit, plan.train));
        self.generator = relayed;
        phase
    }
}

impl<R: Relay> Bench<R> {
    /// Connects the `ends` of all pairs with a relay that knows them, and whose public key is this.
    pub fn connect(
        mut relay: R,
        public: &[u8; 32],
        ends: &[(Keys, IpAddr)],
        plans: &[GroupPlan],
        setup: &Setup,
        interrupt: &Interrupt,
    ) -> Result<Bench<R>, Failure> {
        let connected_at = clock::now();
        let peers = match shake_hands(&relay, public, ends, plans, interrupt) {
            Ok(peers) => peers,
            Err(failure) => return Err(relay.explain(failure, Step::Handshakes)),
        };
        let generator = assemble(plans, peers, setup, relay.pid(), interrupt)?;
        let mut bench = Bench { relay, generator, connected_at, late_samples: 0 };
        let primed = bench.prime(plans);
        bench.explain(primed)?;
        Ok(bench)
    }

    /// An outcome of sending packets, with what the relay has to say of a failure.
    pub fn explain<T>(&mut self, outcome: Result<T, Failure>) -> Result<T, Failure> {
        outcome.map_err(|failure| self.relay.explain(failure, Step::Packets))
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
            phase.wall += after.now - before.now;
            phase.relay = added(phase.relay, before.relay, after.relay);
            phase.core = added(phase.core, before.core, after.core);
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
        self.relay.pid().map(Threads::of).unwrap_or_default()
    }

    /// The clocks now.
    fn times(&self) -> Result<Times, Failure> {
        let missing = || Failure::step("the relay has no CPU time: it has ended");
        let of = |pid| cpu::of_process(pid).ok_or_else(missing);
        let relay = self.relay.pid().map(of).transpose()?;
        let missing = |core| Failure::step(format!("no core {core} in /proc/stat"));
        let of = |core| cpu::of_core(core).ok_or_else(|| missing(core));
        let core = self.relay.core().map(of).transpose()?;
        Ok(Times { now: clock::now(), relay, core })
    }
}

/// A sum of times with what has passed between two more, if that is known.
fn added(
    sum: Option<Duration>,
    before: Option<Duration>,
    after: Option<Duration>,
) -> Option<Duration> {
    Some(sum.unwrap_or_default() + after?.saturating_sub(before?))
}

/// A handshake of every peer; sockets and sessions in the order of the `ends`.
fn shake_hands(
    relay: &impl Relay,
    public: &[u8; 32],
    ends: &[(Keys, IpAddr)],
    plans: &[GroupPlan],
    interrupt: &Interrupt,
) -> Result<Vec<(UdpSocket, Session)>, Failure> {
    let paths = plans
        .iter()
        .flat_map(|plan| std::iter::repeat_n([Path::Senders, plan.path], plan.pairs).flatten());
    let sockets = relay.sockets(&paths.collect::<Vec<_>>())?;
    let mut randomness = Randomness::open()?;
    let mut peers = Vec::new();
    for (index, (socket, (keys, _))) in (0..).zip(sockets.into_iter().zip(ends)) {
        interrupt.check()?;
        let session = connect(&socket, keys, public, index, &mut randomness)?;
        peers.push((socket, session));
    }
    Ok(peers)
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
