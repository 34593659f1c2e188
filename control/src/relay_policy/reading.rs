//! Results of reading the sources.

use std::collections::BTreeSet;
use std::sync::Arc;

use wg_bounce_dataplane::pairs::{Exceptions, Pair, Pairs};
use wg_bounce_sys::{Family, PerFamily};

use super::base_chain::BaseChain;
use super::kernel::Interface;
use super::reason::{Finding, Reason};
use super::rules::Needs;
use super::rules::addresses::Addresses;

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
    /// The base chains that were judged.
    pub chains: Vec<BaseChain>,
    /// The facts that they, or their absence, depend on.
    pub needs: PerFamily<Needs>,
}

impl Reading {
    /// Whether translated connections are, or may be, between peers.
    pub fn has_translations(&self) -> bool {
        let is_of_connections = |finding: &Finding| finding.reason == Reason::Translated;
        self.findings.iter().any(is_of_connections)
            || Family::BOTH.into_iter().any(|family| !self.translated.of(family).is_empty())
    }

    /// Adds a base chain, and the judgement about it.
    pub fn add(&mut self, at: &Interface, addresses: Option<&Addresses>, chain: BaseChain) {
        for family in Family::BOTH.into_iter().filter(|family| chain.families.contain(*family)) {
            let judgement = chain.judge(at, addresses, family, self.needs.of_mut(family));
            let is_of_all = judgement.is_of_all();
            let findings = if is_of_all { &mut self.findings } else { &mut self.of_pairs };
            // The first one is enough where the others are about parts of the same.
            let count = if is_of_all { 1 } else { usize::MAX };
            for cause in judgement.causes.into_iter().take(count) {
                let reason = chain.origin.reason(cause);
                match findings.iter_mut().find(|finding| finding.reason == reason) {
                    Some(known) => known.families.add(family),
                    None => findings.push(Finding::of(family, reason)),
                }
            }
            if !is_of_all && judgement.pairs != Pairs::Alike(Exceptions::NONE) {
                self.pairs.of_mut(family).push(Arc::new(judgement.pairs));
            }
        }
        self.chains.push(chain);
    }
}

impl From<Vec<Finding>> for Reading {
    fn from(findings: Vec<Finding>) -> Reading {
        Reading { findings, ..Reading::default() }
    }
}
