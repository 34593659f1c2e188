//! A greylist of the senders of initiations, used during floods.
//!
//! WireGuard sends its next initiation five seconds after one without an answer, from the same
//! address and port. A flood from random forged addresses hardly meets one of them again. So an
//! initiation whose sender was seen some seconds ago goes before those of strangers.
//!
//! Senders are remembered in Bloom filters, one for each period: the current one, and two before
//! it, which recognize a sender that returns up to three periods later, once in each period. At
//! 100,000 initiations per second, two of a thousand strangers pass for known, and many if a flood
//! fills the filters: control bounds the number of those that need no cookie.
//!
//! The list remembers senders before their mac1 is verified, and also those whose initiation finds
//! no place.

use std::io;
use std::net::{IpAddr, SocketAddr};

use wg_bounce_sys::clock::Millis;
use wg_bounce_sys::memory::{self, Slot};

use crate::hash::mix;

/// Time that one filter covers: less than that between two initiations of one sender (5 s).
const PERIOD: Millis = Millis::from_secs(4);
/// Bits set for one sender.
const HASHES: u64 = 4;
/// Filters: the current one, and those that recognize.
const FILTERS: usize = 3;

/// Remembers senders of initiations while there is a flood.
pub(super) struct Greylist {
    /// Filters of the last periods, the current one first. Mapped, not allocated: malloc would
    /// keep their memory for itself.
    filters: [Slot; FILTERS],
    /// Begin of the current period; none outside a flood.
    began: Option<Millis>,
    /// Time at which control was last under load.
    load: Millis,
    seed: u64,
}

impl Greylist {
    /// An empty list with filters of `size` bytes, a power of two, keyed by `seed`, which is
    /// random. The kernel supplies their memory on first use, and gets it back after a flood.
    ///
    /// # Errors
    /// ENOMEM: out of memory or address space.
    pub(super) fn new(size: usize, seed: u64) -> io::Result<Greylist> {
        assert!(size.is_power_of_two(), "{size} bytes");
        let filters = [empty(size)?, empty(size)?, empty(size)?];
        Ok(Greylist { filters, began: None, load: Millis::ZERO, seed })
    }

    /// Notes that control is under load: there is a flood.
    pub(super) fn note_load(&mut self, now: Millis) {
        self.began.get_or_insert(now);
        self.load = now;
    }

    /// Whether this sender was seen in an earlier period of the flood, and not yet in this one;
    /// remembers it. Always false outside a flood.
    pub(super) fn knows(&mut self, sender: SocketAddr, now: Millis) -> bool {
        if !self.advance(now) {
            return false;
        }
        let bits = self.bits_of(sender);
        let has_all =
            |filter: &[u8]| bits.iter().all(|bit| filter[(bit / 8) as usize] & 1 << (bit % 8) != 0);
        let [current, earlier @ ..] = &mut self.filters;
        let is_known = !has_all(current) && earlier.iter().any(|filter| has_all(filter));
        bits.iter().for_each(|bit| current[(bit / 8) as usize] |= 1 << (bit % 8));
        is_known
    }

    /// Begins further periods, and forgets the oldest. Returns whether there is a flood.
    fn advance(&mut self, now: Millis) -> bool {
        let Some(began) = self.began else { return false };
        if now.since(self.load) > Millis(FILTERS as u64 * PERIOD.0) {
            self.filters.iter_mut().for_each(clear);
            self.began = None;
            return false;
        }
        let periods = now.since(began).0 / PERIOD.0;
        for _ in 0..periods.min(FILTERS as u64) {
            self.filters.rotate_right(1);
            clear(&mut self.filters[0]);
        }
        self.began = Some(began + Millis(periods * PERIOD.0));
        true
    }

    fn bits_of(&self, sender: SocketAddr) -> [u64; HASHES as usize] {
        let address = match sender.ip() {
            IpAddr::V4(v4) => mix(v4.to_bits().into(), self.seed),
            IpAddr::V6(v6) => {
                let [high, low] = [v6.to_bits() >> 64, v6.to_bits()].map(|half| half as u64);
                mix(low ^ mix(high, self.seed), self.seed)
            }
        };
        let first = mix(address ^ u64::from(sender.port()), self.seed);
        let step = mix(first, !self.seed) | 1;
        let bits = 8 * self.filters[0].len() as u64;
        std::array::from_fn(|number| first.wrapping_add(step.wrapping_mul(number as u64)) % bits)
    }
}

/// A filter of so many bytes, whose memory is not touched yet.
fn empty(bytes: usize) -> io::Result<Slot> {
    Ok(memory::slots(1, bytes)?.remove(0))
}

/// Empties a filter, and gives its memory back.
fn clear(filter: &mut Slot) {
    match empty(filter.len()) {
        Ok(fresh) => *filter = fresh,
        Err(_) => filter.fill(0),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const SIZE: usize = 1 << 20;
    const START: Millis = Millis(1_000_000);
    const LATER: Millis = Millis(START.0 + 5_000);

    fn v4(number: u32) -> SocketAddr {
        (Ipv4Addr::from_bits(number), 51820).into()
    }

    fn flooded() -> Greylist {
        let mut list = Greylist::new(SIZE, 7).expect("memory");
        list.note_load(START);
        list
    }

    #[test]
    fn without_a_flood_it_knows_no_sender() {
        let mut list = Greylist::new(SIZE, 7).expect("memory");
        assert!(!list.knows(v4(1), START) && !list.knows(v4(1), LATER));
        assert!(list.filters.iter().all(|filter| filter.iter().all(|byte| *byte == 0)));
    }

    #[test]
    fn a_sender_that_returns_is_known() {
        let v6 = |last: u128| SocketAddr::from((Ipv6Addr::from_bits(1 << 100 | last), 1u16));
        for senders in [[v4(1), v4(2)], [v6(1), v6(2)], [v4(1), SocketAddr::new(v4(1).ip(), 9)]] {
            let mut list = flooded();
            assert!(!list.knows(senders[0], START));
            assert!(!list.knows(senders[0], START + Millis(3_000)), "in the same period");
            assert!(!list.knows(senders[1], LATER));
            assert!(list.knows(senders[0], LATER));
            assert!(!list.knows(senders[0], LATER), "once in a period");
            list.note_load(LATER);
            assert!(list.knows(senders[0], LATER + Millis(5_333)), "again");
        }
    }

    #[test]
    fn senders_and_floods_are_forgotten() {
        let mut list = flooded();
        list.knows(v4(1), START);
        list.note_load(START + Millis(12_000));
        assert!(!list.knows(v4(1), START + Millis(12_000)));
        // The flood has ended long ago.
        assert!(!list.knows(v4(1), START + Millis(60_000)));
        list.note_load(START + Millis(60_001));
        assert!(!list.knows(v4(1), START + Millis(65_000)));
    }

    #[test]
    fn few_strangers_pass_for_known() {
        let mut list = flooded();
        let per_period = 400_000u32;
        let known = (0..3 * per_period)
            .filter(|number| {
                let now = START + Millis(u64::from(*number) / 100);
                list.note_load(now);
                list.knows(v4(number.wrapping_mul(0x9e37_79b9)), now)
            })
            .count();
        assert!(known < per_period as usize * 3 / 250, "{known} of {}", 3 * per_period);
    }
}
