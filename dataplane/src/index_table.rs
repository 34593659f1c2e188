//! The receiver indexes that belong to one worker: which are awaited, which receive.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::session::ReceiveSession;

/// What an index of ours stands for.
pub enum Entry {
    /// A handshake response or cookie reply is awaited.
    Expected,
    /// A session receives.
    Session(Box<ReceiveSession>),
}

/// The table of one worker.
#[derive(Default)]
pub struct IndexTable {
    entries: HashMap<u32, Entry, BuildHasherDefault<IndexHasher>>,
}

impl IndexTable {
    /// Awaits an answer for `index`; a session of that index stays.
    pub fn expect(&mut self, index: u32) {
        self.entries.entry(index).or_insert(Entry::Expected);
    }

    /// Receives with this session from now on.
    pub fn install(&mut self, session: Box<ReceiveSession>) {
        self.entries.insert(session.info.local_index, Entry::Session(session));
    }

    /// Receives nothing for `index` any more.
    pub fn forget(&mut self, index: u32) {
        self.entries.remove(&index);
    }

    /// Whether an answer is awaited for `index`.
    pub fn is_expected(&self, index: u32) -> bool {
        matches!(self.entries.get(&index), Some(Entry::Expected))
    }

    /// Whether a cookie reply is awaited for `index`: also for a response of ours that nothing
    /// has confirmed yet, which its receiver may have refused under load.
    pub fn is_cookie_expected(&self, index: u32) -> bool {
        match self.entries.get(&index) {
            Some(Entry::Expected) => true,
            Some(Entry::Session(session)) => !session.info.is_initiator && !session.is_confirmed,
            None => false,
        }
    }

    /// The session of `index`.
    pub fn get(&self, index: u32) -> Option<&ReceiveSession> {
        match self.entries.get(&index) {
            Some(Entry::Session(session)) => Some(session),
            _ => None,
        }
    }

    /// The session of `index`, to move its window.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut ReceiveSession> {
        match self.entries.get_mut(&index) {
            Some(Entry::Session(session)) => Some(session),
            _ => None,
        }
    }
}

/// Indexes are random but for their low byte, which is the same for all of a worker's; nobody
/// else chooses them. It serves for addresses of sessions, too, whose low bits are alike as well.
#[derive(Default)]
pub struct IndexHasher(u64);

impl IndexHasher {
    fn spread(&mut self, number: u64) {
        // A product's low bits depend on those of its factors alone, and the table chooses its
        // place by low bits: fold the upper half, which depends on all, over the lower.
        let product = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ product >> 32;
    }
}

impl Hasher for IndexHasher {
    fn write(&mut self, _: &[u8]) {
        unreachable!("indexes and addresses are hashed as one number");
    }

    fn write_u32(&mut self, index: u32) {
        self.spread(index.into());
    }

    fn write_usize(&mut self, address: usize) {
        self.spread(address as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// How many places of a table of 4,096 the numbers take.
    fn places(hashers: impl Iterator<Item = IndexHasher>) -> usize {
        hashers.map(|hasher| hasher.finish() % 4096).collect::<HashSet<_>>().len()
    }

    #[test]
    fn equal_low_bits_do_not_share_a_place() {
        let index = |number: u32| {
            let mut hasher = IndexHasher::default();
            hasher.write_u32(number << 8 | 3);
            hasher
        };
        let address = |number: usize| {
            let mut hasher = IndexHasher::default();
            hasher.write_usize(0x7f00_0000_0000 + number * 128);
            hasher
        };
        assert!(places((0..4096).map(index)) > 2000);
        assert!(places((0..4096).map(address)) > 2000);
    }
}
