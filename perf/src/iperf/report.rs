//! What iperf3's client reports (`--json`).

use serde_json::{Value, json};

/// The figures of one run; of both directions together if there were two.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// What the receiver's program got (bits per second), over the receiver's own time.
    pub bits_per_second: f64,
    /// What the receiver's program got (bytes).
    pub bytes: f64,
    /// What the sender's program sent (bytes).
    pub bytes_sent: f64,
    /// TCP segments that the sender sent again; not a number over UDP.
    pub retransmits: f64,
    /// The sender's congestion control; empty over UDP.
    pub congestion: String,
    /// CPU time of the client and of the server (percent of one core).
    pub cpu_percent: (f64, f64),
}

impl Report {
    /// Reads a report; what is wrong with it, in words, if there are no figures.
    pub fn parse(text: &str, is_udp: bool) -> Result<Report, String> {
        let report: Value = serde_json::from_str(text)
            .map_err(|error| format!("iperf3 did not write a JSON report: {error}"))?;
        if let Some(error) = report["error"].as_str() {
            return Err(format!("iperf3: {error}"));
        }
        let end = &report["end"];
        let number = |value: &Value, name: &str| {
            value.as_f64().ok_or_else(|| format!("iperf3's report has no {name}"))
        };
        // The other direction is there with --bidir only.
        let sum = |sums: [&str; 2], figure: &str, name: &str| {
            let mut sum = number(&end[sums[0]][figure], name)?;
            if !end[sums[1]].is_null() {
                sum += number(&end[sums[1]][figure], name)?;
            }
            Ok::<f64, String>(sum)
        };
        let sent = ["sum_sent", "sum_sent_bidir_reverse"];
        let received = ["sum_received", "sum_received_bidir_reverse"];
        let bytes = sum(received, "bytes", "bytes received")?;
        if bytes <= 0.0 {
            return Err("iperf3 got nothing through".to_owned());
        }
        let retransmits = if is_udp { f64::NAN } else { sum(sent, "retransmits", "retransmits")? };
        let congestion = if is_udp { "" } else { "unknown" };
        let cpu = &end["cpu_utilization_percent"];
        Ok(Report {
            bits_per_second: sum(received, "bits_per_second", "rate of the receiver")?,
            bytes,
            bytes_sent: sum(sent, "bytes", "bytes sent")?,
            retransmits,
            congestion: end["sender_tcp_congestion"].as_str().unwrap_or(congestion).to_owned(),
            cpu_percent: (
                number(&cpu["host_total"], "CPU time of the client")?,
                number(&cpu["remote_total"], "CPU time of the server")?,
            ),
        })
    }

    /// For the JSON lines.
    pub fn record(&self) -> Value {
        json!({
            "bits_per_second": self.bits_per_second,
            "bytes": self.bytes,
            "bytes_sent": self.bytes_sent,
            "retransmits": self.retransmits,
            "congestion": self.congestion,
            "client_cpu_percent": self.cpu_percent.0,
            "server_cpu_percent": self.cpu_percent.1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // As iperf 3.12 writes it, less what is not read.
    const TEXT: &str = r#"{
        "start": { "version": "iperf 3.12", "test_start": { "num_streams": 2 } },
        "intervals": [],
        "end": {
            "streams": [],
            "sum_sent": { "start": 0, "end": 1.010767, "seconds": 1.010767,
                "bytes": 411303936, "bits_per_second": 3255380802.89,
                "retransmits": 4, "sender": true },
            "sum_received": { "start": 0, "end": 1.038843, "seconds": 1.038843,
                "bytes": 409731072, "bits_per_second": 3155287734.5, "sender": true },
            "cpu_utilization_percent": { "host_total": 11.2, "host_user": 1.2,
                "host_system": 10.0, "remote_total": 9.9, "remote_user": 1.6,
                "remote_system": 8.3 },
            "sender_tcp_congestion": "bbr",
            "receiver_tcp_congestion": "bbr"
        }
    }"#;

    #[test]
    fn the_receiver_counts() {
        let report = Report {
            bits_per_second: 3_155_287_734.5,
            bytes: 409_731_072.0,
            bytes_sent: 411_303_936.0,
            retransmits: 4.0,
            congestion: "bbr".to_owned(),
            cpu_percent: (11.2, 9.9),
        };
        assert_eq!(Report::parse(TEXT, false), Ok(report));
    }

    // As iperf 3.12 writes it, less what is not read.
    const UDP_BOTH_WAYS: &str = r#"{
        "end": {
            "sum": { "bytes": 12517376, "lost_packets": 191, "packets": 382 },
            "sum_sent": { "bytes": 12000000, "bits_per_second": 96e6 },
            "sum_received": { "bytes": 6000000, "bits_per_second": 48e6 },
            "sum_sent_bidir_reverse": { "bytes": 12000000, "bits_per_second": 96e6 },
            "sum_received_bidir_reverse": { "bytes": 12000000, "bits_per_second": 96e6 },
            "cpu_utilization_percent": { "host_total": 2.2, "remote_total": 2.6 }
        }
    }"#;

    #[test]
    fn both_directions_are_added() {
        let report = Report::parse(UDP_BOTH_WAYS, true).expect("it has all figures of UDP");
        assert_eq!((report.bytes, report.bytes_sent), (18e6, 24e6));
        assert_eq!(report.bits_per_second, 144e6);
        assert!(report.retransmits.is_nan() && report.congestion.is_empty());
        assert!(Report::parse(UDP_BOTH_WAYS, false).is_err(), "TCP has retransmits");
    }

    #[test]
    fn an_error_is_handed_on() {
        let text = r#"{ "start": {}, "intervals": [], "end": {},
            "error": "unable to connect to server: Connection refused" }"#;
        let why = Report::parse(text, false).unwrap_err();
        assert!(why.ends_with("Connection refused"), "{why}");
    }

    #[test]
    fn what_is_no_report_gives_no_figures() {
        for text in ["", "iperf3: error - no route", "{}", "[]", &TEXT.replace("409731072", "0")] {
            assert!(Report::parse(text, false).is_err(), "{text}");
        }
        for name in ["retransmits", "sum_received", "remote_total"] {
            assert!(Report::parse(&TEXT.replace(name, "other"), false).is_err(), "{name}");
        }
    }
}
