//! Due timers of a peer, our own handshakes, and the watch over marks (timers.c, send.c).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrayvec::ArrayVec;
use rand_core::Rng;
use wg_bounce_dataplane::peer::flag;
use wg_bounce_dataplane::wire::INITIATION_LEN;
use wg_bounce_sys::clock::Millis;

use super::io::{LogEvent, Now, Output};
use super::peer_entry::PeerEntry;
use super::staged;
use super::state::Core;
use crate::limits::{
    CLOCK_BEHIND_MIN, CROSSINGS_MAX, DUE_PER_UPDATE_MAX, LOG_INTERVAL, UPDATE_ROUNDS_MAX,
};
use crate::noise::{InitiationParams, initiate};
use crate::tai64n::Timestamp;
use crate::timers::{Due, Timers};

/// The reason for a handshake.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    /// New packets wait: the time within which the handshake must succeed restarts (§6.4).
    Fresh,
    /// The last attempt was not answered.
    Retry,
}

impl Core {
    /// Brings a peer up to date after any event: applies the workers' flags, runs due timers, and
    /// schedules the next look.
    pub(super) fn update_peer(&mut self, entry: &mut PeerEntry, now: Now, out: &mut Vec<Output>) {
        // Our own notes may raise a flag, for which no worker queues a notice; while it is set,
        // workers queue no notice for their own flags either. So repeat until no flag is set; the
        // second round has the peer watched, and raises none.
        for _ in 0..UPDATE_ROUNDS_MAX {
            self.apply_flags(entry, now, out);
            self.run_due_timers(entry, now, out);
            self.watch(entry, now.monotonic);
            if !entry.shared.has_flags() {
                break;
            }
        }
        self.schedule(entry);
    }

    /// Schedules the next look at a peer. Timers that are already due run at that deadline, so that
    /// a change of many peers does not delay other events.
    pub(super) fn schedule(&mut self, entry: &mut PeerEntry) {
        let wanted = if self.is_active() {
            let due = self.earliest(entry).map(|(at, _)| at);
            [due, entry.timers.look_at].into_iter().flatten().min()
        } else {
            None
        };
        self.queue.set(entry.shared.id, &mut entry.queued, wanted);
    }

    /// Applies a confirmation that a worker has reported, before a handshake replaces the session
    /// that it confirms. The other flags wait for `update_peer`: they could begin a handshake that
    /// the one at hand makes superfluous.
    pub(super) fn apply_confirmation(
        &mut self,
        entry: &mut PeerEntry,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let flags = entry.shared.take_flags();
        if flags & flag::CONFIRMED != 0 && self.is_active() {
            self.confirm(entry, now, out);
        }
        let others = flags & !flag::CONFIRMED;
        if others != 0 {
            // `update_peer`, which always follows, takes them.
            let _ = entry.shared.raise(others);
        }
    }

    /// Applies the flags that workers have raised.
    fn apply_flags(&mut self, entry: &mut PeerEntry, now: Now, out: &mut Vec<Output>) {
        let flags = entry.shared.take_flags();
        if flags == 0 || !self.is_active() {
            return;
        }
        if flags & flag::ROAMED != 0 {
            out.push(Output::Log(LogEvent::Roamed(Arc::clone(&entry.shared))));
        }
        if flags & flag::CONFIRMED != 0 {
            self.confirm(entry, now, out);
        }
        if flags & flag::WANTS_HANDSHAKE != 0 {
            if entry.needs_handshake(now.monotonic) {
                self.want_handshake(entry, Want::Fresh, now, out);
            } else {
                // The flag is older than the current session. The worker may have staged a packet
                // after the flush was commanded, and before it saw the session.
                staged::send_staged(entry, out);
            }
        }
        if flags & flag::WANTS_LAST_MINUTE_HANDSHAKE != 0
            && entry.needs_last_minute_handshake(now.monotonic)
        {
            entry.began_last_minute = true;
            self.want_handshake(entry, Want::Fresh, now, out);
        }
    }

    /// Stops all timers of a peer and ends its sessions, as when the link goes down.
    pub(super) fn reset_peer(&mut self, entry: &mut PeerEntry, out: &mut Vec<Output>) {
        self.clear_sessions(entry, out);
        entry.timers = Timers::default();
        entry.last_handshake_sent = None;
        entry.began_last_minute = false;
        entry.shared.set_watched(false);
    }

    pub(super) fn note_received(&mut self, entry: &mut PeerEntry, now: Now) {
        // `update_peer`, which always follows, takes the flag that this may raise.
        let _ = entry.shared.note_received(now.monotonic, false);
    }

    /// Sends an initiation or response to the peer's endpoint.
    pub(super) fn send_handshake(
        &mut self,
        entry: &mut PeerEntry,
        message: &[u8],
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let Some(to) = entry.shared.endpoint() else { return };
        // `update_peer`, which always follows, takes the flag that this may raise.
        let _ = entry.shared.note_sent(now.monotonic, false);
        entry.last_handshake_sent = Some(now.monotonic);
        out.push(Output::Send {
            peer: Arc::clone(&entry.shared),
            to,
            message: ArrayVec::try_from(message).expect("no handshake message is longer"),
        });
    }

    fn earliest(&self, entry: &PeerEntry) -> Option<(Millis, Due)> {
        let marks = entry.shared.marks();
        entry.timers.earliest(&marks, &self.settings.timings, entry.persistent_interval())
    }

    fn run_due_timers(&mut self, entry: &mut PeerEntry, now: Now, out: &mut Vec<Output>) {
        for _ in 0..DUE_PER_UPDATE_MAX {
            if !self.is_active() {
                return;
            }
            let Some((at, due)) = self.earliest(entry) else { return };
            if at > now.monotonic {
                return;
            }
            self.act(entry, due, now, out);
        }
    }

    fn act(&mut self, entry: &mut PeerEntry, due: Due, now: Now, out: &mut Vec<Output>) {
        match due {
            Due::ZeroKeys => {
                entry.timers.zero_keys_at = None;
                self.clear_sessions(entry, out);
            }
            Due::Kick => {
                entry.timers.kick_at = None;
                if std::mem::take(&mut entry.timers.kick_keepalive) {
                    entry.timers.keepalive_base = now.monotonic;
                    self.send_keepalive(entry, now, out);
                } else if entry.shared.staged.load(Ordering::Relaxed) != 0 {
                    self.send_staged(entry, now, out);
                }
            }
            Due::Retransmit => self.retransmit(entry, now, out),
            Due::Unanswered => {
                // The next data sent restarts the wait; meanwhile the handshake's own timer runs.
                entry.shared.clear_unanswered();
                entry.timers.unanswered_jitter = self.jitter();
                forget_source(entry);
                self.want_handshake(entry, Want::Fresh, now, out);
            }
            Due::OwedKeepalive => {
                // Cleared now, not when the worker has sent the keepalive: without a session that
                // takes a while, and only data received from now on requires another one. (The
                // kernel module arms a second keepalive here if data was received twice, but
                // sending the first one disarms it.)
                entry.shared.owe_keepalive(Millis::ZERO);
                self.send_keepalive(entry, now, out);
            }
            Due::PersistentKeepalive => {
                entry.timers.keepalive_base = now.monotonic;
                self.send_keepalive(entry, now, out);
            }
        }
    }

    /// Sends the staged packets, or a keepalive if there are none; either needs a session.
    fn send_keepalive(&mut self, entry: &mut PeerEntry, now: Now, out: &mut Vec<Output>) {
        if entry.shared.staged.load(Ordering::Relaxed) != 0 || !entry.can_send(now.monotonic) {
            // A handshake that we initiate ends with a keepalive of its own.
            self.send_staged(entry, now, out);
        } else {
            staged::send_keepalive(entry, out);
        }
    }

    fn send_staged(&mut self, entry: &mut PeerEntry, now: Now, out: &mut Vec<Output>) {
        if entry.can_send(now.monotonic) {
            staged::send_staged(entry, out);
        } else {
            self.want_handshake(entry, Want::Fresh, now, out);
        }
    }

    fn retransmit(&mut self, entry: &mut PeerEntry, now: Now, out: &mut Vec<Output>) {
        entry.timers.retransmit_at = None;
        let timings = &self.settings.timings;
        if now.monotonic.since(entry.timers.attempts_since) < timings.attempt_time {
            // The source address may be the reason that no response arrives.
            forget_source(entry);
            self.want_handshake(entry, Want::Retry, now, out);
            return;
        }
        self.counters.given_up += 1;
        entry.shared.owe_keepalive(Millis::ZERO);
        staged::discard_staged(&entry.shared, out);
        // The rest of the exchange is discarded when the keys are zeroed; there may be none yet.
        let zero_at = now.monotonic + timings.keys_zeroed_after;
        entry.timers.zero_keys_at.get_or_insert(zero_at);
    }

    /// Starts a handshake, unless one was started or answered less than REKEY_TIMEOUT ago (§6.4);
    /// then it is retried after that time, unless a session is established first. While one is in
    /// progress, only its timer starts the next attempt: packets and keepalives would do so
    /// without jitter, and two peers whose handshakes crossed would keep crossing.
    fn want_handshake(
        &mut self,
        entry: &mut PeerEntry,
        want: Want,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        if want == Want::Fresh {
            entry.timers.attempts_since = now.monotonic;
        }
        if entry.timers.retransmit_at.is_some() {
            return;
        }
        let earliest =
            entry.last_handshake_sent.map(|last| last + self.settings.timings.rekey_timeout);
        if let Some(earliest) = earliest.filter(|&earliest| now.monotonic < earliest) {
            let delay = self.jitter() + self.precedence(entry);
            entry.timers.retransmit_at = Some(earliest + delay);
            return;
        }
        self.initiate(entry, now, out);
    }

    /// Extra time in which the peer may go first. Jitter separates attempts that cross only if they
    /// are under way for less than it; over a slower path, or by both sides at the same interval,
    /// they would cross forever. So the side with the greater public key waits once, then the other
    /// one: if the peer never waits, one of the two helps. A coin decides after that, since the two
    /// sides may have counted differently.
    fn precedence(&mut self, entry: &PeerEntry) -> Millis {
        let Some(own) = &self.own else { return Millis::ZERO };
        let is_greater = *own.identity.public() > entry.shared.public_key;
        let must_wait = match entry.crossings.checked_sub(CROSSINGS_MAX) {
            None => false,
            Some(0) => is_greater,
            Some(1) => !is_greater,
            Some(_) => self.rng.next_u32().is_multiple_of(2),
        };
        if must_wait { self.settings.timings.rekey_timeout } else { Millis::ZERO }
    }

    fn initiate(&mut self, entry: &mut PeerEntry, now: Now, out: &mut Vec<Output>) {
        if entry.shared.endpoint().is_none() {
            return;
        }
        let Some(own) = &self.own else { return };
        let remote_static = &entry.shared.public_key;
        if entry.static_static.get(&own.identity, remote_static).is_none() {
            return;
        }
        self.abandon_handshake(entry, out);
        let local_index = self.allocate_index(entry);
        let ephemeral = self.random_secret();
        self.warn_of_clock(entry, now, out);
        let timestamp = entry.last_timestamp_sent.next(now.wall);
        entry.last_timestamp_sent = timestamp;
        let Some(own) = &self.own else { return };
        let remote_static = &entry.shared.public_key;
        let Some(static_static) = entry.static_static.get(&own.identity, remote_static) else {
            return;
        };
        let invitation = InitiationParams {
            remote_static,
            static_static,
            ephemeral: &ephemeral,
            timestamp,
            local_index,
        };
        let mut message = [0; INITIATION_LEN];
        let Some(initiated) = initiate(&own.identity, &invitation, &mut message) else {
            self.indexes.free_unannounced(local_index);
            return;
        };
        entry.handshake = Some(Box::new(initiated));
        entry.forged_responses = 0;
        entry.cookie_signer.sign(&mut message, now.monotonic);
        entry.timers.retransmit_at =
            Some(now.monotonic + self.settings.timings.rekey_timeout + self.jitter());
        self.expect(local_index, out);
        self.counters.initiations_sent += 1;
        self.send_handshake(entry, &message, now, out);
    }

    /// Warns that the wall clock is behind the last timestamp sent to a peer; once an hour.
    fn warn_of_clock(&mut self, entry: &PeerEntry, now: Now, out: &mut Vec<Output>) {
        let behind = entry.last_timestamp_sent.since(Timestamp::whitened(now.wall));
        let is_silent = |last: Millis| now.monotonic.since(last) < LOG_INTERVAL;
        if behind < CLOCK_BEHIND_MIN || self.warned_of_clock.is_some_and(is_silent) {
            return;
        }
        self.warned_of_clock = Some(now.monotonic);
        let peer = Arc::clone(&entry.shared);
        out.push(Output::Log(LogEvent::ClockBehind { peer, behind }));
    }

    /// Examines the marks while there is traffic, so that workers need not report each packet.
    /// Stops watching when there was none since the last look.
    fn watch(&mut self, entry: &mut PeerEntry, now: Millis) {
        if !self.is_active() {
            entry.timers.look_at = None;
            return;
        }
        if entry.timers.look_at.is_some_and(|at| now < at) {
            return;
        }
        let next = Some(now + self.settings.timings.look_interval);
        let was_watched = entry.timers.look_at.is_some();
        entry.timers.look_at = if entry.look() { next } else { None };
        if entry.timers.look_at.is_some() {
            entry.shared.set_watched(true);
        } else if was_watched {
            entry.shared.set_watched(false);
            // Traffic since the look above has raised no flag.
            if entry.look() {
                entry.timers.look_at = next;
                entry.shared.set_watched(true);
            }
        }
    }
}

impl PeerEntry {
    /// Whether anything was sent or received since the last look.
    fn look(&mut self) -> bool {
        let marks = self.shared.marks();
        let seen = (marks.last_sent, marks.last_received);
        std::mem::replace(&mut self.seen, seen) != seen
    }
}

/// Lets the kernel choose the source address towards the peer: ours may have become wrong.
pub(super) fn forget_source(entry: &PeerEntry) {
    if let Some(known) = entry.shared.endpoint() {
        entry.shared.forget_source(known);
    }
}
