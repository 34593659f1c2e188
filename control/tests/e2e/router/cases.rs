//! Packets from alice and what a router must do with each: ordinary sources and destinations.

use super::judge::{Case, Expect, IcmpExpected, Path};
use crate::harness::{DF, Draft, Family, MF, MTU};

/// Addresses inside the tunnel, of one family.
pub struct Hosts {
    /// The hub.
    pub hub: &'static str,
    /// The sender.
    pub alice: &'static str,
    /// Another address of alice's.
    pub alice_too: &'static str,
    /// The receiver.
    pub bob: &'static str,
    /// A host behind bob.
    pub far: &'static str,
    /// A peer without an endpoint.
    pub carol: &'static str,
    /// An address in the tunnel's subnet that no peer has.
    pub unassigned: &'static str,
    /// An address without a peer and without a route.
    pub unknown: &'static str,
}

/// The addresses of one family.
pub fn hosts(family: Family) -> Hosts {
    match family {
        Family::V4 => Hosts {
            hub: "10.77.0.1",
            alice: "10.77.0.2",
            alice_too: "10.77.2.7",
            bob: "10.77.0.3",
            far: "10.88.1.2",
            carol: "10.77.0.4",
            unassigned: "10.77.0.99",
            unknown: "10.200.0.1",
        },
        Family::V6 => Hosts {
            hub: "fd77::1",
            alice: "fd77::2",
            alice_too: "fd77:0:0:2::7",
            bob: "fd77::3",
            far: "fd88::2",
            carol: "fd77::4",
            unassigned: "fd77::99",
            unknown: "fd99::1",
        },
    }
}

/// A case with the same outcome in both modes.
pub fn case(name: impl Into<String>, packet: Vec<u8>, expect: Expect, path: Path) -> Case {
    Case { name: name.into(), packet, expect, direct: None, path }
}

/// An ICMP error that quotes the packet as sent.
pub fn error(kind: u8, code: u8, word: u32, source: &str) -> Expect {
    let source = source.parse().expect("an address");
    Expect::Error(IcmpExpected { what: (kind, code, word), source, quotes_forwarded: false })
}

/// An ICMP error that quotes the packet as forwarded.
fn late_error(kind: u8, code: u8, source: &str) -> Expect {
    let source = source.parse().expect("an address");
    Expect::Error(IcmpExpected { what: (kind, code, 0), source, quotes_forwarded: true })
}

/// Time exceeded, from the hub.
fn time_exceeded(family: Family) -> Expect {
    match family {
        Family::V4 => error(11, 0, 0, "10.77.0.1"),
        Family::V6 => error(3, 0, 0, "fd77::1"),
    }
}

/// Fragmentation needed, or packet too big, from the hub.
fn too_big(family: Family) -> Expect {
    match family {
        Family::V4 => error(3, 4, MTU as u32, "10.77.0.1"),
        Family::V6 => error(2, 0, MTU as u32, "fd77::1"),
    }
}

/// Packets that a router forwards, changing only the hop limit.
pub fn plain() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in Family::BOTH {
        let Hosts { alice, alice_too, bob, far, .. } = hosts(family);
        let mut add = |name: &str, draft: Draft| {
            let name = format!("{name}, {family:?}");
            cases.push(case(name, draft.build(), Expect::Forwarded, Path::Worker));
        };
        for length in [0, 1, 15, 16, 17, 100, 1372] {
            add("UDP", Draft::udp(alice, bob, length));
        }
        for length in [0, 3, 1000, 1360] {
            add("TCP", Draft::tcp(alice, bob, 77, length));
        }
        add("echo request", Draft::echo(alice, bob, 1, 56));
        add("to far", Draft::udp(alice, far, 100));
        add("from another address", Draft::udp(alice_too, bob, 100));
        add("an unknown protocol", Draft::other(alice, bob, 253, &[7; 33]));
        add("nothing but a header", Draft::other(alice, bob, 253, &[]));
        // A router does not check the upper layer.
        add("UDP with a wrong checksum", Draft::other(alice, bob, 17, &[1, 2, 0, 9, 0, 16, 5, 5]));
        add("UDP that is cut short", Draft::other(alice, bob, 17, &[1, 2, 0, 9, 0]));
        add("TCP that is cut short", Draft::other(alice, bob, 6, &[1, 2, 0, 9, 0, 3]));
        add("an ICMP error", Draft::other(alice, bob, 1, &[3, 1, 0, 0, 0, 0, 0, 0, 0x45]));
        for class in [0b01, 0b10, 0b11, 0xb8, 0xba, 0xff] {
            add(&format!("traffic class {class:#x}"), Draft::udp(alice, bob, 60).class(class));
        }
        add("DF", Draft::udp(alice, bob, 60).fragment(DF));
        add("no identification", Draft::udp(alice, bob, 60).identification(0));
        add("the evil bit", Draft::udp(alice, bob, 60).fragment(0x8000));
        if family == Family::V6 {
            add("no next header", Draft::other(alice, bob, 59, &[]));
        }
    }
    cases.extend(link_control());
    cases
}

/// Link-local control messages from alice. The hub drops these when it reads them from the TUN,
/// since its own kernel must not send them into the tunnel.
fn link_control() -> impl Iterator<Item = Case> {
    let (v4, v6) = (hosts(Family::V4), hosts(Family::V6));
    let redirect = [5, 1, 0, 0, 10, 77, 0, 1, 0x45, 0, 0, 0];
    let (solicitation, redirect_v6) = ([133, 0, 0, 0, 0, 0, 0, 0], [137, 0, 0, 0, 0, 0, 0, 0]);
    let drafts = [
        ("a redirect", Draft::other(v4.alice, v4.bob, 1, &redirect)),
        ("a redirect for IPv6", Draft::other(v6.alice, v6.bob, 58, &redirect_v6)),
        ("a router solicitation", Draft::other(v6.alice, v6.bob, 58, &solicitation)),
    ];
    drafts.into_iter().map(|(name, draft)| Case {
        name: name.to_owned(),
        packet: draft.build(),
        expect: Expect::Silence,
        direct: None,
        path: Path::Kernel,
    })
}

/// Hop limits that expire at the hub, and ones that do not.
pub fn hop_limits() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in Family::BOTH {
        let Hosts { alice, bob, far, hub, unassigned, unknown, .. } = hosts(family);
        let mut add = |name: &str, draft: Draft, expect: Expect, path: Path| {
            cases.push(case(format!("{name}, {family:?}"), draft.build(), expect, path));
        };
        for limit in [2, 3, 128, 255] {
            let draft = Draft::udp(alice, bob, 60).hop_limit(limit);
            add("enough hops", draft, Expect::Forwarded, Path::Worker);
        }
        for limit in [0, 1] {
            for (name, target) in [("bob", bob), ("far", far), ("unassigned", unassigned)] {
                for length in [0, 60, 600, 1300] {
                    let draft = Draft::udp(alice, target, length).hop_limit(limit);
                    let name = format!("hop limit {limit} to {name}");
                    add(&name, draft, time_exceeded(family), Path::Kernel);
                }
            }
            let draft = Draft::echo(alice, bob, 1, 60).hop_limit(limit);
            add("an echo request on its last hop", draft, time_exceeded(family), Path::Kernel);
            // No ICMP error is sent about an ICMP error (RFC 1122 §3.2.2).
            let (protocol, kind) = if family == Family::V4 { (1, 3) } else { (58, 1) };
            let body = [kind, 1, 0, 0, 0, 0, 0, 0, 0x45, 0, 0, 0];
            let draft = Draft::other(alice, bob, protocol, &body).hop_limit(limit);
            add("an error on its last hop", draft, Expect::Silence, Path::Either);
            let draft = Draft::echo(alice, hub, 1, 60).hop_limit(limit);
            add("for the hub itself", draft, Expect::Reply, Path::Kernel);
        }
        // A WireGuard message takes eight hops for each tunnel, and needs one that is left.
        for (limit, expect, path) in [
            (2, Expect::Silence, Path::Either),
            (9, Expect::Silence, Path::Either),
            (10, Expect::Forwarded, Path::Worker),
        ] {
            let udp = [0x30, 0x39, 0x30, 0x39, 0, 40, 0, 0];
            let mut message = [0; 32];
            message[0] = 4; // data
            let draft = Draft::other(alice, bob, 17, &[&udp[..], &message].concat());
            let name = format!("a message with {limit} hops");
            add(&name, draft.hop_limit(limit), expect, path);
        }
        let draft = Draft::udp(alice, unknown, 60).hop_limit(1);
        add("no route, last hop", draft, no_route(family), Path::Kernel);
    }
    cases
}

fn no_route(family: Family) -> Expect {
    match family {
        Family::V4 => error(3, 0, 0, "10.77.0.1"),
        Family::V6 => error(1, 0, 0, "fd77::1"),
    }
}

/// Packets around the MTU.
pub fn sizes() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in Family::BOTH {
        let Hosts { alice, bob, far, .. } = hosts(family);
        let headers = if family == Family::V4 { 28 } else { 48 };
        let mut add = |name: &str, draft: Draft, expect: Expect, path: Path| {
            cases.push(case(format!("{name}, {family:?}"), draft.build(), expect, path));
        };
        for size in [MTU - 20, MTU - 1, MTU] {
            let draft = Draft::udp(alice, bob, size - headers).fragment(DF);
            add(&format!("{size} bytes"), draft, Expect::Forwarded, Path::Worker);
        }
        for size in [MTU + 1, MTU + 3, 1500, 4000] {
            for target in [bob, far] {
                let draft = Draft::udp(alice, target, size - headers).fragment(DF);
                add(&format!("{size} bytes, DF"), draft, too_big(family), Path::Kernel);
            }
            let draft = Draft::tcp(alice, bob, 9, size - headers - 12).fragment(DF);
            add(&format!("{size} bytes of TCP, DF"), draft, too_big(family), Path::Kernel);
            if family == Family::V4 {
                let draft = Draft::udp(alice, bob, size - headers);
                add(&format!("{size} bytes"), draft, Expect::Fragments, Path::Kernel);
            }
        }
        // A fragment with DF that exceeds the MTU.
        if family == Family::V4 {
            let draft = Draft::udp(alice, bob, 1500).fragment(DF | MF);
            add("a large fragment, DF", draft, too_big(family), Path::Kernel);
        }
        let draft = Draft::udp(alice, bob, 1600).fragment(DF).hop_limit(1);
        add("too large on its last hop", draft, time_exceeded(family), Path::Kernel);
    }
    cases
}

/// IPv4 options and IPv6 extension headers.
pub fn options() -> Vec<Case> {
    let mut cases = Vec::new();
    let Hosts { alice, bob, hub, .. } = hosts(Family::V4);
    let problem = |pointer: u32| error(12, 0, pointer << 24, "10.77.0.1");
    for (name, options, expect) in [
        ("nop", &[1, 1, 1, 1][..], Expect::Forwarded),
        ("end of options", &[0, 0, 0, 0], Expect::Forwarded),
        ("record route", &[7, 7, 4, 0, 0, 0, 0, 0], Expect::Rewritten),
        ("a full record route", &[7, 7, 8, 9, 9, 9, 9, 0], Expect::Forwarded),
        ("a full timestamp", &[0x44, 8, 9, 0, 1, 2, 3, 4], Expect::Rewritten),
        ("router alert", &[0x94, 4, 0, 0], Expect::Forwarded),
        ("an unknown option", &[0x5e, 4, 7, 7], Expect::Forwarded),
        ("loose source route", &[0x83, 7, 4, 10, 88, 1, 2, 0], Expect::Silence),
        ("strict source route", &[0x89, 7, 4, 10, 88, 1, 2, 0], Expect::Silence),
        ("an option of no length", &[7, 0, 0, 0], problem(20)),
        ("an option that ends beyond the header", &[7, 9, 4, 0], problem(20)),
    ] {
        let draft = Draft::udp(alice, bob, 60).options(options);
        cases.push(case(name, draft.build(), expect, Path::Either));
    }
    let draft = Draft::udp(alice, bob, 60).options(&[1, 1, 1, 1]).hop_limit(1);
    let expect = time_exceeded(Family::V4);
    cases.push(case("options on the last hop", draft.build(), expect, Path::Kernel));

    let Hosts { alice, bob: bob_v6, .. } = hosts(Family::V6);
    let problem = |pointer| error(4, 2, pointer, "fd77::1");
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const DESTINATION: u8 = 60;
    for (name, kind, bytes, expect) in [
        ("padding", HOP_BY_HOP, [0, 0, 1, 4, 0, 0, 0, 0], Expect::Forwarded),
        ("router alert", HOP_BY_HOP, [0, 0, 5, 2, 0, 0, 1, 0], Expect::Forwarded),
        ("unknown, skip", HOP_BY_HOP, [0, 0, 0x1e, 4, 0, 0, 0, 0], Expect::Forwarded),
        ("unknown, discard", HOP_BY_HOP, [0, 0, 0x5e, 4, 0, 0, 0, 0], Expect::Silence),
        ("unknown, report", HOP_BY_HOP, [0, 0, 0x9e, 4, 0, 0, 0, 0], problem(42)),
        ("unknown, report unicast", HOP_BY_HOP, [0, 0, 0xde, 4, 0, 0, 0, 0], problem(42)),
        ("longer than the packet", HOP_BY_HOP, [0, 200, 1, 4, 0, 0, 0, 0], Expect::Silence),
        ("routing header", ROUTING, [0, 0, 0, 1, 0, 0, 0, 0], Expect::Forwarded),
        ("routing header, done", ROUTING, [0, 0, 4, 0, 0, 0, 0, 0], Expect::Forwarded),
        ("first fragment", FRAGMENT, [0, 0, 0, 1, 0, 0, 0, 7], Expect::Forwarded),
        ("middle fragment", FRAGMENT, [0, 0, 0, 0x49, 0, 0, 0, 7], Expect::Forwarded),
        ("last fragment", FRAGMENT, [0, 0, 0, 0x48, 0, 0, 0, 7], Expect::Forwarded),
        ("destination options", DESTINATION, [0, 0, 0x9e, 4, 0, 0, 0, 0], Expect::Forwarded),
    ] {
        let draft = Draft::udp(alice, bob_v6, 60).extension(kind, &bytes);
        cases.push(case(name, draft.build(), expect, Path::Either));
    }
    for (alice, bob, hub) in [(hosts(Family::V4).alice, bob, hub)] {
        let draft = Draft::echo(alice, hub, 1, 60).options(&[1, 1, 1, 1]);
        cases.push(case("options, for the hub", draft.build(), Expect::Reply, Path::Kernel));
        for word in [MF, MF | 2, 2, DF | MF] {
            let draft = Draft::udp(alice, bob, 64).fragment(word);
            let name = format!("fragment {word:#x}");
            cases.push(case(name, draft.build(), Expect::Forwarded, Path::Either));
        }
        // The first byte of a later fragment is not an ICMP type.
        for first in [3, 5, 8, 11] {
            let draft = Draft::other(alice, bob, 1, &[first; 64]).fragment(MF | 2);
            let name = format!("a middle fragment that begins with {first}");
            cases.push(case(name, draft.build(), Expect::Forwarded, Path::Either));
        }
        // No ICMP error is sent about a later fragment (RFC 1122 §3.2.2).
        let draft = Draft::udp(alice, bob, 64).fragment(MF | 2).hop_limit(1);
        cases.push(case(
            "a middle fragment on its last hop",
            draft.build(),
            Expect::Silence,
            Path::Either,
        ));
        let draft = Draft::udp(alice, bob, 64).fragment(MF).hop_limit(1);
        let expect = time_exceeded(Family::V4);
        cases.push(case("a first fragment on its last hop", draft.build(), expect, Path::Kernel));
    }
    cases
}

/// Malformed packets, and sources that are not alice's.
pub fn malformed() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in Family::BOTH {
        let Hosts { alice, bob, carol, hub, .. } = hosts(family);
        let packet = Draft::udp(alice, bob, 100).build();
        let mut add = |name: &str, change: &dyn Fn(&mut Vec<u8>), expect: Expect, path: Path| {
            let mut packet = packet.clone();
            change(&mut packet);
            cases.push(case(format!("{name}, {family:?}"), packet, expect, path));
        };
        let (silence, either) = (Expect::Silence, Path::Either);
        for version in [0, 1, 5, 7, 15] {
            let change = move |packet: &mut Vec<u8>| packet[0] = version << 4 | 5;
            add(&format!("version {version}"), &change, silence.clone(), either);
        }
        let other = if family == Family::V4 { 0x60 } else { 0x45 };
        add("the other version", &|packet| packet[0] = other, silence.clone(), either);
        for length in [1, 10, 19, 20, 39, 40, 100] {
            let change = move |packet: &mut Vec<u8>| packet.truncate(length);
            add(&format!("cut to {length} bytes"), &change, silence.clone(), either);
        }
        let at = if family == Family::V4 { 2 } else { 4 };
        add("length field beyond the end", &|packet| packet[at] = 1, silence.clone(), either);
        let is_longer = |packet: &mut Vec<u8>| packet.extend([0xee; 37]);
        add("with garbage behind it", &is_longer, Expect::Forwarded, Path::Worker);
        if family == Family::V4 {
            for (at, value) in [(10, 0), (10, 0xff), (11, 0), (8, 65), (1, 1), (4, 9)] {
                let change = move |packet: &mut Vec<u8>| packet[at] = value;
                let name = format!("wrong checksum ({at}: {value})");
                add(&name, &change, silence.clone(), either);
            }
            for value in [0x40, 0x44, 0x4f] {
                let change = move |packet: &mut Vec<u8>| packet[0] = value;
                add(&format!("first byte {value:#x}"), &change, silence.clone(), either);
            }
            add("no length", &|packet| packet[2..4].fill(0), silence.clone(), either);
        } else {
            let expect = Expect::Forwarded;
            add("nothing behind the header", &|packet| packet[4..6].fill(0), expect, Path::Either);
        }
        for (name, source) in [("bob", bob), ("carol", carol), ("the hub", hub)] {
            let packet = Draft::udp(source, bob, 100).build();
            let name = format!("{name}'s address, {family:?}");
            cases.push(case(name, packet, Expect::Silence, Path::Either));
        }
    }
    cases
}

/// Destinations that do not belong to a live peer.
pub fn destinations() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in Family::BOTH {
        let Hosts { alice, alice_too, hub, carol, unassigned, unknown, .. } = hosts(family);
        let mut add = |name: &str, draft: Draft, expect: Expect| {
            cases.push(case(format!("{name}, {family:?}"), draft.build(), expect, Path::Kernel));
        };
        let (port, host) = if family == Family::V4 { ((3, 3), (3, 1)) } else { ((1, 4), (1, 3)) };
        for length in [0, 56, 1300] {
            add("to the hub", Draft::echo(alice, hub, 1, length), Expect::Reply);
            let closed = error(port.0, port.1, 0, hub);
            add("to a closed port", Draft::udp(alice, hub, length), closed);
            add("to alice herself", Draft::udp(alice, alice, length), Expect::Returned);
            add("to alice herself", Draft::udp(alice, alice_too, length), Expect::Returned);
            add("to alice herself", Draft::tcp(alice_too, alice, 1, length), Expect::Returned);
            add("no route", Draft::udp(alice, unknown, length), no_route(family));
            for (name, target) in [("unassigned", unassigned), ("no endpoint", carol)] {
                let expect = late_error(host.0, host.1, hub);
                add(name, Draft::udp(alice, target, length), expect);
            }
        }
        let big = Draft::udp(alice, alice_too, 1500).fragment(DF);
        add("too large for herself", big, too_big(family));
        let last = Draft::udp(alice, alice_too, 60).hop_limit(1);
        add("to herself on its last hop", last, time_exceeded(family));
    }
    cases
}
