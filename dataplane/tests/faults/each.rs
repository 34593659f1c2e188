//! Every errno alone: the call fails once, under traffic.

use std::time::Duration;

use wg_bounce_dataplane::engine::{Failure, IoChoice};
use wg_bounce_sys::faults::{Call, Fault, Injection, PANIC};

use crate::support::{alone, on_both_backends};
use crate::traffic::{PATIENCE, Patience, Traffic};

/// The backends that a case is for.
#[derive(Clone, Copy, PartialEq)]
enum On {
    Both,
    Uring,
}

/// The consequence of an errno.
#[derive(Clone, Copy)]
enum Then {
    /// The call is made again, and nothing is lost.
    Retried,
    /// The trains wait until the socket has room; nothing is lost.
    Held,
    /// The packets of the call are dropped and counted so.
    Dropped(&'static str),
    /// A train leaves message by message; a single message is dropped and counted so.
    PlainerOrDropped(&'static str),
    /// The interface was deleted.
    Gone,
    /// The worker ends with a message.
    Fatal,
}
use Then::{Dropped, Fatal, Gone, Held, PlainerOrDropped, Retried};

/// Call, errno, backends, what follows.
#[rustfmt::skip]
const CASES: &[(Call, i32, On, Then)] = &[
    // epoll_wait(2), io_uring_enter(2).
    (Call::Wait, libc::EINTR, On::Both, Retried),
    (Call::Wait, libc::EAGAIN, On::Uring, Retried), // memory is short
    (Call::Wait, libc::EBUSY, On::Uring, Retried), // completions overflowed
    (Call::Wait, libc::EBADR, On::Uring, Fatal), // completions were lost
    (Call::Wait, libc::EINVAL, On::Both, Fatal),
    // recvmmsg(2), udp(7), ip(7): pending errors are returned once, before any datagram.
    (Call::Receive, libc::EAGAIN, On::Both, Retried),
    (Call::Receive, libc::EINTR, On::Both, Retried),
    (Call::Receive, libc::ENOBUFS, On::Both, Retried), // no provided buffer
    (Call::Receive, libc::ENOMEM, On::Both, Retried),
    (Call::Receive, libc::ECANCELED, On::Uring, Retried),
    (Call::Receive, libc::ECONNREFUSED, On::Both, Retried),
    (Call::Receive, libc::EHOSTUNREACH, On::Both, Retried),
    (Call::Receive, libc::ENETUNREACH, On::Both, Retried),
    (Call::Receive, libc::ENETDOWN, On::Both, Retried),
    (Call::Receive, libc::EMSGSIZE, On::Both, Retried),
    (Call::Receive, libc::EPROTO, On::Both, Retried),
    (Call::Receive, libc::EACCES, On::Both, Retried),
    (Call::Receive, libc::EIO, On::Both, Retried),
    // sendmsg(2), udp(7), ip(7).
    (Call::Send, libc::EAGAIN, On::Both, Held),
    (Call::Send, libc::EINTR, On::Both, Retried),
    (Call::Send, libc::ENETUNREACH, On::Both, Retried), // without the source address
    (Call::Send, libc::EADDRNOTAVAIL, On::Both, Retried),
    (Call::Send, libc::EINVAL, On::Both, Retried),
    (Call::Send, libc::ENOBUFS, On::Both, Dropped("drop_socket_full")),
    (Call::Send, libc::ENOMEM, On::Both, Dropped("drop_send_refused")),
    (Call::Send, libc::EPERM, On::Both, Dropped("drop_send_refused")), // netfilter
    (Call::Send, libc::EACCES, On::Both, Dropped("drop_send_refused")),
    (Call::Send, libc::EHOSTUNREACH, On::Both, Dropped("drop_send_refused")),
    (Call::Send, libc::ENETDOWN, On::Both, Dropped("drop_send_refused")),
    (Call::Send, libc::ECONNREFUSED, On::Both, Dropped("drop_send_refused")),
    (Call::Send, libc::EPIPE, On::Both, Dropped("drop_send_refused")),
    (Call::Send, libc::EMSGSIZE, On::Both, PlainerOrDropped("drop_send_refused")),
    (Call::Send, libc::EIO, On::Both, PlainerOrDropped("drop_send_refused")),
    // Reads of the TUN (drivers/net/tun.c).
    (Call::TunRead, libc::EAGAIN, On::Both, Retried),
    (Call::TunRead, libc::EINTR, On::Both, Retried),
    (Call::TunRead, libc::EIO, On::Both, Retried),
    (Call::TunRead, libc::ECANCELED, On::Uring, Retried),
    (Call::TunRead, libc::ENOBUFS, On::Uring, Retried), // no provided buffer
    (Call::TunRead, libc::ENOMEM, On::Both, Retried),
    (Call::TunRead, libc::EINVAL, On::Both, Dropped("drop_bad_frame")), // unknown GSO type
    (Call::TunRead, libc::EBADFD, On::Both, Gone),
    (Call::TunRead, libc::EFAULT, On::Both, Fatal),
    // Writes to the TUN.
    (Call::TunWrite, libc::EIO, On::Both, Dropped("drop_interface_down")), // link down
    (Call::TunWrite, libc::EINVAL, On::Both, Dropped("drop_tun_refused")), // virtio header
    (Call::TunWrite, libc::EAGAIN, On::Both, Dropped("drop_tun_refused")),
    (Call::TunWrite, libc::EINTR, On::Both, Dropped("drop_tun_refused")),
    (Call::TunWrite, libc::ENOBUFS, On::Both, Dropped("drop_tun_refused")),
    (Call::TunWrite, libc::ENOMEM, On::Both, Dropped("drop_tun_refused")),
    (Call::TunWrite, libc::EFAULT, On::Both, Dropped("drop_tun_refused")),
    (Call::TunWrite, libc::EBADFD, On::Both, Gone),
];

/// One call that fails.
fn once(call: Call, errno: i32) -> Injection {
    Injection::start(0, &[Fault { call, errnos: vec![errno], per_mille: 1000, count: 1 }])
}

fn name(errno: i32) -> String {
    format!("{:?}", nix::errno::Errno::from_raw(errno))
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn each_errno_leads_to_what_the_table_says() {
    on_both_backends(|io| {
        let cases = CASES.iter().filter(|(_, _, on, _)| *on == On::Both || io == IoChoice::Uring);
        let (ending, others): (Vec<_>, Vec<_>) =
            cases.partition(|(_, _, _, then)| matches!(then, Gone | Fatal));
        let mut traffic = Traffic::with_interface(io);
        traffic.works();
        for &&(call, errno, _, then) in &others {
            println!("{io:?}: {call:?} {}", name(errno));
            goes_on(&mut traffic, call, errno, then);
        }
        traffic.stop();
        for &&(call, errno, _, then) in &ending {
            println!("{io:?}: {call:?} {}", name(errno));
            ends(io, call, errno, then);
        }
    });
}

/// Checks that the workers survive an error, and what becomes of its packets.
fn goes_on(traffic: &mut Traffic, call: Call, errno: i32, then: Then) {
    for _round in 0..3 {
        traffic.forget_paths();
        let (drops, held) = (traffic.drops(), traffic.hub.count("held_trains"));
        let injection = once(call, errno);
        let is_over = |traffic: &Traffic| match then {
            Dropped(_) => traffic.drops() != drops,
            _ => !injection.injected().is_empty(),
        };
        let mut patience = Patience::new();
        while !is_over(traffic) || traffic.on_the_way() > 0 {
            assert!(patience.is_left(), "the call is never made, or packets are lost");
            if traffic.on_the_way() == 0 {
                traffic.burst();
                // Signals end only a wait of some length.
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        drop(injection);
        traffic.works();
        let mut lost = traffic.drops();
        lost.retain(|reason, count| drops.get(reason) != Some(count));
        match then {
            Dropped(reason) => assert_eq!(lost.keys().collect::<Vec<_>>(), [&reason]),
            PlainerOrDropped(reason) => assert!(lost.keys().all(|&name| name == reason)),
            _ => assert!(lost.is_empty(), "{lost:?}"),
        }
        if let Held = then {
            assert!(traffic.hub.count("held_trains") > held);
        }
    }
}

/// Checks that a worker ends, and says why.
fn ends(io: IoChoice, call: Call, errno: i32, then: Then) {
    let mut traffic = Traffic::with_interface(io);
    traffic.works();
    let _injection = once(call, errno);
    traffic.burst();
    let failure = traffic.hub.events.failures.recv_timeout(PATIENCE);
    match (then, failure.expect("a worker ends")) {
        (Gone, Failure::InterfaceGone) => {}
        (Fatal, Failure::Fatal(text)) => {
            assert!(text.starts_with("worker ") && text.contains(&format!("os error {errno}")));
        }
        (_, failure) => panic!("{failure:?}"),
    }
    traffic.stop();
}

/// A worker that panics ends the process: control is told to, or in a release build the panic
/// itself does.
#[test]
fn a_panic_is_reported() {
    let _turn = alone();
    for io in [IoChoice::Auto, IoChoice::Mmsg] {
        let mut traffic = Traffic::without_interface(io);
        traffic.works();
        let _injection = once(Call::Receive, PANIC);
        traffic.burst();
        let failure = traffic.hub.events.failures.recv_timeout(PATIENCE).expect("a worker ends");
        let Failure::Fatal(text) = failure else { panic!("{failure:?}") };
        assert!(text.starts_with("worker ") && text.ends_with(": panicked"), "{text}");
        traffic.stop();
    }
    let workspace = include_str!("../../../Cargo.toml");
    let release = workspace.split("[profile.release]").nth(1).expect("a profile");
    let release = release.split("\n[").next().expect("its lines");
    assert!(release.contains("\npanic = \"abort\""), "{release}");
}
