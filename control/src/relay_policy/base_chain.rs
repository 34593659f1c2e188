//! Base chains on the path of forwarded packets, with their rules.

use std::net::IpAddr;
use std::sync::Arc;

use wg_bounce_dataplane::pairs::{Field, Packets};
use wg_bounce_dataplane::ranges::Ranges;
use wg_bounce_sys::{Family, PerFamily};

use super::kernel::Interface;
use super::reason::{ChainEffect, ChainName, Families, Reason};
use super::rules::addresses::Addresses;
use super::rules::judge::{Cause, Judgement, judge};
use super::rules::place::{Facts, Hook, PREROUTING, Place};
use super::rules::walk::{Base, find_obstacle, find_translations, untracks};
use super::rules::{Chain, Met, Needs, Notes, Translation};

/// A base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseChain {
    /// Its name.
    pub name: ChainName,
    /// The IP versions whose packets pass it.
    pub families: Families,
    /// Its place among the chains of its hook, which are passed in this order.
    pub priority: i32,
    /// Its hook.
    pub hook: Hook,
    /// The chains of its table.
    pub chains: Arc<Vec<Chain>>,
    /// Its index among them.
    pub number: usize,
    /// Whether its rules may translate addresses.
    pub translates: bool,
    /// Whether its policy is to accept.
    pub accepts: bool,
    /// See [`Facts::host_first`].
    pub host_first: PerFamily<bool>,
    /// See [`Facts::untracked`].
    pub untracked: PerFamily<bool>,
}

/// The priority of connection tracking (NF_IP_PRI_CONNTRACK, linux/netfilter_ipv4.h).
const CONNECTION_TRACKING: i32 = -200;

/// The way of packets from one address to another through a base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The rules that may match, in order, up to the first that stands in the way.
    pub met: Vec<Met>,
    /// The rest of the way.
    pub end: WayEnd,
}

/// The end of a way through a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WayEnd {
    /// All packets are accepted by rules.
    Accepted,
    /// They may reach the policy, which is to accept or not.
    Policy(bool),
    /// The last rule that was met stands in the way.
    Obstacle,
}

impl BaseChain {
    /// Judges packets between peers; adds what that depends on to `needs`.
    pub fn judge(
        &self,
        interface: &Interface,
        addresses: Option<&Addresses>,
        family: Family,
        needs: &mut Needs,
    ) -> Judgement {
        let facts = Facts { addresses, ..self.facts(interface) };
        judge(&self.base(), &facts, family, needs)
    }

    /// The reason for a cause.
    pub fn reason(&self, cause: &Cause) -> Reason {
        match cause {
            Cause::Rule(obstacle) => self.name.reason_of_rule(obstacle.clone()),
            Cause::Policy => Reason::Chain { name: self.name.clone(), effect: ChainEffect::Policy },
        }
    }

    /// Follows packets from one address of a peer to another.
    pub fn way(&self, interface: &Interface, family: Family, packets: &Packets) -> Way {
        let facts = self.facts(interface);
        let values = Field::ALL.map(|field| {
            Some((field, Ranges::new(vec![packets.value(field).map(|value| (value, value))?])))
        });
        let place = values
            .iter()
            .flatten()
            .fold(Place::between_peers(&facts, self.hook, family), |place, (field, values)| {
                place.with(*field, values)
            });
        let mut notes = Notes::with_trace();
        let end = match find_obstacle(&self.base(), &place, &mut notes) {
            Ok(true) => WayEnd::Policy(self.accepts),
            Ok(false) => WayEnd::Accepted,
            Err(_) => WayEnd::Obstacle,
        };
        Way { met: notes.trace.unwrap_or_default(), end }
    }

    /// The reason if rules may translate other packets to one of two addresses. `addresses`: those
    /// of all peers.
    pub fn translation(
        &self,
        interface: &Interface,
        addresses: Option<&Addresses>,
        pair: [IpAddr; 2],
    ) -> Option<Reason> {
        let family = Family::of(pair[0]);
        let facts = Facts { addresses, ..self.facts(interface) };
        let place =
            Place::of_translations(&facts, self.hook, family).filter(|_| self.translates)?;
        let both = Addresses::new(0, pair.map(Into::into)).ranges;
        let is_of_pair = |ranges: &Ranges| !ranges.split(both.of(family)).0.is_empty();
        let obstacle = match find_translations(&self.base(), &place, &mut Notes::default()) {
            Ok(found) => {
                let is_one = |one: &Translation| one.addresses.as_ref().is_none_or(is_of_pair);
                found.into_iter().find(is_one)?.rule
            }
            Err(obstacle) => obstacle,
        };
        Some(self.name.reason_of_rule(obstacle))
    }

    /// Whether it keeps the kernel from tracking any packet between peers; adds what that depends
    /// on to `needs`.
    pub fn untracks(
        &self,
        interface: &Interface,
        addresses: Option<&Addresses>,
        family: Family,
        needs: &mut Needs,
    ) -> bool {
        if self.hook != PREROUTING
            || self.priority >= CONNECTION_TRACKING
            || !self.families.contain(family)
        {
            return false;
        }
        let facts = Facts { addresses, ..self.facts(interface) };
        let mut notes = Notes::default();
        let place = Place::between_peers(&facts, self.hook, family);
        let untracks = untracks(&self.base(), &place, &mut notes);
        needs.addresses |= notes.needs.addresses;
        needs.sets |= notes.needs.sets;
        untracks
    }

    fn facts<'a>(&self, interface: &'a Interface) -> Facts<'a> {
        let BaseChain { host_first, untracked, .. } = *self;
        Facts { interface, addresses: None, host_first, untracked }
    }

    fn base(&self) -> Base<'_> {
        let BaseChain { chains, number, hook, translates, accepts, .. } = self;
        let (number, hook, translates, accepts) = (*number, *hook, *translates, *accepts);
        Base { chains, number, hook, translates, accepts }
    }
}
