//! A hub whose peers are all played by the test, and what is seen of one packet's way through it.
//!
//! ```text
//!   alice, bob, dave: sockets at 192.0.2.2 ──── hub ──── elsewhere (nobody is there)
//!   inside: 10.77.0.0/24 and fd77::/64; hub .1, alice .2, bob .3,
//!           carol .4 (no endpoint), dave .5 (an endpoint, no session), nobody .99
//!   behind bob and routed into the tunnel: 10.88.0.0/16 and fd88::/64
//! ```

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek};

use super::capture::Counter;
use super::daemon::{Backend, Daemon, Program, RelayMode};
use super::keys::{KeyPair, hex};
use super::lab::{Lab, Namespace};
use super::packet::Draft;
use super::player::Player;
use super::relay::HUB_PORT;
use super::wait::{eventually, seconds};

/// MTU of the hub's WireGuard interface (bytes).
pub const MTU: usize = 1420;

/// How to build [`Players`].
#[derive(Clone)]
pub struct Setting {
    /// How the hub does its input and output.
    pub backend: Backend,
    /// Who relays.
    pub relay: RelayMode,
    /// The hub's workers. With one, all packets pass through the same queues: what was sent
    /// first is dealt with first.
    pub workers: &'static str,
    /// Alice's allowed IPs.
    pub alice: &'static str,
    /// Bob's allowed IPs.
    pub bob: &'static str,
    /// The device that the hub's default routes lead to: none, the tunnel, or another.
    pub default_route: DefaultRoute,
}

/// Where the hub's default routes lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultRoute {
    /// There are none.
    Nowhere,
    /// Into the tunnel.
    Tunnel,
    /// Out of another interface, in clear text.
    Elsewhere,
}

impl Setting {
    /// The plain case.
    pub fn new(backend: Backend, relay: RelayMode) -> Setting {
        Setting {
            backend,
            relay,
            workers: "1",
            alice: "10.77.0.2/32,10.77.2.0/24,fd77::2/128,fd77:0:0:2::/64",
            bob: "10.77.0.3/32,10.88.0.0/16,fd77::3/128,fd88::/64",
            default_route: DefaultRoute::Nowhere,
        }
    }
}

/// The hub and its peers. The daemon comes first: it ends before its namespace goes.
pub struct Players {
    /// The hub.
    pub hub: Daemon,
    /// The peer that sends.
    pub alice: Player,
    /// The peer that is sent to.
    pub bob: Player,
    /// A peer whose endpoint is known, but which has no session.
    pub dave: Player,
    /// Where the peers' sockets are.
    pub outside: Namespace,
    elsewhere: Option<Counter>,
    devices: File,
    pings: u16,
    _lab: Lab,
}

/// What came of one packet.
pub struct Seen {
    /// What alice received, with padding.
    pub alice: Vec<Vec<u8>>,
    /// What bob received, with padding.
    pub bob: Vec<Vec<u8>>,
    /// Frames from the daemon into the kernel.
    pub entered: u64,
    /// Frames from the kernel to the daemon.
    pub left: u64,
    /// Packets that left by the other interface.
    pub elsewhere: u64,
}

impl fmt::Debug for Seen {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let packets = |list: &[Vec<u8>]| list.iter().map(|one| hex(one)).collect::<Vec<_>>();
        out.debug_struct("Seen")
            .field("alice", &packets(&self.alice))
            .field("bob", &packets(&self.bob))
            .field("entered", &self.entered)
            .field("left", &self.left)
            .field("elsewhere", &self.elsewhere)
            .finish()
    }
}

impl Players {
    /// Builds it; alice and bob have sessions.
    pub fn new(setting: &Setting) -> Players {
        let lab = Lab::new();
        let (hub, outside) = (lab.namespace("hub"), lab.namespace("outside"));
        lab.link((&hub, "outside"), (&outside, "out0"), 9000);
        lab.link((&hub, "elsewhere"), (&outside, "out1"), 1500);
        hub.run("ip address add 192.0.2.1/24 dev outside");
        outside.run("ip address add 192.0.2.2/24 dev out0");
        for name in ["ipv4.ip_forward=1", "ipv6.conf.all.forwarding=1", "ipv4.conf.all.rp_filter=0"]
        {
            hub.sysctl(&format!("net.{name}"));
        }
        hub.sysctl("net.ipv4.conf.default.rp_filter=0");
        // What the kernel has to tell of multicast groups it tells at once, not amid the test.
        hub.sysctl("net.ipv6.conf.default.mldv2_unsolicited_report_interval=1");
        // No limit at all on ICMP errors, not even the one over all destinations.
        hub.sysctl("net.ipv4.icmp_ratemask=0");
        hub.sysctl("net.ipv6.icmp.ratemask=");

        let program = Program::Ours(setting.backend);
        let environment =
            [("WG_BOUNCE_RELAY", setting.relay.word()), ("WG_BOUNCE_WORKERS", setting.workers)];
        let hub = Daemon::start_with(&lab, &hub, "hub", program, &environment);
        let endpoint = format!("192.0.2.1:{HUB_PORT}").parse().expect("an endpoint");
        let [alice, bob, dave] =
            [(); 3].map(|()| Player::new(&outside, "192.0.2.2:0", endpoint, &hub.key));
        hub.configure("setconf", &config(setting, &hub.key, [&alice, &bob, &dave]));
        hub.bring_up(MTU as u32, &["10.77.0.1/24", "fd77::1/64"]);
        for prefix in ["10.77.2.0/24", "10.88.0.0/16", "fd77:0:0:2::/64", "fd88::/64"] {
            hub.namespace.run(&format!("ip route add {prefix} dev {}", hub.interface));
        }
        route_the_rest(&hub, setting.default_route);
        // The kernel's own chatter about multicast groups is none of our packets.
        let rule = "oifname elsewhere meta l4proto != ipv6-icmp";
        let elsewhere = (setting.default_route == DefaultRoute::Elsewhere)
            .then(|| Counter::new(&hub.namespace, "postrouting", rule));
        let path = "/proc/thread-self/net/dev";
        let devices = hub.namespace.enter(|| File::open(path)).expect("proc is mounted");
        wait_for_reports(&hub);
        let pings = 0;
        let mut players =
            Players { hub, alice, bob, dave, outside, elsewhere, devices, pings, _lab: lab };
        players.alice.connect();
        players.bob.connect();
        players.settle();
        players
    }

    /// Has alice send `packet`, and waits until all is seen that comes of it.
    #[track_caller]
    pub fn observe(&mut self, packet: &[u8]) -> Seen {
        self.observe_all(|alice| alice.send(packet))
    }

    /// As [`Players::observe`], for all that `send` has alice send.
    #[track_caller]
    pub fn observe_all(&mut self, send: impl FnOnce(&mut Player)) -> Seen {
        let (before, elsewhere) = (self.frames(), self.elsewhere());
        send(&mut self.alice);
        let (alice, bob) = self.settle();
        let after = self.frames();
        Seen {
            alice,
            bob,
            entered: after.0 - before.0 - SETTLING_FRAMES,
            left: after.1 - before.1 - SETTLING_FRAMES,
            elsewhere: self.elsewhere() - elsewhere,
        }
    }

    /// Waits until the hub has dealt with everything that was sent to it; what alice and bob
    /// have received meanwhile. With one worker, the answer to a ping of the hub's own address
    /// comes after everything that was sent before; an ICMP error that the daemon makes is one
    /// round behind, so alice asks twice.
    #[track_caller]
    pub fn settle(&mut self) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let mut of_alice = self.ping(true);
        of_alice.extend(self.ping(true));
        let of_bob = self.ping(false);
        (of_alice, of_bob)
    }

    /// Pings the hub; what arrives before the answer.
    #[track_caller]
    fn ping(&mut self, is_alice: bool) -> Vec<Vec<u8>> {
        self.pings += 1;
        let (player, inner) =
            if is_alice { (&mut self.alice, "10.77.0.2") } else { (&mut self.bob, "10.77.0.3") };
        let request = Draft::echo(inner, "10.77.0.1", self.pings, 32).build();
        player.send(&request);
        let mut before = Vec::new();
        loop {
            let packet = player.receive();
            // Our pings alone have this length; identifier and payload come back as they went.
            let is_answer = packet.len() == request.len().next_multiple_of(16)
                && packet[9] == 1
                && packet[20] == 0
                && packet[24..60] == request[24..60];
            if is_answer {
                return before;
            }
            before.push(packet);
        }
    }

    /// Frames that have entered the kernel by the hub's interface, and left it.
    pub fn frames(&mut self) -> (u64, u64) {
        let mut text = String::new();
        self.devices.rewind().expect("proc files can be read again");
        self.devices.read_to_string(&mut text).expect("proc files are text");
        let name = format!("{}:", self.hub.interface);
        let line = text.lines().find_map(|line| line.trim_start().strip_prefix(&name));
        let numbers: Vec<u64> = line
            .expect("the interface exists")
            .split_whitespace()
            .map(|number| number.parse().expect("a number"))
            .collect();
        // Eight columns for each direction, packets in the second.
        (numbers[1], numbers[9])
    }

    /// Packets that have left by the other interface.
    #[track_caller]
    pub fn elsewhere(&self) -> u64 {
        self.elsewhere.as_ref().map_or(0, Counter::packets)
    }
}

/// Makes the hub's default routes. Beyond the other interface nobody has to answer for a packet
/// to leave.
fn route_the_rest(hub: &Daemon, default_route: DefaultRoute) {
    for (family, gateway) in [("-4", "198.51.100.2"), ("-6", "2001:db8:b::2")] {
        let route = match default_route {
            DefaultRoute::Nowhere => continue,
            DefaultRoute::Tunnel => format!("dev {}", hub.interface),
            DefaultRoute::Elsewhere => {
                let address = "lladdr 02:00:00:00:00:02 nud permanent";
                let neighbour = format!("ip neighbour add {gateway} {address} dev elsewhere");
                hub.namespace.run(&neighbour);
                format!("via {gateway} dev elsewhere onlink")
            }
        };
        hub.namespace.run(&format!("ip {family} route add default {route}"));
    }
}

/// Waits until the kernel has reported that the interface hears all routers (ff02::2), as it does
/// twice (RFC 3810 §9.1): frames are counted from here on.
fn wait_for_reports(hub: &Daemon) {
    let groups = hub.namespace.run("cat /proc/net/igmp6");
    let is_due = groups.lines().any(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        words[1] == hub.interface && words[2] == "ff020000000000000000000000000002"
    });
    let statistics = format!("cat /proc/net/dev_snmp6/{}", hub.interface);
    eventually(seconds(5), "both reports are sent", || {
        let text = hub.namespace.run(&statistics);
        let sent = text.lines().find_map(|line| line.strip_prefix("Icmp6OutMLDv2Reports"));
        !is_due || sent.is_some_and(|count| count.trim().parse::<u64>().unwrap_or(0) >= 2)
    });
}

/// Frames in each direction that [`Players::settle`] itself makes.
const SETTLING_FRAMES: u64 = 3;

fn config(setting: &Setting, hub: &KeyPair, peers: [&Player; 3]) -> String {
    let [alice, bob, dave] = peers;
    let mut text = format!("[Interface]\nPrivateKey = {}\nListenPort = 51820\n", hub.private());
    for (key, allowed_ips) in [
        (&alice.key, setting.alice),
        (&bob.key, setting.bob),
        (&KeyPair::new(), "10.77.0.4/32,fd77::4/128"),
        (&dave.key, "10.77.0.5/32,fd77::5/128"),
    ] {
        let key = key.public();
        text.push_str(&format!("[Peer]\nPublicKey = {key}\nAllowedIPs = {allowed_ips}\n"));
    }
    format!("{text}Endpoint = {}\n", dave.endpoint())
}
