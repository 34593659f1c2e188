//! Handshakes over paths whose round trip comes close to REKEY_TIMEOUT.

use std::collections::VecDeque;
use std::net::SocketAddr;

use wg_bounce_sys::clock::Millis;

use crate::node::{Datagram, Node};
use crate::pair::{START, seeded_pair};

/// Two nodes with the same delay in each direction.
struct Path {
    nodes: [Node; 2],
    delay: Millis,
    now: Millis,
    in_flight: VecDeque<(Millis, usize, SocketAddr, Datagram)>,
}

impl Path {
    fn new(round_trip: Millis) -> Path {
        Path::seeded(round_trip, 1)
    }

    fn seeded(round_trip: Millis, seed: u64) -> Path {
        let (a, b) = seeded_pair(seed);
        let delay = Millis(round_trip.0 / 2);
        Path { nodes: [a, b], delay, now: START, in_flight: VecDeque::new() }
    }

    fn send(&mut self, from: usize) {
        let to = ["10.0.0.2", "10.0.0.1"][from].parse().expect("an address");
        self.nodes[from].send(to, b"data", self.now);
    }

    fn run_until(&mut self, until: Millis) {
        loop {
            for (from, node) in self.nodes.iter_mut().enumerate() {
                node.run(self.now);
                for datagram in std::mem::take(&mut node.sent) {
                    let at = self.now + self.delay;
                    self.in_flight.push_back((at, 1 - from, node.address, datagram));
                }
            }
            let arrival = self.in_flight.front().map(|one| one.0);
            let deadlines = self.nodes.iter().filter_map(|node| node.device.next_deadline());
            let next = deadlines.chain(arrival).min();
            match next {
                Some(next) if next <= until => self.now = self.now.max(next),
                _ => break,
            }
            while self.in_flight.front().is_some_and(|one| one.0 <= self.now) {
                let Some((_, to, from, datagram)) = self.in_flight.pop_front() else { break };
                self.nodes[to].receive(from, &datagram.bytes, false, self.now);
            }
        }
        self.now = until;
    }

    fn received(&self) -> [usize; 2] {
        [self.nodes[0].received.len(), self.nodes[1].received.len()]
    }

    fn initiations(&self) -> u64 {
        self.nodes.iter().map(|node| node.device.counters().initiations_sent).sum()
    }
}

const ROUND_TRIPS: [Millis; 3] = [Millis(500), Millis(2000), Millis(4900)];

#[test]
fn the_first_attempt_succeeds() {
    for round_trip in ROUND_TRIPS {
        let mut path = Path::new(round_trip);
        path.send(0);
        path.run_until(START + round_trip + round_trip);
        assert_eq!(path.received(), [0, 1], "{round_trip:?}");
        assert_eq!(path.initiations(), 1, "{round_trip:?}");
    }
}

/// Both sides begin at once, and again after each attempt. The jitter of 333 ms cannot separate
/// attempts that are under way for longer, so one side must let the other go first.
#[test]
fn attempts_that_cross_succeed_after_a_few() {
    // At 500 ms, jitter separates some attempts; then the sides may have counted differently.
    const SECONDS_MAX: [u64; 3] = [45, 17, 26];
    let round_trips = ROUND_TRIPS.into_iter().zip(SECONDS_MAX);
    let cases = round_trips.flat_map(|one| (1..100).map(move |seed| (one, seed)));
    for ((round_trip, seconds_max), seed) in cases {
        let mut path = Path::seeded(round_trip, seed);
        let seconds = (1..60).find(|&second| {
            path.send(0);
            path.send(1);
            path.run_until(START + Millis::from_secs(second));
            path.received().iter().all(|&number| number > 0)
        });
        let is_in_time = seconds.is_some_and(|it| it <= seconds_max);
        assert!(is_in_time, "{round_trip:?}, seed {seed}: {seconds:?}");
    }
}

#[test]
fn nothing_is_lost_over_a_rekey() {
    for round_trip in ROUND_TRIPS {
        let mut path = Path::new(round_trip);
        path.send(0);
        path.run_until(START + Millis::from_secs(20));
        assert_eq!(path.received(), [0, 1], "{round_trip:?}");
        for second in 20..600 {
            path.send(0);
            path.send(1);
            path.run_until(START + Millis::from_secs(second + 1));
        }
        path.run_until(START + Millis::from_secs(620));
        assert_eq!(path.received(), [580, 581], "{round_trip:?}");
        assert!(path.initiations() <= 8, "{round_trip:?}: {} initiations", path.initiations());
    }
}
