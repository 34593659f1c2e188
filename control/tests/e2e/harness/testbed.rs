//! A hub whose peers are all controlled by the test, to observe what becomes of a single packet.
//!
//! ```text
//!   alice, bob, dave: sockets at 192.0.2.2 ──── hub ──── elsewhere (no host there)
//!   inside: 10.77.0.0/24 and fd77::/64; hub .1, alice .2, bob .3,
//!           carol .4 (no endpoint), dave .5 (an endpoint, no session), .99 unassigned
//!   behind bob and routed into the tunnel: 10.88.0.0/16 and fd88::/64
//! ```

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek};

use super::capture::Counter;
use super::daemon::{Backend, Daemon, Program, RelayMode};
use super::fake_peer::FakePeer;
use super::keys::{KeyPair, hex};
use super::lab::{Lab, Namespace};
use super::packet::Draft;
use super::relay::HUB_PORT;
use super::wait::{eventually, seconds};

/// MTU of the hub's WireGuard interface (bytes).
pub const MTU: usize = 1420;

/// Options of a [`Testbed`].
#[derive(Clone)]
pub struct TestbedOptions {
    /// The hub's I/O backend.
    pub backend: Backend,
    /// The hub's relay mode.
    pub relay: RelayMode,
    /// The hub's workers. A single worker handles all packets in the order they were sent.
    pub workers: &'static str,
    /// Alice's allowed IPs.
    pub alice: &'static str,
    /// Bob's allowed IPs.
    pub bob: &'static str,
    /// The device of the hub's default routes.
    pub default_route: DefaultRoute,
    /// A command that executes the hub's daemon, appended to it.
    pub wrapper: &'static [&'static str],
    /// More environment variables of the hub.
    pub environment: Vec<(&'static str, &'static str)>,
}

/// The device of the hub's default routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultRoute {
    /// No default route.
    Nowhere,
    /// The tunnel.
    Tunnel,
    /// Another interface, in clear text.
    Elsewhere,
}

impl TestbedOptions {
    /// One worker, no default route.
    pub fn new(backend: Backend, relay: RelayMode) -> TestbedOptions {
        TestbedOptions {
            backend,
            relay,
            workers: "1",
            alice: "10.77.0.2/32,10.77.2.0/24,fd77::2/128,fd77:0:0:2::/64",
            bob: "10.77.0.3/32,10.88.0.0/16,fd77::3/128,fd88::/64",
            default_route: DefaultRoute::Nowhere,
            wrapper: &[],
            environment: Vec::new(),
        }
    }
}

/// A wrapper under which the daemon reads the file at `path` late; `when` as in strace(1), for
/// example "delay_enter=200ms".
pub fn slow_reads(path: &str, when: &str) -> &'static [&'static str] {
    let line = format!(
        "strace -D -f --seccomp-bpf -qq -o /dev/null -e trace=openat -P {path} \
         -e inject=openat:{when} --"
    );
    let words: Vec<&str> = String::leak(line).split_whitespace().collect();
    words.leak()
}

/// The hub and its peers. The daemon is the first field, so that it ends before its namespace.
pub struct Testbed {
    /// The hub.
    pub hub: Daemon,
    /// The sending peer.
    pub alice: FakePeer,
    /// The receiving peer.
    pub bob: FakePeer,
    /// A peer with a known endpoint but no session.
    pub dave: FakePeer,
    /// The namespace of the peers' sockets.
    pub outside: Namespace,
    elsewhere: Option<Counter>,
    devices: File,
    is_alone: bool,
    pings: u16,
    /// The namespaces.
    pub lab: Lab,
}

/// Everything observed after sending one or more packets.
pub struct Observed {
    /// Packets alice received, with padding.
    pub alice: Vec<Vec<u8>>,
    /// Packets bob received, with padding.
    pub bob: Vec<Vec<u8>>,
    /// Frames from the daemon into the kernel.
    pub entered: u64,
    /// Frames from the kernel to the daemon.
    pub left: u64,
    /// Packets that left through the other interface.
    pub elsewhere: u64,
}

/// The way of one packet from alice to bob: through the kernel or not, and whether it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Relayed by a worker.
    Direct,
    /// Through the kernel.
    Kernel,
    /// To the kernel, and not to bob.
    Dropped,
}

impl Observed {
    /// The way of the packet; panics if it is none of them.
    #[track_caller]
    pub fn way(&self) -> Way {
        match (self.entered, self.bob.len()) {
            (0, 1) => Way::Direct,
            (1, 1) => Way::Kernel,
            (1, 0) => Way::Dropped,
            _ => panic!("{self:?}"),
        }
    }
}

impl fmt::Debug for Observed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let packets = |list: &[Vec<u8>]| list.iter().map(|one| hex(one)).collect::<Vec<_>>();
        out.debug_struct("Observed")
            .field("alice", &packets(&self.alice))
            .field("bob", &packets(&self.bob))
            .field("entered", &self.entered)
            .field("left", &self.left)
            .field("elsewhere", &self.elsewhere)
            .finish()
    }
}

impl Testbed {
    /// Builds the testbed; alice and bob have sessions.
    pub fn new(setting: &TestbedOptions) -> Testbed {
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
        // Makes the kernel send its multicast reports at once instead of during the test.
        hub.sysctl("net.ipv6.conf.default.mldv2_unsolicited_report_interval=1");
        // No rate limit on ICMP errors, not even the global one.
        hub.sysctl("net.ipv4.icmp_ratemask=0");
        hub.sysctl("net.ipv6.icmp.ratemask=");

        let program = Program::Ours(setting.backend);
        let mut environment =
            vec![setting.relay.variable(), ("WG_BOUNCE_WORKERS", setting.workers)];
        let is_alone = setting.relay == RelayMode::Alone;
        if is_alone {
            environment.push(("WG_BOUNCE_ADDRESS", "10.77.0.1/24,fd77::1/64"));
        }
        environment.extend(&setting.environment);
        let wrapper = setting.wrapper;
        let hub = Daemon::start_under(wrapper, &lab, &hub, "hub", program, &environment);
        let endpoint = format!("192.0.2.1:{HUB_PORT}").parse().expect("an endpoint");
        let [alice, bob, dave] =
            [(); 3].map(|()| FakePeer::new(&outside, "192.0.2.2:0", endpoint, &hub.key));
        hub.configure("setconf", &config(setting, &hub.key, [&alice, &bob, &dave]));
        if !is_alone {
            hub.bring_up(MTU as u32, &["10.77.0.1/24", "fd77::1/64"]);
            for prefix in ["10.77.2.0/24", "10.88.0.0/16", "fd77:0:0:2::/64", "fd88::/64"] {
                hub.namespace.run(&format!("ip route add {prefix} dev {}", hub.interface));
            }
            add_default_routes(&hub, setting.default_route);
            wait_for_reports(&hub);
        }
        // Ignores the kernel's own multicast reports.
        let rule = "oifname elsewhere meta l4proto != ipv6-icmp";
        let elsewhere = (setting.default_route == DefaultRoute::Elsewhere)
            .then(|| Counter::new(&hub.namespace, "postrouting", rule));
        let path = "/proc/thread-self/net/dev";
        let devices = hub.namespace.enter(|| File::open(path)).expect("proc is mounted");
        let pings = 0;
        let mut testbed =
            Testbed { hub, alice, bob, dave, outside, elsewhere, devices, is_alone, pings, lab };
        testbed.alice.connect();
        testbed.bob.connect();
        testbed.settle();
        testbed
    }

    /// Sends `packet` from alice and waits for everything that results from it.
    #[track_caller]
    pub fn observe(&mut self, packet: &[u8]) -> Observed {
        self.observe_all(|alice| alice.send(packet))
    }

    /// As [`Testbed::observe`], for every packet that `send` sends from alice.
    #[track_caller]
    pub fn observe_all(&mut self, send: impl FnOnce(&mut FakePeer)) -> Observed {
        let (before, elsewhere) = (self.frames(), self.elsewhere());
        send(&mut self.alice);
        let (alice, bob) = self.settle();
        let after = self.frames();
        let settling = if self.is_alone { 0 } else { SETTLING_FRAMES };
        Observed {
            alice,
            bob,
            entered: after.0 - before.0 - settling,
            left: after.1 - before.1 - settling,
            elsewhere: self.elsewhere() - elsewhere,
        }
    }

    /// Waits until the hub has handled everything sent to it; returns what alice and bob received
    /// meanwhile. With one worker, the reply to a ping of the hub's own address comes after all
    /// earlier packets. ICMP errors made by the daemon lag one round behind, so alice pings twice.
    #[track_caller]
    pub fn settle(&mut self) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let mut of_alice = self.ping(true);
        of_alice.extend(self.ping(true));
        let of_bob = self.ping(false);
        (of_alice, of_bob)
    }

    /// Pings the hub; returns the packets that arrive before the reply.
    #[track_caller]
    fn ping(&mut self, is_alice: bool) -> Vec<Vec<u8>> {
        self.pings += 1;
        let (peer, inner) =
            if is_alice { (&mut self.alice, "10.77.0.2") } else { (&mut self.bob, "10.77.0.3") };
        let request = Draft::echo(inner, "10.77.0.1", self.pings, 32).build();
        peer.send(&request);
        let mut before = Vec::new();
        loop {
            let packet = peer.receive();
            // Only our pings have this length; identifier and payload come back unchanged.
            let is_reply = packet.len() == request.len().next_multiple_of(16)
                && packet[9] == 1
                && packet[20] == 0
                && packet[24..60] == request[24..60];
            if is_reply {
                return before;
            }
            before.push(packet);
        }
    }

    /// Frames received and sent by the kernel on the hub's interface.
    pub fn frames(&mut self) -> (u64, u64) {
        if self.is_alone {
            return (0, 0);
        }
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

    /// Packets that left through the other interface.
    #[track_caller]
    pub fn elsewhere(&self) -> u64 {
        self.elsewhere.as_ref().map_or(0, Counter::packets)
    }
}

/// Adds the hub's default routes. A permanent neighbour entry lets packets leave through the other
/// interface although no host is there.
fn add_default_routes(hub: &Daemon, default_route: DefaultRoute) {
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

/// Waits until the kernel has sent both reports of its membership in ff02::2 (RFC 3810 §9.1), so
/// that they do not disturb frame counts.
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

/// Frames in each direction caused by [`Testbed::settle`] itself.
const SETTLING_FRAMES: u64 = 3;

fn config(setting: &TestbedOptions, hub: &KeyPair, peers: [&FakePeer; 3]) -> String {
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
