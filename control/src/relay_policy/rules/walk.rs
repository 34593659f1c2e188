//! Every way of packets through rules.

use wg_bounce_dataplane::pairs::Exceptions;

use super::place::{Hook, Place};
use super::{
    Chain, Condition, Effect, Met, NewAddress, NewPort, Notes, Obstacle, Rule, Step, Translation,
    Verdict,
};

/// Follows packets between peers through a base chain. Fails with the first rule that matters.
/// Returns whether they may reach the chain's policy.
///
/// The time is linear in the number of rules.
pub fn find_obstacle(
    base: &Base<'_>,
    place: &Place<'_>,
    notes: &mut Notes,
) -> Result<bool, Obstacle> {
    Walk::new(base.chains, place, Purpose::Everything, notes).chain(base.number, 0)
}

/// Follows packets whose answers may be packets between peers through a base chain. Returns the
/// translations to peers that they may meet. Fails with a rule that may do something else.
pub fn find_translations(
    base: &Base<'_>,
    place: &Place<'_>,
    notes: &mut Notes,
) -> Result<Vec<Translation>, Obstacle> {
    let mut walk = Walk::new(base.chains, place, Purpose::Translations, notes);
    walk.chain(base.number, 0)?;
    Ok(walk.translations)
}

/// Whether a base chain keeps the kernel from tracking any of these packets: by a rule that all of
/// them match, before any that may end their way through the chain.
pub fn untracks(base: &Base<'_>, place: &Place<'_>, notes: &mut Notes) -> bool {
    let rules = base.chains.get(base.number).map(|chain| chain.rules.iter());
    for rule in rules.into_iter().flatten() {
        let mut is_certain = true;
        for step in &rule.steps {
            match step {
                Step::If(condition) => match place.holds(condition, notes) {
                    Some(true) => {}
                    Some(false) => break,
                    None => is_certain = false,
                },
                Step::Count => {}
                Step::Untrack => {
                    if is_certain && notes.exceptions == Exceptions::NONE {
                        return true;
                    }
                }
                _ => return false,
            }
        }
    }
    false
}

/// A base chain.
#[derive(Clone, Copy)]
pub struct Base<'a> {
    /// The chains of its table.
    pub chains: &'a [Chain],
    /// Its index among them.
    pub number: usize,
    /// Its hook.
    pub hook: Hook,
    /// Whether its rules may translate addresses.
    pub translates: bool,
    /// Whether its policy is to accept.
    pub accepts: bool,
}

/// Statements and targets that translate no address, and after which a rule may go on.
const NO_TRANSLATION: [&str; 8] =
    ["LOG", "NFLOG", "MARK", "CONNMARK", "CHECKSUM", "log", "meta set", "ct set"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Everything,
    Translations,
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
    purpose: Purpose,
    notes: &'a mut Notes,
    ways: Vec<Way>,
    translations: Vec<Translation>,
}

/// Where a packet may go after a rule.
#[derive(Clone, Copy)]
struct After {
    next: bool,
    back: bool,
}

impl After {
    const NOWHERE: After = After { next: false, back: false };

    /// As either of both.
    fn or(self, other: After) -> After {
        After { next: self.next || other.next, back: self.back || other.back }
    }
}

impl<'a> Walk<'a> {
    fn new(
        chains: &'a [Chain],
        place: &'a Place<'a>,
        purpose: Purpose,
        notes: &'a mut Notes,
    ) -> Walk<'a> {
        let (ways, translations) = (vec![Way::New; chains.len()], Vec::new());
        Walk { chains, place, purpose, notes, ways, translations }
    }

    /// Whether packets may return from the chain.
    fn chain(&mut self, index: usize, depth: usize) -> Result<bool, Obstacle> {
        let unclear = |chain: &str| Obstacle {
            chain: chain.to_owned(),
            rule: String::new(),
            text: String::new(),
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
        for rule in chain.rules.iter() {
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
        let obstacle = |effect| obstacle(self.chains, chain, rule, effect);
        let counting = self.purpose == Purpose::Everything;
        self.notes.work += 1;
        // The next rule follows from the first condition on that may be false.
        let (mut after, mut counts) = (After::NOWHERE, false);
        let (mut is_syn, mut clamps) = (false, false);
        for step in &rule.steps {
            match step {
                Step::If(Condition::Unclear(name)) if counting => {
                    self.meet(chain, rule, depth, false);
                    return Err(obstacle(Effect::Unclear(format!("match {name}"))));
                }
                Step::If(condition) => match self.place.holds(condition, self.notes) {
                    Some(true) => {}
                    // What was counted before the condition was not counted for a verdict.
                    _ if counts => {
                        self.meet(chain, rule, depth, !after.next);
                        return Err(obstacle(Effect::Count));
                    }
                    Some(false) => return Ok(After { next: true, ..after }),
                    None => {
                        after.next = true;
                        is_syn |= *condition == Condition::Syn;
                    }
                },
                // The kernel gets these segments, and counts them too.
                Step::Clamp(_) if is_syn || !counting => {
                    self.meet(chain, rule, depth, !after.next);
                    (clamps, counts) = (true, false);
                    self.notes.exceptions.syn |= counting;
                    self.notes.exceptions.without_header |= counting;
                }
                Step::Clamp(name) => {
                    self.meet(chain, rule, depth, !after.next);
                    return Err(obstacle(Effect::Apply(name.clone())));
                }
                Step::Count => counts = counting && !clamps,
                Step::Untrack => {
                    self.meet(chain, rule, depth, !after.next);
                    counts = false;
                }
                Step::Choose { cases, otherwise } => {
                    self.meet(chain, rule, depth, !after.next);
                    let (chosen, is_certain) = self.choose(chain, rule, cases, depth)?;
                    after = after.or(chosen);
                    match otherwise {
                        _ if is_certain => return Ok(after),
                        Some(step) => return Ok(after.or(self.end(chain, rule, step, depth)?)),
                        None if counts => return Err(obstacle(Effect::Count)),
                        None => after.next = true,
                    }
                }
                Step::Do(effect) if counting || *effect != Effect::Drop => {
                    self.meet(chain, rule, depth, !after.next);
                    self.effect(effect).map_err(obstacle)?;
                }
                step => {
                    self.meet(chain, rule, depth, !after.next);
                    return Ok(after.or(self.end(chain, rule, step, depth)?));
                }
            }
        }
        // A counter without a verdict: the operator counts these packets.
        if counts {
            self.meet(chain, rule, depth, !after.next);
            return Err(obstacle(Effect::Count));
        }
        Ok(After { next: true, ..after })
    }

    /// Adds a rule that may match to the trace.
    fn meet(&mut self, chain: &Chain, rule: &Rule, depth: usize, is_certain: bool) {
        if let Some(trace) = &mut self.notes.trace {
            let (name, label) = (chain.name.clone(), rule.label.clone());
            let (text, does) = (rule.text(self.chains), rule.does(self.chains));
            trace.push(Met { depth, chain: name, rule: label, text, is_certain, does });
        }
    }

    /// Follows all cases that may hold. The second value says whether one does: ranges of several
    /// fields may overlap, and then the kernel takes the one that was added first.
    fn choose(
        &mut self,
        chain: &Chain,
        rule: &Rule,
        cases: &[(Condition, Step)],
        depth: usize,
    ) -> Result<(After, bool), Obstacle> {
        self.notes.needs.sets = true;
        let (mut all, mut is_certain) = (After::NOWHERE, false);
        let count = self.notes.splits.len();
        let holding: Vec<_> =
            cases.iter().map(|(one, _)| self.place.holds(one, self.notes)).collect();
        self.notes.join_splits(count);
        for ((_, step), holds) in cases.iter().zip(holding) {
            is_certain |= holds == Some(true);
            if holds != Some(false) {
                all = all.or(self.end(chain, rule, step, depth)?);
            }
        }
        Ok((all, is_certain))
    }

    /// Follows a step that ends a rule.
    fn end(
        &mut self,
        chain: &Chain,
        rule: &Rule,
        step: &Step,
        depth: usize,
    ) -> Result<After, Obstacle> {
        let obstacle = |effect| obstacle(self.chains, chain, rule, effect);
        let (next, back) = match step {
            Step::Do(Effect::Drop) if self.purpose == Purpose::Translations => (false, false),
            Step::Do(effect) => {
                self.effect(effect).map_err(obstacle)?;
                (true, false)
            }
            // It does nothing to packets of the other IP version (`nft_nat_inet_eval`,
            // net/netfilter/nft_nat.c).
            Step::Translate(_, NewAddress::Within(family, ..), _)
                if *family != self.place.family =>
            {
                (true, false)
            }
            Step::Translate(name, to, port) => {
                self.translation(chain, rule, name, (*to, *port))?;
                // Perhaps it is of no IP version that is known.
                (*to == NewAddress::Any, false)
            }
            Step::End(Verdict::Accept) => (false, false),
            Step::End(Verdict::Return) => (false, true),
            Step::End(Verdict::Jump(to)) => (self.chain(*to, depth + 1)?, false),
            Step::End(Verdict::Goto(to)) => (false, self.chain(*to, depth + 1)?),
            Step::If(_) | Step::Count | Step::Clamp(_) | Step::Untrack | Step::Choose { .. } => {
                (true, false)
            }
        };
        Ok(After { next, back })
    }

    /// Passes an effect after which the rule may go on; fails with those that matter.
    fn effect(&self, effect: &Effect) -> Result<(), Effect> {
        match effect {
            _ if self.purpose == Purpose::Everything => Err(effect.clone()),
            Effect::Apply(name) if NO_TRANSLATION.contains(&name.as_str()) => Ok(()),
            Effect::Apply(name) => Err(Effect::TranslateOther(name.clone())),
            other => Err(other.clone()),
        }
    }

    /// Notes a translation.
    fn translation(
        &mut self,
        chain: &Chain,
        rule: &Rule,
        name: &str,
        (to, port): (NewAddress, NewPort),
    ) -> Result<(), Obstacle> {
        let obstacle = |effect| obstacle(self.chains, chain, rule, effect);
        if self.purpose == Purpose::Everything {
            return Err(obstacle(Effect::Apply(name.to_owned())));
        }
        let rule = obstacle(Effect::TranslateOther(name.to_owned()));
        let addresses = self.place.translated(to, self.notes);
        if addresses.as_ref().is_none_or(|ranges| !ranges.is_empty()) {
            self.translations.push(Translation { addresses, port, rule });
        }
        Ok(())
    }
}

fn obstacle(chains: &[Chain], chain: &Chain, rule: &Rule, effect: Effect) -> Obstacle {
    let (name, label) = (chain.name.clone(), rule.label.clone());
    Obstacle { chain: name, rule: label, text: rule.text(chains), effect }
}
