//! Many peers: absent ones that all get traffic, and configurations that change all the time.

use std::fmt::Write;
use std::time::Duration;

use super::duration;
use crate::harness::{
    ALICE, BOB, Backend, Counter, Daemon, Family, KeyPair, Lab, Options, Program, Relay, Uapi, now,
    ping, seconds,
};

/// Peers that do not answer.
const ABSENT: usize = 5000;

/// `set` requests in a row, at most.
const SETS: usize = 20_000;

/// Every absent peer gets a packet a second, so each is tried again and again.
fn absent_peers_that_get_traffic(backend: Backend) {
    let lab = Lab::new();
    let (namespace, outside) = (lab.namespace("hub"), lab.namespace("outside"));
    lab.link((&namespace, "outside"), (&outside, "out0"), 1500);
    namespace.run("ip address add 192.0.2.1/24 dev outside");
    outside.run("ip address add 192.0.2.2/24 dev out0");
    // No ICMP errors: the peers are absent, not refusing.
    let _silence = Counter::acting(&outside, "input", "udp dport 1-65535", "drop");
    let hub = Daemon::start_with(
        &lab,
        &namespace,
        "hub",
        Program::Ours(backend),
        &[("LOG_LEVEL", "info")],
    );
    let mut config =
        format!("[Interface]\nPrivateKey = {}\nListenPort = 51820\n", hub.key.private());
    for number in 0..ABSENT {
        let key = KeyPair::new().public();
        let (third, fourth) = (number / 250, number % 250 + 1);
        let port = 10_000 + number;
        write!(
            config,
            "[Peer]\nPublicKey = {key}\nAllowedIPs = 10.80.{third}.{fourth}/32\n\
             Endpoint = 192.0.2.2:{port}\n"
        )
        .expect("a string grows");
    }
    hub.configure("setconf", &config);
    hub.bring_up(1420, &["10.80.255.1/16"]);
    let socket = namespace.udp_socket("0.0.0.0:0");
    let mut threads = crate::harness::Threads::default();
    let mut next = 0;
    threads.repeat(move || {
        for _ in 0..ABSENT / 100 {
            next = (next + 1) % ABSENT;
            let address = ([10, 80, (next / 250) as u8, (next % 250 + 1) as u8], 9);
            // A full queue drops packets.
            let _ = socket.send_to(b"data", std::net::SocketAddr::from(address));
        }
        std::thread::sleep(Duration::from_millis(10));
    });
    // The first attempts come all at once.
    std::thread::sleep(seconds(7));
    let (start, ticks) = (now(), hub.control_ticks());
    let mut shows = Vec::new();
    while start.elapsed() < duration().max(seconds(5)) {
        let before = now();
        let text = hub.namespace.run(&format!("wg show {} endpoints", hub.interface));
        shows.push(before.elapsed());
        assert_eq!(text.lines().count(), ABSENT);
        std::thread::sleep(Duration::from_millis(500));
    }
    let share = (hub.control_ticks() - ticks) as f64 / 100.0 / start.elapsed().as_secs_f64();
    shows.sort();
    // The machine may be busy with something else for half of the time.
    let show = shows[shows.len() / 4];
    println!(
        "control: {:.1} % of a core; wg show: {show:?} (longest {:?})",
        share * 100.0,
        shows.last()
    );
    assert!(share < 0.3, "control used {share:.2} of a core");
    assert!(show < Duration::from_millis(100), "wg show took {show:?}");
}

/// Single changes of single peers, each of which is published to the workers before it is
/// answered: the last ones take no longer than the first, and no session is lost.
fn single_sets_in_a_row(backend: Backend) {
    let relay = Relay::connected(&Options::new(backend));
    let mut client = Uapi::connect(&relay.hub.interface);
    let sessions = relay.hub.handshake_with(&relay.alice.key);
    let (start, mut times) = (now(), Vec::new());
    for number in 0..SETS {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&(number as u64 + 1).to_le_bytes());
        key[8] = 9;
        let (third, fourth) = (number / 250, number % 250);
        let text = format!(
            "set=1\npublic_key={}\nallowed_ip=10.{}.{}.{fourth}/32\n\
             persistent_keepalive_interval=0",
            crate::harness::hex(&key),
            100 + third / 250,
            third % 250,
        );
        let before = now();
        assert_eq!(client.ask(&text), ["errno=0"]);
        times.push(before.elapsed());
        if start.elapsed() > duration() {
            break;
        }
    }
    let tenth = times.len() / 10;
    let sum = |part: &[Duration]| part.iter().sum::<Duration>();
    let (first, last) = (sum(&times[..tenth]), sum(&times[times.len() - tenth..]));
    println!(
        "{} sets in {:?}; the first tenth {first:?}, the last {last:?}; {} KiB",
        times.len(),
        start.elapsed(),
        relay.hub.resident_kib()
    );
    assert!(last < 3 * first + seconds(1), "sets slow down: {first:?}, then {last:?}");
    assert_eq!(ping(&relay.alice.namespace, BOB.inner(Family::V4), "-c 20 -i 0.02"), (20, 20));
    assert_eq!(relay.hub.handshake_with(&relay.alice.key), sessions, "the session is the same");
}

/// The whole configuration is replaced every second, with traffic in both directions.
fn setconf_every_second_loses_nothing(backend: Backend) {
    let options = Options::new(backend);
    let relay = Relay::connected(&options);
    let count = duration().as_secs() * 200;
    let line = format!("-c {count} -i 0.005 -W 2");
    let text = relay.hub_config(&options);
    std::thread::scope(|scope| {
        let (alice, bob) = (&relay.alice.namespace, &relay.bob.namespace);
        let from_alice = scope.spawn(|| ping(alice, BOB.inner(Family::V4), &line));
        let from_bob = scope.spawn(|| ping(bob, ALICE.inner(Family::V6), &line));
        while !(from_alice.is_finished() && from_bob.is_finished()) {
            relay.hub.configure("setconf", &text);
            std::thread::sleep(seconds(1));
        }
        assert_eq!(from_alice.join().expect("no panic"), (count, count), "from alice to bob");
        assert_eq!(from_bob.join().expect("no panic"), (count, count), "from bob to alice");
    });
}

on_both_backends!(
    absent_peers_that_get_traffic,
    single_sets_in_a_row,
    setconf_every_second_loses_nothing,
);
