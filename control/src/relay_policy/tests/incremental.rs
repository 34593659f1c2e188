//! Rules of nftables that are read again chain by chain.

use std::collections::{BTreeMap, BTreeSet};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::super::source::Source;
use super::fake::{self, FakeKernel};
use super::netfilter::{ACCEPT, expression, handle, number, verdict};
use super::sets::element;
use crate::netlink::message::Message;
use crate::netlink::message::Protocol::Netfilter;
use crate::netlink::message::build::{attribute, message, text};
use crate::relay_policy::reading::{Known, Reading};
use crate::relay_policy::rules::addresses::Addresses;

const HEADER: [u8; 4] = [1, 0, 0, 0];

/// A rule.
#[derive(Clone, Debug)]
enum Action {
    /// Drops packets to this host.
    Drop(u8),
    /// Drops packets to hosts in a set.
    LookUp(usize),
    /// Adds destinations to a set.
    Update(usize),
    /// To a chain that comes later.
    Jump(String),
}

/// A chain.
#[derive(Clone, Debug)]
struct Chain {
    name: String,
    handle: u64,
    rules: Vec<(u64, Action)>,
}

/// A table with one base chain, `base`, and others.
#[derive(Clone, Debug, Default)]
struct Model {
    generation: u32,
    handles: u64,
    chains: Vec<Chain>,
    sets: [BTreeSet<u8>; 2],
}

fn set(number: usize) -> String {
    format!("s{number}")
}

fn load_destination() -> Vec<u8> {
    expression("payload", &[number(1, 1), number(2, 1), number(3, 16), number(4, 4)])
}

impl Action {
    fn expressions(&self) -> Vec<u8> {
        let parts = match self {
            Action::Drop(host) => {
                let value = attribute(3, &attribute(1, &[10, 7, 0, *host]));
                let compare = expression("cmp", &[number(1, 1), number(2, 0), value]);
                vec![load_destination(), compare, verdict(0)]
            }
            Action::LookUp(one) => {
                let look_up = expression("lookup", &[text(1, &set(*one)), number(2, 1)]);
                vec![load_destination(), look_up, verdict(0)]
            }
            Action::Update(one) => {
                let update = expression("dynset", &[text(1, &set(*one)), number(4, 1)]);
                vec![load_destination(), update]
            }
            Action::Jump(chain) => {
                let code = number(1, (-3i32).cast_unsigned());
                let verdict = attribute(2, &[code, text(2, chain)].concat());
                vec![expression("immediate", &[number(1, 0), attribute(2, &verdict)])]
            }
        };
        parts.concat()
    }
}

impl Model {
    /// A table with these chains, of the same rules.
    fn new(names: &[&str], rules: &[(u64, Action)]) -> Model {
        let chain = |(handle, name): (u64, &&str)| {
            let (name, rules) = ((*name).to_owned(), rules.to_vec());
            Chain { name, handle, rules }
        };
        let chains = (1..).zip(names).map(chain).collect();
        Model { chains, handles: 100, ..Model::default() }
    }

    /// The kernel's lists.
    fn lists(&self) -> BTreeMap<u16, Vec<Message>> {
        let mut lists = BTreeMap::new();
        let generation = message(0xa0f, &HEADER, &[number(1, self.generation)]);
        lists.insert(0xa10, vec![generation]);
        let (mut chains, mut rules) = (Vec::new(), Vec::new());
        for Chain { name, handle: own, rules: list } in &self.chains {
            let is_jump = |action: &&Action| matches!(action, Action::Jump(to) if to == name);
            let jumps = self.chains.iter().flat_map(|chain| &chain.rules).map(|(_, action)| action);
            let count = number(6, (list.len() + jumps.filter(is_jump).count()) as u32);
            let mut attributes = vec![text(1, "t"), handle(*own), text(3, name), count];
            if name == "base" {
                let place = [number(1, 2), number(2, 0)].concat();
                attributes.extend([attribute(4, &place), number(5, ACCEPT)]);
            }
            chains.push(message(0xa03, &HEADER, &attributes));
            let mut before = None;
            for (handle, action) in list {
                let handle = handle.to_be_bytes();
                let mut attributes = vec![text(1, "t"), text(2, name), attribute(3, &handle)];
                attributes.push(attribute(4, &action.expressions()));
                attributes.extend(before.map(|before: [u8; 8]| attribute(6, &before)));
                rules.push(message(0xa06, &HEADER, &attributes));
                before = Some(handle);
            }
        }
        lists.extend([(0xa04, chains), (0xa07, rules)]);
        let (mut sets, mut elements) = (Vec::new(), Vec::new());
        for (at, hosts) in self.sets.iter().enumerate() {
            let name = [text(1, "t"), text(2, &set(at))];
            sets.push(message(0xa09, &HEADER, &name));
            let list: Vec<_> = hosts.iter().map(|host| element(&[10, 7, 0, *host], &[])).collect();
            let list = attribute(3, &list.concat());
            elements.push(message(0xa0c, &HEADER, &[&name[..], &[list]].concat()));
        }
        lists.extend([(0xa0a, sets), (0xa0d, elements)]);
        lists
    }

    /// One random change; returns its event.
    fn change(&mut self, below: &mut impl FnMut(usize) -> usize) -> Message {
        let event = |kind, names: &[Vec<u8>]| message(kind, &HEADER, names);
        let at = below(self.chains.len());
        match below(10) {
            0..4 if self.chains[at].rules.len() < 6 => {
                self.handles += 1;
                let later: Vec<_> =
                    self.chains[at + 1..].iter().map(|chain| chain.name.clone()).collect();
                let action = match below(5) {
                    0 => Action::Drop(below(4) as u8),
                    1 => Action::Update(below(2)),
                    2 if !later.is_empty() => Action::Jump(later[below(later.len())].clone()),
                    _ => Action::LookUp(below(2)),
                };
                let Chain { name, rules, .. } = &mut self.chains[at];
                rules.insert(below(rules.len() + 1), (self.handles, action));
                event(0xa06, &[text(1, "t"), text(2, name)])
            }
            0..7 => {
                let Chain { name, rules, .. } = &mut self.chains[at];
                if !rules.is_empty() {
                    rules.remove(below(rules.len()));
                }
                event(0xa08, &[text(1, "t"), text(2, name)])
            }
            7 | 8 => {
                let at = below(2);
                let host = below(4) as u8;
                if !self.sets[at].insert(host) {
                    self.sets[at].remove(&host);
                }
                event(0xa0c, &[text(1, "t"), text(2, &set(at))])
            }
            _ if at > 0 && below(2) == 0 => {
                // It takes the name of another, or a new one; jumps follow it.
                let other = 1 + below(self.chains.len() - 1);
                self.handles += 1;
                let names = match below(2) {
                    0 => vec![(at, format!("new{}", self.handles))],
                    _ => vec![(at, self.name(other)), (other, self.name(at))],
                };
                let before = self.clone();
                for (at, name) in &names {
                    self.chains[*at].name.clone_from(name);
                }
                let mut actions = self.chains.iter_mut().flat_map(|chain| &mut chain.rules);
                actions.by_ref().for_each(|(_, action)| {
                    if let Action::Jump(to) = action {
                        let target = before.chains.iter().position(|chain| chain.name == *to);
                        let target = target.expect("a jump to a chain");
                        let renamed = names.iter().rfind(|(at, _)| *at == target);
                        to.clone_from(
                            renamed.map_or(&before.chains[target].name, |(_, name)| name),
                        );
                    }
                });
                event(0xa03, &[text(1, "t"), text(3, &self.name(at))])
            }
            _ => {
                // A chain that nothing jumps to is taken away and, with other rules, added behind.
                let name = self.name(at);
                let mut rules = self.chains.iter().flat_map(|chain| &chain.rules);
                let is_named =
                    rules.any(|(_, action)| matches!(action, Action::Jump(to) if *to == name));
                if at > 0 && !is_named {
                    self.chains.remove(at);
                    self.handles += 1;
                    let (handle, rules, name) = (self.handles, Vec::new(), name.clone());
                    self.chains.push(Chain { name, handle, rules });
                }
                event(0xa03, &[text(1, "t"), text(3, &name)])
            }
        }
    }

    fn name(&self, at: usize) -> String {
        self.chains[at].name.clone()
    }
}

fn read(kernel: &mut FakeKernel, addresses: &Addresses, before: Option<&Reading>) -> Reading {
    let rules = before.and_then(Reading::rules);
    let known = Known { addresses: Some(addresses), before, rules, ..Known::default() };
    Source::Nftables.read(kernel, &fake::at(), known)
}

/// Requests for all rules of the table.
fn wholes(kernel: &FakeKernel) -> usize {
    let length = HEADER.len() + text(1, "t").len();
    let is_whole = |(_, kind, body): &&(_, u16, Vec<u8>)| *kind == 0xa07 && body.len() == length;
    kernel.requests.iter().filter(is_whole).count()
}

/// After any changes, reading what events name gives the same as reading everything.
#[test]
fn parts_that_changed_are_enough() {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut below = |bound: usize| (random.next_u64() % bound as u64) as usize;
    let addresses = Addresses::new(1, ["10.7.0.0/24".parse().expect("a prefix")]);
    let mut model = Model::new(&["base", "one", "two", "three"], &[]);
    let mut kernel = FakeKernel::quiet();
    let mut before: Option<Reading> = None;
    let (mut asked, mut all, mut kinds) = (0, 0, BTreeSet::new());
    for _ in 0..2000 {
        for _ in 0..1 + below(3) {
            let event = model.change(&mut below);
            kernel.announced.add(&event);
        }
        model.generation += 1;
        let generation = message(0xa0f, &HEADER, &[number(1, model.generation)]);
        assert!(kernel.announced.add(&generation));
        for (request, list) in model.lists() {
            kernel.answers.insert((Netfilter, request), Ok(list));
        }
        kernel.requests.clear();
        let reading = read(&mut kernel, &addresses, before.as_ref());
        assert_eq!(kernel.pauses, 0);
        asked += wholes(&kernel);
        kernel.requests.clear();
        let whole = read(&mut kernel, &addresses, None);
        all += wholes(&kernel);
        let said = |reading: &Reading| {
            let Reading { findings, of_pairs, pairs, needs, .. } = reading.clone();
            (findings, of_pairs, pairs, needs)
        };
        assert_eq!(said(&reading), said(&whole), "{model:#?}");
        kinds.insert((reading.findings.is_empty(), reading.of_pairs.is_empty()));
        kernel.announced.clear(Some(model.generation));
        before = Some(reading);
    }
    assert_eq!(kinds.len(), 3, "direct, some pairs, all by the kernel: {kinds:?}");
    assert!(4 * asked < 3 * all, "{asked} of {all}");
}

/// Nothing is taken over while events are unknown, or those of the last generation are missing.
#[test]
fn without_all_events_everything_is_read() {
    let addresses = Addresses::new(1, ["10.7.0.0/24".parse().expect("a prefix")]);
    let mut model = Model::new(&["base", "one"], &[(1, Action::Drop(2))]);
    let mut kernel = FakeKernel::quiet();
    let load = |kernel: &mut FakeKernel, model: &Model| {
        for (request, list) in model.lists() {
            kernel.answers.insert((Netfilter, request), Ok(list));
        }
        kernel.requests.clear();
        kernel.pauses = 0;
    };
    load(&mut kernel, &model);
    let before = read(&mut kernel, &addresses, None);
    load(&mut kernel, &model);
    kernel.announced.clear(Some(model.generation));
    assert_eq!(read(&mut kernel, &addresses, Some(&before)), before);
    assert_eq!(wholes(&kernel), 0, "the same generation");
    kernel.announced.lose();
    read(&mut kernel, &addresses, Some(&before));
    assert_eq!((wholes(&kernel), kernel.pauses), (1, 0), "events were lost");
    kernel.announced.clear(Some(model.generation));
    model.generation += 1;
    model.chains[0].rules.clear();
    load(&mut kernel, &model);
    let after = read(&mut kernel, &addresses, Some(&before));
    assert_eq!((wholes(&kernel), kernel.pauses), (1, 3), "the event never comes");
    assert_ne!(after, before);
}

/// The kernel counts more rules than it lists, where one is too large for it.
#[test]
fn a_chain_with_unlisted_rules_is_not_understood() {
    let addresses = Addresses::new(1, ["10.7.0.0/24".parse().expect("a prefix")]);
    let mut model = Model::new(&["base", "one"], &[]);
    model.chains[0].rules.push((7, Action::Jump("one".to_owned())));
    let mut kernel = FakeKernel::quiet();
    for (request, list) in model.lists() {
        kernel.answers.insert((Netfilter, request), Ok(list));
    }
    let direct = read(&mut kernel, &addresses, None);
    assert_eq!((direct.findings.as_slice(), kernel.pauses), (&[][..], 0));
    model.chains[1].rules.push((8, Action::Drop(200)));
    for (request, list) in model.lists() {
        if request != 0xa07 {
            kernel.answers.insert((Netfilter, request), Ok(list));
        }
    }
    for expected_pauses in [3, 3] {
        let found = read(&mut kernel, &addresses, Some(&direct)).findings;
        let text = found.iter().map(|one| one.reason.to_string()).collect::<String>();
        assert!(text.contains("a rule that the kernel does not list"), "{text}");
        assert_eq!(kernel.pauses, expected_pauses);
        kernel.pauses = 0;
    }
}
