//! The figures in the report of iperf3's client (`--json`).

use serde_json::{Value, json};

/// Reads a report: its figures, totals of both directions if there were two, as JSON. Fails with a
/// text if there are none.
///
/// `bits_per_second` and `bytes` are the receiver's, over the receiver's own time; `bytes_sent`,
/// `retransmits` and `congestion` the sender's, the last two of TCP only.
pub fn parse(text: &str, is_udp: bool) -> Result<Value, String> {
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
    let sum = |side: &str, figure: &str| {
        let one = number(&end[format!("sum_{side}")][figure], &format!("{figure} {side}"))?;
        let other = &end[format!("sum_{side}_bidir_reverse")];
        if other.is_null() { Ok(one) } else { number(&other[figure], figure).map(|it| one + it) }
    };
    let bytes = sum("received", "bytes")?;
    if bytes <= 0.0 {
        let hint = match end["sum_received_bidir_reverse"].is_null() {
            true => "",
            // The server tells the connections apart by the order in which it accepts them.
            false => ": with --bidir it may have mixed up its connections; try again",
        };
        return Err(format!("iperf3 received nothing{hint}"));
    }
    let retransmits = if is_udp { None } else { Some(sum("sent", "retransmits")?) };
    let unknown = if is_udp { "" } else { "unknown" };
    let cpu = &end["cpu_utilization_percent"];
    Ok(json!({
        "bits_per_second": sum("received", "bits_per_second")?,
        "bytes": bytes,
        "bytes_sent": sum("sent", "bytes")?,
        "retransmits": retransmits,
        "congestion": end["sender_tcp_congestion"].as_str().unwrap_or(unknown),
        "client_cpu_percent": number(&cpu["host_total"], "CPU time of the client")?,
        "server_cpu_percent": number(&cpu["remote_total"], "CPU time of the server")?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    // From iperf 3.12, without what is not read.
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
        let figures = json!({
            "bits_per_second": 3_155_287_734.5,
            "bytes": 409_731_072.0,
            "bytes_sent": 411_303_936.0,
            "retransmits": 4.0,
            "congestion": "bbr",
            "client_cpu_percent": 11.2,
            "server_cpu_percent": 9.9,
        });
        assert_eq!(parse(TEXT, false), Ok(figures));
    }

    // From iperf 3.12, without what is not read.
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
        let figures = parse(UDP_BOTH_WAYS, true).expect("it has all figures of UDP");
        assert_eq!((&figures["bytes"], &figures["bytes_sent"]), (&json!(18e6), &json!(24e6)));
        assert_eq!(figures["bits_per_second"], 144e6);
        assert!(figures["retransmits"].is_null() && figures["congestion"] == "");
        assert!(parse(UDP_BOTH_WAYS, false).is_err(), "TCP has retransmits");
    }

    #[test]
    fn an_error_is_passed_on() {
        let text = r#"{ "start": {}, "intervals": [], "end": {},
            "error": "unable to connect to server: Connection refused" }"#;
        let why = parse(text, false).unwrap_err();
        assert!(why.ends_with("Connection refused"), "{why}");
    }

    #[test]
    fn nothing_but_a_report_gives_figures() {
        for text in ["", "iperf3: error - no route", "{}", "[]", &TEXT.replace("409731072", "0")] {
            assert!(parse(text, false).is_err(), "{text}");
        }
        for name in ["retransmits", "sum_received", "remote_total"] {
            assert!(parse(&TEXT.replace(name, "other"), false).is_err(), "{name}");
        }
    }
}
