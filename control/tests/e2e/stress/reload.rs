//! A large configuration file that is reloaded, shown and measured while packets flow.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::duration;
use crate::harness::{
    Backend, Iperf, IperfServer, KeyPair, Lab, now, ping_until_answered, seconds,
};
use crate::up::hub::Hub;

/// Peers in the file.
const PEERS: usize = 10_000;

/// The bounds of issue and README: one change, and one scrape.
const RELOAD_MAX: Duration = Duration::from_millis(200);
const SCRAPE_MAX: Duration = Duration::from_millis(100);

fn timed(times: &mut Vec<Duration>, work: impl FnOnce()) {
    let start = now();
    work();
    times.push(start.elapsed());
}

/// One peer of 10,000 changes again and again. A flow at about half of the rate that the path has
/// loses no packet; a reload and a scrape of the metrics are fast.
fn a_large_file_is_reloaded(backend: Backend) {
    let lab = Lab::new();
    let set = Hub::new(&lab, backend);
    let (hub, [alice, bob]) = (&set.hub, &set.clients);
    let mut others = String::new();
    for number in 0..PEERS - 2 {
        let (third, fourth) = (number >> 8, number & 255);
        let key = KeyPair::new().public();
        writeln!(
            others,
            "[Peer]\n# Name = peer{number}\nPublicKey = {key}\n\
             AllowedIPs = 10.80.{third}.{fourth}/32"
        )
        .expect("a string grows");
    }
    let text = set.file("# wg-bounce: metrics = :9586\n") + &others;
    hub.write(&text);
    let _processes = [hub.up(), alice.up(), bob.up()];
    ping_until_answered(&alice.namespace, "10.77.0.3");
    let _server = IperfServer::start(&lab, &bob.namespace);
    let run = |options: &str| Iperf::run(&alice.namespace, "10.77.0.3", options);
    // Without losses, as this machine is now.
    let most = run("--udp --bitrate 0 --length 1300 --time 2").bytes_per_second();
    let rate = (most * 8.0 / 2.0) as u64;
    let time = duration().max(seconds(5)).as_secs();
    let options = format!(
        "--udp --bitrate {rate} --length 1300 --window 8M --time {time} --get-server-output"
    );
    let flow = Iperf::spawn(&lab, &alice.namespace, "10.77.0.3", &options);
    let (mut reloads, mut scrapes) = (Vec::new(), Vec::new());
    let start = now();
    let mut number = 0;
    while start.elapsed() < Duration::from_secs(time) - Duration::from_secs(1) {
        number += 1;
        hub.write(&text.replacen(
            "10.80.0.7/32",
            &format!("10.80.0.7/32, 10.90.{}.0/24", number % 250),
            1,
        ));
        timed(&mut reloads, || drop(hub.run("reload")));
        timed(&mut scrapes, || {
            let connect = || TcpStream::connect("127.0.0.1:9586");
            let mut stream = hub.namespace.enter(connect).expect("the daemon serves metrics");
            stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").expect("it reads");
            let mut metrics = Vec::new();
            stream.read_to_end(&mut metrics).expect("it closes the connection");
            assert!(metrics.ends_with(b"# EOF\n"));
        });
    }
    let report = Iperf::finish(flow);
    reloads.sort();
    scrapes.sort();
    let median = |times: &[Duration]| times[times.len() / 2];
    println!(
        "{}: {} reloads, median {:.0?} (at most {:.0?}); scrapes, median {:.0?} (at most {:.0?}); \
         {} lost of a flow at {} Mbit/s",
        backend.name(),
        reloads.len(),
        median(&reloads),
        reloads[reloads.len() - 1],
        median(&scrapes),
        scrapes[scrapes.len() - 1],
        report.lost(),
        rate / 1_000_000,
    );
    assert_eq!(report.lost(), 0);
    assert!(median(&reloads) < RELOAD_MAX && median(&scrapes) < SCRAPE_MAX);
}

on_both_backends!(a_large_file_is_reloaded);
