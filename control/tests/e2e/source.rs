//! The source address of the hub's datagrams: sticky, and yet right for their way.
//!
//! ```text
//!           ┌─ near ── 192.0.2.0/24, 2001:db8:a::/64 ────┐
//!   hub ────┤                                            ├──── outside: 198.18.0.1, 2001:db8:f::1
//!           └─ far ─── 203.0.113.0/24, 2001:db8:b::/64 ──┘     (the peers' sockets)
//!   on the hub's loopback device: 198.18.1.1, 2001:db8:e::1
//!   inside: 10.77.0.0/24; hub .1, peers .2 and .3
//! ```
//!
//! The hub has a default route over either link and prefers the near one. The peers do not roam:
//! they keep sending to the address they began with, over the near link.

use std::net::{IpAddr, SocketAddr};

use crate::harness::{
    Backend, Daemon, FakePeer, Family, HUB_PORT, Lab, Namespace, Program, endpoint, eventually,
    seconds,
};

/// Addresses of one family; those of the links end at the hub.
struct Addresses {
    near: &'static str,
    near_gateway: &'static str,
    far: &'static str,
    far_gateway: &'static str,
    /// Another address of the hub on the near link.
    second: &'static str,
    loopback: &'static str,
    peer: &'static str,
    /// Prefix lengths: of a link, of one host.
    lengths: (u8, u8),
}

const V4: Addresses = Addresses {
    near: "192.0.2.1",
    near_gateway: "192.0.2.2",
    far: "203.0.113.1",
    far_gateway: "203.0.113.2",
    second: "192.0.2.10",
    loopback: "198.18.1.1",
    peer: "198.18.0.1",
    lengths: (24, 32),
};
const V6: Addresses = Addresses {
    near: "2001:db8:a::1",
    near_gateway: "2001:db8:a::2",
    far: "2001:db8:b::1",
    far_gateway: "2001:db8:b::2",
    second: "2001:db8:a::10",
    loopback: "2001:db8:e::1",
    peer: "2001:db8:f::1",
    lengths: (64, 128),
};

/// A hub with two uplinks, and two peers. The daemon is the first field, so that it ends before its
/// namespace.
struct TwoUplinks {
    hub: Daemon,
    /// A peer that sends to the hub's address `near`.
    peer: FakePeer,
    /// A peer that sends to the address of its own choice.
    other: FakePeer,
    at: &'static Addresses,
    _lab: Lab,
}

const PEER: &str = "10.77.0.2";
const OTHER: &str = "10.77.0.3";

impl TwoUplinks {
    /// Both peers are connected; `other` sends to the address that `choose` picks.
    fn new(
        backend: Backend,
        family: Family,
        choose: impl FnOnce(&Addresses) -> &'static str,
    ) -> TwoUplinks {
        let at = if family == Family::V4 { &V4 } else { &V6 };
        let lab = Lab::new();
        let (hub, outside) = (lab.namespace("hub"), lab.namespace("outside"));
        connect(&lab, &hub, &outside, at);
        let hub = Daemon::start_with(
            &lab,
            &hub,
            "hub",
            Program::Ours(backend),
            &[("WG_BOUNCE_WORKERS", "1"), ("WG_BOUNCE_RELAY", "kernel")],
        );
        let local = SocketAddr::new(at.peer.parse().expect("an address"), 0).to_string();
        let [peer, other] = [at.near, choose(at)]
            .map(|to| FakePeer::new(&outside, &local, endpoint(to, HUB_PORT), &hub.key));
        let config = format!(
            "[Interface]\nPrivateKey = {}\nListenPort = {HUB_PORT}\n\
             [Peer]\nPublicKey = {}\nAllowedIPs = {PEER}/32\n\
             [Peer]\nPublicKey = {}\nAllowedIPs = {OTHER}/32\n",
            hub.key.private(),
            peer.key.public(),
            other.key.public(),
        );
        hub.configure("setconf", &config);
        hub.bring_up(1420, &["10.77.0.1/24"]);
        let mut uplinks = TwoUplinks { hub, peer, other, at, _lab: lab };
        uplinks.peer.connect();
        uplinks.other.connect();
        uplinks
    }

    /// Runs a command of `ip` in the hub's namespace, with the family's own option.
    fn ip(&self, line: &str) {
        let family = if self.at.near.contains(':') { "-6" } else { "-4" };
        self.hub.namespace.run(&format!("ip {family} {line}"));
    }

    /// Makes the hub prefer the far link for the peers, or the near one again.
    fn prefer_far(&self, verb: &str) {
        let Addresses { peer, far_gateway, lengths: (_, host), .. } = self.at;
        self.ip(&format!("route {verb} {peer}/{host} via {far_gateway} dev far"));
    }

    /// The source address of the hub's next packet for the first peer.
    fn source(&mut self) -> IpAddr {
        source_of_next(&self.hub, PEER, &mut self.peer)
    }

    /// The source address of the hub's next packet for the second peer.
    fn source_to_other(&mut self) -> IpAddr {
        source_of_next(&self.hub, OTHER, &mut self.other)
    }

    #[track_caller]
    fn becomes(&mut self, expected: &str, after: &str) {
        let expected: IpAddr = expected.parse().expect("an address");
        eventually(seconds(2), &format!("packets from {expected} after {after}"), || {
            self.source() == expected
        });
    }
}

/// Sends one datagram from the hub to a peer; returns the outer source address.
fn source_of_next(hub: &Daemon, inner: &str, peer: &mut FakePeer) -> IpAddr {
    let socket = hub.namespace.udp_socket("10.77.0.1:0");
    socket.send_to(b"where from?", (inner, 9)).expect("routed into the tunnel");
    let _packet = peer.receive();
    peer.last_from().ip()
}

/// Builds links, addresses and routes.
fn connect(lab: &Lab, hub: &Namespace, outside: &Namespace, at: &Addresses) {
    let (link, host) = at.lengths;
    for namespace in [hub, outside] {
        namespace.sysctl("net.ipv4.conf.all.rp_filter=0");
        namespace.sysctl("net.ipv4.conf.default.rp_filter=0");
    }
    lab.link((hub, "near"), (outside, "out0"), 1500);
    lab.link((hub, "far"), (outside, "out1"), 1500);
    let on_links = [
        (hub, at.near, "near"),
        (hub, at.far, "far"),
        (outside, at.near_gateway, "out0"),
        (outside, at.far_gateway, "out1"),
    ];
    let nodad = if link == 64 { "nodad" } else { "" };
    for (namespace, address, device) in on_links {
        namespace.run(&format!("ip address add {address}/{link} dev {device} {nodad}"));
    }
    // The kernel would not choose it: secondary in IPv4, deprecated in IPv6.
    let rarely = if link == 64 { "nodad preferred_lft 0" } else { "" };
    hub.run(&format!("ip address add {}/{link} dev near {rarely}", at.second));
    hub.run(&format!("ip address add {}/{host} dev lo {nodad}", at.loopback));
    outside.run(&format!("ip address add {}/{host} dev lo {nodad}", at.peer));
    let family = if link == 64 { "-6" } else { "-4" };
    for (gateway, device, metric) in [(at.near_gateway, "near", 100), (at.far_gateway, "far", 200)]
    {
        let route = format!("default via {gateway} dev {device} metric {metric}");
        hub.run(&format!("ip {family} route add {route}"));
    }
    let route = format!("{}/{host} via {} dev out0", at.loopback, at.near);
    outside.run(&format!("ip {family} route add {route}"));
}

/// A better route over the other uplink, and its end: data and handshakes follow. So does a second
/// peer, but not one that addressed the loopback device.
fn the_source_follows_a_better_route(backend: Backend) {
    for family in Family::BOTH {
        let mut uplinks = TwoUplinks::new(backend, family, |at| at.loopback);
        let (near, far) = (uplinks.at.near, uplinks.at.far);
        let loopback: IpAddr = uplinks.at.loopback.parse().expect("an address");
        assert_eq!(uplinks.source().to_string(), near, "as addressed");
        assert_eq!(uplinks.source_to_other(), loopback, "as addressed");
        uplinks.prefer_far("add");
        uplinks.becomes(far, "a better route");
        assert_eq!(uplinks.source_to_other(), loopback, "belongs to neither uplink");
        // The peer does not roam: it still sends to the near address, and gets its answers here.
        uplinks.peer.connect();
        assert_eq!(uplinks.peer.last_from().ip().to_string(), far, "the response");
        assert_eq!(uplinks.source().to_string(), far, "after a message to the near address");
        uplinks.prefer_far("del");
        uplinks.becomes(near, "the better route's end");
        assert_eq!(uplinks.source_to_other(), loopback);
    }
}

/// The preferred default route goes: the other uplink takes over with its own address.
fn the_source_follows_a_failover(backend: Backend) {
    for family in Family::BOTH {
        let mut uplinks = TwoUplinks::new(backend, family, |at| at.second);
        let second: IpAddr = uplinks.at.second.parse().expect("an address");
        assert_eq!(uplinks.source().to_string(), uplinks.at.near, "as addressed");
        assert_eq!(uplinks.source_to_other(), second, "as addressed");
        let route = format!("default via {} dev near metric 100", uplinks.at.near_gateway);
        uplinks.ip(&format!("route del {route}"));
        uplinks.becomes(uplinks.at.far, "failover");
        // The first peer's path may have been due for another look for another reason, before the
        // hub has noticed.
        let (patience, far) = (seconds(2), uplinks.at.far);
        eventually(patience, "the far address", || uplinks.source_to_other().to_string() == far);
        uplinks.ip(&format!("route add {route}"));
        uplinks.becomes(uplinks.at.near, "recovery");
        // The kernel chooses the near address for the first peer even before the hub has noticed.
        eventually(patience, "the second address again", || uplinks.source_to_other() == second);
    }
}

/// An address moves to another host, as a virtual address of VRRP does: it is not used any longer,
/// although `ip_nonlocal_bind` allows it.
fn a_virtual_address_is_given_up(backend: Backend) {
    for family in Family::BOTH {
        let mut uplinks = TwoUplinks::new(backend, family, |at| at.second);
        for setting in ["net.ipv4.ip_nonlocal_bind=1", "net.ipv6.ip_nonlocal_bind=1"] {
            uplinks.hub.namespace.sysctl(setting);
        }
        let second: IpAddr = uplinks.at.second.parse().expect("an address");
        assert_eq!(uplinks.source_to_other(), second, "as addressed");
        let length = uplinks.at.lengths.0;
        uplinks.ip(&format!("address del {second}/{length} dev near"));
        let near: IpAddr = uplinks.at.near.parse().expect("an address");
        eventually(seconds(2), "packets from the address that is left", || {
            uplinks.source_to_other() == near
        });
    }
}

/// As in the kernel module, another port or fwmark makes the hub forget the address until the peer
/// sends to it again.
fn port_and_fwmark_forget_the_source(backend: Backend) {
    let mut uplinks = TwoUplinks::new(backend, Family::V4, |at| at.loopback);
    let near = uplinks.at.near;
    let loopback: IpAddr = uplinks.at.loopback.parse().expect("an address");
    for change in ["fwmark 7", "listen-port 51899"] {
        assert_eq!(uplinks.source_to_other(), loopback, "before {change}");
        uplinks.hub.set(change);
        assert_eq!(uplinks.source_to_other().to_string(), near, "after {change}");
        uplinks.other.send_exactly(&[]);
        if change.starts_with("fwmark") {
            eventually(seconds(2), "the peer's address is known again", || {
                uplinks.source_to_other() == loopback
            });
        }
    }
}

on_both_backends!(
    the_source_follows_a_better_route,
    the_source_follows_a_failover,
    a_virtual_address_is_given_up,
    port_and_fwmark_forget_the_source,
);
