//! Two to four nodes, all peers of each other, on a network that loses, delays, duplicates and
//! forges datagrams. Driven by one seed, on virtual time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use wg_bounce_control::device::PendingResponse;
use wg_bounce_dataplane::peer::PeerId;
use wg_bounce_sys::clock::Millis;
use wg_bounce_uapi::types::Change;

use crate::node::{Datagram, Node, allowed_ip, peer_change, secret};

/// Longest time until every pair communicates again after the faults. A dead session is detected
/// after sending for 15.4 s, its handshake may wait 5.4 s for an earlier one, and handshakes that
/// cross are retried every 5.4 s until jitter separates them, at most four times.
pub const RECOVERY: Millis = Millis::from_secs(43);

/// Duration of steady traffic without loss after that: two rekeys.
const STEADY: Millis = Millis::from_secs(300);

/// Time after the last traffic until all keys are erased.
const SILENCE: Millis = Millis::from_secs(700);

enum Event {
    Deliver { from: SocketAddr, datagram: Datagram },
    Notice { node: usize, restart_count: u32, peer: PeerId },
    Computed { node: usize, restart_count: u32, response: PendingResponse },
    Talk { from: usize, to: usize },
    Fault,
}

struct Faults {
    loss: u64,
    duplicate: u64,
    forge: u64,
    delay_max: u64,
    load: u64,
}

const NONE: Faults = Faults { loss: 0, duplicate: 0, forge: 0, delay_max: 40, load: 0 };

pub struct World {
    rng: ChaCha8Rng,
    now: Millis,
    nodes: Vec<Node>,
    /// Restarts of each node: a notice from before a restart is ignored.
    restarts: Vec<u32>,
    keepalives: Vec<u16>,
    events: BinaryHeap<Reverse<(Millis, u64)>>,
    bodies: BTreeMap<u64, Event>,
    next_event: u64,
    faults: Faults,
    talk_interval: u64,
    next_payload: u64,
    /// Payloads in flight, with sender and receiver.
    in_flight: BTreeMap<u64, (usize, usize)>,
    /// Pairs that have communicated since this was cleared.
    talked: BTreeSet<(usize, usize)>,
    lost: Vec<Datagram>,
    ports: u16,
    /// Whether a node may restart with a clock behind its earlier one. Its initiations are then
    /// rejected until the clock has caught up, so the others must know its endpoint.
    bad_clocks: bool,
    /// The latest time that each wall clock has shown.
    latest_wall: Vec<Duration>,
    /// Time after the faults until every pair had communicated again.
    pub recovered_after: Millis,
}

fn inner(node: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, node as u8 + 1))
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let count = [2, 2, 2, 3, 3, 4][rng.next_u32() as usize % 6];
        let with_keepalive = rng.next_u32().is_multiple_of(2);
        let mut world = World {
            now: Millis(1_000_000),
            nodes: Vec::new(),
            restarts: vec![0; count],
            keepalives: (0..count * count)
                .map(
                    |_| if with_keepalive { [0, 0, 1, 25][rng.next_u32() as usize % 4] } else { 0 },
                )
                .collect(),
            events: BinaryHeap::new(),
            bodies: BTreeMap::new(),
            next_event: 0,
            faults: NONE,
            talk_interval: 1000,
            next_payload: 0,
            in_flight: BTreeMap::new(),
            talked: BTreeSet::new(),
            lost: Vec::new(),
            ports: 1000,
            bad_clocks: rng.next_u32().is_multiple_of(2),
            latest_wall: vec![Duration::from_secs(1_700_000_000); count],
            recovered_after: Millis::ZERO,
            rng,
        };
        for node in 0..count {
            let workers = 1 + world.below(3) as usize;
            let fresh = Node::new([node as u8 + 1; 32], workers, world.rng.next_u64());
            world.nodes.push(fresh);
            world.nodes[node].is_helped = world.below(2) == 1;
            world.nodes[node].address = world.new_address(node);
        }
        for node in 0..count {
            world.configure(node);
        }
        world
    }

    /// Runs faults, recovery, steady traffic and idleness; panics if an invariant is violated.
    pub fn run(&mut self) {
        self.run_with_faults();
        self.recover();
        self.stay_steady();
        self.go_idle();
        self.check_keys();
    }

    fn run_with_faults(&mut self) {
        let until = self.now + Millis(self.below(300_000));
        self.faults = Faults {
            loss: self.below(60),
            duplicate: self.below(20),
            forge: self.below(20),
            delay_max: 1 + self.below(400),
            load: [0, 0, 30, 100][self.below(4) as usize],
        };
        self.talk_interval = 1 + self.below(20_000);
        for pair in self.pairs() {
            self.schedule_talk(pair);
        }
        self.schedule(self.now, Event::Fault);
        self.run_until(until);
    }

    fn recover(&mut self) {
        self.faults = NONE;
        self.lost.clear();
        // Datagrams in flight are lost, but workers' notices always arrive.
        self.bodies.retain(|_, event| matches!(event, Event::Notice { .. }));
        self.events.retain(|Reverse((_, id))| self.bodies.contains_key(id));
        for node in 0..self.nodes.len() {
            self.nodes[node].link(true, self.now);
            self.resolve(node);
            self.collect(node);
        }
        self.talk_interval = 1000;
        for pair in self.pairs() {
            self.schedule_talk(pair);
        }
        self.talked.clear();
        let began = self.now;
        let pairs = self.pairs();
        while self.now < began + RECOVERY && self.talked.len() < pairs.len() {
            self.run_until(self.now + Millis(500));
        }
        let silent: Vec<_> = pairs.into_iter().filter(|pair| !self.talked.contains(pair)).collect();
        for (number, node) in self.nodes.iter().enumerate().filter(|_| !silent.is_empty()) {
            println!("node {number} (wall {:?}): {:#?}", node.wall, node.device.counters());
        }
        assert!(silent.is_empty(), "pairs that do not recover: {silent:?}");
        self.recovered_after = self.now.since(began);
        // Both directions of each pair have a session now; late datagrams may still arrive.
        self.run_until(self.now + Millis::from_secs(20));
    }

    fn stay_steady(&mut self) {
        self.talk_interval = 7000;
        self.in_flight.clear();
        self.run_until(self.now + STEADY);
        self.talk_interval = 0;
        self.run_until(self.now + Millis::from_secs(7));
        assert!(self.in_flight.is_empty(), "packets lost over a rekey: {:?}", self.in_flight);
    }

    fn go_idle(&mut self) {
        if self.keepalives.iter().any(|&seconds| seconds != 0) {
            return;
        }
        self.run_until(self.now + SILENCE);
        for node in &self.nodes {
            assert_eq!(node.device.next_deadline(), None, "an idle device has no deadline");
            assert_eq!(node.device.sizes(), (0, 0, 0), "an idle device keeps no state");
            assert_eq!(node.held(), (0, 0), "idle workers keep no state");
        }
    }

    /// No two nodes share a key: each direction has its own.
    fn check_keys(&mut self) {
        let mut seen = HashSet::new();
        for node in &self.nodes {
            let keys: HashSet<[u8; 16]> = node.used.iter().map(|&(key, _)| key).collect();
            assert!(keys.into_iter().all(|key| seen.insert(key)), "two nodes share a key");
        }
    }

    fn run_until(&mut self, until: Millis) {
        loop {
            let event = self.events.peek().map(|Reverse((at, _))| *at);
            let deadlines = self.nodes.iter().filter_map(|node| node.device.next_deadline());
            let Some(next) = deadlines.chain(event).min().filter(|&at| at <= until) else { break };
            self.now = self.now.max(next);
            for node in 0..self.nodes.len() {
                if self.nodes[node].device.next_deadline().is_some_and(|at| at <= self.now) {
                    self.nodes[node].run(self.now);
                    self.collect(node);
                }
            }
            while let Some(&Reverse((at, id))) = self.events.peek()
                && at <= self.now
            {
                self.events.pop();
                let event = self.bodies.remove(&id).expect("scheduled with its body");
                self.handle(event);
            }
        }
        self.now = until;
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Deliver { from, datagram } => {
                let load = self.below(100) < self.faults.load;
                let to = self.nodes.iter().position(|node| node.address == datagram.to);
                if let Some(node) = to {
                    self.nodes[node].receive(from, &datagram.bytes, load, self.now);
                    self.collect(node);
                }
            }
            Event::Notice { node, restart_count, peer } => {
                if restart_count == self.restarts[node] {
                    let input = wg_bounce_control::device::Input::Peer(peer);
                    self.nodes[node].input(input, self.now);
                    self.collect(node);
                }
            }
            Event::Computed { node, restart_count, response } => {
                if restart_count == self.restarts[node] {
                    self.nodes[node].complete(response, self.now);
                    self.collect(node);
                }
            }
            Event::Talk { from, to } => {
                if self.talk_interval != 0 {
                    self.talk(from, to);
                    self.schedule_talk((from, to));
                }
            }
            Event::Fault => {
                self.inject_fault();
                let pause = 1 + self.below(30_000);
                self.schedule(self.now + Millis(pause), Event::Fault);
            }
        }
    }

    fn talk(&mut self, from: usize, to: usize) {
        let id = self.next_payload;
        self.next_payload += 1;
        self.in_flight.insert(id, (from, to));
        self.nodes[from].send(inner(to), &id.to_le_bytes(), self.now);
        self.collect(from);
    }

    /// Collects a node's outputs: sends its datagrams, schedules its notices, checks its packets.
    fn collect(&mut self, node: usize) {
        let from = self.nodes[node].address;
        for datagram in std::mem::take(&mut self.nodes[node].sent) {
            self.transmit(from, datagram);
        }
        for peer in std::mem::take(&mut self.nodes[node].notices) {
            let at = self.now + Millis(self.below(4));
            self.schedule(at, Event::Notice { node, restart_count: self.restarts[node], peer });
        }
        for response in std::mem::take(&mut self.nodes[node].pending) {
            let (at, restart_count) = (self.now + Millis(self.below(30)), self.restarts[node]);
            self.schedule(at, Event::Computed { node, restart_count, response });
        }
        for packet in std::mem::take(&mut self.nodes[node].received) {
            let id = u64::from_le_bytes(packet.payload[..].try_into().expect("a payload of ours"));
            let sender =
                self.nodes.iter().position(|node| node.public_key == packet.from).expect("known");
            let pair = self.in_flight.remove(&id);
            let steady = self.faults.loss + self.faults.duplicate + self.faults.forge == 0;
            if !steady || pair.is_some() {
                assert_eq!(
                    pair,
                    Some((sender, node)),
                    "each packet is delivered once, to its receiver"
                );
            }
            self.talked.insert((sender, node));
        }
        self.check_sizes(node);
    }

    fn check_sizes(&self, node: usize) {
        let peers = self.nodes.len() - 1;
        let (indexes, deadlines, _) = self.nodes[node].device.sizes();
        assert!(indexes <= 4 * peers, "a peer has three sessions and one handshake at most");
        assert!(deadlines <= peers, "a peer has one deadline at most");
        assert_eq!(self.nodes[node].held().0, indexes, "workers and device have the same indexes");
    }

    fn transmit(&mut self, from: SocketAddr, datagram: Datagram) {
        if self.below(100) < self.faults.forge {
            self.forge(&datagram);
        }
        if self.below(100) < self.faults.loss {
            self.lost.push(datagram);
            if self.lost.len() > 50 {
                self.lost.remove(0);
            }
            return;
        }
        let copies = if self.below(100) < self.faults.duplicate { 2 } else { 1 };
        for _ in 0..copies {
            let at = self.now + Millis(1 + self.below(self.faults.delay_max));
            self.schedule(at, Event::Deliver { from, datagram: datagram.clone() });
        }
    }

    /// An attacker on the path sends a copy from another address, a damaged copy, or an old
    /// datagram.
    fn forge(&mut self, datagram: &Datagram) {
        let attacker = SocketAddr::from(([203, 0, 113, 1], 1 + self.below(9) as u16));
        let mut forged = datagram.clone();
        match self.below(4) {
            0 => {}
            1 => {
                let bit = self.below(8 * forged.bytes.len() as u64) as usize;
                forged.bytes[bit / 8] ^= 1 << (bit % 8);
            }
            2 => {
                let length = self.below(forged.bytes.len() as u64) as usize;
                forged.bytes.truncate(length);
            }
            _ => match self.lost.len() as u64 {
                0 => {}
                count => {
                    let which = self.below(count) as usize;
                    forged = self.lost[which].clone();
                }
            },
        }
        let at = self.now + Millis(1 + self.below(self.faults.delay_max));
        self.schedule(at, Event::Deliver { from: attacker, datagram: forged });
    }

    fn inject_fault(&mut self) {
        let node = self.below(self.nodes.len() as u64) as usize;
        match self.below(8) {
            0 => self.restart(node),
            1 | 2 => {
                let address = self.new_address(node);
                if node != 0 {
                    self.nodes[node].address = address;
                }
            }
            3 => {
                let jump = Duration::from_secs(self.below(100_000));
                let wall = self.nodes[node].wall;
                // After a restart, timestamps follow the clock: only a bad one goes back then.
                let may_go_back = self.bad_clocks || self.restarts[node] == 0;
                self.nodes[node].wall = if self.below(2) == 0 {
                    wall + jump
                } else if may_go_back {
                    wall.saturating_sub(jump)
                } else {
                    wall
                };
                self.latest_wall[node] = self.latest_wall[node].max(self.nodes[node].wall);
            }
            4 => {
                let up = self.below(2) == 0;
                self.nodes[node].link(up, self.now);
            }
            5 => self.resolve(node),
            6 => self.faults.loss = [0, 10, 50, 100][self.below(4) as usize],
            _ => {
                self.nodes[node].link(true, self.now);
                self.nodes[node].run(self.now);
            }
        }
        self.collect(node);
    }

    /// The process crashes and restarts with the same configuration.
    fn restart(&mut self, node: usize) {
        let old = &self.nodes[node];
        let mut fresh = Node::new(old.private_key, 1 + node % 2, self.next_event);
        fresh.address = old.address;
        let latest = if self.bad_clocks { Duration::ZERO } else { self.latest_wall[node] };
        fresh.wall = old.wall.max(latest);
        fresh.used = old.used.clone();
        fresh.is_helped = old.is_helped;
        self.restarts[node] += 1;
        self.nodes[node] = fresh;
        self.configure(node);
    }

    fn configure(&mut self, node: usize) {
        let mut changes = vec![Change::PrivateKey(Some(secret(self.nodes[node].private_key)))];
        for other in (0..self.nodes.len()).filter(|&other| other != node) {
            let mut change = peer_change(self.nodes[other].public_key);
            let psk = [(node.min(other) * 4 + node.max(other)) as u8; 32];
            change.preshared_key = Some(secret(psk));
            change.endpoint = Some(self.nodes[other].address);
            change.allowed_ips = vec![allowed_ip(&format!("{}/32", inner(other)))];
            change.persistent_keepalive = Some(self.keepalives[node * self.nodes.len() + other]);
            changes.push(Change::Peer(change));
        }
        self.nodes[node].set(self.now, changes);
        self.nodes[node].link(true, self.now);
        self.collect(node);
    }

    /// Updates a node's endpoints of all others, as `reresolve-dns.sh` does. With good clocks the
    /// first node is excluded: it must learn the endpoints from authenticated packets.
    fn resolve(&mut self, node: usize) {
        if node == 0 && !self.bad_clocks {
            return;
        }
        let mut changes = Vec::new();
        for other in (0..self.nodes.len()).filter(|&other| other != node) {
            let mut change = peer_change(self.nodes[other].public_key);
            change.update_only = true;
            change.endpoint = Some(self.nodes[other].address);
            changes.push(Change::Peer(change));
        }
        self.nodes[node].set(self.now, changes);
        self.collect(node);
    }

    fn new_address(&mut self, node: usize) -> SocketAddr {
        self.ports += 1;
        SocketAddr::from(([192, 0, 2, node as u8 + 1], self.ports))
    }

    fn pairs(&self) -> Vec<(usize, usize)> {
        let count = self.nodes.len();
        let all = (0..count).flat_map(|from| (0..count).map(move |to| (from, to)));
        all.filter(|(from, to)| from != to).collect()
    }

    fn schedule_talk(&mut self, (from, to): (usize, usize)) {
        let at = self.now + Millis(1 + self.below(self.talk_interval));
        self.schedule(at, Event::Talk { from, to });
    }

    fn schedule(&mut self, at: Millis, event: Event) {
        self.events.push(Reverse((at, self.next_event)));
        self.bodies.insert(self.next_event, event);
        self.next_event += 1;
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.rng.next_u64() % limit.max(1)
    }
}
