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
pub struct Sessions {
    entries: HashMap<u32, Entry, BuildHasherDefault<IndexHasher>>,
}

impl Sessions {
    /// Awaits an answer for `index`; a session of that index stays.
    pub fn expect(&mut self, index: u32) {
        self.entries.entry(index).or_insert(Entry::Expected);
    }

    /// Receives with this session from now on.
    pub fn install(&mut self, session: Box<ReceiveSession>) {
        self.entries.insert(session.facts.local_index, Entry::Session(session));
    }

    /// Receives nothing for `index` any more.
    pub fn forget(&mut self, index: u32) {
        self.entries.remove(&index);
    }

    /// Whether an answer is awaited for `index`.
    pub fn is_expected(&self, index: u32) -> bool {
        matches!(self.entries.get(&index), Some(Entry::Expected))
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
/// else chooses them. One multiplication spreads them over all bits.
#[derive(Default)]
pub struct IndexHasher(u64);

impl Hasher for IndexHasher {
    fn write(&mut self, _: &[u8]) {
        unreachable!("indexes are hashed as one u32");
    }

    fn write_u32(&mut self, index: u32) {
        self.0 = u64::from(index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
