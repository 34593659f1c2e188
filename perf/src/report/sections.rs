//! The parts of the report that show figures, one for each subcommand.

use serde_json::Value;

use super::figure::{digits, figures_of, nanoseconds_per_packet};
use super::html::{details, escape, figure, section, table};
use super::model::{Figures, Row, Run};
use super::plot::bars::{self, Column, Line};
use super::plot::colour;
use super::plot::curves::{self, Curve, Plot};
use crate::statistics::Spread;

/// Pixels of a plot that has another beside it.
const HALF: u32 = 512;
/// Pixels of a plot that has a line of its own.
const WHOLE: u32 = 900;

/// What iperf3 got through.
pub fn throughput(figures: &Figures) -> String {
    let runs = figures.of_kind("iperf").map(side_by_side);
    let lead = "iperf3 through the tunnel. Bars are medians of the rounds, lines reach from the \
                smallest to the largest. CPU is time per 10⁹ bytes of payload.";
    unless_empty("Throughput", lead, &runs.collect::<String>())
}

/// What a packet costs.
pub fn cost(figures: &Figures) -> String {
    let mut inside = by_train(figures).unwrap_or_default();
    inside.extend(figures.of_kind("blast").map(side_by_side));
    let lead = "The harness plays all peers of one relay that has a core to itself. Less CPU per \
                packet is room for more; thousand packets/s are also limited by the generator.";
    unless_empty("Cost per packet", lead, &inside)
}

/// How long packets take.
pub fn latency(figures: &Figures) -> String {
    let lead = "Each curve says how long packets took at most, for the share of packets below it: \
                at 99 %, one packet in a hundred took longer. Loads are shares of what each relay \
                can take by itself.";
    unless_empty("Latency", lead, &figures.of_kind("latency").map(latency_of).collect::<String>())
}

/// Many handshakes at once.
pub fn storm(figures: &Figures) -> String {
    let lead = "All peers of a relay shake hands at once, each from an address of its own.";
    let runs = figures.of_kind("storm").map(side_by_side);
    unless_empty("Handshakes per second", lead, &runs.collect::<String>())
}

/// Many peers.
pub fn scale(figures: &Figures) -> String {
    let lead = "One relay with ever more peers: memory, set-up by one `wg setconf`, a peer added \
                and removed, and what a packet costs then.";
    unless_empty(
        "Number of peers",
        lead,
        &figures.of_kind("scale").map(scale_of).collect::<String>(),
    )
}

fn unless_empty(title: &str, lead: &str, inside: &str) -> String {
    if inside.is_empty() { String::new() } else { section(title, lead, inside) }
}

/// A run's title and options.
fn heading(run: &Run) -> String {
    let title = run.title.as_deref().unwrap_or(&run.kind);
    let options = run.options.as_object().into_iter().flatten();
    let options = options.filter_map(|(name, value)| {
        let name = name.replace('_', " ");
        Some(format!("{name} {}", option(value)?))
    });
    let options = options.collect::<Vec<_>>().join(" · ");
    format!("<h3>{}</h3>\n<p class=\"options\">{}</p>\n", escape(title), escape(&options))
}

/// An option's value; none if it was not given.
fn option(value: &Value) -> Option<String> {
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::Bool(true) => Some("yes".to_owned()),
        Value::String(text) => Some(text.clone()),
        Value::Array(items) if items.is_empty() => None,
        Value::Array(items) => Some(items.iter().filter_map(option).collect::<Vec<_>>().join(", ")),
        other => Some(other.to_string()),
    }
}

/// Bars, and a table with everything.
fn side_by_side(run: &Run) -> String {
    let figures = figures_of(&run.kind, &run.options);
    let with_bar = || figures.iter().filter(|figure| figure.has_bar);
    let columns: Vec<_> =
        with_bar().map(|it| Column { title: it.title, better: it.better }).collect();
    let lines = run.rows.iter().enumerate().map(|(index, row)| Line {
        label: row.label.clone(),
        colour: colour_of(run, index),
        values: with_bar().map(|figure| row.spread(figure.of)).collect(),
        trouble: if row.results.is_empty() { trouble(row) } else { None },
    });
    let plot = bars::draw(&columns, &lines.collect::<Vec<_>>());
    let titles = ["implementation", "rounds"].map(str::to_owned).into_iter();
    let titles = titles.chain(figures.iter().map(|figure| figure.title.to_owned()));
    let cells = run.rows.iter().map(|row| {
        let spreads = figures.iter().map(|figure| median_and_range(row.spread(figure.of)));
        [row.label.clone(), row.results.len().to_string()].into_iter().chain(spreads).collect()
    });
    let table = table(&titles.collect::<Vec<_>>(), &cells.collect::<Vec<_>>());
    let title = run.title.as_deref().unwrap_or(&run.kind);
    heading(run) + &figure(&plot, title) + &details("All figures of this run", &table)
}

/// Why a row has no figures.
pub fn trouble(row: &Row) -> Option<String> {
    let failed = row.failures.last().map(|why| format!("failed: {why}"));
    row.missing.clone().or(failed)
}

/// The colour of a row: its family's, and its place among those.
fn colour_of(run: &Run, index: usize) -> plotters::style::RGBColor {
    let family = &run.rows[index].family;
    let place = run.rows[..index].iter().filter(|row| row.family == *family).count();
    colour::of(family, place)
}

fn median_and_range(spread: Option<Spread>) -> String {
    spread.map_or_else(
        || "–".to_owned(),
        |it| match digits(it.median) {
            median if it.min == it.max => median,
            median => format!("{median} ({}–{})", digits(it.min), digits(it.max)),
        },
    )
}

/// Cost per packet by length of the trains, over the runs with packets of one size.
fn by_train(figures: &Figures) -> Option<String> {
    let plain = |run: &&Run| run.options["thin"] != true;
    let size = &figures.of_kind("blast").find(plain)?.options["size"];
    let mut runs: Vec<_> = figures
        .of_kind("blast")
        .filter(plain)
        .filter(|run| run.options["size"] == *size && run.options["family"] == 4)
        .collect();
    runs.sort_by_key(|run| run.options["train"].as_u64());
    runs.dedup_by_key(|run| run.options["train"].as_u64());
    if runs.len() < 2 {
        return None;
    }
    let names = runs.iter().map(|run| {
        let (train, pairs) = (&run.options["train"], run.options["pairs"].as_u64().unwrap_or(1));
        format!("{train} ({pairs} pair{})", if pairs == 1 { "" } else { "s" })
    });
    let curves = curves_of(runs[0], |label| {
        let points = runs.iter().enumerate().filter_map(|(place, run)| {
            let row = run.rows.iter().find(|row| row.label == label)?;
            Some((place as f64, row.spread(nanoseconds_per_packet)?))
        });
        points.collect()
    });
    let plot = Plot {
        title: format!("CPU of the relay per packet of {size} bytes, ns"),
        places: "packets that come as one train (pairs of peers)".to_owned(),
        names: names.collect(),
        curves,
        width: WHOLE,
    };
    Some(figure(&curves::draw(&plot)?, "cost per packet by length of the trains"))
}

/// A curve with marks for each row that has points.
fn curves_of(run: &Run, points: impl Fn(&str) -> Vec<(f64, Spread)>) -> Vec<Curve> {
    let curves = run.rows.iter().enumerate().map(|(index, row)| Curve {
        label: row.label.clone(),
        colour: colour_of(run, index),
        points: points(&row.label),
        has_marks: true,
    });
    curves.filter(|curve| !curve.points.is_empty()).collect()
}

/// A table of `lists` in results: a line for each row and each name of the list's items.
fn table_of_list(run: &Run, names: &[String], list: &List, columns: &[(&str, Item)]) -> String {
    let titles = [list.title, "implementation"].into_iter().chain(columns.iter().map(|it| it.0));
    let lines = names.iter().flat_map(|name| {
        run.rows.iter().filter(|row| !row.results.is_empty()).map(move |row| {
            let cells = columns.iter().map(|(_, item)| {
                median_and_range(row.spread(|result| item(list.item(result, name)?)))
            });
            [name.clone(), row.label.clone()].into_iter().chain(cells).collect()
        })
    });
    let titles: Vec<_> = titles.map(str::to_owned).collect();
    table(&titles, &lines.collect::<Vec<_>>())
}

/// A figure of an item.
type Item = fn(&Value) -> Option<f64>;

/// A list in results, whose items have a name each.
struct List {
    field: &'static str,
    key: &'static str,
    title: &'static str,
}

const LOADS: List = List { field: "loads", key: "load", title: "load" };
const SIZES: List = List { field: "sizes", key: "peers", title: "peers" };

impl List {
    fn name(&self, item: &Value) -> String {
        let key = &item[self.key];
        match (key.as_str(), key.as_u64()) {
            (Some(text), _) => text.to_owned(),
            (None, Some(number)) if number < 1000 => number.to_string(),
            (None, number) => digits(number.unwrap_or_default() as f64),
        }
    }

    /// The names of all items, in the order of the first result that has them.
    fn names(&self, run: &Run) -> Vec<String> {
        let mut names = Vec::new();
        let results = run.rows.iter().flat_map(|row| &row.results);
        for item in results.filter_map(|(_, result)| result[self.field].as_array()).flatten() {
            let name = self.name(item);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    fn item<'a>(&self, result: &'a Value, name: &str) -> Option<&'a Value> {
        result[self.field].as_array()?.iter().find(|item| self.name(item) == name)
    }
}

/// Names of places: none, one, two … nines.
const QUANTILES: [&str; 5] = ["0", "90 %", "99 %", "99.9 %", "99.99 %"];

/// By how much nines that were computed from a percentage may be off.
const ROUNDING: f64 = 1e-6;

fn latency_of(run: &Run) -> String {
    let loads = LOADS.names(run);
    let plots = loads.iter().filter_map(|load| {
        let mut curves = curves_of(run, |label| {
            let row = run.rows.iter().find(|row| row.label == label).expect("one of its rows");
            quantiles(row, load)
        });
        curves.iter_mut().for_each(|curve| curve.has_marks = false);
        let deepest = curves.iter().flat_map(|it| it.points.last()).map(|it| it.0);
        let places = (deepest.fold(1.0, f64::max) - ROUNDING).ceil() as usize + 1;
        let plot = Plot {
            title: match load.as_str() {
                "baseline" => "The path without a relay, µs".to_owned(),
                load => format!("Latency at a load of {load}, µs"),
            },
            places: "share of packets that took at most so long".to_owned(),
            names: QUANTILES.iter().take(places).map(|name| (*name).to_owned()).collect(),
            curves,
            width: HALF,
        };
        Some(figure(&curves::draw(&plot)?, &plot.title))
    });
    let plots: String = plots.collect();
    let columns: &[(&str, Item)] = &[
        ("packets/s", |it| it["pps"].as_f64()),
        ("p50, µs", |it| it["p50_us"].as_f64()),
        ("p99, µs", |it| it["p99_us"].as_f64()),
        ("max, µs", |it| it["max_us"].as_f64()),
        ("lost", |it| it["lost"].as_f64()),
    ];
    let table = table_of_list(run, &loads, &LOADS, columns);
    heading(run) + &pair(&plots) + &table + &lines_of_trouble(run)
}

/// Each quantile (percent) up to the deepest that is named, at the place that its nines give.
fn quantiles(row: &Row, load: &str) -> Vec<(f64, Spread)> {
    let of = |result: &Value| -> Vec<(f64, f64)> {
        let item = LOADS.item(result, load);
        let pairs = item.and_then(|item| item["quantiles_us"].as_array()).into_iter().flatten();
        pairs.filter_map(|pair| Some((pair[0].as_f64()?, pair[1].as_f64()?))).collect()
    };
    let all: Vec<_> = row.results.iter().flat_map(|(_, result)| of(result)).collect();
    let mut shares: Vec<f64> = all.iter().map(|(share, _)| *share).collect();
    shares.sort_by(f64::total_cmp);
    shares.dedup();
    let points = shares.into_iter().filter_map(|share| {
        let nines = -(1.0 - share / 100.0).log10();
        let same = all.iter().filter(|(of, _)| *of == share).map(|(_, figure)| *figure);
        (nines <= (QUANTILES.len() - 1) as f64 + ROUNDING).then_some((nines, Spread::of(same)?))
    });
    points.collect()
}

fn scale_of(run: &Run) -> String {
    let columns: &[(&str, Item)] = &[
        ("resident memory, MiB", |it| Some(it["resident_bytes"].as_f64()? / 1_048_576.0)),
        ("set-up, ms", |it| Some(it["setconf_seconds"].as_f64()? * 1e3)),
        ("one peer added, ms", |it| Some(it["add_seconds"].as_f64()? * 1e3)),
        ("one peer removed, ms", |it| Some(it["remove_seconds"].as_f64()? * 1e3)),
        ("CPU of the relay, ns/packet", |it| it["ns_per_packet"].as_f64()),
    ];
    let names = SIZES.names(run);
    let plots = columns.iter().filter_map(|(title, item)| {
        let curves = curves_of(run, |label| {
            let row = run.rows.iter().find(|row| row.label == label).expect("one of its rows");
            let points = names.iter().enumerate().filter_map(|(place, name)| {
                Some((place as f64, row.spread(|result| item(SIZES.item(result, name)?))?))
            });
            points.filter(|(_, spread)| spread.min > 0.0).collect()
        });
        let plot = Plot {
            title: (*title).to_owned(),
            places: "peers".to_owned(),
            names: names.clone(),
            curves,
            width: HALF,
        };
        Some(figure(&curves::draw(&plot)?, title))
    });
    let plots: String = plots.collect();
    let table = table_of_list(run, &names, &SIZES, columns);
    heading(run) + &pair(&plots) + &table + &lines_of_trouble(run)
}

fn pair(plots: &str) -> String {
    format!("<div class=\"pair\">\n{plots}</div>\n")
}

/// Numbers of peers that a row did not take, and why.
pub fn failed_sizes(row: &Row) -> impl Iterator<Item = String> {
    let sizes = row.results.iter().filter_map(|(_, result)| result[SIZES.field].as_array());
    sizes.flatten().filter_map(|size| {
        let why = size["failure"].as_str()?;
        Some(format!("{} peers: {why}", SIZES.name(size)))
    })
}

/// Rows that are in no plot have a line.
fn lines_of_trouble(run: &Run) -> String {
    let rows = run.rows.iter().filter(|row| row.results.is_empty());
    let line = |row: &Row| {
        let why = trouble(row).unwrap_or_else(|| "not measured".to_owned());
        format!("<p class=\"options\">{}: {}</p>\n", escape(&row.label), escape(&why))
    };
    rows.map(line).collect()
}
