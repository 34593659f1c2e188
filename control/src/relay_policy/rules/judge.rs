//! The judgement about a base chain: which packets between peers it leaves alone.

use std::sync::Arc;

use wg_bounce_dataplane::pairs::{Exceptions, Field, Pairs};
use wg_bounce_dataplane::ranges::Ranges;
use wg_bounce_sys::Family;

use super::place::{Facts, POSTROUTING, Place, is_any};
use super::walk::{Base, find_obstacle, find_translations};
use super::{Needs, NewPort, Notes, Obstacle, Translation};
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
    if base.translates
        && let Some(place) = Place::of_translations(facts, base.hook, family)
    {
        judge.translations(&place);
    }
    Judgement { pairs: judge.pairs, causes: judge.causes }
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
        let Some((field, inside, outside)) = self.parts(place, notes, &Field::ALL) else {
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
        notes: Notes,
        fields: &[Field],
    ) -> Option<(Field, Ranges, Ranges)> {
        let may_go_on = self.walks < RULE_WALKS_MAX && self.work < RULE_WORK_MAX;
        if !may_go_on {
            return None;
        }
        // Addresses first: workers look at ports only where these matter. The last condition is the
        // nearest to the cause, or one that led there.
        let is_address = |field: &Field| matches!(field, Field::Source | Field::Destination);
        let (first, second) =
            notes.splits.into_iter().rev().partition::<Vec<_>, _>(|(field, _)| is_address(field));
        first.into_iter().chain(second).find_map(|(field, ranges)| {
            let (inside, outside) = place.values(field)?.split(&ranges);
            let is_one = fields.contains(&field) && !inside.is_empty() && !outside.is_empty();
            is_one.then_some((field, inside, outside))
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

    /// Adds the conversations of addresses and ports that other packets may be translated to: no
    /// rule matches the answers.
    fn translations(&mut self, place: &Place<'_>) {
        let mut notes = Notes::default();
        let found = find_translations(self.base, place, &mut notes);
        self.count(&notes);
        if matches!(&found, Ok(list) if list.is_empty()) {
            return;
        }
        let fields = [Field::Protocol, Field::DestinationPort];
        if let Some((field, inside, outside)) = self.parts(place, notes, &fields) {
            for part in [inside, outside] {
                self.translations(&place.with(field, &part));
            }
            return;
        }
        match found {
            Ok(list) => list.into_iter().for_each(|one| self.translation(place, one)),
            Err(obstacle) => {
                self.note(Cause::Rule(obstacle));
                self.add(BY_KERNEL);
            }
        }
    }

    /// Adds the conversations that a translation of packets at `place` may lead to. (Workers ask in
    /// both directions.)
    fn translation(&mut self, place: &Place<'_>, translation: Translation) {
        let Translation { addresses, port, rule } = translation;
        self.note(Cause::Rule(rule));
        let values = |field| place.values(field).cloned();
        let ports = match port {
            // That of the source may be another one.
            _ if self.base.hook == POSTROUTING => None,
            NewPort::Same => values(Field::DestinationPort),
            NewPort::Within(first, last) => Some(Ranges::new(vec![(first.into(), last.into())])),
            NewPort::Any => None,
        };
        let tests = [
            (Field::DestinationPort, ports),
            (Field::Protocol, values(Field::Protocol)),
            (Field::Destination, addresses),
        ];
        let tree = tests.into_iter().fold(BY_KERNEL, |tree, (field, ranges)| match ranges {
            Some(ranges) if !is_any(field, &ranges) => {
                Pairs::split(field, ranges, tree, Pairs::Alike(Exceptions::NONE))
            }
            _ => tree,
        });
        self.add(tree);
    }

    fn add(&mut self, pairs: Pairs) {
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
