//! Throughput while the routes around the UDP sockets change a thousand times a second.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::duration;
use crate::harness::{ALICE, Backend, Family, Iperf, IperfServer, Options, Relay, seconds};

/// Changes per batch of `ip`, and the pause after each.
const CHANGES: usize = 100;
const PAUSE_MILLIS: u64 = 100;
/// Measurements with and without changes, alternating; their sums are compared.
const ROUNDS: usize = 3;

/// The source address of each packet's way is checked again after changes; that costs less than
/// 5 % of the throughput.
fn route_changes_cost_little(backend: Backend) {
    let relay = Relay::connected(&Options::new(backend));
    let (hub, alice) = (&relay.hub, &relay.alice);
    let _server = IperfServer::start(&relay.lab, &alice.namespace);
    let batch = relay.lab.file("routes");
    let changes = (0..CHANGES / 2).map(|number| {
        let route = format!("198.18.{number}.0/24 via {} dev alice", ALICE.outer(Family::V4));
        format!("route add {route}\nroute del {route}\n")
    });
    fs::write(&batch, changes.collect::<String>()).expect("the lab's directory is writable");
    let line = format!("ip -batch {}", batch.display());
    let time = duration().max(seconds(3)).as_secs() / (2 * ROUNDS as u64);
    let options = format!("--time {}", time.max(1));

    let (is_churning, must_stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let done = AtomicU64::new(0);
    let (mut quiet, mut churning) = (0.0, 0.0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !must_stop.load(Ordering::Relaxed) {
                if is_churning.load(Ordering::Relaxed) {
                    hub.namespace.run(&line);
                    done.fetch_add(CHANGES as u64, Ordering::Relaxed);
                }
                std::thread::sleep(std::time::Duration::from_millis(PAUSE_MILLIS));
            }
        });
        for _ in 0..ROUNDS {
            for (churns, sum) in [(false, &mut quiet), (true, &mut churning)] {
                is_churning.store(churns, Ordering::Relaxed);
                let report = Iperf::run(&hub.namespace, ALICE.inner(Family::V4), &options);
                *sum += report.bytes_per_second();
            }
        }
        must_stop.store(true, Ordering::Relaxed);
    });
    let (changes, share) = (done.load(Ordering::Relaxed), churning / quiet);
    println!("{changes} changes in {ROUNDS} x {options} s: {:.1} % of the rate", 100.0 * share);
    assert!(changes > 0);
    // The run of three seconds only shows that traffic goes on; the figure needs a longer one.
    let least = if duration() > seconds(20) { 0.95 } else { 0.5 };
    assert!(share > least, "{share:.3} of the rate without changes");
    assert!(hub.of_peer("endpoints", &alice.key).starts_with(ALICE.outer(Family::V4)));
}

on_both_backends!(route_changes_cost_little);
