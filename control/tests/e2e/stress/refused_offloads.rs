//! Segmentation offloads that the kernel refuses for a moment are tried again a minute later.

use crate::harness::{
    Backend, Family, HUB, Iperf, IperfServer, Options, Relay, eventually, seconds,
};

/// The daemon's pause after a refusal is 60 s (`TUN_GSO_REPROBE_AFTER`, `GSO_REPROBE_AFTER`).
const PAUSE_SECONDS: u64 = 60;

/// Packets per frame written to the TUN, and per train sent, during a second of TCP both ways.
fn packets_at_once(relay: &Relay) -> [f64; 2] {
    let pairs = [["tun_packets_written", "tun_frames_written"], ["sent_datagrams", "sent_trains"]];
    let count = || pairs.map(|pair| pair.map(|name| relay.hub.counter(name)));
    let before = count();
    Iperf::run(&relay.alice.namespace, HUB.inner(Family::V4), "--time 1 --bidir");
    let after = count();
    [0, 1].map(|at| {
        let [packets, units] = [0, 1].map(|side| after[at][side] - before[at][side]);
        packets as f64 / units as f64
    })
}

/// The backend whose writes are system calls, so that strace can make them fail; what follows a
/// refusal is the same code for both.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn refused_offloads_are_tried_again() {
    let relay = Relay::connected(&Options::new(Backend::Mmsg));
    let _server = IperfServer::start(&relay.lab, &relay.hub.namespace);
    let usual = packets_at_once(&relay);
    assert!(usual.iter().all(|&count| count > 1.5), "{usual:?} packets at once");

    // Every third call fails, so that TCP gets through.
    let inject = "-e inject=writev:error=EINVAL:when=1+3 -e inject=sendmmsg:error=EIO:when=1+3";
    let pid = relay.hub.pid();
    let line = format!("strace -f -qq -o /dev/null -p {pid} -e trace=writev,sendmmsg {inject}");
    let refusals = relay.hub.namespace.spawn(&relay.lab, &line);
    eventually(seconds(10), "super-packets and trains are refused", || {
        packets_at_once(&relay);
        relay.hub.log().contains("kernel rejected a GSO write to the TUN")
            && relay.hub.counter("gso_demotions") > 0
    });
    drop(refusals);
    let plain = packets_at_once(&relay);
    assert!(plain.iter().all(|&count| count < 1.1), "{plain:?} packets at once");

    std::thread::sleep(seconds(PAUSE_SECONDS));
    let again = packets_at_once(&relay);
    println!("packets at once: {usual:.1?}, {plain:.1?} after a refusal, then {again:.1?}");
    assert!(again.iter().all(|&count| count > 1.5), "{again:?} packets at once");
}
