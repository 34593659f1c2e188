//! Handshakes that someone tries to disturb without a key, and the lines of the log about those
//! that are refused.

use std::net::SocketAddr;
use std::time::Duration;

use crate::harness::{
    Backend, Counter, FakePeer, Flood, Forgery, HUB_PORT, KeyPair, RelayMode, Testbed,
    TestbedOptions, Uapi, endpoint, eventually, forged_responses, now, seconds, within,
};

/// Forged responses per second during which the control thread's time is measured.
const FORGED_RATE: u64 = 5500;
/// Forged responses per second among which the true one must be found.
const FLOOD_RATE: u64 = 4 * FORGED_RATE;

/// Responses aimed at one pending index: the true one still counts, other peers do not notice, and
/// the control thread does not spend its time on them.
fn forged_responses_for_a_pending_index(backend: Backend) {
    let mut testbed = Testbed::new(&TestbedOptions::new(backend, RelayMode::Kernel));
    // Two ways to send them: from the address of the peer, or from many that are not the sender's.
    let sources = match backend {
        Backend::Uring => vec!["192.0.2.2:0".to_owned()],
        Backend::Mmsg => {
            testbed.outside.run("ip route add local 203.0.113.0/24 dev lo");
            (1..=200).map(|host| format!("203.0.113.{host}:0")).collect()
        }
    };
    let hub = &testbed.hub;
    hub.namespace.attempt("ping -c 1 -W 0.1 10.77.0.5");
    let initiation = testbed.dave.initiation();
    let index = initiation[4..8].try_into().expect("four bytes");
    let forge = forged_responses(&hub.key, index);
    let target = endpoint("192.0.2.1", HUB_PORT);
    let flood = Flood::paced(&testbed.outside, &sources, target, FLOOD_RATE, forge);
    eventually(seconds(3), "the flood is under way", || flood.sent() > 5000);

    let start = now();
    testbed.dave.respond(&initiation);
    let others = testbed.alice.connects_within(seconds(2));
    let is_done = within(seconds(2), || hub.handshake_with(&testbed.dave.key) > 0);
    assert!(others, "another peer's handshake ends");
    assert!(is_done && start.elapsed() < seconds(2), "the true response: {:?}", start.elapsed());

    // The session has taken the index. Another one is pending for carol, and stays so.
    let carol = FakePeer::new(&testbed.outside, "192.0.2.2:0", target, &hub.key);
    drop(flood);
    let share = share_of_control(&testbed, carol, &sources);
    println!("control used {share:.2} of a core");
    assert!(share < 0.5, "control used {share:.2} of a core");
}

/// The share of a core that the control thread uses during a flood at an index that stays pending.
fn share_of_control(testbed: &Testbed, mut peer: FakePeer, sources: &[String]) -> f64 {
    let hub = &testbed.hub;
    let (key, address) = (peer.key.public(), peer.endpoint());
    hub.set(&format!("peer {key} endpoint {address} persistent-keepalive 60"));
    let index = peer.initiation()[4..8].try_into().expect("four bytes");
    let forge = forged_responses(&hub.key, index);
    let target = endpoint("192.0.2.1", HUB_PORT);
    let flood = Flood::paced(&testbed.outside, sources, target, FORGED_RATE, forge);
    eventually(seconds(2), "the flood has used up the budget", || flood.sent() > 1000);
    let (start, ticks) = (now(), hub.control_ticks());
    std::thread::sleep(seconds(2));
    let used = (hub.control_ticks() - ticks) as f64 / 100.0;
    used / start.elapsed().as_secs_f64()
}

/// Bursts of one source delay that source alone: nobody else needs a cookie.
fn bursts_of_initiations_from_one_source(backend: Backend) {
    let mut testbed = Testbed::new(&TestbedOptions::new(backend, RelayMode::Kernel));
    testbed.outside.run("ip address add 192.0.2.66/24 dev out0");
    let mut forge = Forgery::GoodMac1.maker(&testbed.hub.key, None);
    let mut message = Vec::new();
    let target = endpoint("192.0.2.1", HUB_PORT);
    // From another host, since one source is one queue.
    let bursts = Flood::bursts(&testbed.outside, "192.0.2.66:0", target, move |train| {
        for _ in 0..64 {
            forge(&mut message);
            train.extend_from_slice(&message);
        }
        (148, Duration::from_millis(300))
    });
    for round in 1..=4 {
        eventually(seconds(5), "the next burst", || bursts.sent() >= round);
        assert!(testbed.alice.connects_within(seconds(1)), "burst {round}");
    }
    assert!(!testbed.hub.log().contains("cookie reply"), "a burst is not load");
}

/// Two lines of the log that say why something does not work.
fn refusals_and_moves_are_logged_once(backend: Backend) {
    let mut testbed = Testbed::new(&TestbedOptions::new(backend, RelayMode::Kernel));
    let count = |testbed: &Testbed, text: &str| testbed.hub.log().matches(text).count();
    testbed.alice.connect();
    let refusal = "handshake refused: its timestamp is";
    assert_eq!(count(&testbed, refusal), 0);
    for _ in 0..2 {
        testbed.alice.set_clock_back(2);
        assert!(!testbed.alice.connects_within(Duration::from_millis(300)));
    }
    eventually(seconds(5), "the refusal is logged", || count(&testbed, refusal) == 1);
    testbed.alice.connect();

    let other = KeyPair::new().public();
    testbed.hub.set(&format!("peer {other} allowed-ips 10.88.0.0/16,10.99.0.0/16"));
    testbed.hub.set(&format!("peer {other} allowed-ips 10.88.0.0/16,10.99.0.0/16"));
    let moved: Vec<String> = testbed
        .hub
        .log()
        .lines()
        .filter(|line| line.contains(" moved "))
        .map(str::to_owned)
        .collect();
    assert_eq!(moved.len(), 1, "{moved:?}");
    assert!(moved[0].contains("allowed IP 10.88.0.0/16 moved here from peer"), "{moved:?}");
    assert_eq!(count(&testbed, refusal), 1);
}

/// Peers in each burst of packets, and bursts.
const BURST: usize = 1000;
const BURSTS: usize = 4;

/// Packets for a thousand peers without a session begin as many handshakes, a fifth of a second of
/// work. Requests of the control socket are answered in between.
fn requests_do_not_wait_for_a_burst_of_handshakes(backend: Backend) {
    let testbed = Testbed::new(&TestbedOptions::new(backend, RelayMode::Kernel));
    // No ICMP errors: the peers are absent, not refusing.
    let initiations = Counter::acting(&testbed.outside, "input", "udp dport 10000", "drop");
    let address = |number: usize| [10, 88, (number / 250) as u8, (number % 250) as u8 + 1];
    let config = (0..BURST * BURSTS).map(|number| {
        let (key, [a, b, c, d]) = (KeyPair::new().public(), address(number));
        format!(
            "[Peer]\nPublicKey = {key}\nAllowedIPs = {a}.{b}.{c}.{d}/32\n\
             Endpoint = 192.0.2.2:10000\n"
        )
    });
    testbed.hub.configure("addconf", &config.collect::<String>());
    // The workers may not get a CPU at once.
    let queue = format!("ip link set {} txqueuelen {}", testbed.hub.interface, 2 * BURST);
    testbed.hub.namespace.run(&queue);
    let socket = testbed.hub.namespace.udp_socket("0.0.0.0:0");
    let mut client = Uapi::connect(&testbed.hub.interface);
    let mut longest = [Duration::ZERO; BURSTS];
    for (burst, longest) in longest.iter_mut().enumerate() {
        let before = initiations.packets();
        for number in burst * BURST..(burst + 1) * BURST {
            socket
                .send_to(b"data", SocketAddr::from((address(number), 9)))
                .expect("the queue has room");
        }
        let start = now();
        let all_begun = || initiations.packets() - before >= BURST as u64;
        while start.elapsed() < Duration::from_millis(500) || !all_begun() {
            assert!(start.elapsed() < seconds(10), "{} of all", initiations.packets() - before);
            let asked = now();
            assert_eq!(client.ask("set=1"), ["errno=0"]);
            *longest = asked.elapsed().max(*longest);
        }
    }
    println!("longest waits: {longest:?}");
    // The machine may be busy with something else during some of them.
    let least = longest.into_iter().min().expect("several bursts");
    assert!(least < Duration::from_millis(100), "a request waited in each burst: {longest:?}");
}

on_both_backends!(
    forged_responses_for_a_pending_index,
    bursts_of_initiations_from_one_source,
    refusals_and_moves_are_logged_once,
    requests_do_not_wait_for_a_burst_of_handshakes,
);
