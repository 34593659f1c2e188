//! What is shown of a result: the figures of each subcommand, as data.

use serde_json::Value;

/// A figure of one result.
#[derive(Clone, Copy)]
pub struct Figure {
    /// With its unit.
    pub title: &'static str,
    /// Reads it; none where it was not measured.
    pub of: fn(&Value) -> Option<f64>,
    /// Which end is the good one; none if neither is.
    pub better: Option<Better>,
    /// Whether it has a bar; otherwise it is in the table only.
    pub has_bar: bool,
}

/// Which end is the good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
}

const fn bar(title: &'static str, better: Better, of: fn(&Value) -> Option<f64>) -> Figure {
    Figure { title, of, better: Some(better), has_bar: true }
}

const fn cell(title: &'static str, of: fn(&Value) -> Option<f64>) -> Figure {
    Figure { title, of, better: None, has_bar: false }
}

/// The figures of a run of this subcommand with these options; none for those that have curves.
pub fn figures_of(kind: &str, options: &Value) -> &'static [Figure] {
    match kind {
        "iperf" if options["udp_megabits_per_second"].is_null() => TCP,
        "iperf" => UDP,
        "blast" if options["thin"] == true => THIN,
        "blast" => BLAST,
        "storm" => STORM,
        _ => &[],
    }
}

/// Of `iperf` over TCP.
const TCP: &[Figure] = &[
    bar("throughput, Gbit/s", Better::Higher, gigabits),
    bar("CPU of the daemons, s/GB", Better::Lower, seconds_per_gigabyte),
    cell("CPU of the whole machine, s/GB", machine_seconds_per_gigabyte),
    cell("retransmits", |it| it["iperf3"]["retransmits"].as_f64()),
];

/// Of `iperf` over UDP.
const UDP: &[Figure] = &[
    bar("received, Gbit/s", Better::Higher, gigabits),
    bar("lost, %", Better::Lower, lost_percent),
    cell("sent, Gbit/s", |it| Some(gigabits(it)? * bytes_sent(it)? / bytes(it)?)),
    cell("CPU of the daemons, s/GB", seconds_per_gigabyte),
    cell("CPU of the whole machine, s/GB", machine_seconds_per_gigabyte),
];

/// Of `blast`.
const BLAST: &[Figure] = &[
    bar("CPU of the relay, ns/packet", Better::Lower, nanoseconds_per_packet),
    bar("relayed, thousand packets/s", Better::Higher, |it| {
        Some(it["capacity"]["packets_per_second"].as_f64()? / 1e3)
    }),
    cell("Gbit/s", |it| it["gigabits_per_second"].as_f64()),
    cell("relay, % of its core", |it| share(&it["capacity"], "relay_cpu_seconds")),
    cell("core busy, %", |it| share(&it["capacity"], "relay_core_busy_seconds")),
    cell("lost", |it| it["capacity"]["lost"].as_f64()),
    cell("window, packets", |it| it["window"].as_f64()),
];

/// Of `blast --thin`.
const THIN: &[Figure] = &[
    bar("p99 alone, µs", Better::Lower, |it| thin(it, "alone", "p99")),
    bar("beside heavy flows, µs", Better::Lower, |it| thin(it, "beside_heavy", "p99")),
    bar("beside a slow path, µs", Better::Lower, |it| thin(it, "beside_slow", "p99")),
    cell("p50 alone, µs", |it| thin(it, "alone", "p50")),
    cell("p50 beside heavy flows, µs", |it| thin(it, "beside_heavy", "p50")),
    cell("p50 beside a slow path, µs", |it| thin(it, "beside_slow", "p50")),
    cell("lost beside heavy flows", |it| it["beside_heavy"]["thin"]["lost"].as_f64()),
    cell("lost beside a slow path", |it| it["beside_slow"]["thin"]["lost"].as_f64()),
];

/// Of `storm`.
const STORM: &[Figure] = &[
    bar("handshakes per second", Better::Higher, |it| it["handshakes_per_second"].as_f64()),
    bar("CPU, µs/handshake", Better::Lower, |it| Some(it["cpu_ns_per_handshake"].as_f64()? / 1e3)),
    bar("answer p99, ms", Better::Lower, |it| Some(it["answer_us"]["p99"].as_f64()? / 1e3)),
    cell("answer p50, ms", |it| Some(it["answer_us"]["p50"].as_f64()? / 1e3)),
    cell("answer max, ms", |it| Some(it["answer_us"]["max"].as_f64()? / 1e3)),
    cell("peers", |it| it["peers"].as_f64()),
    cell("served", |it| it["completed"].as_f64()),
    cell("never served", |it| it["unserved"].as_f64()),
    cell("cookie replies", |it| it["cookies"].as_f64()),
];

/// CPU nanoseconds of the relay per packet, in a result of `blast`.
pub fn nanoseconds_per_packet(result: &Value) -> Option<f64> {
    result["capacity"]["nanoseconds_per_packet"].as_f64()
}

fn thin(result: &Value, phase: &str, percentile: &str) -> Option<f64> {
    result[phase]["thin"]["latency_microseconds"][percentile].as_f64()
}

fn gigabits(result: &Value) -> Option<f64> {
    Some(result["iperf3"]["bits_per_second"].as_f64()? / 1e9)
}

fn bytes(result: &Value) -> Option<f64> {
    result["iperf3"]["bytes"].as_f64()
}

fn bytes_sent(result: &Value) -> Option<f64> {
    result["iperf3"]["bytes_sent"].as_f64()
}

fn lost_percent(result: &Value) -> Option<f64> {
    Some(100.0 * (1.0 - bytes(result)? / bytes_sent(result)?))
}

/// None if one of those measured is the kernel, which has no process.
fn seconds_per_gigabyte(result: &Value) -> Option<f64> {
    let daemons = result["daemons"].as_array()?;
    let mut measured = daemons.iter().filter(|daemon| daemon["measured"] == true);
    let seconds = measured.try_fold(0.0, |sum, it| Some(sum + it["cpu_seconds"].as_f64()?))?;
    Some(seconds * 1e9 / bytes(result)?)
}

fn machine_seconds_per_gigabyte(result: &Value) -> Option<f64> {
    Some(result["machine_cpu_seconds"].as_f64()? * 1e9 / bytes(result)?)
}

/// What a time is of the time that the clock ran (percent).
fn share(phase: &Value, seconds: &str) -> Option<f64> {
    Some(100.0 * phase[seconds].as_f64()? / phase["wall_seconds"].as_f64()?)
}

/// A figure with about three digits that matter, a count whole, thousands parted.
pub fn digits(figure: f64) -> String {
    let decimals = match figure.abs() {
        size if size >= 100.0 || size.fract() == 0.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{figure:.decimals$}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
    let mut parted = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            parted.push(',');
        }
        parted.push(digit);
    }
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{parted}{point}{fraction}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn three_digits_matter() {
        let small = [(0.0, "0"), (0.056, "0.06"), (2.345, "2.35"), (23.45, "23.4"), (67.0, "67")];
        for (figure, text) in
            small.into_iter().chain([(999.6, "1,000"), (1_234_567.0, "1,234,567")])
        {
            assert_eq!(digits(figure), text);
        }
        assert_eq!(digits(-1234.5), "-1,234");
    }

    #[test]
    fn the_kernel_has_no_time_of_its_own() {
        let result = |seconds: Value| {
            json!({
                "iperf3": { "bytes": 2e9, "bytes_sent": 2.5e9 },
                "daemons": [
                    { "measured": true, "cpu_seconds": seconds },
                    { "measured": false, "cpu_seconds": 9.0 },
                ],
            })
        };
        assert_eq!(seconds_per_gigabyte(&result(json!(3.0))), Some(1.5));
        assert_eq!(seconds_per_gigabyte(&result(Value::Null)), None);
        assert!((lost_percent(&result(Value::Null)).expect("both are there") - 20.0).abs() < 1e-9);
    }
}
