//! A network slower than the tunnel: trains that find the socket full wait, in order.

use std::sync::atomic::Ordering;

use wg_bounce_dataplane::engine::IoChoice;
use wg_bounce_dataplane::messages::Command;

use crate::socket;
use crate::support::{Hub, Remote, eventually, on_both_backends, run};

/// Less than the test sends, and much less than may wait (bytes).
const SOCKET_BUFFER: usize = 32 << 10;

/// A hub with a slow path to its peers and a long queue on it.
fn slow_hub(io: IoChoice) -> Hub {
    run("tc qdisc add dev lo root tbf rate 20mbit burst 20kb limit 100mb");
    Hub::start_with(io, SOCKET_BUFFER)
}

fn send_numbered(hub: &Hub, to: &Remote, count: u8) {
    for number in 0..count {
        hub.app.send_to(&[number; 1200], (to.inner, 7001)).expect("sent");
    }
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn trains_that_find_the_socket_full_leave_later_in_order() {
    on_both_backends(|io| {
        let mut hub = slow_hub(io);
        let remote = hub.add_peer(2, 0, socket());
        for round in 0..3 {
            // Less than leaves in the time that a packet may wait.
            send_numbered(&hub, &remote, 60);
            for number in 0..60 {
                assert_eq!(remote.gets()[0], number, "round {round}: all arrive, in order");
            }
        }
        assert!(hub.count("held_trains") > 0, "the socket was full");
        assert_eq!(hub.count("drop_socket_full") + hub.count("drop_congestion"), 0);
        assert_eq!(remote.peer.staged.load(Ordering::Relaxed), 0);
        hub.stop();
    });
}

/// A hub that holds trains for a peer whose session has just been ended.
fn ended_while_held(io: IoChoice) -> (Hub, Remote) {
    let mut hub = slow_hub(io);
    let remote = hub.add_peer(2, 0, socket());
    send_numbered(&hub, &remote, 150);
    eventually(|| hub.count("held_trains") > 0 && hub.count("tun_frames_read") >= 150);
    let _old = remote.peer.set_session(None);
    (hub, remote)
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn held_trains_are_dropped_with_their_peer() {
    on_both_backends(|io| {
        let (mut hub, remote) = ended_while_held(io);
        for worker in 0..crate::support::WORKERS {
            hub.engine.command(worker, Command::Discard { peer: remote.peer.clone() });
        }
        hub.publish();
        let dropped = hub.count("drop_congestion") + hub.count("drop_handshake_failed");
        assert!(dropped > 0, "held trains are dropped and counted");
        assert_eq!(remote.peer.staged.load(Ordering::Relaxed), 0);
        hub.stop();
    });
}

/// A worker that holds trains of a peer but has staged nothing gets no command at the end of the
/// session.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn held_trains_are_dropped_with_their_session() {
    on_both_backends(|io| {
        let (hub, _remote) = ended_while_held(io);
        eventually(|| hub.count("drop_expired_session") > 0);
        hub.stop();
    });
}

/// Also if its successor is there before the socket has room.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn held_trains_do_not_outlive_their_session() {
    on_both_backends(|io| {
        let (hub, remote) = ended_while_held(io);
        remote.open_session();
        eventually(|| hub.count("drop_expired_session") > 0);
        hub.stop();
    });
}

/// Packets beyond the bound are dropped and counted, and the tunnel works afterwards.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn what_waits_is_bounded() {
    on_both_backends(|io| {
        let mut hub = slow_hub(io);
        let remote = hub.add_peer(2, 0, socket());
        let mut sent = 0u64;
        while hub.count("drop_congestion") == 0 {
            send_numbered(&hub, &remote, 100);
            sent += 100;
            assert!(sent < 100_000, "nothing is ever dropped");
        }
        let mut last = 0;
        while last != 0xff {
            hub.app.send_to(&[0xff; 16], (remote.inner, 7001)).expect("sent");
            last = remote.gets()[0];
        }
        hub.stop();
    });
}
