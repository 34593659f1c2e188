//! Flags and notices of a peer: [`Peer::raise`], [`Peer::take_flags`], [`Peer::set_watched`].
//!
//! Control's side is in control/src/device/timing.rs (`apply_flags`, `apply_confirmation`,
//! `watch`).

use std::sync::Arc;

use loom::thread;

use super::{NOW, explore, peer};
use crate::peer::{Peer, flag};
use crate::sync::atomic::{AtomicU32, Ordering};

/// Notices queued for control and not yet read, and all that ever were.
#[derive(Default)]
struct Notices {
    waiting: AtomicU32,
    queued: AtomicU32,
}

impl Notices {
    /// Raises a flag as a worker does (`Turn::raise`).
    fn raise(&self, peer: &Peer, flag: u32) {
        if peer.raise(flag) {
            self.queued.fetch_add(1, Ordering::Relaxed);
            self.waiting.fetch_add(1, Ordering::Release);
        }
    }

    fn is_any_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire) != 0
    }
}

/// A worker raises the same flag twice, another worker a second flag, and control takes flags
/// whenever it has to do with the peer, notice or not. What is not taken has a notice waiting, and
/// what is taken shows what was written before it was last raised.
#[test]
fn no_flag_is_lost_and_none_shows_less_than_was_written() {
    explore(|| {
        let (peer, notices) = (peer(), Arc::new(Notices::default()));
        let confirming = {
            let (peer, notices) = (Arc::clone(&peer), Arc::clone(&notices));
            thread::spawn(move || {
                for index in [1, 2] {
                    peer.confirmed_index.store(index, Ordering::Relaxed);
                    notices.raise(&peer, flag::CONFIRMED);
                }
            })
        };
        let staging = {
            let (peer, notices) = (Arc::clone(&peer), Arc::clone(&notices));
            thread::spawn(move || {
                peer.staged_by.store(1, Ordering::Relaxed);
                notices.raise(&peer, flag::WANTS_HANDSHAKE);
            })
        };
        let (mut confirmed, mut staged_by) = (0, 0);
        let mut takes = 0;
        let mut take = |is_last: bool| {
            let flags = peer.take_flags();
            takes += 1;
            if flags & flag::CONFIRMED != 0 {
                confirmed = peer.confirmed_index.load(Ordering::Relaxed);
                assert_ne!(confirmed, 0, "the flag shows that a session was confirmed");
            }
            if flags & flag::WANTS_HANDSHAKE != 0 {
                staged_by = peer.staged_by.load(Ordering::Relaxed);
                assert_eq!(staged_by, 1, "the flag shows who has staged packets");
            }
            assert!(flags == 0 || !is_last || notices.is_any_waiting());
        };
        take(false);
        // A notice that is read before the flags are taken.
        if notices.waiting.swap(0, Ordering::AcqRel) != 0 {
            take(false);
        }
        confirming.join().expect("no panic");
        staging.join().expect("no panic");
        take(true);
        assert_eq!((confirmed, staged_by), (2, 1), "all was seen in the end");
        assert!(notices.queued.load(Ordering::Relaxed) <= takes, "one notice for each take");
    });
}

/// Control raises flags as well, which queue no notice: it takes them again before it is
/// done with the peer. A worker's flag that came between is taken with them.
#[test]
fn a_flag_that_control_puts_back_hides_none_of_a_worker() {
    explore(|| {
        let (peer, notices) = (peer(), Arc::new(Notices::default()));
        notices.raise(&peer, flag::WANTS_HANDSHAKE);
        let worker = {
            let (peer, notices) = (Arc::clone(&peer), Arc::clone(&notices));
            thread::spawn(move || {
                peer.confirmed_index.store(1, Ordering::Relaxed);
                notices.raise(&peer, flag::CONFIRMED);
            })
        };
        notices.waiting.fetch_sub(1, Ordering::Acquire);
        let mut confirmed = 0;
        let mut take = || {
            let flags = peer.take_flags();
            if flags & flag::CONFIRMED != 0 {
                confirmed = peer.confirmed_index.load(Ordering::Relaxed);
            }
            flags
        };
        // `apply_confirmation`, then `update_peer`.
        let others = take() & !flag::CONFIRMED;
        assert_eq!(others, flag::WANTS_HANDSHAKE);
        let _ = peer.raise(others);
        while peer.has_flags() {
            take();
        }
        worker.join().expect("no panic");
        let is_taken = take() == 0;
        assert!(is_taken || notices.is_any_waiting());
        assert_eq!(confirmed, 1);
    });
}

/// Control stops watching a peer while traffic begins: either control's second look sees it, or the
/// worker queues a notice.
#[test]
fn traffic_is_seen_or_announced() {
    explore(|| {
        let peer = peer();
        peer.set_watched(true);
        let worker = {
            let peer = Arc::clone(&peer);
            thread::spawn(move || [peer.note_received(NOW, true), peer.note_sent(NOW, true)])
        };
        peer.set_watched(false);
        let marks = peer.marks();
        let [first, second] = worker.join().expect("no panic");
        assert!(marks.last_received == NOW || first || second, "received data");
        assert!(marks.last_sent == NOW || first || second, "sent data");
        assert!(!(first && second), "one notice for both");
    });
}
