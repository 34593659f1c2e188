//! Addresses that no router forwards, or that only look as if; and routes that lead out of the
//! tunnel.

use super::cases::{Hosts, case, error, hosts};
use super::{Case, Expect, Way};
use crate::harness::{DF, Draft, Family};

/// Odd sources; alice may have them all by her allowed IPs, and all routes lead to the tunnel.
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
        cases.push(case(source, packet, expect, way_of(source)));
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
        cases.push(case(source, packet, expect, way_of(source)));
    }
    // What a martian asks for is not answered either.
    for source in ["127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"] {
        let packet = Draft::udp(source, "10.77.0.3", 60).hop_limit(1).build();
        cases.push(case(format!("{source}, last hop"), packet, Expect::Silence, Way::Either));
    }
    for source in ["::", "::1", "ff02::1"] {
        let packet = Draft::udp(source, "fd77::3", 60).hop_limit(1).build();
        cases.push(case(format!("{source}, last hop"), packet, Expect::Silence, Way::Either));
    }
    cases
}

/// Odd destinations; bob has them all by his allowed IPs, and all routes lead to the tunnel.
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
        // The hub's own addresses are not bob's, whatever his allowed IPs.
        ("10.77.0.1", error(3, 3, 0, "10.77.0.1")),
        ("192.0.2.1", error(3, 3, 0, "192.0.2.1")),
    ] {
        let packet = Draft::udp("10.77.0.2", destination, 60).build();
        cases.push(case(destination, packet, expect, way_of(destination)));
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
        cases.push(case(destination, packet, expect, way_of(destination)));
    }
    for hub in ["10.77.0.1", "192.0.2.1", "fd77::1"] {
        let alice = if hub.contains(':') { "fd77::2" } else { "10.77.0.2" };
        let packet = Draft::echo(alice, hub, 1, 60).build();
        cases.push(case(format!("ping of {hub}"), packet, Expect::Reply, Way::Kernel));
    }
    cases
}

/// Ordinary addresses are the worker's; of the others it may leave some to the kernel.
fn way_of(address: &str) -> Way {
    match address {
        "8.8.8.8" | "10.77.0.77" | "2001:db8:77::1" | "fd77::77" => Way::Worker,
        _ => Way::Either,
    }
}

/// Peers to whom no route leads through the tunnel: the default route leads out of another
/// interface. By the kernel packets for them leave there in clear text, as the operator's routes
/// have it; by the worker they stay in the tunnel, or go nowhere.
pub fn astray() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in Family::BOTH {
        let Hosts { alice, bob, hub, unknown, .. } = hosts(family);
        let (astray, last_hop) = match family {
            Family::V4 => ("10.99.0.1", error(11, 0, 0, hub)),
            Family::V6 => ("fd99::99", error(3, 0, 0, hub)),
        };
        let too_big = match family {
            Family::V4 => error(3, 4, 1500, hub),
            Family::V6 => error(2, 0, 1500, hub),
        };
        let mut add = |name: &str, draft: Draft, expect, direct, way| {
            let (name, packet) = (format!("{name}, {family:?}"), draft.build());
            cases.push(Case { name, packet, expect, direct, way });
        };
        let draft = Draft::udp(alice, astray, 60);
        add("plain", draft, Expect::Elsewhere, Some(Expect::Forwarded), Way::Worker);
        let draft = Draft::tcp(alice, astray, 5, 1300);
        add("plain TCP", draft, Expect::Elsewhere, Some(Expect::Forwarded), Way::Worker);
        let draft = Draft::udp(alice, astray, 60).hop_limit(1);
        add("last hop", draft, last_hop, Some(Expect::Silence), Way::Either);
        // Larger than the tunnel's MTU; the other interface has more room.
        let draft = Draft::udp(alice, astray, 1440).fragment(DF);
        add("too large for one", draft, Expect::Elsewhere, Some(Expect::Silence), Way::Either);
        let draft = Draft::udp(alice, astray, 1600).fragment(DF);
        add("too large for both", draft, too_big, Some(Expect::Silence), Way::Either);
        let draft = match family {
            Family::V4 => Draft::udp(alice, astray, 60).options(&[1, 1, 1, 1]),
            Family::V6 => Draft::udp(alice, astray, 60).extension(0, &[0, 0, 0x1e, 4, 0, 0, 0, 0]),
        };
        add("options", draft, Expect::Elsewhere, Some(Expect::Silence), Way::Either);
        // What is nobody's leaves by the default route in any mode, as from any router.
        let draft = Draft::udp(alice, unknown, 60);
        add("nobody's", draft, Expect::Elsewhere, None, Way::Kernel);
        add("bob's", Draft::udp(alice, bob, 60), Expect::Forwarded, None, Way::Worker);
    }
    cases
}
