//! A hub with 100,000 peers that have two scattered prefixes of each family: edits, `wg show`, rest
//! and memory. `sudo scripts/stress 20 scale` prints the figures.

use std::fmt::{self, Display};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use super::duration;
use crate::harness::{
    Backend, Draft, FakePeer, HUB_PORT, RelayMode, Testbed, TestbedOptions, Uapi, eventually,
    noise, now, seconds, socket_path,
};

/// Peers that are only configured.
const PEERS: usize = 100_000;

/// Peers with a session: a quarter, so that hash tables, whose size is a power of two, are as full.
const SESSIONS: usize = PEERS / 4;

/// Pause between two packets, and between two edits.
const PACE: Duration = Duration::from_micros(500);

/// Pause between two handshakes.
const HANDSHAKE_PAUSE: Duration = Duration::from_millis(20);

/// Times that packets are sent without edits, and with them, in turns.
const ROUNDS: u32 = 5;

/// Clients that ask for the whole state and read none of it.
const STALLED: usize = 16;

/// Times, sorted.
struct Times(Vec<Duration>);

impl Times {
    fn new(mut times: Vec<Duration>) -> Times {
        times.sort();
        Times(times)
    }

    fn quantile(&self, share: f64) -> Duration {
        self.0[((self.0.len() - 1) as f64 * share) as usize]
    }
}

impl Display for Times {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} times:", self.0.len())?;
        for share in [0.5, 0.9, 0.99, 0.999, 1.0] {
            write!(out, " {} % {:?}", share * 100.0, self.quantile(share))?;
        }
        Ok(())
    }
}

/// Source of scattered keys and prefixes.
struct Scattered(Box<dyn FnMut() -> u64 + Send>);

impl Scattered {
    fn new() -> Scattered {
        Scattered(Box::new(noise()))
    }

    /// A public key in hexadecimal: any 32 bytes serve as one.
    fn key(&mut self) -> String {
        (0..4).map(|_| format!("{:016x}", (self.0)())).collect()
    }

    /// Allowed IPs of a peer: a host and a small network of each family, in ranges that the other
    /// peers do not use.
    fn allowed_ips(&mut self) -> String {
        let mut v4 = |first: u32| Ipv4Addr::from_bits(first << 28 | (self.0)() as u32 >> 4);
        let (host, network) = (v4(12), v4(13));
        let mut v6 = || Ipv6Addr::from_bits(0xfc << 120 | u128::from((self.0)()) << 56 | 1);
        let (host_v6, network_v6) = (v6(), v6());
        let v4 = format!("allowed_ip={host}/32\nallowed_ip={network}/28\n");
        v4 + &format!("allowed_ip={host_v6}/128\nallowed_ip={network_v6}/64\n")
    }

    /// `set` lines of `number` new peers.
    fn peers(&mut self, number: usize) -> String {
        let peer = |_| {
            let (key, allowed_ips) = (self.key(), self.allowed_ips());
            format!("public_key={key}\n{allowed_ips}")
        };
        (0..number).map(peer).collect()
    }
}

/// One `set`; its time.
fn set(client: &mut Uapi, lines: &str) -> Duration {
    let start = now();
    assert_eq!(client.ask(&format!("set=1\n{}", lines.trim_end())), ["errno=0"]);
    start.elapsed()
}

/// A hub with alice, bob and [`PEERS`] more.
fn crowded(backend: Backend) -> Testbed {
    let testbed = Testbed::new(&TestbedOptions::new(backend, RelayMode::Direct));
    let before = testbed.hub.resident_kib();
    let mut client = Uapi::connect(&testbed.hub.interface);
    let took = set(&mut client, &Scattered::new().peers(PEERS));
    let bytes = (testbed.hub.resident_kib() - before) * 1024 / PEERS as u64;
    println!("{}: {PEERS} peers in {took:?}, {bytes} bytes resident for each", backend.name());
    assert!(bytes <= 2048, "{bytes} bytes for an idle peer");
    testbed
}

/// Packets of a paced stream from alice to bob during `work`, and the delay of each.
fn delays(testbed: &mut Testbed, work: impl FnOnce()) -> Vec<Duration> {
    let Testbed { alice, bob, .. } = testbed;
    let (start, must_stop) = (now(), AtomicBool::new(false));
    let packet = Draft::udp("10.77.0.2", "10.77.0.3", 8).build();
    std::thread::scope(|scope| {
        let arrivals = scope.spawn(|| {
            let mut delays = Vec::new();
            while let Some(packet) = bob.receive_within(Duration::from_millis(300)) {
                let sent = u64::from_be_bytes(packet[28..36].try_into().expect("eight bytes"));
                delays.push(start.elapsed() - Duration::from_nanos(sent));
            }
            delays
        });
        scope.spawn(|| {
            while !must_stop.load(Ordering::Relaxed) {
                let mut packet = packet.clone();
                let sent = start.elapsed().as_nanos() as u64;
                packet[28..36].copy_from_slice(&sent.to_be_bytes());
                alice.send(&packet);
                sleep(PACE);
            }
        });
        work();
        must_stop.store(true, Ordering::Relaxed);
        arrivals.join().expect("no panic")
    })
}

/// Packets that passed while the workers used CPU time.
#[derive(Default)]
struct Passed {
    delays: Vec<Duration>,
    cpu: Duration,
}

impl Passed {
    /// Adds the packets that pass during `work`.
    fn add(&mut self, testbed: &mut Testbed, work: impl FnOnce()) {
        let before = testbed.hub.cpu_time_of("worker-");
        self.delays.extend(delays(testbed, work));
        self.cpu += testbed.hub.cpu_time_of("worker-") - before;
    }

    /// CPU time of the workers for each packet (seconds).
    fn cost(&self) -> f64 {
        self.cpu.as_secs_f64() / self.delays.len() as f64
    }
}

/// Single peers come, change and go among 100,000, while packets pass.
fn edits_do_not_stall_packets(backend: Backend) {
    let mut testbed = crowded(backend);
    let mut client = Uapi::connect(&testbed.hub.interface);
    let mut scattered = Scattered::new();
    let (mut added, mut changed, mut removed) = (vec![], vec![], vec![]);
    let (mut quiet, mut edited) = (Passed::default(), Passed::default());
    // In turns, as other processes take the CPUs from time to time.
    for _ in 0..ROUNDS {
        let round = duration() / (2 * ROUNDS);
        quiet.add(&mut testbed, || sleep(round));
        edited.add(&mut testbed, || {
            let start = now();
            while start.elapsed() < round {
                let key = scattered.key();
                let mut peer = |with: &str| {
                    sleep(PACE);
                    set(&mut client, &format!("public_key={key}\n{with}"))
                };
                added.push(peer(&scattered.allowed_ips()));
                let others = format!("replace_allowed_ips=true\n{}", scattered.allowed_ips());
                changed.push(peer(&others));
                removed.push(peer("remove=true"));
            }
        });
    }
    let edits = [&added, &changed, &removed].map(Vec::len).iter().sum::<usize>();
    let difference = (edited.cost() - quiet.cost()).max(0.0) * edited.delays.len() as f64;
    let worker = Duration::from_secs_f64(difference / edits as f64);
    let [quiet, edited, added, changed, removed] =
        [quiet.delays, edited.delays, added, changed, removed].map(Times::new);
    println!("{}: added {added}\nchanged {changed}\nremoved {removed}", backend.name());
    println!("delay of packets: without edits {quiet}\nwith edits {edited}");
    println!("CPU time of the workers for each of {edits} edits: {worker:?}");
    assert!(worker < Duration::from_micros(100), "{worker:?} of the workers for an edit");
    for times in [&added, &changed, &removed] {
        assert!(times.quantile(0.5) < Duration::from_millis(1), "{times}");
    }
    let stalled = edited.quantile(0.9).saturating_sub(quiet.quantile(0.9));
    assert!(stalled < Duration::from_micros(100), "{stalled:?} later in nine of ten cases");
}

/// Clients that ask for all peers and stop reading hold nothing up, and take little memory.
fn readers_hold_nothing_up(backend: Backend) {
    let mut testbed = crowded(backend);
    let Testbed { hub, alice, .. } = &mut testbed;
    let mut client = Uapi::connect(&hub.interface);
    let mut scattered = Scattered::new();
    let mut others = |limit: Duration| {
        let (start, mut edits, mut handshakes) = (now(), vec![], vec![]);
        while start.elapsed() < limit {
            let key = scattered.key();
            let added = format!("public_key={key}\n{}", scattered.allowed_ips());
            edits.push(set(&mut client, &added));
            edits.push(set(&mut client, &format!("public_key={key}\nremove=true")));
            let before = now();
            assert!(alice.connects_within(seconds(5)), "no answer to an initiation");
            handshakes.push(before.elapsed());
            sleep(HANDSHAKE_PAUSE);
        }
        [edits, handshakes].map(Times::new)
    };
    let before = hub.resident_kib();
    let stalled = [(); STALLED].map(|()| {
        let path = socket_path(&hub.interface);
        let mut client = UnixStream::connect(path).expect("the daemon listens");
        client.write_all(b"get=1\n\n").expect("the daemon reads");
        // The reply has begun; the rest waits for room.
        client.read_exact(&mut [0; 64]).expect("a reply");
        client
    });
    let [edits, handshakes] = others(duration() / 2);
    let grown = hub.resident_kib().saturating_sub(before) / STALLED as u64;
    println!("{}: {STALLED} clients that do not read take {grown} KiB each", backend.name());
    println!("meanwhile: edits {edits}\nhandshakes {handshakes}");
    drop(stalled);
    let reading = AtomicBool::new(true);
    let (shows, [edits, handshakes]) = std::thread::scope(|scope| {
        let shows = scope.spawn(|| {
            let mut shows = vec![];
            while reading.load(Ordering::Relaxed) {
                let start = now();
                let peers = hub.show("peers").lines().count();
                shows.push(start.elapsed());
                assert!((PEERS + 4..=PEERS + 5).contains(&peers), "{peers} peers");
            }
            Times::new(shows)
        });
        let others = others(duration() / 2);
        reading.store(false, Ordering::Relaxed);
        (shows.join().expect("no panic"), others)
    });
    println!("`wg show` {shows}\nmeanwhile: edits {edits}\nhandshakes {handshakes}");
    assert!(grown < 1024, "{grown} KiB for a client that does not read");
    assert!(edits.quantile(0.5) < Duration::from_millis(5), "{edits}");
    assert!(handshakes.quantile(0.5) < Duration::from_millis(5), "{handshakes}");
}

/// Peers that have nothing to say cost nothing. With persistent keepalive, each tries to shake
/// hands again and again, also without an endpoint; that has no bound here.
fn rest_costs_nothing(backend: Backend) {
    let testbed = crowded(backend);
    let hub = &testbed.hub;
    eventually(seconds(60), "the DH of static keys is computed ahead", || {
        let before = hub.cpu_time();
        sleep(seconds(1));
        // The threads of clients that have left no longer count.
        hub.cpu_time().abs_diff(before) < Duration::from_millis(5)
    });
    let share = || {
        let (start, before) = (now(), hub.cpu_time());
        sleep(duration());
        hub.cpu_time().saturating_sub(before).as_secs_f64() / start.elapsed().as_secs_f64()
    };
    let at_rest = share();
    println!("{}: {:.3} % of a core at rest", backend.name(), at_rest * 100.0);
    let peer = |key| format!("[Peer]\nPublicKey = {key}\nPersistentKeepalive = 25\n");
    hub.configure("addconf", &hub.show("peers").lines().map(peer).collect::<String>());
    println!("with persistent keepalive {:.1} %", share() * 100.0);
    assert!(at_rest < 0.005, "{at_rest} of a core");
}

/// Memory with a session for each peer.
fn sessions_take_little_memory(backend: Backend) {
    let testbed = Testbed::new(&TestbedOptions::new(backend, RelayMode::Direct));
    let (mut client, mut scattered) = (Uapi::connect(&testbed.hub.interface), Scattered::new());
    let hub = format!("192.0.2.1:{HUB_PORT}").parse().expect("an endpoint");
    let before = testbed.hub.resident_kib();
    for _ in 0..SESSIONS {
        let mut peer = FakePeer::new(&testbed.outside, "192.0.2.2:0", hub, &testbed.hub.key);
        let key = peer.key.public_hex();
        set(&mut client, &format!("public_key={key}\n{}", scattered.allowed_ips()));
        peer.connect();
    }
    let bytes = (testbed.hub.resident_kib() - before) * 1024 / SESSIONS as u64;
    println!("{}: {bytes} bytes for each of {SESSIONS} peers with a session", backend.name());
    assert!(bytes <= 4096, "{bytes} bytes");
}

on_both_backends!(
    edits_do_not_stall_packets,
    readers_hold_nothing_up,
    rest_costs_nothing,
    sessions_take_little_memory,
);
