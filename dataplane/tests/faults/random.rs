//! Errnos at random points of a run.

use std::time::Duration;

use wg_bounce_dataplane::engine::IoChoice;
use wg_bounce_sys::clock;
use wg_bounce_sys::faults::{Call, Fault, Injection};

use crate::support::{WORKERS, alone, on_both_backends};
use crate::traffic::Traffic;

/// Duration of each run.
const DURATION: Duration = Duration::from_millis(800);
/// Packets on their way at most, so that no socket of the test overflows.
const ON_THE_WAY_MAX: u32 = 100;

fn seed() -> u64 {
    match std::env::var("WG_BOUNCE_FAULTS_SEED") {
        Ok(seed) => seed.parse().expect("WG_BOUNCE_FAULTS_SEED is a number"),
        Err(_) => clock::uptime().as_nanos() as u64,
    }
}

/// All that the kernel may answer and a worker survives.
fn faults(io: IoChoice) -> Vec<Fault> {
    use libc::{
        EACCES, EAGAIN, EBUSY, ECANCELED, ECONNREFUSED, EHOSTUNREACH, EINTR, EINVAL, EIO, EMSGSIZE,
        ENETDOWN, ENETUNREACH, ENOBUFS, ENOMEM, EPERM, EPIPE,
    };
    let (wait, read): (&[i32], &[i32]) = match io {
        IoChoice::Mmsg => (&[EINTR], &[EAGAIN, EINTR, EIO, ENOMEM, EINVAL]),
        _ => (&[EINTR, EAGAIN, EBUSY], &[EAGAIN, EINTR, EIO, ENOMEM, EINVAL, ENOBUFS, ECANCELED]),
    };
    let of_both = [
        EAGAIN,
        EINTR,
        ENOBUFS,
        ENOMEM,
        ECONNREFUSED,
        EHOSTUNREACH,
        ENETUNREACH,
        ENETDOWN,
        EMSGSIZE,
        EIO,
    ];
    let receive = [&of_both[..], &[ECANCELED]].concat();
    let send = [&of_both[..], &[EINVAL, EPERM, EACCES, EPIPE]].concat();
    let write = [EAGAIN, EINTR, ENOBUFS, ENOMEM, EIO, EINVAL];
    [
        (Call::Wait, wait),
        (Call::Receive, &receive),
        (Call::Send, &send),
        (Call::TunRead, read),
        (Call::TunWrite, &write),
        (Call::Poll, &[ENOMEM, ECANCELED]),
    ]
    .map(|(call, errnos)| Fault { call, errnos: errnos.to_vec(), per_mille: 100, count: u32::MAX })
    .into()
}

/// Injects faults at random into some traffic, and checks that all is well afterwards.
fn run(io: IoChoice, mut traffic: Traffic, faults: &[Fault]) {
    let seed = seed();
    println!("{io:?}: WG_BOUNCE_FAULTS_SEED={seed}");
    traffic.works();
    let injection = Injection::start(seed, faults);
    let until = clock::uptime() + DURATION;
    let mut bursts = 0;
    while clock::uptime() < until {
        traffic.burst();
        traffic.settle(ON_THE_WAY_MAX);
        bursts += 1;
        if bursts % 50 == 0 {
            traffic.forget_paths();
        }
    }
    let injected = injection.injected();
    drop(injection);
    traffic.works();
    println!("{bursts} bursts; injected {injected:?}; {:?}", traffic.drops());
    assert!(injected.values().sum::<u64>() > 100);
    traffic.stop();
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn every_packet_arrives_or_is_counted() {
    on_both_backends(|io| run(io, Traffic::with_interface(io), &faults(io)));
}

#[test]
fn every_relayed_packet_arrives_or_is_counted() {
    let _turn = alone();
    for io in [IoChoice::Auto, IoChoice::Mmsg] {
        run(io, Traffic::without_interface(io), &faults(io));
    }
}

/// A ring in a kernel without READ_MULTISHOT, which polls the TUN; and requests that fail before
/// there is any traffic.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_ring_that_polls_the_tun_loses_nothing_either() {
    on_both_backends(|io| {
        if io == IoChoice::Mmsg {
            return;
        }
        let fault = |call, errno| Fault { call, errnos: vec![errno], per_mille: 1000, count: 4 };
        let first = [
            Fault { count: WORKERS as u32, ..fault(Call::TunArm, libc::EINVAL) },
            fault(Call::Poll, libc::ENOMEM),
            fault(Call::Receive, libc::ENOMEM),
        ];
        let injection = Injection::start(0, &first);
        let mut traffic = Traffic::with_interface(io);
        traffic.works();
        assert_eq!(injection.injected()[&(Call::TunArm, libc::EINVAL)], WORKERS as u64);
        drop(injection);
        // The errors of read(2), with those of a ring otherwise.
        let of_read =
            faults(IoChoice::Mmsg).into_iter().filter(|fault| fault.call == Call::TunRead);
        let others = faults(io).into_iter().filter(|fault| fault.call != Call::TunRead);
        run(io, traffic, &of_read.chain(others).collect::<Vec<_>>());
    });
}
