//! Throughput while the routes around the UDP sockets change a thousand times a second.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::duration;
use crate::harness::{
    ALICE, Backend, Family, Iperf, IperfServer, Namespace, Options, Relay, seconds,
};

/// Changes per batch of `ip`, and the pause after each.
const CHANGES: usize = 100;
const PAUSE_MILLIS: u64 = 100;

/// The source address of each packet's way is checked again after changes; that costs less than
/// 5 % of the throughput. The program that makes the changes takes its share of the CPUs, so the
/// same changes in a namespace that does not concern the daemon are what it is compared with.
fn route_changes_cost_little(backend: Backend) {
    let relay = Relay::connected(&Options::new(backend));
    let (hub, alice) = (&relay.hub, &relay.alice);
    let _server = IperfServer::start(&relay.lab, &alice.namespace);
    let elsewhere = relay.lab.namespace("elsewhere");
    let beyond = relay.lab.namespace("beyond");
    relay.lab.link((&elsewhere, "alice"), (&beyond, "out"), 1500);
    let network = ALICE.outer(Family::V4).rsplit_once('.').expect("an IPv4 address").0;
    elsewhere.run(&format!("ip address add {network}.254/24 dev alice"));
    let batch = relay.lab.file("routes");
    let changes = (0..CHANGES / 2).map(|number| {
        let route = format!("198.18.{number}.0/24 via {} dev alice", ALICE.outer(Family::V4));
        format!("route add {route}\nroute del {route}\n")
    });
    fs::write(&batch, changes.collect::<String>()).expect("the lab's directory is writable");
    let line = format!("ip -batch {}", batch.display());
    // Many short rounds: from one connection to the next the rate differs by a third.
    let rounds = (duration().as_secs() / 3).max(1);

    let churned = Mutex::new(None);
    let must_stop = AtomicBool::new(false);
    let done = AtomicU64::new(0);
    let (mut without, mut beside) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !must_stop.load(Ordering::Relaxed) {
                let namespace: Option<&Namespace> = *churned.lock().expect("no panic");
                if let Some(namespace) = namespace {
                    namespace.run(&line);
                    done.fetch_add(CHANGES as u64, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(PAUSE_MILLIS));
            }
        });
        for _ in 0..rounds {
            let rate = [None, Some(&elsewhere), Some(&hub.namespace)].map(|namespace| {
                *churned.lock().expect("no panic") = namespace;
                let report = Iperf::run(&hub.namespace, ALICE.inner(Family::V4), "--time 1");
                report.bytes_per_second()
            });
            without.push(rate[2] / rate[0]);
            beside.push(rate[2] / rate[1]);
        }
        must_stop.store(true, Ordering::Relaxed);
    });
    let changes = done.load(Ordering::Relaxed);
    let (without, beside) = (median(without), median(beside));
    println!(
        "{changes} changes in 2 x {rounds} s: {:.1} % of the rate while another namespace \
         changes, {:.1} % of the rate without changes",
        100.0 * beside,
        100.0 * without,
    );
    assert!(changes > 0);
    // The run of three seconds only shows that traffic goes on; the figure needs a longer one.
    let least = if duration() > seconds(20) { 0.95 } else { 0.5 };
    assert!(beside > least, "{beside:.3} of the rate while another namespace changes");
    assert!(hub.of_peer("endpoints", &alice.key).starts_with(ALICE.outer(Family::V4)));
}

fn median(mut ratios: Vec<f64>) -> f64 {
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

on_both_backends!(route_changes_cost_little);
