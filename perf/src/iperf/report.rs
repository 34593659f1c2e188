//! What iperf3's client reports (`--json`).

use serde_json::{Value, json};

/// The figures of one run over TCP.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// What the receiver's program got (bits per second), over the receiver's own time.
    pub bits_per_second: f64,
    /// What the receiver's program got (bytes).
    pub bytes: f64,
    /// TCP segments that the sender sent again.
    pub retransmits: u64,
    /// The sender's congestion control.
    pub congestion: String,
    /// CPU time of the sending and of the receiving iperf3 (percent of one core).
    pub cpu_percent: (f64, f64),
}

impl Report {
    /// Reads a report; what is wrong with it, in words, if there are no figures.
    pub fn parse(text: &str) -> Result<Report, String> {
        let report: Value = serde_json::from_str(text)
            .map_err(|error| format!("iperf3 did not write a JSON report: {error}"))?;
        if let Some(error) = report["error"].as_str() {
            return Err(format!("iperf3: {error}"));
        }
        let end = &report["end"];
        let number = |value: &Value, name: &str| {
            value.as_f64().ok_or_else(|| format!("iperf3's report has no {name}"))
        };
        let received = &end["sum_received"];
        let bytes = number(&received["bytes"], "bytes received")?;
        if bytes <= 0.0 {
            return Err("iperf3 got nothing through".to_owned());
        }
        let cpu = &end["cpu_utilization_percent"];
        Ok(Report {
            bits_per_second: number(&received["bits_per_second"], "rate of the receiver")?,
            bytes,
            retransmits: end["sum_sent"]["retransmits"]
                .as_u64()
                .ok_or("iperf3's report has no retransmits")?,
            congestion: end["sender_tcp_congestion"].as_str().unwrap_or("unknown").to_owned(),
            cpu_percent: (
                number(&cpu["host_total"], "CPU time of the sender")?,
                number(&cpu["remote_total"], "CPU time of the receiver")?,
            ),
        })
    }

    /// For the JSON lines.
    pub fn record(&self) -> Value {
        json!({
            "bits_per_second": self.bits_per_second,
            "bytes": self.bytes,
            "retransmits": self.retransmits,
            "congestion": self.congestion,
            "sender_cpu_percent": self.cpu_percent.0,
            "receiver_cpu_percent": self.cpu_percent.1,
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
            retransmits: 4,
            congestion: "bbr".to_owned(),
            cpu_percent: (11.2, 9.9),
        };
        assert_eq!(Report::parse(TEXT), Ok(report));
    }

    #[test]
    fn an_error_is_handed_on() {
        let text = r#"{ "start": {}, "intervals": [], "end": {},
            "error": "unable to connect to server: Connection refused" }"#;
        let why = Report::parse(text).unwrap_err();
        assert!(why.ends_with("Connection refused"), "{why}");
    }

    #[test]
    fn what_is_no_report_gives_no_figures() {
        for text in ["", "iperf3: error - no route", "{}", "[]", &TEXT.replace("409731072", "0")] {
            assert!(Report::parse(text).is_err(), "{text}");
        }
        for name in ["retransmits", "sum_received", "remote_total"] {
            assert!(Report::parse(&TEXT.replace(name, "other")).is_err(), "{name}");
        }
    }
}
