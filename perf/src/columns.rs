//! The tables of all subcommands, as data: each column is declared here once, and used by the
//! terminal, the progress lines and the report. Figures are read from the JSON results.

use serde_json::Value;

use crate::record::{Row, Run};

/// A column.
#[derive(Clone, Copy)]
pub struct Column {
    /// With its unit.
    pub title: &'static str,
    /// Reads the figure from a result, or from an item of a list in it.
    pub of: fn(&Value) -> Option<f64>,
    /// The better end, if any. Such columns are compared with the best other implementation, and
    /// have a bar in the report.
    pub better: Option<Better>,
}

/// The better end of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
}

impl Better {
    /// The better of two figures comes last.
    pub fn compare(self, one: f64, other: f64) -> std::cmp::Ordering {
        if self == Better::Higher { one.total_cmp(&other) } else { other.total_cmp(&one) }
    }
}

impl Column {
    /// The row with the best median among those that `is_asked` for.
    pub fn best<'a>(
        &self,
        rows: &'a [Row],
        of: impl Fn(&Value) -> Option<f64>,
        is_asked: impl Fn(&Row) -> bool,
    ) -> Option<&'a Row> {
        let better = self.better?;
        let rows = rows.iter().filter(|row| is_asked(row));
        let with_median = rows.filter_map(|row| Some((row.spread(&of)?.median, row)));
        with_median.max_by(|one, other| better.compare(one.0, other.0)).map(|(_, row)| row)
    }
}

/// A table: a row for each implementation.
pub struct Table {
    /// With {} for the name of a list's item.
    pub heading: &'static str,
    /// A list in the results with a table for each of its items.
    pub list: Option<List>,
    /// Columns after the implementation.
    pub columns: &'static [Column],
}

/// A list in results: its field, and the field of its items that names them.
#[derive(Clone, Copy)]
pub struct List {
    field: &'static str,
    key: &'static str,
}

impl List {
    /// An item's name.
    pub fn name(self, item: &Value) -> String {
        let key = &item[self.key];
        key.as_str().map_or_else(|| digits(key.as_f64().unwrap_or_default()), str::to_owned)
    }

    /// All items of a result.
    pub fn items(self, result: &Value) -> impl Iterator<Item = &Value> {
        result[self.field].as_array().into_iter().flatten()
    }

    /// The item of this name.
    pub fn item<'a>(self, result: &'a Value, name: &str) -> Option<&'a Value> {
        self.items(result).find(|item| self.name(item) == name)
    }

    /// The names of all items, in the order of the first result that has them.
    pub fn names(self, run: &Run) -> Vec<String> {
        let mut names = Vec::new();
        for (_, result) in run.rows.iter().flat_map(|row| &row.results) {
            for item in self.items(result) {
                let name = self.name(item);
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        names
    }
}

impl Table {
    /// The names of its list's items; one empty name if it has no list.
    pub fn names(&self, run: &Run) -> Vec<String> {
        self.list.map_or_else(|| vec![String::new()], |list| list.names(run))
    }

    /// The part of a result that an item's table shows; the result itself if it has no list.
    pub fn part<'a>(&self, result: &'a Value, name: &str) -> Option<&'a Value> {
        self.list.map_or(Some(result), |list| list.item(result, name))
    }
}

/// A subcommand's tables.
pub struct Subject {
    /// The subcommand.
    pub kind: &'static str,
    /// Heading of its section in the report.
    pub title: &'static str,
    /// Explanation of the tables.
    pub note: &'static str,
    tables: fn(&Value) -> Vec<Table>,
}

impl Subject {
    /// The tables of a run with these options.
    pub fn tables(&self, options: &Value) -> Vec<Table> {
        (self.tables)(options)
    }

    /// The subcommand of a run.
    pub fn of(kind: &str) -> &'static Subject {
        SUBJECTS.iter().find(|it| it.kind == kind).expect("runs are of these kinds")
    }
}

const LOADS: Option<List> = Some(List { field: "loads", key: "load" });
const SIZES: Option<List> = Some(List { field: "sizes", key: "peers" });

/// All subcommands that measure, in the report's order.
pub const SUBJECTS: [Subject; 5] = [
    Subject {
        kind: "iperf",
        title: "Throughput",
        note: "iperf3 through the tunnel. Gbit/s: payload received. CPU s/GB: CPU time of the \
               measured daemons (pair: both; relay: the relay) per 10⁹ bytes of payload; \
               machine s/GB: of everything that ran.",
        tables: |options| {
            let is_tcp = options["udp_megabits_per_second"].is_null();
            vec![Table { heading: "", list: None, columns: if is_tcp { TCP } else { UDP } }]
        },
    },
    Subject {
        kind: "blast",
        title: "Cost per packet",
        note: "The harness plays all peers of one relay on a core of its own. ns/packet: CPU \
               time of the relay per packet; relay %, core %: share of its core that the \
               relay, and everything on it, used; late: packets that arrived after a later \
               one; train: packets per train at the receivers; window: packets in flight. \
               kpps is the relay's limit only where relay % is near 100.",
        tables: |options| match options["thin"] == true {
            true => vec![Table { heading: "", list: None, columns: THIN }],
            false => vec![
                Table { heading: "", list: None, columns: CAPACITY },
                Table { heading: "Load: {}", list: LOADS, columns: LOADED },
            ],
        },
    },
    Subject {
        kind: "latency",
        title: "Latency",
        note: "From the sender's system call to the arrival. baseline: the path without a \
               relay, at the lowest load; added: the difference from it. A load in percent is \
               relative to what the same relay can take.",
        tables: |_| vec![Table { heading: "Load: {}", list: LOADS, columns: LATENCY }],
    },
    Subject {
        kind: "storm",
        title: "Handshakes",
        note: "p50, p99, max: from a peer's first initiation to its response, when all peers \
               start at once; a peer that gets no response, or a cookie, retries after 5 s as \
               WireGuard does. never: peers without a response in the end. handshakes/s, CPU \
               µs: of the second part, a window at a time.",
        tables: |_| {
            vec![
                Table { heading: "All peers at once:", list: None, columns: AT_ONCE },
                Table { heading: "Then a window at a time:", list: None, columns: STEADY },
            ]
        },
    },
    Subject {
        kind: "scale",
        title: "Number of peers",
        note: "setconf: all peers with one `wg setconf` on a new relay; MiB: its resident \
               memory afterwards; add, remove: one peer with `wg set`, including the start of \
               `wg`; ns/packet: CPU time of the relay per packet between a few of the peers.",
        tables: |_| vec![Table { heading: "{} peers:", list: SIZES, columns: SCALE }],
    },
];

const fn main(title: &'static str, better: Better, of: fn(&Value) -> Option<f64>) -> Column {
    Column { title, of, better: Some(better) }
}

const fn cell(title: &'static str, of: fn(&Value) -> Option<f64>) -> Column {
    Column { title, of, better: None }
}

use Better::{Higher, Lower};

const TCP: &[Column] = &[
    main("Gbit/s", Higher, gigabits),
    main("CPU s/GB", Lower, seconds_per_gigabyte),
    cell("machine s/GB", machine_seconds_per_gigabyte),
    cell("retransmits", |it| at(it, "/iperf3/retransmits")),
];

const UDP: &[Column] = &[
    main("Gbit/s", Higher, gigabits),
    main("lost %", Lower, lost_percent),
    cell("sent Gbit/s", |it| Some(gigabits(it)? * sent(it)? / bytes(it)?)),
    cell("CPU s/GB", seconds_per_gigabyte),
    cell("machine s/GB", machine_seconds_per_gigabyte),
];

const CAPACITY: &[Column] = &[
    main("ns/packet", Lower, nanoseconds_per_packet),
    main("kpps", Higher, |it| Some(at(it, "/capacity/packets_per_second")? / 1e3)),
    cell("Gbit/s", |it| at(it, "/gigabits_per_second")),
    cell("relay %", |it| share(&it["capacity"], "/relay_cpu_seconds")),
    cell("core %", |it| share(&it["capacity"], "/relay_core_busy_seconds")),
    cell("lost", |it| at(it, "/capacity/lost")),
    cell("late", |it| {
        at(it, "/capacity/reordered")
            .zip(at(it, "/capacity/reordered_samples"))
            .map(|(wire, inside)| wire + inside)
    }),
    cell("train", |it| Some(at(it, "/capacity/received")? / at(it, "/capacity/trains")?)),
    cell("window", |it| at(it, "/window")),
];

const LOADED: &[Column] = &[
    cell("kpps", |it| Some(at(it, "/packets_per_second")? / 1e3)),
    main("p50 µs", Lower, |it| at(it, "/latency_microseconds/p50")),
    main("p99 µs", Lower, |it| at(it, "/latency_microseconds/p99")),
    cell("max µs", |it| at(it, "/latency_microseconds/max")),
    cell("lost", |it| at(it, "/lost")),
    cell("ns/packet", |it| at(it, "/nanoseconds_per_packet")),
    cell("relay %", |it| share(it, "/relay_cpu_seconds")),
];

const THIN: &[Column] = &[
    main("alone: p99 µs", Lower, |it| thin(it, "alone", "p99")),
    cell("p50 µs", |it| thin(it, "alone", "p50")),
    cell("lost", |it| at(it, "/alone/thin/lost")),
    main("with heavy flows: p99 µs", Lower, |it| thin(it, "beside_heavy", "p99")),
    cell("× alone", |it| Some(thin(it, "beside_heavy", "p99")? / thin(it, "alone", "p99")?)),
    cell("p50 µs", |it| thin(it, "beside_heavy", "p50")),
    cell("lost", |it| at(it, "/beside_heavy/thin/lost")),
    main("with a slow receiver: p99 µs", Lower, |it| thin(it, "beside_slow", "p99")),
    cell("× alone", |it| Some(thin(it, "beside_slow", "p99")? / thin(it, "alone", "p99")?)),
    cell("p50 µs", |it| thin(it, "beside_slow", "p50")),
    cell("lost", |it| at(it, "/beside_slow/thin/lost")),
    cell("heavy kpps", |it| Some(at(it, "/heavy_packets_per_second")? / 1e3)),
];

const LATENCY: &[Column] = &[
    cell("kpps", |it| Some(at(it, "/pps")? / 1e3)),
    main("p50 µs", Lower, |it| at(it, "/p50_us")),
    cell("added", |it| at(it, "/added_p50_us")),
    main("p99 µs", Lower, |it| at(it, "/p99_us")),
    cell("added", |it| at(it, "/added_p99_us")),
    cell("max µs", |it| at(it, "/max_us")),
    cell("lost", |it| at(it, "/lost")),
];

const AT_ONCE: &[Column] = &[
    cell("served", |it| at(it, "/completed")),
    cell("never", |it| at(it, "/unserved")),
    main("p50 ms", Lower, |it| Some(at(it, "/answer_us/p50")? / 1e3)),
    main("p99 ms", Lower, |it| Some(at(it, "/answer_us/p99")? / 1e3)),
    cell("max ms", |it| Some(at(it, "/answer_us/max")? / 1e3)),
    cell("cookies", |it| at(it, "/cookies")),
    cell("initiations", |it| at(it, "/initiations")),
    cell("relay CPU ms", |it| Some(at(it, "/relay_cpu_seconds")? * 1e3)),
];

const STEADY: &[Column] = &[
    main("handshakes/s", Higher, |it| at(it, "/handshakes_per_second")),
    main("CPU µs", Lower, |it| Some(at(it, "/cpu_ns_per_handshake")? / 1e3)),
    cell("relay %", |it| {
        Some(100.0 * at(it, "/steady/relay_cpu_seconds")? / at(it, "/steady/seconds")?)
    }),
    cell("cookies", |it| at(it, "/steady/cookies")),
    cell("lost", |it| at(it, "/steady/lost")),
];

const SCALE: &[Column] = &[
    main("setconf ms", Lower, |it| Some(at(it, "/setconf_seconds")? * 1e3)),
    main("MiB", Lower, |it| Some(at(it, "/resident_bytes")? / 1_048_576.0)),
    cell("add ms", |it| Some(at(it, "/add_seconds")? * 1e3)),
    cell("remove ms", |it| Some(at(it, "/remove_seconds")? * 1e3)),
    main("ns/packet", Lower, |it| at(it, "/ns_per_packet")),
];

fn at(value: &Value, pointer: &str) -> Option<f64> {
    value.pointer(pointer)?.as_f64()
}

/// CPU nanoseconds of the relay per packet, in a result of `blast`.
pub fn nanoseconds_per_packet(result: &Value) -> Option<f64> {
    at(result, "/capacity/nanoseconds_per_packet")
}

fn thin(result: &Value, phase: &str, percentile: &str) -> Option<f64> {
    at(result, &format!("/{phase}/thin/latency_microseconds/{percentile}"))
}

fn gigabits(result: &Value) -> Option<f64> {
    Some(at(result, "/iperf3/bits_per_second")? / 1e9)
}

fn bytes(result: &Value) -> Option<f64> {
    at(result, "/iperf3/bytes")
}

fn sent(result: &Value) -> Option<f64> {
    at(result, "/iperf3/bytes_sent")
}

fn lost_percent(result: &Value) -> Option<f64> {
    Some(100.0 * (1.0 - bytes(result)? / sent(result)?))
}

/// None if one of the measured daemons is the kernel, which is not a process.
fn seconds_per_gigabyte(result: &Value) -> Option<f64> {
    let daemons = result["daemons"].as_array()?;
    let mut measured = daemons.iter().filter(|daemon| daemon["measured"] == true);
    let seconds = measured.try_fold(0.0, |sum, it| Some(sum + it["cpu_seconds"].as_f64()?))?;
    Some(seconds * 1e9 / bytes(result)?)
}

fn machine_seconds_per_gigabyte(result: &Value) -> Option<f64> {
    Some(at(result, "/machine_cpu_seconds")? * 1e9 / bytes(result)?)
}

/// Percentage of a phase's wall time.
fn share(phase: &Value, seconds: &str) -> Option<f64> {
    Some(100.0 * at(phase, seconds)? / at(phase, "/wall_seconds")?)
}

/// A figure with about three significant digits, whole from 100 on, with thousands separators.
pub fn digits(figure: f64) -> String {
    let decimals = match figure.abs() {
        size if size >= 100.0 || size.fract() == 0.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{figure:.decimals$}");
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
    let separator = |index: usize| index > 0 && (whole.len() - index).is_multiple_of(3);
    let letters = whole.char_indices();
    let whole: String = letters
        .flat_map(|(index, digit)| separator(index).then_some(',').into_iter().chain([digit]))
        .collect();
    format!("{sign}{whole}{fraction}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn three_digits_are_significant() {
        let small = [(0.0, "0"), (0.056, "0.06"), (2.345, "2.35"), (23.45, "23.4"), (67.0, "67")];
        for (figure, text) in
            small.into_iter().chain([(999.6, "1,000"), (1_234_567.0, "1,234,567")])
        {
            assert_eq!(digits(figure), text);
        }
        assert_eq!(digits(-1234.5), "-1,234");
    }

    #[test]
    fn only_measured_daemons_count() {
        let result = |seconds: Value| {
            json!({
                "iperf3": { "bits_per_second": 4e9, "bytes": 2e9, "bytes_sent": 2.5e9 },
                "daemons": [
                    { "measured": true, "cpu_seconds": seconds },
                    { "measured": false, "cpu_seconds": 9.0 },
                ],
                "machine_cpu_seconds": 8.0,
            })
        };
        assert_eq!(seconds_per_gigabyte(&result(json!(3.0))), Some(1.5));
        assert_eq!(seconds_per_gigabyte(&result(Value::Null)), None, "the kernel");
        assert!((lost_percent(&result(Value::Null)).expect("both are there") - 20.0).abs() < 1e-9);
        assert_eq!((UDP[2].of)(&result(Value::Null)), Some(5.0), "sent");
        assert_eq!(machine_seconds_per_gigabyte(&result(Value::Null)), Some(4.0));
    }
}
