//! Addresses that routers do not forward, addresses that only look like those, and routes out of
//! the tunnel.

use super::cases::{Hosts, case, error, hosts};
use super::judge::{Case, Expect, Path};
use crate::harness::{DF, Draft, Family, MTU};

/// Unusual sources. Alice's allowed IPs include them all, and all routes lead into the tunnel.
pub fn sources() -> Vec<Case> {
    let mut cases = Vec::new();
    for (source, expect) in [
        // Martians (RFC 1812 §5.3.7).
        ("224.0.0.1", Expect::Silence),
        ("239.255.0.1", Expect::Silence),
        ("255.255.255.255", Expect::Silence),
        ("127.0.0.1", Expect::Silence),
        ("127.3.2.1", Expect::Silence),
        ("0.0.0.0", Expect::Silence),
        // The hub's own.
        ("10.77.0.1", Expect::Silence),
        ("192.0.2.1", Expect::Silence),
        // Linux forwards them, RFC 1812 or not.
        ("10.77.0.255", Expect::Forwarded),
        ("0.1.2.3", Expect::Forwarded),
        ("169.254.1.1", Expect::Forwarded),
        ("240.0.0.1", Expect::Forwarded),
        ("255.255.255.254", Expect::Forwarded),
        ("8.8.8.8", Expect::Forwarded),
        // Bob's.
        ("10.77.0.3", Expect::Silence),
        ("10.88.0.1", Expect::Silence),
    ] {
        let packet = Draft::udp(source, "10.77.0.3", 60).build();
        cases.push(case(source, packet, expect, path_of(source)));
    }
    for (source, expect) in [
        ("::1", Expect::Silence),
        ("ff02::1", Expect::Silence),
        ("ff0e::1", Expect::Silence),
        // Linux spares a packet that leaves by the interface it came from the checks of
        // `ip6_forward` for the unspecified and link-local addresses.
        ("::", Expect::Forwarded),
        ("fe80::1", Expect::Forwarded),
        ("::ffff:10.77.0.2", Expect::Forwarded),
        ("fd77::1", Expect::Forwarded),
        ("::2", Expect::Forwarded),
        ("2001:db8:77::1", Expect::Forwarded),
        ("fec0::1", Expect::Forwarded),
        ("fd77::3", Expect::Silence),
        ("fd88::1", Expect::Silence),
    ] {
        let packet = Draft::udp(source, "fd77::3", 60).build();
        cases.push(case(source, packet, expect, path_of(source)));
    }
    // Martian sources get no ICMP errors, either.
    for source in ["127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"] {
        let packet = Draft::udp(source, "10.77.0.3", 60).hop_limit(1).build();
        cases.push(case(format!("{source}, last hop"), packet, Expect::Silence, Path::Either));
    }
    for source in ["::", "::1", "ff02::1"] {
        let packet = Draft::udp(source, "fd77::3", 60).hop_limit(1).build();
        cases.push(case(format!("{source}, last hop"), packet, Expect::Silence, Path::Either));
    }
    cases
}

/// Unusual destinations. Bob's allowed IPs include them all, and all routes lead into the tunnel.
pub fn destinations() -> Vec<Case> {
    let mut cases = Vec::new();
    for (destination, expect) in [
        ("224.0.0.1", Expect::Silence),
        ("224.0.0.5", Expect::Silence),
        ("239.255.0.1", Expect::Silence),
        ("255.255.255.255", Expect::Silence),
        ("10.77.0.255", Expect::Silence),
        ("0.0.0.0", Expect::Silence),
        ("127.0.0.1", Expect::Silence),
        ("127.3.2.1", Expect::Silence),
        ("192.0.2.255", Expect::Silence),
        ("10.77.0.0", Expect::Forwarded),
        ("0.1.2.3", Expect::Forwarded),
        ("169.254.1.1", Expect::Forwarded),
        ("240.0.0.1", Expect::Forwarded),
        ("255.255.255.254", Expect::Forwarded),
        ("10.77.0.77", Expect::Forwarded),
        ("8.8.8.8", Expect::Forwarded),
        // The hub keeps its own addresses, whatever bob's allowed IPs are.
        ("10.77.0.1", error(3, 3, 0, "10.77.0.1")),
        ("192.0.2.1", error(3, 3, 0, "192.0.2.1")),
    ] {
        let packet = Draft::udp("10.77.0.2", destination, 60).build();
        cases.push(case(destination, packet, expect, path_of(destination)));
    }
    for (destination, expect) in [
        ("::1", Expect::Silence),
        ("ff02::1", Expect::Silence),
        ("ff02::2", Expect::Silence),
        ("ff05::2", Expect::Silence),
        ("ff0e::1", Expect::Silence),
        ("::", Expect::Forwarded),
        ("fe80::1", Expect::Forwarded),
        ("fe80::", Expect::Forwarded),
        ("::ffff:10.77.0.3", Expect::Forwarded),
        ("::2", Expect::Forwarded),
        ("2001:db8:77::1", Expect::Forwarded),
        ("fec0::1", Expect::Forwarded),
        ("fd77::77", Expect::Forwarded),
        ("fd77::1", error(1, 4, 0, "fd77::1")),
        // The anycast address of the routers of a subnet (RFC 4291 §2.6.1).
        ("fd77::", error(1, 4, 0, "fd77::")),
    ] {
        let packet = Draft::udp("fd77::2", destination, 60).build();
        cases.push(case(destination, packet, expect, path_of(destination)));
    }
    for hub in ["10.77.0.1", "192.0.2.1", "fd77::1"] {
        let alice = if hub.contains(':') { "fd77::2" } else { "10.77.0.2" };
        let packet = Draft::echo(alice, hub, 1, 60).build();
        cases.push(case(format!("ping of {hub}"), packet, Expect::Reply, Path::Kernel));
    }
    cases
}

/// Ordinary addresses are relayed by the worker; it may leave the others to the kernel.
fn path_of(address: &str) -> Path {
    match address {
        "8.8.8.8" | "10.77.0.77" | "2001:db8:77::1" | "fd77::77" => Path::Worker,
        _ => Path::Either,
    }
}

/// Peers without a route into the tunnel: the default route leads out of another interface. With
/// the kernel as the relay, packets for them leave there in clear text, as routed by the operator.
/// With the worker, they stay in the tunnel or are dropped; the worker answers as a router does.
pub fn routed_elsewhere() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in Family::BOTH {
        let Hosts { alice, bob, hub, unknown, .. } = hosts(family);
        let (astray, last_hop) = match family {
            Family::V4 => ("10.99.0.1", error(11, 0, 0, hub)),
            Family::V6 => ("fd99::99", error(3, 0, 0, hub)),
        };
        let too_big = |mtu| match family {
            Family::V4 => error(3, 4, mtu, hub),
            Family::V6 => error(2, 0, mtu, hub),
        };
        let mut add = |name: &str, draft: Draft, expect, direct, path| {
            let (name, packet) = (format!("{name}, {family:?}"), draft.build());
            cases.push(Case { name, packet, expect, direct, path });
        };
        let draft = Draft::udp(alice, astray, 60);
        add("plain", draft, Expect::Elsewhere, Some(Expect::Forwarded), Path::Worker);
        let draft = Draft::tcp(alice, astray, 5, 1300);
        add("plain TCP", draft, Expect::Elsewhere, Some(Expect::Forwarded), Path::Worker);
        let draft = Draft::udp(alice, astray, 60).hop_limit(1);
        add("last hop", draft, last_hop, None, Path::Worker);
        // Larger than the tunnel's MTU; the other interface has more room. The worker answers.
        let direct = Some(too_big(MTU as u32));
        let draft = Draft::udp(alice, astray, 1440).fragment(DF);
        add("too large for one", draft, Expect::Elsewhere, direct.clone(), Path::Worker);
        let draft = Draft::udp(alice, astray, 1600).fragment(DF);
        add("too large for both", draft, too_big(1500), direct, Path::Worker);
        let draft = match family {
            Family::V4 => Draft::udp(alice, astray, 60).options(&[1, 1, 1, 1]),
            Family::V6 => Draft::udp(alice, astray, 60).extension(0, &[0, 0, 0x1e, 4, 0, 0, 0, 0]),
        };
        add("options", draft, Expect::Elsewhere, Some(Expect::Silence), Path::Either);
        // Packets for no peer leave through the default route in either mode, as with any router.
        let draft = Draft::udp(alice, unknown, 60);
        add("to no peer", draft, Expect::Elsewhere, None, Path::Kernel);
        add("to bob", Draft::udp(alice, bob, 60), Expect::Forwarded, None, Path::Worker);
    }
    cases
}
