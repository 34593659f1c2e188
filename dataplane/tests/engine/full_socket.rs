//! Where the network is slower than the tunnel: what finds the socket full waits, in order.

use std::sync::atomic::Ordering;

use wg_bounce_dataplane::engine::IoChoice;
use wg_bounce_dataplane::messages::Command;

use crate::socket;
use crate::support::{Hub, Remote, eventually, on_both_backends, run};

/// Less than what is sent, much less than what may wait.
const SOCKET_BUFFER: usize = 32 << 10;

/// A hub whose way to its peers is slow, and holds much.
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
fn what_finds_the_socket_full_leaves_later_in_order() {
    on_both_backends(|io| {
        let mut hub = slow_hub(io);
        let remote = hub.add_peer(2, 0, socket());
        for round in 0..3 {
            send_numbered(&hub, &remote, 150);
            for number in 0..150 {
                assert_eq!(remote.gets()[0], number, "round {round}: all come, in order");
            }
        }
        assert!(hub.count("held_trains") > 0, "the socket was full");
        assert_eq!(hub.count("drop_socket_full"), 0);
        assert_eq!(remote.peer.staged.load(Ordering::Relaxed), 0);
        hub.engine.stop();
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
fn what_waits_goes_with_its_peer() {
    on_both_backends(|io| {
        let (mut hub, remote) = ended_while_held(io);
        for worker in 0..crate::support::WORKERS {
            hub.engine.command(worker, Command::Discard { peer: remote.peer.clone() });
        }
        hub.publish();
        let dropped = hub.count("drop_socket_full") + hub.count("drop_handshake_failed");
        assert!(dropped > 0, "what waited is dropped, and counted");
        assert_eq!(remote.peer.staged.load(Ordering::Relaxed), 0);
        hub.engine.stop();
    });
}

/// A worker may hold trains of a peer and have staged nothing: then nobody tells it of the end.
#[test]
fn what_waits_goes_with_its_session() {
    on_both_backends(|io| {
        let (hub, _remote) = ended_while_held(io);
        eventually(|| hub.count("drop_expired_session") > 0);
        hub.engine.stop();
    });
}

/// More than may wait is dropped and counted, and the tunnel goes on afterwards.
#[test]
fn what_waits_is_bounded() {
    on_both_backends(|io| {
        let mut hub = slow_hub(io);
        let remote = hub.add_peer(2, 0, socket());
        let mut sent = 0u64;
        while hub.count("drop_socket_full") == 0 {
            send_numbered(&hub, &remote, 100);
            sent += 100;
            assert!(sent < 100_000, "nothing is ever dropped");
        }
        let mut last = 0;
        while last != 0xff {
            hub.app.send_to(&[0xff; 16], (remote.inner, 7001)).expect("sent");
            last = remote.gets()[0];
        }
        hub.engine.stop();
    });
}
