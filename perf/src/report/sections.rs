//! The sections of the report that show figures: for each run its tables, with bars, and curves
//! over a list's items, over quantiles and over lengths of trains.

use serde_json::Value;

use super::curves::{Curve, Plot};
use super::html::{cell, colour_of, escape, section, table};
use crate::columns::{Better, Subject, Table, nanoseconds_per_packet};
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
        let (title, options) = (escape(run.title()), escape(&run.describe_options()));
        inside += &format!("<h3>{title}</h3>\n<p class=\"options\">{options}</p>\n");
        for shown in subject.tables(&run.options) {
            inside += &curves(run, &shown);
            inside += &tables(run, &shown);
        }
    }
    section(subject.title, subject.note, &inside)
}

/// A table of all items, with a line for each row, and for each row without figures a line with the
/// reason.
fn tables(run: &Run, shown: &Table) -> String {
    let names = shown.names(run);
    let mut titles = vec!["implementation".to_owned(), "rounds".to_owned()];
    titles.extend(shown.columns.iter().map(|column| {
        let hint = match column.better {
            Some(Better::Higher) => " <small>more is better</small>",
            Some(Better::Lower) => " <small>less is better</small>",
            None => "",
        };
        escape(column.title) + hint
    }));
    let mut html = String::new();
    for name in &names {
        let spreads = |row: &Row| -> Vec<Option<Spread>> {
            let spread = |column: &crate::columns::Column| {
                row.spread(|result| (column.of)(shown.part(result, name)?))
            };
            shown.columns.iter().map(spread).collect()
        };
        let all: Vec<_> = run.rows.iter().map(spreads).collect();
        let mut lines = Vec::new();
        for (index, row) in run.rows.iter().enumerate() {
            if all[index].iter().all(Option::is_none) {
                continue;
            }
            let mut line = vec![escape(&row.title()), row.results.len().to_string()];
            for (column, it) in shown.columns.iter().enumerate() {
                let of_column: Vec<Spread> = all.iter().filter_map(|of| of[column]).collect();
                line.push(cell(all[index][column], it, &of_column, colour_of(run, index)));
            }
            lines.push(line);
        }
        if !lines.is_empty() {
            let heading = shown.heading.replace("{}", name);
            html += &format!("<p class=\"options\">{}</p>\n", escape(&heading));
            html += &table(&titles, &lines);
        }
    }
    for row in run.rows.iter().filter(|row| row.results.is_empty()) {
        let why = row.trouble().unwrap_or_else(|| "not measured".to_owned());
        let line = format!("{}: {why}", row.title());
        html += &format!("<p class=\"options\">{}</p>\n", escape(&line));
    }
    html
}

/// Curves of a table with a list: over quantiles if its items have them, otherwise each column with
/// bars over the items.
fn curves(run: &Run, shown: &Table) -> String {
    let Some(list) = shown.list else { return String::new() };
    let names = list.names(run);
    let quantiles = names.iter().filter_map(|name| {
        let curves = curves_of(run, |row| quantiles(row, |result| list.item(result, name)));
        let title = match name.as_str() {
            "baseline" => "The path without a relay, µs".to_owned(),
            load => format!("Latency at a load of {load}, µs"),
        };
        let places = "share of packets that took at most this long".to_owned();
        let names = QUANTILES.map(str::to_owned).to_vec();
        Plot { title, places, names, curves, width: HALF, has_marks: false }.draw()
    });
    let columns = shown.columns.iter().filter(|column| column.better.is_some());
    let columns = columns.filter(|_| shown.heading.starts_with("{}")).filter_map(|column| {
        let curves = curves_of(run, |row| {
            let figure = |name| move |result: &Value| (column.of)(list.item(result, name)?);
            let points = names.iter().enumerate();
            let points =
                points.filter_map(|(at, name)| Some((at as f64, row.spread(figure(name))?)));
            points.filter(|(_, spread)| spread.min > 0.0).collect()
        });
        let (title, places) = (column.title.to_owned(), shown.heading.replace(['{', '}', ':'], ""));
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
    let curves = curves_of(runs[0], |row| {
        let points = runs.iter().enumerate().filter_map(|(place, run)| {
            let row = run.rows.iter().find(|it| it.label == row.label)?;
            Some((place as f64, row.spread(nanoseconds_per_packet)?))
        });
        points.collect()
    });
    let title = format!("CPU of the relay per packet of {size} bytes, ns");
    let places = "packets per train (pairs of peers)".to_owned();
    Plot { title, places, names, curves, width: WHOLE, has_marks: true }.draw()
}
