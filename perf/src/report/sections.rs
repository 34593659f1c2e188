//! The sections of the report that show figures: for each run its tables, with bars, and curves
//! over a list's items, over quantiles and over lengths of trains.

use serde_json::Value;

use super::curves::{Curve, Plot};
use super::html::{cell, colour_of, escape, section, table};
use crate::columns::{Better, Subject, Table};
use crate::record::{Row, Run};
use crate::statistics::Spread;

/// Width of a plot next to another (pixels).
const HALF: u32 = 512;
/// Width of a plot on a line of its own.
const WHOLE: u32 = 900;

/// The section of a subcommand; empty without runs.
pub fn of(subject: &Subject, runs: &[Run]) -> String {
    let runs: Vec<&Run> = runs.iter().filter(|run| run.kind == subject.kind).collect();
    if runs.is_empty() {
        return String::new();
    }
    let mut inside = by_train(&runs).unwrap_or_default();
    for run in runs {
        inside += &format!("<h3>{}</h3>\n", escape(run.title()));
        inside += &options_line(&run.describe_options());
        for shown in subject.tables(&run.options) {
            inside += &curves(run, shown);
            inside += &tables(run, shown);
        }
    }
    section(&subject.title, &subject.note, &inside)
}

/// A table of all items, with a line for each row, and for each row without figures a line with the
/// reason.
fn tables(run: &Run, shown: &Table) -> String {
    let mut titles = vec!["implementation".to_owned(), "rounds".to_owned()];
    titles.extend(shown.columns.iter().map(|column| {
        let hint = match column.better {
            Some(Better::Higher) => " <small>more is better</small>",
            Some(Better::Lower) => " <small>less is better</small>",
            None => "",
        };
        escape(&column.title) + hint
    }));
    let mut html = String::new();
    for name in shown.names(run) {
        let all: Vec<_> = run.rows.iter().map(|row| shown.spreads(row, &name)).collect();
        let mut lines = Vec::new();
        for (index, (row, spreads)) in run.rows.iter().zip(&all).enumerate() {
            if spreads.iter().all(Option::is_none) {
                continue;
            }
            let colour = colour_of(run, index);
            let mut line = vec![escape(&row.title()), row.results.len().to_string()];
            for (place, column) in shown.columns.iter().enumerate() {
                let of_column: Vec<Spread> = all.iter().filter_map(|of| of[place]).collect();
                line.push(cell(spreads[place], column.better, &of_column, colour));
            }
            lines.push(line);
        }
        if !lines.is_empty() {
            html += &options_line(&shown.heading.replace("{}", &name));
            html += &table(&titles, &lines);
        }
    }
    for row in run.rows.iter().filter(|row| row.results.is_empty()) {
        let why = row.trouble().unwrap_or_else(|| "not measured".to_owned());
        html += &options_line(&format!("{}: {why}", row.title()));
    }
    html
}

fn options_line(text: &str) -> String {
    format!("<p class=\"options\">{}</p>\n", escape(text))
}

/// Curves of a table with a list: over quantiles if its items have them, otherwise each column with
/// bars over the items.
fn curves(run: &Run, shown: &Table) -> String {
    if shown.list.is_none() {
        return String::new();
    }
    let names = shown.names(run);
    let quantiles = names.iter().filter_map(|name| {
        let curves = curves_of(run, |row| quantiles(row, |result| shown.part(result, name)));
        let title = match name.as_str() {
            "baseline" => "The path without a relay, µs".to_owned(),
            load => format!("Latency at a load of {load}, µs"),
        };
        let places = "share of packets that took at most this long".to_owned();
        let names = QUANTILES.map(str::to_owned).to_vec();
        Plot { title, places, names, curves, width: HALF, has_marks: false }.draw()
    });
    let columns = shown.compared().filter(|_| shown.heading.starts_with("{}"));
    let columns = columns.filter_map(|column| {
        let curves = curves_of(run, |row| {
            let spread = |name: &String| row.spread(shown.figure(column, name));
            let points = (0..).zip(&names);
            let points = points.filter_map(|(at, name)| Some((f64::from(at), spread(name)?)));
            points.filter(|(_, spread)| spread.min > 0.0).collect()
        });
        let (title, places) = (column.title.clone(), shown.heading.replace(['{', '}', ':'], ""));
        Plot { title, places, names: names.clone(), curves, width: HALF, has_marks: true }.draw()
    });
    format!("<div class=\"pair\">\n{}</div>\n", quantiles.chain(columns).collect::<String>())
}

/// A curve for each row that has points.
fn curves_of(run: &Run, points: impl Fn(&Row) -> Vec<(f64, Spread)>) -> Vec<Curve> {
    let rows = run.rows.iter().enumerate();
    let curve = |(index, row): (usize, &Row)| Curve {
        label: row.title(),
        colour: colour_of(run, index),
        points: points(row),
    };
    rows.map(curve).filter(|curve| !curve.points.is_empty()).collect()
}

/// Places of the quantiles: one more nine each.
const QUANTILES: [&str; 4] = ["0", "90 %", "99 %", "99.9 %"];

/// Rounding error of nines computed from a percentage.
const ROUNDING: f64 = 1e-6;

/// Each quantile (percent) at the place that its nines give.
fn quantiles<'a>(
    row: &'a Row,
    item: impl Fn(&'a Value) -> Option<&'a Value>,
) -> Vec<(f64, Spread)> {
    let of = |result| item(result)?["quantiles_us"].as_array();
    let pairs = row.results.iter().filter_map(|(_, result)| of(result)).flatten();
    let all: Vec<(f64, f64)> =
        pairs.filter_map(|pair| Some((pair[0].as_f64()?, pair[1].as_f64()?))).collect();
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

/// Cost per packet over the length of the trains, of the runs with packets of one size.
fn by_train(runs: &[&Run]) -> Option<String> {
    let is_plain = |run: &&&Run| run.kind == "blast" && run.options["thin"] != true;
    let size = &runs.iter().find(is_plain)?.options["size"];
    let same = |run: &&&Run| run.options["size"] == *size && run.options["family"] == 4;
    let mut runs: Vec<&Run> = runs.iter().filter(is_plain).filter(same).copied().collect();
    runs.sort_by_key(|run| run.options["train"].as_u64());
    runs.dedup_by_key(|run| run.options["train"].as_u64());
    if runs.len() < 2 {
        return None;
    }
    let names = runs.iter().map(|run| {
        let (train, pairs) = (&run.options["train"], run.options["pairs"].as_u64().unwrap_or(1));
        format!("{train} ({pairs} pair{})", if pairs == 1 { "" } else { "s" })
    });
    let names = names.collect();
    let nanoseconds = |it: &Value| it.pointer("/capacity/nanoseconds_per_packet")?.as_f64();
    let curves = curves_of(runs[0], |row| {
        let points = runs.iter().enumerate().filter_map(|(place, run)| {
            let row = run.rows.iter().find(|it| it.label == row.label)?;
            Some((place as f64, row.spread(nanoseconds)?))
        });
        points.collect()
    });
    let title = format!("CPU of the relay per packet of {size} bytes, ns");
    let places = "packets per train (pairs of peers)".to_owned();
    Plot { title, places, names, curves, width: WHOLE, has_marks: true }.draw()
}
