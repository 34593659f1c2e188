//! What a set of firewall rules may do to a packet from peer to peer, which enters and leaves by
//! our interface.
//!
//! 1. [`nftables`] and [`legacy`] read rules into one form: a [`Chain`] of [`Rule`]s, each a list
//!    of [`Step`]s.
//! 2. [`find_obstacle`] follows every way that such a packet may take through a base chain. Only
//!    the interfaces and the IP version are known; any other condition may hold or not.
//!
//! If no rule that may be reached does more than accept, return or jump, the rules let every packet
//! pass as it is. A rule whose condition cannot hold does not matter, whatever it does.

pub mod legacy;
pub mod nftables;
#[cfg(test)]
mod tests;

use std::fmt;

use wg_bounce_sys::Family;

use super::kernel::Interface;

/// One chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its number or handle, as the firewall's own program lists it.
    pub label: String,
    /// What it tests and does, in order.
    pub steps: Vec<Step>,
}

/// A part of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// What follows applies only if this holds.
    If(Condition),
    /// The rule has a counter, which would miss packets that are relayed directly.
    Count,
    /// A condition that looks into a set, whose elements may have counters: it holds or not.
    LookUp,
    /// It changes, observes or drops the packet, or it is not understood.
    Do(Effect),
    /// Ends the rule.
    End(Verdict),
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The name of an interface equals `name` in the bits of `mask` (or does not). Both have the
    /// same length, at most that of the kernel's field; behind its end the name is zeros.
    Name {
        /// The interface.
        side: Side,
        /// The name, or its first bytes.
        name: Vec<u8>,
        /// The bits that count.
        mask: Vec<u8>,
        /// Whether they must be equal.
        is_equal: bool,
    },
    /// The index of an interface equals `index` (or does not).
    Index {
        /// The interface.
        side: Side,
        /// The index.
        index: u32,
        /// Whether they must be equal.
        is_equal: bool,
    },
    /// The IP version, as NFPROTO_*, equals `version` (or does not).
    Version {
        /// NFPROTO_IPV4 or NFPROTO_IPV6.
        version: u8,
        /// Whether they must be equal.
        is_equal: bool,
    },
    /// Anything else: it may hold or not.
    Unknown,
}

/// The interface that a packet enters or leaves by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Enters by.
    In,
    /// Leaves by.
    Out,
}

/// An effect other than a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It drops or rejects.
    Drop,
    /// It only counts.
    Count,
    /// A statement or target of this name.
    Apply(String),
    /// Something that is not understood.
    Unclear(String),
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Effect::Drop => f.write_str("may drop packets between peers"),
            Effect::Count => f.write_str("counts packets between peers"),
            Effect::Apply(name) => write!(f, "may apply {name} to packets between peers"),
            Effect::Unclear(name) => write!(f, "{name} is not understood"),
        }
    }
}

/// The end of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The packet has passed this base chain.
    Accept,
    /// Back to the rule after the one that jumped here; in a base chain, to its policy.
    Return,
    /// To a chain, by its index, and back.
    Jump(usize),
    /// To a chain, and back to where this chain would return.
    Goto(usize),
}

/// What is known about one side at a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// It is our interface.
    Ours,
    /// Rules see none there: its name is empty and its index is zero.
    Nothing,
}

/// A hook on the path of a packet between peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Its name in nft(8).
    pub name: &'static str,
    /// The interface that packets enter by, as far as rules see it there.
    pub incoming: Device,
    /// The interface that they leave by.
    pub outgoing: Device,
}

/// As soon as a packet is received.
pub const INGRESS: Hook =
    Hook { name: "ingress", incoming: Device::Ours, outgoing: Device::Nothing };
/// Before the route is known.
pub const PREROUTING: Hook = Hook { name: "prerouting", ..INGRESS };
/// When a packet is forwarded.
pub const FORWARD: Hook = Hook { name: "forward", incoming: Device::Ours, outgoing: Device::Ours };
/// Before a packet leaves. Rules see where it came from since Linux 5.7.
pub const POSTROUTING: Hook = Hook { name: "postrouting", ..FORWARD };
/// When a packet is given to the device.
pub const EGRESS: Hook = Hook { name: "egress", incoming: Device::Nothing, outgoing: Device::Ours };

/// What is known about packets between peers at a hook.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Our interface's name.
    pub name: &'a str,
    /// Its index.
    pub index: u32,
    /// The hook.
    pub hook: Hook,
    /// NFPROTO_IPV4 or NFPROTO_IPV6; none at hooks of devices, where rules see another number.
    pub version: Option<u8>,
}

impl<'a> Place<'a> {
    /// The place of packets of one IP version between peers of `interface` at `hook`.
    pub fn new(interface: &'a Interface, hook: Hook, family: Family) -> Place<'a> {
        let version = match family {
            Family::V4 => libc::NFPROTO_IPV4,
            Family::V6 => libc::NFPROTO_IPV6,
        };
        let version = (hook != INGRESS && hook != EGRESS).then_some(version as u8);
        let Interface { index, name } = interface;
        Place { name, index: *index, hook, version }
    }
}

/// A rule that may be reached and does something to packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// The name of its chain.
    pub chain: String,
    /// See [`Rule::label`].
    pub rule: String,
    /// Its effect.
    pub effect: Effect,
}

/// Follows packets at `place` through the base chain with index `base`. Fails with the first rule
/// that may do something to them. Returns whether they may reach the chain's policy.
///
/// The time is linear in the number of rules.
pub fn find_obstacle(chains: &[Chain], base: usize, place: &Place<'_>) -> Result<bool, Obstacle> {
    let mut walk = Walk { chains, place, ways: vec![Way::New; chains.len()] };
    walk.chain(base, 0)
}

/// Jumps within jumps at most; the kernel allows 16 (`NFT_JUMP_STACK_SIZE`) and, for legacy tables,
/// as many as there are chains.
const DEPTH_MAX: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    New,
    /// It is being followed: a jump to it is a circle.
    Active,
    /// Whether it may return.
    Done(bool),
}

struct Walk<'a> {
    chains: &'a [Chain],
    place: &'a Place<'a>,
    ways: Vec<Way>,
}

/// Where a packet may go after a rule.
struct After {
    next: bool,
    back: bool,
}

impl Walk<'_> {
    /// Whether packets may return from the chain.
    fn chain(&mut self, index: usize, depth: usize) -> Result<bool, Obstacle> {
        let unclear = |chain: &str| Obstacle {
            chain: chain.to_owned(),
            rule: String::new(),
            effect: Effect::Unclear("a jump".to_owned()),
        };
        let chains = self.chains;
        let Some(chain) = chains.get(index) else { return Err(unclear("?")) };
        match self.ways[index] {
            Way::Done(may_return) => return Ok(may_return),
            Way::Active => return Err(unclear(&chain.name)),
            Way::New if depth > DEPTH_MAX => return Err(unclear(&chain.name)),
            Way::New => self.ways[index] = Way::Active,
        }
        let mut may_return = false;
        let mut goes_on = true;
        for rule in &chain.rules {
            let after = self.rule(chain, rule, depth)?;
            may_return |= after.back;
            goes_on = after.next;
            if !goes_on {
                break;
            }
        }
        may_return |= goes_on;
        self.ways[index] = Way::Done(may_return);
        Ok(may_return)
    }

    fn rule(&mut self, chain: &Chain, rule: &Rule, depth: usize) -> Result<After, Obstacle> {
        let obstacle = |effect: Effect| Obstacle {
            chain: chain.name.clone(),
            rule: rule.label.clone(),
            effect,
        };
        // `next` holds from the first condition on that may be false.
        let (mut next, mut counts, mut looks_up) = (false, false, false);
        for step in &rule.steps {
            match step {
                Step::If(condition) => match self.place.holds(condition) {
                    Some(true) => {}
                    // What was counted before the condition was not counted for a verdict.
                    _ if counts || looks_up => return Err(obstacle(Effect::Count)),
                    Some(false) => return Ok(After { next: true, back: false }),
                    None => next = true,
                },
                Step::Count => counts = true,
                Step::LookUp if counts || looks_up => return Err(obstacle(Effect::Count)),
                Step::LookUp => (looks_up, next) = (true, true),
                Step::Do(effect) => return Err(obstacle(effect.clone())),
                Step::End(Verdict::Accept) => return Ok(After { next, back: false }),
                Step::End(Verdict::Return) => return Ok(After { next, back: true }),
                Step::End(Verdict::Jump(to)) => {
                    let may_return = self.chain(*to, depth + 1)?;
                    return Ok(After { next: next || may_return, back: false });
                }
                Step::End(Verdict::Goto(to)) => {
                    let back = self.chain(*to, depth + 1)?;
                    return Ok(After { next, back });
                }
            }
        }
        // A counter without a verdict: the operator counts these packets.
        if counts || looks_up {
            return Err(obstacle(Effect::Count));
        }
        Ok(After { next: true, back: false })
    }
}

impl Place<'_> {
    /// Whether a condition holds; none if that is not known.
    fn holds(&self, condition: &Condition) -> Option<bool> {
        match condition {
            Condition::Name { side, name, mask, is_equal } => {
                let actual = match self.side(*side) {
                    // Not as the kernel has it.
                    Device::Ours if self.name.contains(char::REPLACEMENT_CHARACTER) => return None,
                    Device::Ours => self.name.as_bytes(),
                    Device::Nothing => &[],
                };
                let actual = actual.iter().chain(std::iter::repeat(&0));
                let equal = name.iter().zip(mask).zip(actual).all(|((n, m), a)| n & m == a & m);
                Some(equal == *is_equal)
            }
            Condition::Index { side, index, is_equal } => {
                let actual = match self.side(*side) {
                    Device::Ours => self.index,
                    Device::Nothing => 0,
                };
                Some((actual == *index) == *is_equal)
            }
            Condition::Version { version, is_equal } => {
                self.version.map(|actual| (actual == *version) == *is_equal)
            }
            Condition::Unknown => None,
        }
    }

    fn side(&self, side: Side) -> Device {
        match side {
            Side::In => self.hook.incoming,
            Side::Out => self.hook.outgoing,
        }
    }
}

/// Matches of x_tables that depend on nothing but the packet and its connection, and have no
/// effect: they hold or not. Those for ports and flags are not among them, since they drop packets
/// that are too short for these (`hotdrop`), nor those that keep state (recent, hashlimit, quota,
/// …).
const PURE_MATCHES: [&str; 16] = [
    "addrtype",
    "comment",
    "connmark",
    "conntrack",
    "dscp",
    "ecn",
    "hl",
    "iprange",
    "length",
    "mac",
    "mark",
    "pkttype",
    "realm",
    "state",
    "tos",
    "ttl",
];

/// The step for a match of x_tables.
fn xt_match(name: &str) -> Step {
    match PURE_MATCHES.contains(&name) {
        true => Step::If(Condition::Unknown),
        false => Step::Do(Effect::Unclear(format!("match {name}"))),
    }
}
