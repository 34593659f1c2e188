//! The way of packets between two addresses, in words: `wg-bounce explain`.

use std::fmt::Write as _;
use std::net::IpAddr;

use wg_bounce_dataplane::pairs::Exceptions;
use wg_bounce_dataplane::snapshot::DirectRelay;
use wg_bounce_sys::Family;

use super::base_chain::{BaseChain, WayEnd};
use super::decision::PolicyDecision;
use super::kernel::Interface;
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
    /// Both addresses.
    pub pair: [IpAddr; 2],
    /// For each direction whether the kernel's route leads back into the interface; else the way
    /// that it leads instead.
    pub routes: [Result<(), &'a str>; 2],
    /// The decision about all packets.
    pub decision: &'a PolicyDecision,
    /// The packets of the pair that are left to the kernel.
    pub exceptions: Exceptions,
}

/// The outcome, and all that led there: routes and rules in order, for both directions.
pub fn explain<'a>(facts: &Facts<'_>, chains: impl Iterator<Item = &'a BaseChain>) -> String {
    let family = Family::of(facts.pair[0]);
    let mut chains: Vec<&BaseChain> =
        chains.filter(|chain| chain.families.contain(family)).collect();
    let place = |hook: Hook| HOOKS.iter().position(|one| *one == hook);
    chains.sort_by_key(|chain| (place(chain.hook), chain.priority));
    let mut text = format!("outcome: {}\nrelay: {}\n", outcome(facts, family), facts.decision);
    let [one, other] = facts.pair;
    for (index, (from, to)) in [(one, other), (other, one)].into_iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "from {from} to {to}");
        let _ = match facts.routes[index] {
            Ok(()) => writeln!(text, "  route: back into {}", facts.interface.name),
            Err(elsewhere) => writeln!(text, "  route: {elsewhere}"),
        };
        for chain in &chains {
            tell(&mut text, facts.interface, chain, from, to);
        }
    }
    let addresses = Addresses::new(0, facts.pair.map(Into::into));
    for reason in chains.iter().filter_map(|one| one.translation(facts.interface, &addresses)) {
        let _ = writeln!(text, "{reason}");
    }
    text
}

/// For example "direct, but TCP SYN by the kernel".
fn outcome(facts: &Facts<'_>, family: Family) -> String {
    let Exceptions { all, without_header, syn, icmp_errors } = facts.exceptions;
    match facts.decision.relaying(family) {
        DirectRelay::Never => return "by the kernel, as all packets between peers".to_owned(),
        DirectRelay::LocalOnly => return "dropped, as all packets between peers".to_owned(),
        DirectRelay::Always => return "direct".to_owned(),
        DirectRelay::IfRoutedBack => {}
    }
    if facts.routes.iter().any(Result::is_err) {
        return "by the kernel, because of its route".to_owned();
    }
    if all {
        return "by the kernel, because of what follows".to_owned();
    }
    let parts = [
        (syn, "TCP SYN"),
        (without_header, "fragments and packets without a whole transport header"),
        (icmp_errors, "ICMP errors"),
    ];
    let parts: Vec<&str> = parts.into_iter().filter(|part| part.0).map(|part| part.1).collect();
    match parts.is_empty() {
        true => "direct".to_owned(),
        false => format!("direct, but {} by the kernel", parts.join(", ")),
    }
}

/// Adds the way through a base chain.
fn tell(text: &mut String, interface: &Interface, chain: &BaseChain, from: IpAddr, to: IpAddr) {
    let way = chain.way(interface, from, to);
    let _ = writeln!(text, "  {}, priority {}", chain.origin, chain.priority);
    for Met { depth, chain: name, rule, is_certain, does } in way.met.iter().take(RULES_MAX) {
        let indent = 4 + 2 * depth;
        let condition = if *is_certain { "" } else { ", if it matches" };
        let _ = writeln!(text, "{:indent$}chain {name}, rule {rule}{condition}: {does}", "");
    }
    if way.met.len() > RULES_MAX {
        let _ = writeln!(text, "    and {} rules more", way.met.len() - RULES_MAX);
    }
    let _ = match way.end {
        WayEnd::Accepted => Ok(()),
        WayEnd::Policy(true) => writeln!(text, "    policy: accepts"),
        WayEnd::Policy(false) => writeln!(text, "    policy: drops: by the kernel"),
        WayEnd::Obstacle => writeln!(text, "    so by the kernel"),
    };
}
