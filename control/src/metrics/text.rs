//! A report as OpenMetrics text. Names and labels of what other exporters have are those of
//! prometheus_wireguard_exporter, so that its dashboards work.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use wg_bounce_dataplane::limits::REJECT_AFTER_TIME;

use crate::status::report::{Counters, Peer, Report, drops};

/// The media type of the text.
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The text for a report; with the peers' names as labels, if they are wanted.
pub fn render(report: Arc<Report>, has_names: bool) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Metrics { report, has_names }));
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = text::encode(&mut text, &registry);
    text
}

#[derive(Debug)]
struct Metrics {
    report: Arc<Report>,
    has_names: bool,
}

/// Names and values of labels.
type Labels<'a> = Vec<(&'static str, &'a str)>;

/// One sample of a family.
struct Sample<'a> {
    labels: Labels<'a>,
    value: u64,
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.of_interface(&mut encoder)?;
        self.of_workers(&mut encoder)?;
        self.of_peers(&mut encoder)
    }
}

impl Metrics {
    fn of_interface(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let report = &self.report;
        let labels = |more: &[(&'static str, &'static str)]| -> Labels<'_> {
            [&[("interface", report.interface.as_str())], more].concat()
        };
        let one = |value: u64| vec![Sample { labels: labels(&[]), value }];
        let up = one(u64::from(report.is_up));
        gauge(encoder, "wg_bounce_up", "Whether the interface is up", up)?;
        let count = one(report.peers.len() as u64);
        gauge(encoder, "wg_bounce_peers", "Configured peers", count)?;
        let mut about = labels(&[("version", env!("CARGO_PKG_VERSION"))]);
        about.push(("engine", &report.engine));
        about.push(("public_key", report.public_key.as_deref().unwrap_or_default()));
        let about = vec![Sample { labels: about, value: 1 }];
        gauge(encoder, "wg_bounce_build_info", "Version, I/O, AEAD and DH in use", about)?;
        let ways = [("4", report.relay.ipv4), ("6", report.relay.ipv6)].map(|(family, way)| {
            let mut labels = labels(&[("ip", family), ("mode", way.name())]);
            labels.push(("reason", &report.relay.summary));
            Sample { labels, value: 1 }
        });
        let help = "How packets between peers are forwarded, and the rule that decides it";
        gauge(encoder, "wg_bounce_relay_mode", help, ways.into())?;
        let of_handshakes = report.handshakes.iter().map(|(result, value)| {
            let mut labels = labels(&[]);
            labels.push(("result", result));
            Sample { labels, value: *value }
        });
        let help = "Handshake messages and sessions, by result";
        counter(encoder, "wg_bounce_handshakes", help, of_handshakes.collect())
    }

    fn of_workers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let report = &self.report;
        let numbers: Vec<String> = (0..report.workers.len()).map(|one| one.to_string()).collect();
        let labels = |worker: usize| -> Labels<'_> {
            vec![("interface", &report.interface), ("worker", &numbers[worker])]
        };
        for (key, name, help) in OF_WORKERS {
            let samples = report.workers.iter().enumerate().map(|(worker, counters)| Sample {
                labels: labels(worker),
                value: count(counters, key),
            });
            counter(encoder, name, help, samples.collect())?;
        }
        let waiting = report.workers.iter().enumerate().map(|(worker, counters)| Sample {
            labels: labels(worker),
            value: count(counters, "waiting_packets"),
        });
        let help = "Packets that wait for a session or for room in a socket";
        gauge(encoder, "wg_bounce_waiting_packets", help, waiting.collect())?;
        let drops = report.workers.iter().enumerate().flat_map(|(worker, counters)| {
            drops(counters).map(move |(reason, value)| (worker, reason, value))
        });
        let samples = drops.map(|(worker, reason, value)| {
            let mut labels = labels(worker);
            labels.push(("reason", reason));
            Sample { labels, value }
        });
        let help = "Packets dropped, by reason";
        counter(encoder, "wg_bounce_dropped_packets", help, samples.collect())
    }

    fn of_peers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let peers = &self.report.peers;
        let networks: Vec<String> = peers.iter().map(networks).collect();
        let labels: Vec<Labels<'_>> = peers
            .iter()
            .zip(&networks)
            .map(|(peer, networks)| self.labels(peer, networks))
            .collect();
        let each = |value: &dyn Fn(&Peer) -> u64| {
            let samples = peers.iter().zip(&labels);
            let samples =
                samples.map(|(peer, labels)| Sample { labels: labels.clone(), value: value(peer) });
            samples.collect::<Vec<_>>()
        };
        let help = "Bytes sent to the peer";
        counter(encoder, "wireguard_sent_bytes", help, each(&|peer| peer.sent))?;
        let help = "Bytes received from the peer";
        counter(encoder, "wireguard_received_bytes", help, each(&|peer| peer.received))?;
        let help = "Time of the last handshake (seconds since 1970), 0 if there was none";
        let handshake = each(&|peer| peer.latest_handshake);
        gauge(encoder, "wireguard_latest_handshake_seconds", help, handshake)?;
        let alive = Duration::from_millis(REJECT_AFTER_TIME.0).as_secs_f64();
        let is_up = |peer: &Peer| self.report.time - peer.latest_handshake as f64 <= alive;
        let help = "Whether the last handshake is recent enough for a session";
        let up = each(&|peer| u64::from(is_up(peer)));
        gauge(encoder, "wireguard_peer_up", help, up)?;
        for (key, name, help) in OF_PEERS {
            let mut samples = each(&|peer| count(&peer.counters, key));
            // Most peers of a large hub are idle.
            samples.retain(|sample| sample.value > 0);
            counter(encoder, name, help, samples)?;
        }
        let drops = peers.iter().zip(&labels).flat_map(|(peer, labels)| {
            drops(&peer.counters).map(move |(reason, value)| {
                let labels = [labels.as_slice(), &[("reason", reason)]].concat();
                Sample { labels, value }
            })
        });
        let help = "Packets from or to the peer that were dropped, by reason";
        counter(encoder, "wg_bounce_peer_dropped_packets", help, drops.collect())
    }

    fn labels<'a>(&'a self, peer: &'a Peer, networks: &'a str) -> Labels<'a> {
        let mut labels = vec![
            ("interface", self.report.interface.as_str()),
            ("public_key", &peer.public_key),
            ("allowed_ips", networks),
        ];
        let name = peer.name.as_deref().filter(|_| self.has_names);
        labels.extend(name.map(|name| ("friendly_name", name)));
        labels
    }
}

/// Counters of workers: their names in reports and in metrics, and what they count.
const OF_WORKERS: [(&str, &str, &str); 18] = [
    ("relayed", "wg_bounce_relayed_packets", "Packets from peer to peer past the interface"),
    ("relayed_bytes", "wg_bounce_relayed_bytes", "Their bytes"),
    ("received_trains", "wg_bounce_received_trains", "Trains of datagrams received"),
    ("received_datagrams", "wg_bounce_received_datagrams", "Datagrams received"),
    ("handshake_messages", "wg_bounce_handshake_messages", "Datagrams passed to control"),
    ("received_keepalives", "wg_bounce_received_keepalives", "Keepalives received"),
    ("sent_trains", "wg_bounce_sent_trains", "Trains of datagrams sent"),
    ("sent_datagrams", "wg_bounce_sent_datagrams", "Datagrams sent"),
    ("tun_frames_read", "wg_bounce_tun_frames_read", "Reads of the interface"),
    ("tun_packets_read", "wg_bounce_tun_packets_read", "Packets in those reads"),
    ("tun_frames_written", "wg_bounce_tun_frames_written", "Writes to the interface"),
    ("tun_packets_written", "wg_bounce_tun_packets_written", "Packets in those writes"),
    ("generated_packets", "wg_bounce_generated_packets", "Keepalives and ICMP errors made"),
    ("held_trains", "wg_bounce_held_trains", "Trains that found their socket full"),
    ("queued_packets", "wg_bounce_queued_packets", "Packets that waited for a full socket"),
    ("queued_milliseconds", "wg_bounce_queued_milliseconds", "The time that they waited, summed"),
    ("handed_off", "wg_bounce_handed_off", "Datagrams handed over to another worker"),
    ("gso_demotions", "wg_bounce_gso_demotions", "Destinations that refused trains"),
];

/// The same of peers.
const OF_PEERS: [(&str, &str, &str); 7] = [
    ("relayed", "wg_bounce_peer_relayed_packets", "Packets relayed to the peer"),
    ("received_trains", "wg_bounce_peer_received_trains", "Trains received from the peer"),
    ("received_datagrams", "wg_bounce_peer_received_datagrams", "Datagrams received from it"),
    ("sent_trains", "wg_bounce_peer_sent_trains", "Trains sent to the peer"),
    ("sent_datagrams", "wg_bounce_peer_sent_datagrams", "Datagrams sent to it"),
    ("handed_off", "wg_bounce_peer_handed_off", "Datagrams that arrived at another worker"),
    ("gso_demotions", "wg_bounce_peer_gso_demotions", "Times that it refused trains"),
];

fn count(counters: &Counters, name: &str) -> u64 {
    counters.get(name).copied().unwrap_or(0)
}

fn networks(peer: &Peer) -> String {
    peer.allowed_ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: Vec<Sample<'_>>,
) -> fmt::Result {
    let family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    each(family, &samples, ConstCounter::new)
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: Vec<Sample<'_>>,
) -> fmt::Result {
    let family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    each(family, &samples, ConstGauge::new)
}

fn each<M: EncodeMetric>(
    mut family: MetricEncoder<'_>,
    samples: &[Sample<'_>],
    metric: impl Fn(u64) -> M,
) -> fmt::Result {
    for Sample { labels, value } in samples {
        metric(*value).encode(family.encode_family(labels)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_names_left_out_on_request() {
        let peer = Peer {
            public_key: "AAAA=".to_owned(),
            name: Some("al\"i\\ce\n".to_owned()),
            has_preshared_key: false,
            endpoint: None,
            allowed_ips: vec!["10.0.0.2/32".parse().expect("valid")],
            latest_handshake: 1000,
            received: 5,
            sent: 1 << 60,
            persistent_keepalive: 0,
            counters: Counters::from([("drop_replayed".to_owned(), 3)]),
        };
        let report = Report {
            interface: "wg0".into(),
            time: 1100.5,
            peers: vec![peer],
            ..Report::default()
        };
        let text = render(Arc::new(report.clone()), true);
        let labels = "interface=\"wg0\",public_key=\"AAAA=\",allowed_ips=\"10.0.0.2/32\"";
        let named = format!("{labels},friendly_name=\"al\\\"i\\\\ce\\n\"");
        for line in [
            format!("wireguard_received_bytes_total{{{named}}} 5"),
            format!("wireguard_sent_bytes_total{{{named}}} 1152921504606846976"),
            format!("wireguard_latest_handshake_seconds{{{named}}} 1000"),
            format!("wireguard_peer_up{{{named}}} 1"),
            format!("wg_bounce_peer_dropped_packets_total{{{named},reason=\"replayed\"}} 3"),
            "wg_bounce_up{interface=\"wg0\"} 0".to_owned(),
            "# EOF".to_owned(),
        ] {
            assert!(text.lines().any(|one| one == line), "{line}: {text}");
        }
        let text = render(Arc::new(report), false);
        assert!(text.contains(&format!("wireguard_peer_up{{{labels}}} 1")), "{text}");
        let mut names: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "each family once");
    }
}
