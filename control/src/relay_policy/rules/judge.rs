//! The judgement about a base chain: between which addresses it leaves packets alone.

use std::sync::Arc;

use wg_bounce_dataplane::pairs::{End, Exceptions, Pairs};
use wg_bounce_dataplane::ranges::Ranges;
use wg_bounce_sys::Family;

use super::place::{Facts, Place};
use super::walk::{Base, find_obstacle, find_translations};
use super::{Needs, Notes, Obstacle};
use crate::limits::{RULE_WALKS_MAX, RULE_WORK_MAX};

/// All packets of a pair are left to the kernel.
const BY_KERNEL: Pairs = Pairs::Alike(Exceptions::ALL);

/// The judgement about a base chain, for one IP version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The packets that are left to the kernel.
    pub pairs: Arc<Pairs>,
    /// The causes why all packets of some pairs are, each once.
    pub causes: Vec<Cause>,
}

impl Judgement {
    /// Whether all packets of all pairs are left to the kernel.
    pub fn is_of_all(&self) -> bool {
        matches!(*self.pairs, Pairs::Alike(Exceptions { all: true, .. }))
    }
}

/// The part of a base chain that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A rule.
    Rule(Obstacle),
    /// Its policy, which packets may reach.
    Policy,
}

/// Judges a base chain. Adds what the judgement depends on to `needs`.
///
/// Pairs of addresses are split as long as that may help, and at most [`RULE_WALKS_MAX`] times:
/// those that are not told apart are left to the kernel.
pub fn judge(base: &Base<'_>, facts: &Facts<'_>, family: Family, needs: &mut Needs) -> Judgement {
    let mut judge = Judge { base, causes: Vec::new(), needs, walks: 0, work: 0 };
    let place = Place::between_peers(facts, base.hook, family);
    let none = Ranges::default();
    let peers = facts.addresses.map(|all| all.ranges.of(family));
    let mut pairs = match peers {
        Some(peers) if peers.is_empty() => {
            let facts = Facts { addresses: None, ..*facts };
            judge.of_none(&Place::between_peers(&facts, base.hook, family));
            Pairs::Alike(Exceptions::NONE)
        }
        Some(peers) => judge.between(&place, peers, peers),
        None => judge.alike(&place),
    };
    if base.translates
        && let Some(place) = Place::of_translations(facts, base.hook, family)
    {
        pairs = judge.with_translations(&place, pairs, peers.unwrap_or(&none));
    }
    Judgement { pairs: Arc::new(pairs), causes: judge.causes }
}

struct Judge<'a> {
    base: &'a Base<'a>,
    causes: Vec<Cause>,
    needs: &'a mut Needs,
    /// Numbers of walks, and of conditions that they evaluated.
    walks: usize,
    work: usize,
}

impl Judge<'_> {
    /// Judges packets from `sources` to `destinations`.
    fn between(&mut self, place: &Place<'_>, sources: &Ranges, destinations: &Ranges) -> Pairs {
        if sources.is_empty() || destinations.is_empty() {
            return Pairs::Alike(Exceptions::NONE);
        }
        let (pairs, notes, cause) = self.walk(&place.between(sources, destinations));
        let Some(cause) = cause else { return pairs };
        let may_go_on = self.walks < RULE_WALKS_MAX && self.work < RULE_WORK_MAX;
        // The last condition is the nearest to the cause, or one that led there.
        let parts =
            notes.splits.into_iter().rev().filter(|_| may_go_on).find_map(|(end, ranges)| {
                let all = if end == End::Source { sources } else { destinations };
                let (inside, outside) = all.split(&ranges);
                (!inside.is_empty() && !outside.is_empty()).then_some((end, inside, outside))
            });
        let Some((end, inside, outside)) = parts else {
            self.note(cause);
            return BY_KERNEL;
        };
        // Their memory is bounded too.
        self.work += inside.as_slice().len() + outside.as_slice().len();
        let mut part = |part: &Ranges| match end {
            _ if self.work >= 2 * RULE_WORK_MAX => {
                self.note(cause.clone());
                BY_KERNEL
            }
            End::Source => self.between(place, part, destinations),
            End::Destination => self.between(place, sources, part),
        };
        let (one, other) = (part(&inside), part(&outside));
        Pairs::split(end, inside, one, other)
    }

    /// Notes whether the first peers of this IP version would meet a rule that matters.
    fn of_none(&mut self, place: &Place<'_>) {
        let (pairs, _, cause) = self.walk(place);
        self.needs.addresses |= cause.is_some() || pairs != Pairs::Alike(Exceptions::NONE);
    }

    /// Judges packets between peers whose addresses are not known.
    fn alike(&mut self, place: &Place<'_>) -> Pairs {
        let (pairs, _, cause) = self.walk(place);
        let Some(cause) = cause else { return pairs };
        self.note(cause);
        BY_KERNEL
    }

    /// Follows packets that are not told apart: the packets that rules read, and the cause if all
    /// are left to the kernel.
    fn walk(&mut self, place: &Place<'_>) -> (Pairs, Notes, Option<Cause>) {
        let mut notes = Notes::default();
        let cause = match find_obstacle(self.base, place, &mut notes) {
            Ok(may_reach_policy) => {
                (may_reach_policy && !self.base.accepts).then_some(Cause::Policy)
            }
            Err(obstacle) => Some(Cause::Rule(obstacle)),
        };
        self.count(&notes);
        (Pairs::Alike(notes.exceptions), notes, cause)
    }

    /// Adds the packets from and to addresses that other packets may be translated to: no rule
    /// matches the answers.
    fn with_translations(&mut self, place: &Place<'_>, pairs: Pairs, peers: &Ranges) -> Pairs {
        let mut notes = Notes::default();
        let found = find_translations(self.base, place, &mut notes);
        self.count(&notes);
        let (ranges, obstacle) = match found {
            Ok(None) => return pairs,
            Ok(Some((ranges, obstacle))) => (Some(ranges), obstacle),
            Err(obstacle) => (None, obstacle),
        };
        self.note(Cause::Rule(obstacle));
        match ranges {
            // Pairs are asked in both directions.
            Some(ranges) if !peers.split(&ranges).1.is_empty() => {
                Pairs::split(End::Destination, ranges, BY_KERNEL, pairs)
            }
            _ => BY_KERNEL,
        }
    }

    fn count(&mut self, notes: &Notes) {
        self.walks += 1;
        self.work += notes.work;
        self.needs.addresses |= notes.needs.addresses;
        self.needs.sets |= notes.needs.sets;
    }

    fn note(&mut self, cause: Cause) {
        if !self.causes.contains(&cause) {
            self.causes.push(cause);
        }
    }
}
