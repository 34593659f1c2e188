//! Readings, dated by the addresses that they were judged by.

use std::sync::Arc;

use wg_bounce_dataplane::pairs::{Exceptions, Pairs};
use wg_bounce_sys::clock::Millis;
use wg_bounce_sys::{Family, PerFamily};

use crate::relay_policy::kernel::Interface;
use crate::relay_policy::reading::Reading;
use crate::relay_policy::reason::{Families, Finding, Reason};

/// A reading, with the version of the peers' addresses at that time, if they were known, the
/// interface that it is about, and what it cost.
pub(super) struct Dated {
    /// The reading.
    pub reading: Reading,
    /// The version.
    pub version: Option<u64>,
    /// The interface.
    pub interface: Option<Interface>,
    /// CPU time that it took.
    pub cost: Millis,
}

impl Dated {
    /// The reading, if it is about this interface and by these addresses.
    pub fn at(&self, interface: &Interface, version: Option<u64>) -> Option<&Reading> {
        let is_same = self.interface.as_ref() == Some(interface) && self.version == version;
        is_same.then_some(&self.reading)
    }

    /// Whether rules ask for the addresses.
    pub fn asks_for_addresses(&self) -> bool {
        Family::BOTH.into_iter().any(|family| self.reading.needs.of(family).addresses)
    }

    /// Whether rules ask for the elements of sets.
    pub fn asks_for_elements(&self) -> bool {
        Family::BOTH.into_iter().any(|family| self.reading.needs.of(family).sets)
    }
}

impl From<Vec<Finding>> for Dated {
    fn from(findings: Vec<Finding>) -> Dated {
        Dated { reading: findings.into(), version: None, interface: None, cost: Millis::ZERO }
    }
}

/// The reason if helpers of connection tracking are in use where rules translate to peers: they
/// translate connections that no rule names, of other ports and protocols.
pub(super) fn of_helpers<'a>(
    mut readings: impl Iterator<Item = &'a Dated> + Clone,
) -> Option<Finding> {
    let translates =
        |family: Family| readings.clone().any(|dated| *dated.reading.translates.of(family));
    let mut families = Families::NONE;
    Family::BOTH.into_iter().filter(|family| translates(*family)).for_each(|one| families.add(one));
    let has_helpers = readings.any(|dated| dated.reading.has_helpers);
    let reason = Reason::Helpers;
    (has_helpers && families != Families::NONE).then_some(Finding { families, reason })
}

/// The packets that all readings together leave to the kernel.
pub(super) fn exceptions<'a>(
    readings: impl Iterator<Item = &'a Dated> + Clone,
) -> PerFamily<Vec<Arc<Pairs>>> {
    PerFamily::each(|family| {
        let pairs = readings.clone().flat_map(|dated| dated.reading.pairs.of(family));
        let mut all: Vec<_> = pairs.cloned().collect();
        // What an ICMP error quotes may have been translated between other addresses.
        if all.iter().any(|pairs| pairs.any(|one| one.all)) {
            let errors = Exceptions { icmp_errors: true, ..Exceptions::NONE };
            all.push(Arc::new(Pairs::Alike(errors)));
        }
        all
    })
}
