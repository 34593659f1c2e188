//! Conditions on the bytes of a packet's headers.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use wg_bounce_dataplane::icmp::is_error_type;
use wg_bounce_dataplane::ip::{ICMP, ICMPV6, TCP, UDP};
use wg_bounce_dataplane::pairs::Field;
use wg_bounce_dataplane::ranges::Ranges;
use wg_bounce_dataplane::transport::Transport;
use wg_bounce_sys::Family;

use super::place::{Candidates, Place, both};
use super::{Layer, Notes};

/// The bytes of a header that each field has.
type Fields = &'static [(Field, Range<usize>)];

const OF_V4: Fields =
    &[(Field::Source, 12..16), (Field::Destination, 16..20), (Field::Protocol, 9..10)];
const OF_V6: Fields =
    &[(Field::Source, 8..24), (Field::Destination, 24..40), (Field::Protocol, 6..7)];
const OF_PROTOCOL: Fields = &[(Field::Protocol, 0..1)];
const OF_PORTS: Fields = &[(Field::SourcePort, 0..2), (Field::DestinationPort, 2..4)];

/// The protocols whose ports are known.
pub(super) static WITH_PORTS: LazyLock<Ranges> =
    LazyLock::new(|| Ranges::new([TCP, UDP].map(|one| (one.into(), one.into())).to_vec()));

impl Place<'_> {
    /// Whether the bytes of a header from an offset on equal `value` in the bits of `mask`: those
    /// of fields, and others, of which nothing is known.
    pub(super) fn header_equals(
        &self,
        (layer, offset): (Layer, usize),
        value: &[u8],
        mask: &[u8],
        notes: &mut Notes,
    ) -> Option<bool> {
        self.version()?;
        let place = offset..offset + mask.len();
        let fields = match self.fields(layer, notes) {
            Some(fields) => fields,
            // Another byte may differ.
            None if offset == 0 && mask.first() == Some(&0xff) => {
                let has_type = self.has_icmp_type(value[0], notes);
                return has_type.filter(|has_type| !has_type);
            }
            None => return None,
        };
        let bits = |bytes: &[u8], range: &Range<usize>| {
            range.clone().fold(0u128, |bits, at| {
                let byte = if place.contains(&at) { bytes[at - offset] } else { 0 };
                bits << 8 | u128::from(byte)
            })
        };
        let mut all = Some(true);
        for (field, range) in fields {
            let (value, mask) = (bits(value, range), bits(mask, range));
            let width = 8 * range.len() as u32;
            let whole = u128::MAX >> (128 - width);
            let host = whole & !mask;
            let holds = if mask == 0 {
                Some(value == 0)
            } else if value & host != 0 {
                Some(false)
            } else if host & host.wrapping_add(1) == 0 {
                // The mask of a prefix.
                self.is_within(*field, &Arc::new(Ranges::new(vec![(value, value | host)])), notes)
            } else {
                None
            };
            all = both(all, holds);
        }
        let is_elsewhere = |at: usize| !fields.iter().any(|(_, range)| range.contains(&at));
        let others = place.clone().filter(|at| is_elsewhere(*at) && mask[at - offset] != 0);
        if others.count() == 0 { all } else { both(all, None) }
    }

    /// Whether a field of a header, which these bytes are, is one of these numbers.
    pub(super) fn header_within(
        &self,
        layer: Layer,
        bytes: &Range<usize>,
        ranges: &Arc<Ranges>,
        notes: &mut Notes,
    ) -> Option<bool> {
        self.version()?;
        let (field, _) = self.fields(layer, notes)?.iter().find(|(_, range)| range == bytes)?;
        self.is_within(*field, ranges, notes)
    }

    /// The fields of a header; none if it is not known to have any.
    fn fields(&self, layer: Layer, notes: &mut Notes) -> Option<Fields> {
        match (layer, self.family) {
            (Layer::Network, Family::V4) => Some(OF_V4),
            (Layer::Network, Family::V6) => Some(OF_V6),
            (Layer::Protocol, _) => Some(OF_PROTOCOL),
            (Layer::Transport, _) => {
                (self.is_one_of(&WITH_PORTS, notes) == Some(true)).then_some(OF_PORTS)
            }
        }
    }

    /// Whether packets may be ICMP messages of this type: errors are told from others.
    fn has_icmp_type(&self, kind: u8, notes: &mut Notes) -> Option<bool> {
        let is_v4 = self.family == Family::V4;
        let [own, errors] = self.icmp();
        match self.is_one_of(&Ranges::new(vec![own, errors]), notes) {
            Some(true) => {
                let class = if is_error_type(kind, is_v4) { errors } else { own };
                self.is_one_of(&Ranges::new(vec![class]), notes)
            }
            // Another protocol may have this byte too.
            _ => None,
        }
    }

    /// The numbers that stand for ICMP messages of this IP version: errors, and all others.
    fn icmp(&self) -> [(u128, u128); 2] {
        let own = if self.family == Family::V4 { ICMP } else { ICMPV6 };
        [u16::from(own), Transport::ICMP_ERROR].map(|one| (one.into(), one.into()))
    }

    /// Whether the protocol is one of these.
    fn is_one_of(&self, protocols: &Ranges, notes: &mut Notes) -> Option<bool> {
        notes.exceptions.without_header = true;
        let is = self.values(Field::Protocol)?.are_in(protocols);
        if is.is_none() {
            notes.splits.push((Field::Protocol, Arc::new(protocols.clone())));
        }
        is
    }

    /// Whether a field is one of these numbers.
    fn is_within(&self, field: Field, numbers: &Arc<Ranges>, notes: &mut Notes) -> Option<bool> {
        if field == Field::Protocol {
            let [own, errors] = self.icmp();
            let mut protocols = numbers.as_slice().to_vec();
            protocols.extend(numbers.contain(own.0).then_some(errors));
            return self.is_one_of(&Ranges::new(protocols), notes);
        }
        let candidates = self.candidates(field);
        let is_address = matches!(field, Field::Source | Field::Destination);
        notes.needs.addresses |= is_address && !matches!(candidates, Candidates::All);
        let Candidates::Known(ranges) = candidates else { return None };
        let are_in = match *numbers.as_slice() {
            [(first, last)] => ranges.are_within(first, last),
            _ => {
                notes.work += numbers.as_slice().len().min(ranges.as_slice().len());
                ranges.are_in(numbers)
            }
        };
        if are_in.is_none() {
            notes.splits.push((field, Arc::clone(numbers)));
        }
        are_in
    }
}
