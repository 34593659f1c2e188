//! The events of an interval, under traffic. Each leaves a world in which all can reach each other.

use std::fmt::Write as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

use wg_bounce_fuzz::Random;

use super::world::{MOVING, Member, World, with_length};
use crate::harness::{Draft, FakePeer, Family, HUB_PORT, KeyPair, endpoint, now, seconds};

/// Peers of the crowd.
const CROWD: usize = 64;
/// Packets that each of them sends once it is connected.
const CROWD_PACKETS: usize = 20;
/// Pauses between two edits, moves, faults or rule changes.
const PAUSE_MILLIS: usize = 600;
/// The longest time without a link, an address or an interface.
const OUTAGE_MILLIS: usize = 1500;
/// Ports that the hub moves to.
const PORTS: usize = 100;

/// The event of one interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing but traffic.
    Calm,
    /// Peers, allowed IPs, preshared keys and the listen port change.
    Edits,
    /// Members change their ports, addresses and the family of their endpoint.
    Roaming,
    /// Links, addresses and interfaces go and come back.
    Flaps,
    /// A crowd and all members shake hands at once; then the crowd is removed.
    Storm,
    /// Firewall rules change between direct relaying and the kernel's forwarding.
    Rules,
    /// The hub's daemon is killed and started again.
    Crash,
}

impl Event {
    /// All events.
    pub const ALL: [Event; 7] = [
        Event::Calm,
        Event::Edits,
        Event::Roaming,
        Event::Flaps,
        Event::Storm,
        Event::Rules,
        Event::Crash,
    ];

    /// Runs it until about this time.
    pub fn run(self, world: &mut World, random: &mut Random, until: Instant) {
        match self {
            Event::Calm => {}
            Event::Edits => edits(world, random, until),
            Event::Roaming => repeat(random, until, |random| roam(world, random)),
            Event::Flaps => repeat(random, until, |random| flap(world, random)),
            Event::Storm => storm(world),
            Event::Rules => {
                let set = |world: &World, rules: &str| {
                    let text = format!("table inet soak {{}}\ndelete table inet soak\n{rules}");
                    world.hub.namespace.run_with("nft -f -", &text);
                };
                repeat(random, until, |random| set(world, RULES[random.below(RULES.len())]));
                set(world, "");
            }
            Event::Crash => {
                sleep(until.saturating_duration_since(now()) / 2);
                world.restart_hub();
            }
        }
        sleep(until.saturating_duration_since(now()));
    }
}

/// Rules that need the kernel's forwarding, and none.
const RULES: [&str; 2] = [
    "",
    "table inet soak { chain forward { type filter hook forward priority 0; \
     ip daddr 10.77.99.0/24 drop; }\n}\n",
];

fn repeat(random: &mut Random, until: Instant, mut step: impl FnMut(&mut Random)) {
    while now() < until {
        step(random);
        sleep(Duration::from_millis(random.below(PAUSE_MILLIS) as u64));
    }
}

fn edits(world: &mut World, random: &mut Random, until: Instant) {
    let mut strangers: Vec<KeyPair> = Vec::new();
    repeat(random, until, |random| {
        let at = random.below(world.members.len());
        let (hub, member) = (&world.hub, &mut world.members[at]);
        let key = member.daemon.key.public();
        match random.below(8) {
            0 | 1 => {
                let stranger = KeyPair::new();
                let (public, number) = (stranger.public(), random.below(250));
                let endpoint = endpoint(&member.outer(Family::V4, member.host), 9);
                hub.set(&format!(
                    "peer {public} allowed-ips 10.77.77.{number}/32,fd77::77/128 \
                     endpoint {endpoint}"
                ));
                strangers.push(stranger);
            }
            2 => remove(world, &std::mem::take(&mut strangers)),
            3 => hub.set(&format!("peer {key} allowed-ips {},{MOVING}", member.prefixes())),
            4 => {
                let psk = KeyPair::new().private();
                let preshared = |of: &str| format!("peer {of} preshared-key /dev/stdin");
                for (daemon, of) in [(hub, &key), (&member.daemon, &hub.key.public())] {
                    let line = format!("wg set {} {}", daemon.interface, preshared(of));
                    daemon.namespace.run_with(&line, &psk);
                }
                member.preshared_key = psk;
            }
            5 => {
                world.port = HUB_PORT + random.below(PORTS) as u16;
                hub.set(&format!("listen-port {}", world.port));
                for member in &world.members {
                    let (key, hub) = (hub.key.public(), member.hub(world.port));
                    member.daemon.set(&format!("peer {key} endpoint {hub}"));
                }
            }
            6 => {
                let prefixes = member.prefixes();
                hub.set(&format!("peer {key} remove"));
                let line = format!("peer {key} allowed-ips {prefixes} preshared-key /dev/stdin");
                hub.namespace
                    .run_with(&format!("wg set {} {line}", hub.interface), &member.preshared_key);
                world.has_removed = true;
            }
            _ => {
                let interval = [0, 5][random.below(2)];
                let key = hub.key.public();
                member.daemon.set(&format!("peer {key} persistent-keepalive {interval}"));
            }
        }
    });
    remove(world, &strangers);
}

/// Removes peers from the hub.
fn remove(world: &mut World, keys: &[KeyPair]) {
    if keys.is_empty() {
        return;
    }
    let each = keys.iter().map(|key| format!("peer {} remove", key.public()));
    world.hub.set(&each.collect::<Vec<_>>().join(" "));
    world.has_removed = true;
}

fn roam(world: &mut World, random: &mut Random) {
    let at = random.below(world.members.len());
    let (member, key) = (&mut world.members[at], world.hub.key.public());
    match random.below(3) {
        0 => member.daemon.set(&format!("listen-port {}", 51821 + random.below(PORTS))),
        1 => {
            member.family = Family::BOTH[random.below(2)];
            let endpoint = member.hub(world.port);
            member.daemon.set(&format!("peer {key} endpoint {endpoint}"));
        }
        _ => {
            let (old, new) = (member.host, 5 - member.host); // 2 and 3
            for family in Family::BOTH {
                for (verb, host) in [("add", new), ("del", old)] {
                    let address = with_length(family, &member.outer(family, host));
                    let address =
                        if verb == "del" { address.replace(" nodad", "") } else { address };
                    member.daemon.namespace.run(&format!("ip address {verb} {address} dev out0"));
                }
            }
            member.host = new;
        }
    }
}

fn flap(world: &World, random: &mut Random) {
    let member = &world.members[random.below(world.members.len())];
    let outage = Duration::from_millis(random.below(OUTAGE_MILLIS) as u64);
    let (near, far) = (&world.hub.namespace, &member.daemon.namespace);
    let family = Family::BOTH[random.below(2)];
    let address = with_length(family, &member.outer(family, 1));
    let link = |name: &str| [format!("ip link set {name} down"), format!("ip link set {name} up")];
    let (namespace, [away, back]) = match random.below(5) {
        0 => (near, link(&member.link())),
        1 => (far, link("out0")),
        2 => (far, link(&member.daemon.interface)),
        3 => (near, link(&world.hub.interface)),
        _ => {
            let line =
                |verb, address: &str| format!("ip address {verb} {address} dev {}", member.link());
            (near, [line("del", &address.replace(" nodad", "")), line("add", &address)])
        }
    };
    namespace.run(&away);
    sleep(outage);
    namespace.run(&back);
}

fn storm(world: &mut World) {
    let hub = endpoint("203.0.113.1", world.port);
    let new = |number| {
        let local = format!("198.18.{}.{}:0", number / 250, number % 250 + 1);
        FakePeer::new(&world.crowd, &local, hub, &world.hub.key)
    };
    let mut crowd: Vec<FakePeer> = (0..CROWD).map(new).collect();
    let mut config = String::new();
    for (number, peer) in crowd.iter().enumerate() {
        let key = peer.key.public();
        writeln!(config, "[Peer]\nPublicKey = {key}\nAllowedIPs = {}/32", inner(number))
            .expect("a string grows");
    }
    world.hub.configure("addconf", &config);
    for state in ["down", "up"] {
        for Member { daemon, .. } in &world.members {
            daemon.namespace.run(&format!("ip link set {} {state}", daemon.interface));
        }
    }
    std::thread::scope(|scope| {
        for (part, peers) in crowd.chunks_mut(CROWD / 4).enumerate() {
            scope.spawn(move || {
                for (index, peer) in peers.iter_mut().enumerate() {
                    // A busy machine may demand a cookie, which these peers cannot read.
                    let is_connected = (0..60).any(|_| peer.connects_within(seconds(1)));
                    assert!(is_connected, "a peer of the crowd got no response in a minute");
                    let from = inner(part * CROWD / 4 + index);
                    for number in 0..CROWD_PACKETS {
                        let to = ["10.77.0.1", "10.77.0.10", "10.77.0.13"][number % 3];
                        peer.send(&Draft::echo(&from, to, number as u16, 64 * number).build());
                    }
                }
            });
        }
    });
    let keys: Vec<KeyPair> = crowd.into_iter().map(|peer| peer.key).collect();
    remove(world, &keys);
}

/// The address of a peer of the crowd in the tunnel.
fn inner(number: usize) -> String {
    format!("10.77.100.{}", number + 1)
}
