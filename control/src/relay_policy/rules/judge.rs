//! The judgement about a base chain: which packets between peers it leaves alone.

use std::sync::Arc;

use wg_bounce_dataplane::pairs::{Exceptions, Field, Pairs};
use wg_bounce_dataplane::ranges::Ranges;
use wg_bounce_sys::Family;

use super::place::{Facts, POSTROUTING, Place};
use super::translated::{self, Translated};
use super::walk::{Base, find_obstacle, find_translations};
use super::{Needs, Notes, Obstacle};
use crate::limits::{RULE_WALKS_MAX, RULE_WORK_MAX};

/// All packets are left to the kernel.
const BY_KERNEL: Pairs = Pairs::Alike(Exceptions::ALL);

/// The judgement about a base chain, for one IP version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The packets that are left to the kernel: by one or another of these.
    pub pairs: Vec<Arc<Pairs>>,
    /// The causes why some conversations are, each once.
    pub causes: Vec<Cause>,
    /// Other packets may be translated to peers.
    pub translates: bool,
}

impl Judgement {
    /// Whether all packets of all pairs are left to the kernel.
    pub fn is_of_all(&self) -> bool {
        self.pairs.iter().any(|pairs| **pairs == BY_KERNEL)
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
/// Packets are split by their fields as long as that may help, and at most [`RULE_WALKS_MAX`]
/// times: those that are not told apart are left to the kernel.
pub fn judge(base: &Base<'_>, facts: &Facts<'_>, family: Family, needs: &mut Needs) -> Judgement {
    let mut judge = Judge { base, pairs: Vec::new(), causes: Vec::new(), needs, walks: 0, work: 0 };
    let place = Place::between_peers(facts, base.hook, family);
    if facts.addresses.is_some_and(|all| all.ranges.of(family).is_empty()) {
        let facts = Facts { addresses: None, ..*facts };
        judge.of_none(&Place::between_peers(&facts, base.hook, family));
    } else {
        let pairs = judge.between(&place);
        judge.add(pairs);
    }
    let mut all = Vec::new();
    if base.translates
        && let Some(place) = Place::of_translations(facts, base.hook, family)
        && judge.translations(&place, &mut all).is_none()
    {
        judge.add(BY_KERNEL);
    }
    let translates = !all.is_empty();
    translated::trees(all).into_iter().for_each(|pairs| judge.add(pairs));
    Judgement { pairs: judge.pairs, causes: judge.causes, translates }
}

struct Judge<'a> {
    base: &'a Base<'a>,
    pairs: Vec<Arc<Pairs>>,
    causes: Vec<Cause>,
    needs: &'a mut Needs,
    /// Numbers of walks, and of conditions that they evaluated.
    walks: usize,
    work: usize,
}

impl Judge<'_> {
    /// Judges packets at `place`.
    fn between(&mut self, place: &Place<'_>) -> Pairs {
        let (pairs, notes, cause) = self.walk(place);
        let Some(cause) = cause else { return pairs };
        let Some((field, inside, outside)) = self.parts(place, &notes, &Field::ALL) else {
            self.note(cause);
            return BY_KERNEL;
        };
        // Their memory is bounded too.
        self.work += inside.as_slice().len() + outside.as_slice().len();
        let mut part = |part: &Ranges| {
            if self.work >= 2 * RULE_WORK_MAX {
                self.note(cause.clone());
                return BY_KERNEL;
            }
            self.between(&place.with(field, part))
        };
        let (one, other) = (part(&inside), part(&outside));
        Pairs::split(field, inside, one, other)
    }

    /// The values of one of these fields that meet a condition, and those that do not. None: no
    /// condition tells packets apart, or there were too many.
    fn parts(
        &self,
        place: &Place<'_>,
        notes: &Notes,
        fields: &[Field],
    ) -> Option<(Field, Ranges, Ranges)> {
        let may_go_on = self.walks < RULE_WALKS_MAX && self.work < RULE_WORK_MAX;
        if !may_go_on {
            return None;
        }
        // Addresses first: workers look at ports only where these matter. The last condition is the
        // nearest to the cause, or one that led there.
        let is_one = |(field, _): &&(Field, Arc<Ranges>)| fields.contains(field);
        let is_address = |field: Field| matches!(field, Field::Source | Field::Destination);
        let of_kind = |addresses: bool| {
            let splits = notes.splits.iter().rev().filter(is_one);
            splits.filter(move |(field, _)| is_address(*field) == addresses)
        };
        of_kind(true).chain(of_kind(false)).find_map(|(field, ranges)| {
            let (inside, outside) = place.values(*field)?.split(ranges);
            (!inside.is_empty() && !outside.is_empty()).then_some((*field, inside, outside))
        })
    }

    /// Notes whether the first peers of this IP version would meet a rule that matters.
    fn of_none(&mut self, place: &Place<'_>) {
        let (pairs, _, cause) = self.walk(place);
        self.needs.addresses |= cause.is_some() || pairs != Pairs::Alike(Exceptions::NONE);
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

    /// Finds the conversations of addresses and ports that packets at `place` may be translated to:
    /// no rule matches the answers. None: any.
    fn translations(&mut self, place: &Place<'_>, all: &mut Vec<Translated>) -> Option<()> {
        let mut notes = Notes::default();
        let found = find_translations(self.base, place, &mut notes);
        self.count(&notes);
        let found = match found {
            Ok(found) if found.is_empty() => return Some(()),
            Ok(found) => found,
            Err(obstacle) => {
                self.note(Cause::Rule(obstacle));
                return None;
            }
        };
        let fields = [Field::Protocol, Field::DestinationPort];
        if let Some((field, inside, outside)) = self.parts(place, &notes, &fields) {
            self.translations(&place.with(field, &inside), all)?;
            return self.translations(&place.with(field, &outside), all);
        }
        // One of the rules is enough for the log.
        if all.is_empty() {
            self.note(Cause::Rule(found[0].rule.clone()));
        }
        let is_source = self.base.hook == POSTROUTING;
        all.extend(found.into_iter().map(|one| Translated::new(place, one, is_source)));
        Some(())
    }

    fn add(&mut self, pairs: Pairs) {
        // No conversation is direct without its errors.
        let pairs = if pairs.are_errors_by_kernel() { BY_KERNEL } else { pairs };
        if pairs != Pairs::Alike(Exceptions::NONE) {
            self.pairs.push(Arc::new(pairs));
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
