//! What a set of firewall rules may do to a packet from peer to peer, which enters and leaves by
//! our interface.
//!
//! 1. [`nftables`] and [`legacy`] read rules into one form: a [`Chain`] of [`Rule`]s, each a list
//!    of [`Step`]s. [`xt`] has the matches and targets of x_tables, which both use. Of nftables,
//!    [`tables`] reads only those chains again that have changed.
//! 2. [`walk`] follows every way that such a packet may take through a base chain. [`place`] and
//!    [`header`] know which conditions hold: the interfaces and the IP version are known, both
//!    addresses are allowed IPs, the mark is zero. Any other condition may hold or not.
//! 3. [`judge`] does that for all packets at once. Where a rule stands in the way, it splits them
//!    by the conditions on addresses, protocols and ports that it met, and looks again.
//!
//! If no rule that may be reached does more than accept, return or jump, the rules let every packet
//! pass as it is. A rule whose condition cannot hold does not matter, whatever it does.

pub mod addresses;
pub mod exthdr;
pub mod header;
pub mod judge;
pub mod legacy;
pub mod nat;
pub mod nftables;
pub mod place;
pub mod registers;
pub mod sets;
pub mod tables;
#[cfg(test)]
mod tests;
mod text;
pub mod translated;
pub mod walk;
pub mod xt;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use wg_bounce_dataplane::pairs::{Exceptions, Field};
use wg_bounce_dataplane::ranges::Ranges;
use wg_bounce_sys::Family;

/// One chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Its rules, in order. Tables that are read again share those of unchanged chains.
    pub rules: Arc<Vec<Rule>>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its number or handle, as the firewall's own program lists it.
    pub label: String,
    /// Its conditions and statements, in order.
    pub steps: Vec<Step>,
}

/// A part of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The rest of the rule applies only if this holds.
    If(Condition),
    /// The rule has a counter, which would miss packets that are relayed directly.
    Count,
    /// One of the conditions that hold says what happens; if none holds, the rest of the rule.
    Choose {
        /// Conditions, each with a step that ends the rule.
        cases: Vec<(Condition, Step)>,
        /// The step if none holds; none: the rest of the rule.
        otherwise: Option<Box<Step>>,
    },
    /// It changes, observes or drops the packet, or it is not understood.
    Do(Effect),
    /// A statement or target of this name sets the MSS option of a TCP segment.
    Clamp(String),
    /// A statement or target of this name replaces an address, and perhaps a port, and ends the
    /// chain.
    Translate(String, NewAddress, NewPort),
    /// The kernel does not track the packet, which changes nothing about it.
    Untrack,
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
    /// The bytes of a header from `offset` on equal `value` in the bits of `mask` (or do not). Both
    /// have the same length.
    Header {
        /// The header.
        layer: Layer,
        /// Offset in the header (bytes).
        offset: usize,
        /// The bytes.
        value: Vec<u8>,
        /// The bits that count.
        mask: Vec<u8>,
        /// Whether they must be equal.
        is_equal: bool,
    },
    /// The bytes of a header are one of these numbers (or are not).
    Within {
        /// The header.
        layer: Layer,
        /// The bytes.
        bytes: Range<usize>,
        /// The numbers.
        ranges: Arc<Ranges>,
        /// Whether they must be one of these.
        is_within: bool,
    },
    /// One of these holds (or none does), each if all of its conditions do. Elements of a set.
    AnyOf {
        /// The elements.
        elements: Vec<Vec<Condition>>,
        /// Whether one must hold.
        is_in: bool,
        /// Elements may vanish by themselves.
        may_expire: bool,
    },
    /// The packet has at least so many bytes from the IP header on.
    Length(usize),
    /// The bits that count of the packet's mark equal `value` (or do not).
    Mark {
        /// The value.
        value: u32,
        /// Whether they must be equal.
        is_equal: bool,
    },
    /// The destination is an address of the host (or is not).
    ToHost {
        /// Whether it must be one.
        is_equal: bool,
    },
    /// The packet has a whole transport header, and no other before it.
    Transport,
    /// It holds for packets with IPv6 extension headers only.
    Extension,
    /// It holds for TCP segments with SYN only.
    Syn,
    /// The state of the packet's connection: it may hold or not, unless the kernel does not track
    /// the packet.
    State {
        /// Whether it holds then.
        of_untracked: bool,
    },
    /// A match of this name: it may hold or not.
    Pure(String),
    /// A match that is not understood: it may keep state.
    Unclear(String),
    /// Anything else: it may hold or not.
    Unknown,
}

/// A header of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// That of IP.
    Network,
    /// The protocol's number, in one byte: what nft(8) calls `meta l4proto`.
    Protocol,
    /// That of the protocol.
    Transport,
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
    /// A statement or target of this name that replaces an address of other packets: only answers
    /// to them are between peers.
    TranslateOther(String),
    /// Something that is not understood.
    Unclear(String),
}

impl Chain {
    /// Whether a rule may assign a helper of connection tracking: one that reads a protocol, and
    /// expects further connections.
    pub fn assigns_helpers(&self) -> bool {
        let may_assign = |step: &Step| match step {
            Step::Do(Effect::Apply(name)) => name == "CT",
            Step::Do(Effect::Unclear(name)) => name == "objref",
            _ => false,
        };
        self.rules.iter().any(|rule| rule.steps.iter().any(may_assign))
    }
}

impl Rule {
    /// Its effect on packets that match, in words. `chains`: those of its table.
    fn does(&self, chains: &[Chain]) -> String {
        let name = |index: usize| chains.get(index).map_or("?", |chain| chain.name.as_str());
        let unclear = self.steps.iter().find_map(|step| match step {
            Step::If(Condition::Unclear(name)) => Some(format!("match {name} is not understood")),
            _ => None,
        });
        unclear.unwrap_or_else(|| match self.steps.last() {
            Some(Step::End(Verdict::Accept)) => "accepts".to_owned(),
            Some(Step::End(Verdict::Return)) => "returns".to_owned(),
            Some(Step::End(Verdict::Jump(to))) => format!("jumps to {}", name(*to)),
            Some(Step::End(Verdict::Goto(to))) => format!("goes to {}", name(*to)),
            Some(Step::Do(Effect::Drop)) => "drops".to_owned(),
            Some(Step::Do(Effect::Apply(name) | Effect::TranslateOther(name))) => {
                format!("applies {name}")
            }
            Some(Step::Do(Effect::Unclear(name))) => format!("{name} is not understood"),
            Some(Step::Translate(name, ..)) => format!("applies {name}"),
            Some(Step::Untrack) => "does not track".to_owned(),
            Some(Step::Clamp(name)) => format!("sets the MSS ({name})"),
            Some(Step::Choose { .. }) => "decides by a map".to_owned(),
            Some(Step::Count | Step::Do(Effect::Count)) => "counts".to_owned(),
            Some(Step::If(_)) | None => "does nothing".to_owned(),
        })
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Effect::Drop => f.write_str("may drop packets between peers"),
            Effect::Count => f.write_str("counts packets between peers"),
            Effect::Apply(name) => write!(f, "may apply {name} to packets between peers"),
            Effect::TranslateOther(name) => {
                write!(f, "{name} may translate to a peer's address: answers need the kernel")
            }
            Effect::Unclear(name) => write!(f, "{name} is not understood"),
        }
    }
}

/// The address that a translation writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewAddress {
    /// One of the host's own.
    OfHost,
    /// One from the first to the last.
    Within(Family, u128, u128),
    /// Not known.
    Any,
}

/// The port that a translation of the destination writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewPort {
    /// The one that the packet has.
    Same,
    /// One from the first to the last.
    Within(u16, u16),
    /// Not known.
    Any,
}

/// A translation that packets may meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The addresses of peers that it may write; none: any.
    pub addresses: Option<Ranges>,
    /// The port.
    pub port: NewPort,
    /// The rule.
    pub rule: Obstacle,
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

/// A rule that may be reached and does something to packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// The name of its chain.
    pub chain: String,
    /// See [`Rule::label`].
    pub rule: String,
    /// Its text; empty if it is not known.
    pub text: String,
    /// Its effect.
    pub effect: Effect,
}

/// The facts that a result depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The peers' addresses: it holds for this version of them only.
    pub addresses: bool,
    /// The elements of sets.
    pub sets: bool,
}

/// Notes of a walk through rules, whatever it ends with.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// The facts that its result depends on.
    pub needs: Needs,
    /// The packets that its result does not hold for.
    pub exceptions: Exceptions,
    /// Conditions on one field that some of its values meet, in the order of the walk.
    pub splits: Vec<(Field, Arc<Ranges>)>,
    /// Number of conditions that were evaluated.
    pub work: usize,
    /// The rules that may match, in the order of the walk, if they are asked for.
    pub trace: Option<Vec<Met>>,
}

/// A rule that packets met, and that may match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Met {
    /// Number of jumps and gotos that led to its chain.
    pub depth: usize,
    /// The name of its chain.
    pub chain: String,
    /// See [`Rule::label`].
    pub rule: String,
    /// Its text.
    pub text: String,
    /// Whether it matches all these packets.
    pub is_certain: bool,
    /// Its effect, in words.
    pub does: String,
}

impl Notes {
    /// Notes with a trace.
    pub fn with_trace() -> Notes {
        Notes { trace: Some(Vec::new()), ..Notes::default() }
    }

    /// Adds the splits by all that was noted since there were `count`: first by the whole list of a
    /// set, then by its elements.
    pub fn join_splits(&mut self, count: usize) {
        for field in Field::ALL {
            let of_field = |split: &&(Field, Arc<Ranges>)| split.0 == field;
            let parts: Vec<_> = self.splits[count..].iter().filter(of_field).collect();
            if parts.len() > 1 {
                let ranges = parts.iter().flat_map(|(_, ranges)| ranges.as_slice());
                let all = Ranges::new(ranges.copied().collect());
                self.splits.push((field, Arc::new(all)));
            }
        }
    }
}
