//! Replies to UAPI `set` requests that wait for the workers.

use std::collections::VecDeque;

use wg_bounce_uapi::types::Errno;

use crate::uapi_server::requests::{Answer, Reply};

/// Replies to `set` that wait until every worker uses the new configuration: a removed peer or key
/// is gone when wg(8) returns.
#[derive(Default)]
pub(super) struct PendingReplies {
    /// In the order of epochs.
    waiting: VecDeque<(u64, Reply, Errno)>,
}

impl PendingReplies {
    /// Sends `errno` once all workers have reached `epoch`.
    pub(super) fn push(&mut self, epoch: u64, reply: Reply, errno: Errno) {
        debug_assert!(self.waiting.back().is_none_or(|last| last.0 <= epoch));
        self.waiting.push_back((epoch, reply, errno));
    }

    /// Sends the replies whose epoch all workers have reached.
    pub(super) fn answer_reached(&mut self, epoch_reached: u64) {
        while self.waiting.front().is_some_and(|first| first.0 <= epoch_reached) {
            if let Some((_, reply, errno)) = self.waiting.pop_front() {
                reply.send(Answer::Done(errno));
            }
        }
    }
}
