//! Results of reading the sources.

use std::collections::BTreeSet;
use std::sync::Arc;

use wg_bounce_dataplane::pairs::{Pair, Pairs};
use wg_bounce_sys::{Family, PerFamily};

use super::base_chain::BaseChain;
use super::kernel::Interface;
use super::reason::{Finding, Reason};
use super::rules::addresses::Addresses;
use super::rules::judge::Judgement;
use super::rules::tables::Tables;
use super::rules::{Chain, Needs};

/// What is known when a source is read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    /// The peers' addresses.
    pub addresses: Option<&'a Addresses>,
    /// The last reading, if it was of the same interface and by the same addresses.
    pub before: Option<&'a Reading>,
    /// The rules of the last reading and their generation, for any interface and addresses.
    pub rules: Option<(&'a Ruleset, Option<u32>)>,
    /// Whether the reading may take as long as it takes.
    pub may_take_long: bool,
}

/// The rules of nftables in tables with base chains on the path of forwarded packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// Elements of sets that were read for them, and for earlier ones.
    pub elements: usize,
    /// The tables.
    pub tables: Tables,
}

/// A table of legacy iptables as it was copied, and what was read from it: parsing takes longer
/// than copying, which must be done all the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegacyCopy {
    /// Its name.
    pub name: String,
    /// `struct ipt_getinfo`.
    pub outline: Vec<u8>,
    /// The entries, without their counters.
    pub entries: Vec<u8>,
    /// See [`super::rules::place::Facts::host_first`].
    pub host_first: PerFamily<bool>,
    /// Its base chains with rules.
    pub chains: Vec<BaseChain>,
    /// The reasons without rules.
    pub findings: Vec<Finding>,
}

/// A base chain with the judgements about it, and what these depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JudgedChain {
    /// The chain.
    pub chain: BaseChain,
    judgements: PerFamily<Option<(Judgement, Needs)>>,
    assigns_helpers: bool,
}

/// The result of reading a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The reasons that concern all packets between peers.
    pub findings: Vec<Finding>,
    /// Those that concern some pairs of addresses only.
    pub of_pairs: Vec<Finding>,
    /// The packets that these leave to the kernel.
    pub pairs: PerFamily<Vec<Arc<Pairs>>>,
    /// The pairs of peers that translated connections have.
    pub translated: PerFamily<BTreeSet<Pair>>,
    /// Helpers of connection tracking may be in use.
    pub has_helpers: bool,
    /// Rules may translate other packets to peers.
    pub translates: PerFamily<bool>,
    /// The tables of legacy iptables that were copied.
    pub copies: Vec<Arc<LegacyCopy>>,
    /// The generation of nftables that was read.
    pub generation: Option<u32>,
    /// The rules of nftables.
    pub rules: Option<Arc<Ruleset>>,
    /// The source must be read again, however long that takes.
    pub is_unfinished: bool,
    /// The base chains that were judged.
    pub chains: Vec<JudgedChain>,
    /// The facts that they, or their absence, depend on.
    pub needs: PerFamily<Needs>,
}

impl Reading {
    /// The rules of nftables and their generation.
    pub fn rules(&self) -> Option<(&Ruleset, Option<u32>)> {
        Some((self.rules.as_deref()?, self.generation))
    }

    /// Whether translated connections are, or may be, between peers.
    pub fn has_translations(&self) -> bool {
        let is_of_connections = |finding: &Finding| finding.reason == Reason::Translated;
        self.findings.iter().any(is_of_connections)
            || Family::BOTH.into_iter().any(|family| !self.translated.of(family).is_empty())
    }

    /// Adds base chains, all of one firewall, and the judgements about them.
    pub fn add_all(&mut self, at: &Interface, known: Known<'_>, chains: Vec<BaseChain>) {
        let untracked = PerFamily::each(|family| {
            let needs = self.needs.of_mut(family);
            chains.iter().any(|chain| chain.untracks(at, known.addresses, family, needs))
        });
        for chain in chains {
            self.add(at, known, BaseChain { untracked, ..chain });
        }
    }

    /// Adds a base chain, and the judgement about it: that of before if it is the same chain.
    fn add(&mut self, at: &Interface, known: Known<'_>, chain: BaseChain) {
        let before = known.before.iter().flat_map(|reading| &reading.chains);
        let same = before.into_iter().find(|one| one.chain == chain);
        let judgements = PerFamily::each(|family| match same {
            _ if !chain.families.contain(family) => None,
            Some(same) => same.judgements.of(family).clone(),
            None => {
                let mut needs = Needs::default();
                Some((chain.judge(at, known.addresses, family, &mut needs), needs))
            }
        });
        let assigns_helpers = match same {
            Some(same) => same.assigns_helpers,
            None => chain.chains.iter().any(Chain::assigns_helpers),
        };
        self.has_helpers |= assigns_helpers;
        for family in Family::BOTH {
            if let Some((judgement, needs)) = judgements.of(family) {
                self.add_judgement(family, judgement, *needs, &chain);
            }
        }
        self.chains.push(JudgedChain { chain, judgements, assigns_helpers });
    }

    fn add_judgement(
        &mut self,
        family: Family,
        judgement: &Judgement,
        needs: Needs,
        chain: &BaseChain,
    ) {
        let all = self.needs.of_mut(family);
        all.addresses |= needs.addresses;
        all.sets |= needs.sets;
        *self.translates.of_mut(family) |= judgement.translates;
        let is_of_all = judgement.is_of_all();
        let findings = if is_of_all { &mut self.findings } else { &mut self.of_pairs };
        // The first one is enough where the others are about parts of the same.
        let count = if is_of_all { 1 } else { usize::MAX };
        for cause in judgement.causes.iter().take(count) {
            let reason = chain.reason(cause);
            match findings.iter_mut().find(|finding| finding.reason == reason) {
                Some(known) => known.families.add(family),
                None => findings.push(Finding::of(family, reason)),
            }
        }
        self.pairs.of_mut(family).extend(judgement.pairs.iter().cloned());
    }
}

impl From<Vec<Finding>> for Reading {
    fn from(findings: Vec<Finding>) -> Reading {
        Reading { findings, ..Reading::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay_policy::reason::{ChainName, Families};
    use crate::relay_policy::rules::place::FORWARD;
    use crate::relay_policy::rules::{Chain, Condition, Effect, Layer, Rule, Step};

    /// A chain that drops what comes from one address.
    fn chain(host: u8) -> BaseChain {
        let (value, mask) = (vec![10, 7, 0, host], vec![0xff; 4]);
        let layer = Layer::Network;
        let from = Condition::Header { layer, offset: 12, value, mask, is_equal: true };
        let steps = vec![Step::If(from), Step::Do(Effect::Drop)];
        let rules = Arc::new(vec![Rule { label: "1".into(), steps }]);
        let (table, chain) = ("table filter".into(), "FORWARD".into());
        BaseChain {
            name: ChainName { program: "iptables-legacy", table, chain, hook: None },
            families: Families::only(Family::V4),
            priority: 0,
            hook: FORWARD,
            chains: Arc::new(vec![Chain { name: "FORWARD".into(), rules }]),
            number: 0,
            translates: false,
            accepts: true,
            host_first: PerFamily::default(),
            untracked: PerFamily::default(),
        }
    }

    #[test]
    fn the_same_chain_is_not_judged_again() {
        let at = Interface { index: 7, name: "wg0".into() };
        let addresses = Addresses::new(1, ["10.7.0.0/24".parse().expect("a prefix")]);
        let read = |before: Option<&Reading>, host| {
            let mut reading = Reading::default();
            let known = Known { addresses: Some(&addresses), before, ..Known::default() };
            reading.add(&at, known, chain(host));
            reading
        };
        let first = read(None, 2);
        assert_eq!((first.of_pairs.len(), first.pairs.v4.len()), (1, 1));
        assert!(first.needs.v4.addresses);
        let again = read(Some(&first), 2);
        assert_eq!(again, first);
        assert!(Arc::ptr_eq(&again.pairs.v4[0], &first.pairs.v4[0]));
        let other = read(Some(&first), 3);
        assert_ne!(other.pairs, first.pairs);
    }
}
