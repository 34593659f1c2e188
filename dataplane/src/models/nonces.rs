//! The nonce counter of a session: [`SendSession::reserve`] and [`SendSession::end`].

use std::sync::Arc;

use loom::thread;

use super::{NOW, Record, explore, peer, session};
use crate::limits::REJECT_AFTER_MESSAGES;
use crate::session::SendSession;
use crate::sync::atomic::{AtomicBool, Ordering};

/// Reserves so many nonces one after the other. Returns them, and whether one was refused.
fn reserve(session: &SendSession, counts: [u64; 2]) -> (Vec<u64>, bool) {
    let (mut nonces, mut is_dead) = (Vec::new(), false);
    for count in counts {
        let reserved = session.reserve(count);
        assert!(reserved.is_none() || !is_dead, "nothing is reserved after a refusal");
        is_dead |= reserved.is_none();
        nonces.extend(reserved.into_iter().flatten());
    }
    (nonces, is_dead)
}

/// Three workers reserve eight nonces at once, of which only `left` are left.
fn three_workers(left: u64) {
    let session = session(1);
    session.skip_to(REJECT_AFTER_MESSAGES - left);
    let spawn = |counts| {
        let session = Arc::clone(&session);
        thread::spawn(move || reserve(&session, counts))
    };
    let workers = [spawn([1, 2]), spawn([2, 1])];
    let (mut nonces, mut is_dead) = reserve(&session, [1, 1]);
    for worker in workers {
        let (more, refused) = worker.join().expect("no panic");
        nonces.extend(more);
        is_dead |= refused;
    }
    let count = nonces.len();
    nonces.sort_unstable();
    nonces.dedup();
    assert_eq!(nonces.len(), count, "no nonce twice");
    assert!(nonces.iter().all(|&nonce| nonce < REJECT_AFTER_MESSAGES));
    assert_eq!(is_dead, left < 8, "refused only when too few are left");
    assert!(!is_dead || !session.is_alive(NOW) && session.reserve(1).is_none());
}

#[test]
fn no_nonce_is_shared() {
    explore(|| three_workers(8));
}

#[test]
fn no_nonce_is_beyond_the_limit() {
    explore(|| three_workers(4));
}

/// A worker that learns of the withdrawal by any other way (a command, an epoch) neither reserves
/// nor sends on the old session, though control has published the next one meanwhile.
#[test]
fn a_withdrawn_session_is_dead() {
    explore(|| {
        let (peer, old) = (peer(), session(1));
        let _none = peer.set_session(Some(Arc::clone(&old)));
        let is_told = Arc::new(AtomicBool::new(false));
        let nonces = Record::new();
        let worker = {
            let (peer, is_told, nonces) = (Arc::clone(&peer), Arc::clone(&is_told), nonces.clone());
            thread::spawn(move || {
                let session = peer.session().clone();
                let Some(session) = session.filter(|session| session.info.local_index == 1) else {
                    return;
                };
                nonces.extend(session.reserve(1).into_iter().flatten());
                let must_not_send = is_told.load(Ordering::Acquire);
                let is_alive = session.is_alive(NOW);
                let more = session.reserve(1);
                assert!(!must_not_send || !is_alive && more.is_none());
                nonces.extend(more.into_iter().flatten());
            })
        };
        let withdrawn = peer.set_session(None).expect("it was published");
        assert!(!withdrawn.is_alive(NOW));
        is_told.store(true, Ordering::Release);
        let _none = peer.set_session(Some(session(2)));
        worker.join().expect("no panic");
        assert!(old.reserve(1).is_none(), "no reservation of a worker revives it");
        assert!(nonces.take().iter().enumerate().all(|(index, &nonce)| nonce == index as u64));
    });
}
