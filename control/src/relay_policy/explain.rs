//! The way of packets between two addresses, in words: `wg-bounce explain`.

use std::fmt::Write as _;
use std::sync::Arc;

use wg_bounce_dataplane::ip;
use wg_bounce_dataplane::pairs::{self, Exceptions, Packets, Pairs, Spread};
use wg_bounce_dataplane::snapshot::DirectRelay;
use wg_bounce_sys::Family;
use wg_bounce_uapi::types::{Explain, Protocol, Service};

use super::base_chain::{BaseChain, WayEnd};
use super::decision::PolicyDecision;
use super::kernel::Interface;
use super::reading::Reading;
use super::reason::Reason;
use super::rules::Met;
use super::rules::addresses::Addresses;
use super::rules::place::{EGRESS, FORWARD, Hook, INGRESS, POSTROUTING, PREROUTING};

/// The hooks in the order in which a packet passes them.
const HOOKS: [Hook; 5] = [INGRESS, PREROUTING, FORWARD, POSTROUTING, EGRESS];

/// Rules that are listed for one direction at most.
const RULES_MAX: usize = 1000;

/// The facts about packets between two addresses of one IP version.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The interface.
    pub interface: &'a Interface,
    /// The packets.
    pub about: &'a Explain,
    /// For each direction whether the kernel's route leads back into the interface; else the way
    /// that it leads instead.
    pub routes: [Result<(), &'a str>; 2],
    /// The decision about all packets.
    pub decision: &'a PolicyDecision,
    /// The judgements about packets that are left to the kernel.
    pub pairs: &'a [Arc<Pairs>],
    /// The addresses of all peers, if they are known.
    pub addresses: Option<&'a Addresses>,
}

/// The outcome, and all that led there: routes and rules in order, for both directions.
pub fn explain<'a>(
    facts: &Facts<'_>,
    readings: impl Iterator<Item = &'a Reading> + Clone,
) -> String {
    let (one, other) = (facts.about.source, facts.about.destination);
    let there = packets(facts.about);
    let mut spread = pairs::between(facts.pairs, &there);
    // The worker must tell the conversations of the pair apart.
    let of_pair = pairs::between(facts.pairs, &Packets::from_to(one, other));
    spread.most.without_header |= of_pair.depends();
    let of_errors = pairs::both_ways(facts.pairs, &there.errors());
    // Only these are the cause.
    let are_errors = of_errors.most.all && !pairs::both_ways(facts.pairs, &there).most.all;
    let family = Family::of(one);
    let chains = readings.clone().flat_map(|reading| &reading.chains).map(|one| &one.chain);
    let mut chains: Vec<&BaseChain> =
        chains.filter(|chain| chain.families.contain(family)).collect();
    let place = |hook: Hook| HOOKS.iter().position(|one| *one == hook);
    chains.sort_by_key(|chain| (place(chain.hook), chain.priority));
    let directions = [(one, other, there), (other, one, there.back())];
    let mut text = String::new();
    match facts.routes.map(|route| outcome(facts, family, route, spread)) {
        [one, other] if one == other => text += &format!("outcome: {one}\n"),
        outcomes => {
            for ((from, to, _), outcome) in directions.iter().zip(outcomes) {
                text += &format!("outcome from {from} to {to}: {outcome}\n");
            }
        }
    }
    text += &format!("relay: {}\n", facts.decision);
    let of_pair = readings.flat_map(|reading| &reading.of_pairs).filter(|one| {
        one.families.contain(family)
            && matches!(one.reason, Reason::Settling | Reason::Unread | Reason::Translated)
    });
    let translations = chains
        .iter()
        .filter_map(|chain| chain.translation(facts.interface, facts.addresses, [one, other]));
    if spread.most.all {
        for reason in of_pair.map(|one| one.reason.clone()).chain(translations) {
            text += &format!("perhaps because: {reason}\n");
        }
    }
    if are_errors {
        text += "because: ICMP errors between them are by the kernel, as follows, which must know \
                 the conversations that they are about\n";
    }
    let mut stands_in_the_way = false;
    for ((from, to, packets), route) in directions.into_iter().zip(facts.routes) {
        let packets = if are_errors { packets.errors() } else { packets };
        let what = if are_errors { ", ICMP errors".to_owned() } else { ports(&packets) };
        text += &format!("from {from} to {to}{what}\n");
        text += &match route {
            Ok(()) => format!("  route: back into {}\n", facts.interface.name),
            Err(elsewhere) => format!("  route: {elsewhere}\n"),
        };
        for chain in &chains {
            stands_in_the_way |= tell(&mut text, facts, chain, family, &packets);
        }
    }
    if stands_in_the_way && facts.decision.relaying(family) != DirectRelay::Always {
        text += "help: an accept of these packets before that rule, in the same base chain, makes \
                 them direct\n";
    }
    text
}

/// The packets of a question, in its direction.
fn packets(about: &Explain) -> Packets {
    let packets = Packets::from_to(about.source, about.destination);
    let Some(Service { protocol, port }) = about.service else { return packets };
    let protocol = match protocol {
        Protocol::Tcp => ip::TCP,
        Protocol::Udp => ip::UDP,
    };
    Packets { protocol: Some(protocol.into()), destination_port: Some(port), ..packets }
}

/// For example ", port 53"; empty if no port is known.
fn ports(packets: &Packets) -> String {
    match (packets.source_port, packets.destination_port) {
        (_, Some(port)) => format!(", port {port}"),
        (Some(port), None) => format!(", from port {port}"),
        (None, None) => String::new(),
    }
}

/// For example "direct, but TCP SYN by the kernel".
fn outcome(facts: &Facts<'_>, family: Family, route: Result<(), &str>, spread: Spread) -> String {
    let Exceptions { all, without_header, syn, icmp_errors } = spread.most;
    match facts.decision.relaying(family) {
        DirectRelay::Never => return "by the kernel, as all packets between peers".to_owned(),
        DirectRelay::LocalOnly => return "dropped, as all packets between peers".to_owned(),
        DirectRelay::Always if route.is_ok() => return "direct, past all rules".to_owned(),
        DirectRelay::Always => return "as --relay direct treats such a route".to_owned(),
        // It is not watched.
        DirectRelay::Alone => return "direct".to_owned(),
        DirectRelay::IfRoutedBack => {}
    }
    if route.is_err() {
        return "by the kernel, because of its route".to_owned();
    }
    if spread.least.all {
        return "by the kernel, because of what follows".to_owned();
    }
    let some = match facts.about.service {
        Some(_) => "some source ports",
        None => "some protocols or ports (`tcp PORT` or `udp PORT` asks about one)",
    };
    let parts = [
        (all, some),
        (syn, "TCP SYN"),
        (without_header, "fragments and packets without a whole transport header"),
        (icmp_errors, "some ICMP errors and fragments"),
    ];
    let parts: Vec<&str> = parts.into_iter().filter(|part| part.0).map(|part| part.1).collect();
    match parts.is_empty() {
        true => "direct".to_owned(),
        false => format!("direct, but {} by the kernel", parts.join(", ")),
    }
}

/// Adds the way through a base chain. Returns whether it stands in the way.
fn tell(
    text: &mut String,
    facts: &Facts<'_>,
    chain: &BaseChain,
    family: Family,
    packets: &Packets,
) -> bool {
    let way = chain.way(facts.interface, family, packets);
    let is_bypassed = facts.decision.relaying(family) == DirectRelay::Always;
    let consequence = if is_bypassed { "bypassed" } else { "so by the kernel" };
    // Writing to a string cannot fail.
    let _ = writeln!(text, "  {}, priority {}", chain.name, chain.priority);
    for Met { depth, chain: name, rule, text: words, is_certain, does } in
        way.met.iter().take(RULES_MAX)
    {
        let indent = 4 + 2 * depth;
        let condition = if *is_certain { "" } else { ", if it matches" };
        let _ =
            writeln!(text, "{:indent$}chain {name}, rule {rule}{condition}: {does} [{words}]", "");
    }
    if way.met.len() > RULES_MAX {
        let _ = writeln!(text, "    and {} rules more", way.met.len() - RULES_MAX);
    }
    let _ = match way.end {
        WayEnd::Accepted => Ok(()),
        WayEnd::Policy(true) => writeln!(text, "    policy: accepts"),
        WayEnd::Policy(false) => writeln!(text, "    policy: drops\n    {consequence}"),
        WayEnd::Obstacle => writeln!(text, "    {consequence}"),
    };
    matches!(way.end, WayEnd::Obstacle | WayEnd::Policy(false))
}
