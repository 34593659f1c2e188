//! Readings, dated by the addresses that they were judged by.

use wg_bounce_sys::Family;

use crate::relay_policy::reading::Reading;
use crate::relay_policy::reason::Finding;

/// A reading, and the version of the peers' addresses at that time, if they were known.
pub(super) struct Dated {
    /// The reading.
    pub reading: Reading,
    /// The version.
    pub version: Option<u64>,
}

impl Dated {
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
        Dated { reading: findings.into(), version: None }
    }
}
