//! Errors that last: workers do not spin, and go on when the errors are over.

use std::time::Duration;

use wg_bounce_dataplane::engine::IoChoice;
use wg_bounce_sys::clock;
use wg_bounce_sys::faults::{Call, Fault, Injection};

use crate::support::on_both_backends;
use crate::traffic::{Traffic, cpu_time};

/// Duration of each error.
const DURATION: Duration = Duration::from_millis(150);
/// Time between bursts of packets.
const INTERVAL: Duration = Duration::from_millis(20);
/// Part of one CPU that all workers together may use meanwhile.
const CPU_MAX: f64 = 0.2;
/// Part of one CPU that they may use when nothing happens.
const CPU_IDLE_MAX: f64 = 0.05;

const CASES: &[(Call, i32)] = &[
    (Call::Wait, libc::EINTR),
    (Call::Wait, libc::EAGAIN), // of io_uring_enter(2) alone
    (Call::Receive, libc::ENOMEM),
    (Call::Receive, libc::ENOBUFS),
    (Call::Send, libc::EAGAIN),
    (Call::Send, libc::ENOBUFS),
    (Call::Send, libc::EMSGSIZE),
    (Call::TunRead, libc::EIO),
    (Call::TunRead, libc::ENOMEM),
    (Call::TunRead, libc::EINVAL),
    (Call::TunWrite, libc::EIO),
    (Call::TunWrite, libc::EINVAL),
];

/// The part of one CPU that the workers use while `body` runs.
fn load(body: impl FnOnce()) -> f64 {
    let (cpu, since) = (cpu_time(), clock::uptime());
    body();
    (cpu_time() - cpu).as_secs_f64() / (clock::uptime() - since).as_secs_f64()
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn an_error_that_lasts_neither_occupies_a_cpu_nor_stops_a_worker() {
    on_both_backends(|io| {
        for &(call, errno) in CASES {
            if (call, errno, io) == (Call::Wait, libc::EAGAIN, IoChoice::Mmsg) {
                continue;
            }
            let mut traffic = Traffic::with_interface(io);
            traffic.works();
            let fault = Fault { call, errnos: vec![errno], per_mille: 1000, count: u32::MAX };
            let injection = Injection::start(0, &[fault]);
            let busy = load(|| {
                let until = clock::uptime() + DURATION;
                while clock::uptime() < until {
                    traffic.burst();
                    std::thread::sleep(INTERVAL);
                    let _left = traffic.on_the_way();
                }
            });
            let injected = injection.injected();
            drop(injection);
            traffic.works();
            let idle = load(|| std::thread::sleep(DURATION / 2));
            println!("{io:?}: {call:?} {errno}: {busy:.3}, idle {idle:.3} CPUs; {injected:?}");
            assert!(!injected.is_empty());
            assert!(busy < CPU_MAX, "{call:?} {errno}: {busy} CPUs");
            assert!(idle < CPU_IDLE_MAX, "{call:?} {errno}: {idle} CPUs when idle");
            traffic.stop();
        }
    });
}
