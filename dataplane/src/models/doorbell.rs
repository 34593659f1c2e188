//! Lanes and doorbells: [`Channels::notice`], [`Channels::hand_off`], [`Channels::ring_bells`].
//!
//! The waiting side is in control/src/runtime/mod.rs (`wait`, `poll_exit`) and in `worker` with its
//! backend: clear the bell, then read the lanes. A lost wake-up is a deadlock, which loom reports.

use std::sync::Arc;

use loom::thread;

use super::explore;
use crate::channels::{Channels, HandOff, Neighbour};
use crate::peer::PeerId;
use crate::sync::{EventFd, bounded};

/// Ends a worker's turn, and those after it that do not wait because of a full lane.
fn end_turns(channels: &mut Channels) {
    channels.ring_bells();
    while channels.must_retry() {
        thread::yield_now();
        channels.ring_bells();
    }
}

/// Two workers queue notices in a lane that has room for one.
#[test]
fn control_wakes_for_every_notice() {
    explore(|| {
        let wake = Arc::new(EventFd::default());
        let (channels, events) = Channels::new(Arc::clone(&wake));
        let workers: Vec<_> = [1, 2]
            .map(|number| {
                let mut channels = channels.clone();
                thread::spawn(move || {
                    channels.notice(PeerId(number));
                    end_turns(&mut channels);
                })
            })
            .into();
        let mut seen = Vec::new();
        while seen.len() < 2 {
            wake.wait();
            let _ = wake.read();
            seen.extend(events.peers.try_iter());
        }
        seen.sort_unstable();
        assert_eq!(seen, [PeerId(1), PeerId(2)]);
        workers.into_iter().for_each(|worker| worker.join().expect("no panic"));
    });
}

fn hand_off(number: u8) -> HandOff {
    let from = "192.0.2.1:7".parse().expect("an address");
    let from = wg_bounce_sys::Endpoint { remote: from, source: None };
    HandOff { buffer: Box::new([number]), from, traffic_class: 0 }
}

/// A worker hands over two datagrams, in two turns, to one that waits. One that finds the lane full
/// is dropped and counted.
#[test]
fn a_neighbour_wakes_for_every_datagram() {
    explore(|| {
        let (mut channels, _events) = Channels::new(Arc::default());
        let (lane, hand_offs) = bounded(1);
        let bell = Arc::new(EventFd::default());
        channels.neighbours = vec![Neighbour { lane, bell: Arc::clone(&bell) }];
        let neighbour = thread::spawn(move || {
            let mut seen = Vec::new();
            while seen.last() != Some(&2) {
                if hand_offs.is_empty() {
                    bell.wait();
                }
                let _ = bell.read();
                seen.extend(hand_offs.try_iter().map(|datagram| datagram.buffer[0]));
            }
            seen
        });
        let first = channels.hand_off(0, hand_off(1));
        channels.ring_bells();
        let mut tries = 0;
        while !channels.hand_off(0, hand_off(2)) {
            tries += 1;
            channels.ring_bells();
            thread::yield_now();
        }
        channels.ring_bells();
        assert!(first, "an empty lane has room");
        let seen = neighbour.join().expect("no panic");
        assert_eq!(seen, [1, 2], "after {tries} tries");
    });
}
