//! The receiver indexes that belong to one worker: pending handshakes and receiving sessions
//! (peerlookup.c of the kernel module).

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use crate::hash::IndexHasher;
use crate::receive_session::ReceiveSession;

enum Entry {
    /// A handshake response or cookie reply is pending.
    Pending,
    /// A session receives.
    Session(Box<ReceiveSession>),
}

/// The table of one worker.
#[derive(Default)]
pub struct IndexTable {
    entries: HashMap<u32, Entry, BuildHasherDefault<IndexHasher>>,
}

impl IndexTable {
    /// Marks `index` as pending, unless a session receives with it.
    pub fn expect(&mut self, index: u32) {
        self.entries.entry(index).or_insert(Entry::Pending);
    }

    /// Receives with this session from now on.
    pub fn install(&mut self, session: Box<ReceiveSession>) {
        self.entries.insert(session.info.local_index, Entry::Session(session));
    }

    /// Receives nothing for `index` from now on.
    pub fn remove(&mut self, index: u32) {
        self.entries.remove(&index);
    }

    /// Whether a handshake response is pending for `index`.
    pub fn is_pending(&self, index: u32) -> bool {
        matches!(self.entries.get(&index), Some(Entry::Pending))
    }

    /// Whether a cookie reply is pending for `index`: also after a response of ours whose session
    /// is not confirmed yet, because its receiver may have refused it under load.
    pub fn is_cookie_pending(&self, index: u32) -> bool {
        match self.entries.get(&index) {
            Some(Entry::Pending) => true,
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

    /// The session of `index`, to move its replay window.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut ReceiveSession> {
        match self.entries.get_mut(&index) {
            Some(Entry::Session(session)) => Some(session),
            _ => None,
        }
    }
}
