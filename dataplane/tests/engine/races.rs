//! Races between control, which the test plays, and workers under traffic: what lies on arc-swap
//! and on the channels, where loom cannot look. The relay has no interface (`--tun off`).

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use wg_bounce_dataplane::counters::imbalance;
use wg_bounce_dataplane::engine::{Engine, Events, IoChoice, Options, Sizes};
use wg_bounce_dataplane::limits::NOTICES_MAX;
use wg_bounce_dataplane::messages::Command;
use wg_bounce_dataplane::peer::{Peer, PeerId, flag};
use wg_bounce_dataplane::snapshot::{self, DirectRelay, Snapshot};
use wg_bounce_sys::{Endpoint, PerFamily, clock, tun::Tun};

use crate::socket;
use crate::support::{Remote, WORKERS, udp_packet_to};

/// Duration of each test, apart from waits.
const DURATION: Duration = Duration::from_secs(1);

/// An engine that relays between peers.
struct Relay {
    engine: Engine,
    events: Events,
    snapshot: Snapshot,
    port: u16,
    /// Counts rounds, and moves each race by a little: see [`Relay::pause`].
    round: u32,
    ends: Duration,
}

impl Relay {
    fn start(peers: &[&Remote]) -> Relay {
        let options = Options {
            workers: WORKERS,
            pin: false,
            io: IoChoice::Auto,
            aead: wg_bounce_aead::Choice::Auto,
            gso: true,
            gro: true,
            tun_offload: true,
            sizes: Sizes { buffers: 64, ..Sizes::FULL },
        };
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let wake = Arc::new(EventFd::from_value_and_flags(0, flags).expect("an eventfd"));
        let tun = Tun::absent(WORKERS).expect("eventfds");
        let (mut engine, events) = Engine::start(&options, tun, wake).expect("workers");
        let bound = engine.bind(0, 0).expect("a free port");
        let port = bound.port;
        engine.switch(bound);
        let mode = PerFamily { v4: DirectRelay::Alone, v6: DirectRelay::Alone };
        let relay = snapshot::Relay { mode, ..snapshot::Relay::default() };
        let mut snapshot = Snapshot { is_up: true, mtu: 1420, relay, ..Snapshot::default() };
        for remote in peers {
            snapshot.routes.insert(IpAddr::V4(remote.inner).into(), Arc::clone(&remote.peer));
        }
        let ends = clock::uptime() + DURATION;
        let mut relay = Relay { engine, events, snapshot, port, round: 0, ends };
        for remote in peers {
            relay.install(remote);
            remote.open_session();
        }
        relay.publish();
        relay
    }

    /// Whether there is time for another round; for some in any case.
    fn goes_on(&mut self) -> bool {
        self.round += 1;
        self.round <= 20 || clock::uptime() < self.ends
    }

    /// A pause of some microseconds, another one in each round.
    fn pause(&self) {
        for _ in 0..self.round.wrapping_mul(2_654_435_761) >> 20 {
            std::hint::spin_loop();
        }
    }

    fn install(&mut self, remote: &Remote) {
        self.engine.command((remote.index & 0xff) as usize, remote.installation());
    }

    /// Publishes the snapshot and waits until all workers use it.
    fn publish(&mut self) {
        let epoch = self.engine.publish(self.snapshot.clone());
        soon(|| self.engine.epoch_reached() >= epoch);
    }

    /// Sends `count` packets to the peer with this address. Each carries the next number.
    fn burst(&self, from: &mut Remote, to: Ipv4Addr, count: u32, number: &mut u32) {
        for _ in 0..count {
            let packet = udp_packet_to(from.inner, to, &number.to_be_bytes());
            let message = from.seal_packet(&packet);
            from.send(&message, self.port);
            *number += 1;
        }
    }

    fn count(&self, name: &str) -> u64 {
        let all = self.engine.counters().flat_map(|counters| counters.list());
        all.filter(|(known, _)| *known == name).map(|(_, value)| value).sum()
    }

    /// Stops the workers once the books of each are balanced.
    #[track_caller]
    fn stop(self) {
        soon(|| self.engine.counters().all(|counters| imbalance(counters.list()) == 0));
        self.engine.stop();
    }

    /// Commands all workers that have staged packets for `peer` to send them.
    fn send_staged(&mut self, peer: &Arc<Peer>) {
        let staged_by = peer.staged_by.load(Ordering::Relaxed);
        for worker in (0..WORKERS).filter(|worker| staged_by >> worker & 1 != 0) {
            self.engine.command(worker, Command::SendStaged { peer: Arc::clone(peer) });
        }
        self.engine.ring_bells();
    }

    /// Handles the notices about `peer` as control does while it has a session.
    fn handle_notices(&mut self, peer: &Arc<Peer>) {
        let notices = self.events.peers.try_iter().filter(|&id| id == peer.id).count();
        for _ in 0..notices {
            if peer.take_flags() & flag::WANTS_HANDSHAKE != 0 {
                self.send_staged(peer);
            }
        }
    }
}

/// Waits until something holds, without sleep.
#[track_caller]
fn soon(mut condition: impl FnMut() -> bool) {
    let limit = clock::uptime() + Duration::from_secs(10);
    while !condition() {
        assert!(clock::uptime() < limit, "timed out");
        std::thread::yield_now();
    }
}

fn three_peers() -> [Remote; 3] {
    [(2, 0), (3, 1), (4, 0)].map(|(number, worker)| Remote::new(number, worker, socket()))
}

/// Once all workers have passed an epoch, none of them relays to a peer that it removed.
#[test]
fn a_passed_epoch_is_the_oldest_in_use() {
    let [mut one, mut two, to] = three_peers();
    let mut relay = Relay::start(&[&one, &two, &to]);
    let net = IpAddr::V4(to.inner).into();
    let relayed = || to.peer.counters.relayed.read();
    let mut number = 0;
    let mut was_relayed = 0;
    while relay.goes_on() {
        let mut burst = |relay: &Relay, count| {
            relay.burst(&mut one, to.inner, count, &mut number);
            relay.burst(&mut two, to.inner, count, &mut number);
        };
        burst(&relay, 8);
        relay.pause();
        relay.snapshot.routes.remove(net);
        relay.publish();
        let before = relayed();
        was_relayed += u32::from(before > 0);
        burst(&relay, 4);
        soon(|| relay.count("received_datagrams") >= number.into());
        // Turns that have begun are over when the next epoch is passed.
        relay.publish();
        assert_eq!(relayed(), before, "round {}", relay.round);
        relay.snapshot.routes.insert(net, Arc::clone(&to.peer));
        relay.publish();
    }
    assert!(was_relayed > 0);
    println!("{} rounds", relay.round);
    relay.stop();
}

/// The first message of a session arrives right after the command that installs it.
#[test]
fn a_session_is_known_before_its_first_message() {
    let [mut one, mut two, to] = three_peers();
    let mut relay = Relay::start(&[&one, &two, &to]);
    let noise = [socket(), socket(), socket(), socket()];
    let mut number = 0;
    while relay.goes_on() {
        // Wakes the workers at about the same time.
        for socket in &noise {
            socket.send_to(&[9; 64], (Ipv4Addr::LOCALHOST, relay.port)).expect("sent");
        }
        relay.pause();
        for remote in [&mut one, &mut two] {
            let (old, worker) = (remote.index, (remote.index & 0xff) as usize);
            remote.renew((1000 + relay.round) << 8 | worker as u32);
            relay.install(remote);
            relay.burst(remote, to.inner, 1, &mut number);
            relay.engine.command(worker, Command::Forget { index: old });
        }
        soon(|| {
            relay.count("received_datagrams") >= u64::from(number) + 4 * u64::from(relay.round)
        });
        assert_eq!(relay.count("drop_unknown_index"), 0, "round {}", relay.round);
    }
    soon(|| to.peer.counters.relayed.read() == number.into());
    for remote in [&one, &two] {
        soon(|| remote.peer.confirmed_index.load(Ordering::Relaxed) == remote.index);
    }
    println!("{} rounds", relay.round);
    relay.stop();
}

/// A peer's end of the tunnel: sessions of its messages, and numbers of its packets.
#[derive(Default)]
struct Arrivals {
    numbers: HashSet<u32>,
}

impl Arrivals {
    /// Takes all that has arrived by now; each message must belong to a session from `oldest` on.
    fn take(&mut self, at: &Remote, oldest: u32) {
        let mut message = [0; 2048];
        while let Ok(length) = at.socket.recv(&mut message) {
            let index = u32::from_le_bytes(message[4..8].try_into().expect("four bytes"));
            assert!(index >= oldest, "a message of session {index} after its end");
            let packet = at.open(&mut message[..length]);
            let number = u32::from_be_bytes(packet[28..32].try_into().expect("four bytes"));
            assert!(self.numbers.insert(number), "packet {number} arrived twice");
        }
    }
}

/// Sessions begin and end while both workers have packets for the peer. Each packet is staged or
/// sent, none is forgotten or sent twice, and nothing leaves on a session that has been withdrawn.
/// (Trains that met a full socket are in `full_socket`.)
#[test]
fn no_packet_outlives_its_session_or_stays_behind() {
    let [mut one, mut two, mut to] = three_peers();
    let mut relay = Relay::start(&[&one, &two, &to]);
    to.socket.set_nonblocking(true).expect("an option");
    let (mut number, mut arrivals) = (0, Arrivals::default());
    while relay.goes_on() {
        // Packets race with the end of the session...
        let counts = [relay.round % 3, relay.round / 3 % 3];
        let mut burst = |relay: &Relay| {
            relay.burst(&mut one, to.inner, counts[0], &mut number);
            relay.burst(&mut two, to.inner, counts[1], &mut number);
        };
        burst(&relay);
        relay.pause();
        let _old = to.peer.set_session(None);
        relay.publish();
        let ended = to.index;
        arrivals.take(&to, ended);
        // ... and with the beginning of the next one.
        burst(&relay);
        relay.pause();
        to.renew(to.index + 0x100);
        to.open_session();
        relay.send_staged(&to.peer);
        soon(|| {
            relay.handle_notices(&to.peer);
            arrivals.take(&to, ended + 1);
            arrivals.numbers.len() as u32 == number
        });
        assert_eq!(to.peer.staged.load(Ordering::Relaxed), 0);
        assert_eq!(to.peer.staged_by.load(Ordering::Relaxed), 0);
    }
    assert!(to.peer.counters.list().all(|(name, count)| !name.starts_with("drop") || count == 0));
    println!("{} rounds, {number} packets", relay.round);
    relay.stop();
}

/// More peers want a handshake at once than the lane of notices holds, and then all is silent:
/// control learns of each of them nevertheless.
#[test]
fn notices_that_find_their_lane_full_arrive_later() {
    const PEERS: u32 = NOTICES_MAX as u32 + 100;
    let [mut one, two, to] = three_peers();
    let mut relay = Relay::start(&[&one, &two, &to]);
    let endpoint = Endpoint { remote: one.socket.local_addr().expect("bound"), source: None };
    let address = |number: u32| Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 64, 0, 0)) + number);
    for number in 0..PEERS {
        let peer = Peer::new(PeerId(1000 + number), [0; 32]);
        peer.set_endpoint(endpoint);
        relay.snapshot.routes.insert(IpAddr::V4(address(number)).into(), Arc::new(peer));
    }
    relay.publish();
    let mut sent = 0;
    for number in 0..PEERS {
        relay.burst(&mut one, address(number), 1, &mut sent);
        if number % 64 == 0 {
            soon(|| relay.count("received_datagrams") >= sent.into()); // or the kernel drops some
        }
    }
    soon(|| relay.count("relayed") == PEERS.into());
    // The workers have nothing more to do.
    std::thread::sleep(Duration::from_millis(10));
    let mut noticed = HashSet::new();
    soon(|| {
        noticed.extend(relay.events.peers.try_iter().filter(|id| id.0 >= 1000));
        noticed.len() as u32 == PEERS
    });
    relay.stop();
}
