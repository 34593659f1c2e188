//! Staged packets: [`Staging`], the session that they wait for, and the flag that tells control of
//! them.
//!
//! A worker's side is `Sender::stage`; control's are in control/src/device: `sessions.rs`
//! (`begin_as_initiator`) and `timing.rs` (`apply_flags`). Control reads who has staged packets
//! before it publishes the session: outputs are carried out later.

use std::sync::Arc;

use loom::thread;

use super::{explore, peer, session};
use crate::limits::STAGED_PACKETS_MAX;
use crate::peer::{Peer, flag};
use crate::send::staging::Staging;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Bytes that may be staged here; never reached.
const BYTES: usize = 1 << 10;

/// Stages a packet as `Sender::stage` does: sends what is staged if there is a session by now, or
/// else leaves it, and queues a notice if control needs one.
fn stage(staging: &mut Staging, peer: &Peer, notices: &AtomicU64) {
    assert_eq!(staging.push(peer, Box::default()), 0, "nothing is dropped");
    if peer.raise(flag::WANTS_HANDSHAKE) {
        notices.fetch_add(1, Ordering::Release);
    }
    if peer.session().is_some() {
        staging.drain(peer);
    }
}

/// Two workers stage packets while control publishes the session that those wait for. Each packet
/// is sent by its worker, or commanded to be sent, or a notice waits that makes control do so.
#[test]
fn no_packet_stays_behind() {
    explore(|| {
        let (peer, notices) = (peer(), Arc::new(AtomicU64::new(0)));
        let workers = [(0, 2), (1, 1)].map(|(number, packets)| {
            let (peer, notices) = (Arc::clone(&peer), Arc::clone(&notices));
            thread::spawn(move || {
                let mut staging = Staging::new(number, BYTES);
                (0..packets).for_each(|_| stage(&mut staging, &peer, &notices));
                staging
            })
        });
        // The response arrives.
        let mut commanded = 0;
        if peer.take_flags() & flag::WANTS_HANDSHAKE != 0 {
            commanded |= peer.staged_by.load(Ordering::Relaxed);
        }
        let _none = peer.set_session(Some(session(1)));
        // Control reads a notice.
        if notices.swap(0, Ordering::AcqRel) != 0 && peer.take_flags() & flag::WANTS_HANDSHAKE != 0
        {
            commanded |= peer.staged_by.load(Ordering::Relaxed);
        }
        let is_announced = |bits: u64| {
            let is_noticed = notices.load(Ordering::Relaxed) != 0;
            (is_noticed && peer.has_flags()) || commanded & bits == bits
        };
        let workers = workers.map(|worker| worker.join().expect("no panic"));
        for (number, mut staging) in workers.into_iter().enumerate() {
            assert!(!staging.holds(peer.id) || is_announced(1 << number));
            staging.drain(&peer);
        }
        assert_eq!(peer.staged.load(Ordering::Relaxed), 0);
        assert_eq!(peer.staged_by.load(Ordering::Relaxed), 0);
    });
}

/// Two workers meet the bound of the packets of a peer.
#[test]
fn the_bound_holds_over_all_workers() {
    explore(|| {
        let peer = peer();
        peer.staged.store(STAGED_PACKETS_MAX - 1, Ordering::Relaxed);
        let spawn = |number| {
            let peer = Arc::clone(&peer);
            thread::spawn(move || {
                let mut staging = Staging::new(number, BYTES);
                let mut dropped = 0;
                (0..2).for_each(|_| dropped += staging.push(&peer, Box::default()));
                (staging, dropped)
            })
        };
        let workers = [spawn(0), spawn(1)].map(|worker| worker.join().expect("no panic"));
        let (mut kept, mut all_dropped) = (0, 0);
        for (mut staging, dropped) in workers {
            kept += staging.drain(&peer).len() as u64;
            all_dropped += dropped;
        }
        assert!(kept <= 1, "one more fits");
        assert_eq!(kept + all_dropped, 4, "every packet is kept or counted");
        assert_eq!(peer.staged.load(Ordering::Relaxed), STAGED_PACKETS_MAX - 1);
        assert_eq!(peer.staged_by.load(Ordering::Relaxed), 0);
    });
}
