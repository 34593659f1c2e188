//! The page: where it was measured, what it says at a glance, what is missing, and the figures.

use std::collections::BTreeSet;

use serde_json::Value;

use super::figure::{Better, Figure, digits, figures_of};
use super::html::{escape, section, table};
use super::model::{Figures, Row, Run};
use super::sections;
use crate::statistics::Spread;

const STYLE: &str = include_str!("style.css");

/// The family that the others are compared with.
const OURS: &str = "wg-bounce";

/// The whole page, with everything that it needs inside.
pub fn render(figures: &Figures) -> String {
    let parts = [
        header(figures),
        glance(figures),
        troubles(figures),
        sections::throughput(figures),
        sections::cost(figures),
        sections::latency(figures),
        sections::storm(figures),
        sections::scale(figures),
    ];
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>wg-bounce-perf: WireGuard relays side by side</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{}</main>\n</body>\n</html>\n",
        parts.concat()
    )
}

fn header(figures: &Figures) -> String {
    let machines: BTreeSet<String> = figures.runs.iter().map(|run| machine(&run.machine)).collect();
    let machines = machines.iter().map(|it| format!("<p class=\"lead\">{}</p>\n", escape(it)));
    let loads = figures.runs.iter().filter_map(|run| run.machine["load_average"].as_f64());
    let load = loads.reduce(f64::max).map(|load| {
        format!("<p class=\"lead\">Load average when a run began: {load} at most.</p>\n")
    });
    let mut programs: Vec<Vec<String>> = Vec::new();
    for row in figures.runs.iter().flat_map(|run| &run.rows) {
        let Some((version, path)) = &row.program else { continue };
        if programs.iter().all(|program| program[0] != row.label) {
            let told = told(figures, &row.label);
            programs.push(vec![row.label.clone(), version.clone(), path.clone(), told]);
        }
    }
    let titles = ["implementation", "version", "program", "what it says of itself"];
    format!(
        "<h1>WireGuard relays side by side</h1>\n{}{}{}",
        machines.collect::<String>(),
        load.unwrap_or_default(),
        section("What was measured", "", &table(&titles.map(str::to_owned), &programs))
    )
}

/// The machine in a line.
fn machine(machine: &Value) -> String {
    let text = |name: &str| machine[name].as_str().unwrap_or("?").to_owned();
    let flags = machine["cpu_flags"].as_array().into_iter().flatten();
    let flags: Vec<_> = flags.filter_map(Value::as_str).collect();
    let flags = if flags.is_empty() { String::new() } else { format!(" ({})", flags.join(", ")) };
    let cores = &machine["cores"];
    format!("{}{flags}, {cores} cores, Linux {}", text("cpu"), text("kernel"))
}

/// What an implementation's log said of how it ran, each different line once.
fn told(figures: &Figures, label: &str) -> String {
    let rows = figures.runs.iter().flat_map(|run| &run.rows).filter(|row| row.label == label);
    let mut said: Vec<&str> = Vec::new();
    for (_, result) in rows.flat_map(|row| &row.results) {
        let daemons = result["daemons"].as_array().into_iter().flatten();
        let measured = daemons.filter(|daemon| daemon["measured"] == true);
        let all = measured.map(|daemon| &daemon["told"]).chain([&result["told"]]);
        for line in all.filter_map(Value::as_array).flatten().filter_map(Value::as_str) {
            let line = line.strip_prefix("interface wg0, ").unwrap_or(line);
            if !said.contains(&line) {
                said.push(line);
            }
        }
    }
    said.join("; ")
}

/// For each run, ours beside the best of the others.
fn glance(figures: &Figures) -> String {
    let lines: Vec<_> = figures.runs.iter().flat_map(glance_at).collect();
    if lines.is_empty() {
        return String::new();
    }
    let titles = ["run", "figure", "best wg-bounce", "best other", "first to second", ""];
    let lead = "The best way to run wg-bounce beside the best other, by their medians; then the \
                ratio within each round: median (smallest–largest). Where rounds disagree on who \
                is better, the difference is not clear.";
    section("At a glance", lead, &table(&titles.map(str::to_owned), &lines))
}

/// The figures that have bars; of a latency run, the highest load's p99.
fn glance_at(run: &Run) -> Vec<Vec<String>> {
    let figures = match run.kind.as_str() {
        "latency" => &[HIGHEST_LOAD],
        kind => figures_of(kind, &run.options),
    };
    let with_bar = figures.iter().filter(|figure| figure.has_bar);
    with_bar.filter_map(|figure| compared(run, figure)).collect()
}

const HIGHEST_LOAD: Figure = Figure {
    title: "p99 at the highest load, µs",
    of: |it| it["loads"].as_array()?.last()?["p99_us"].as_f64(),
    better: Some(Better::Lower),
    has_bar: true,
};

fn compared(run: &Run, figure: &Figure) -> Option<Vec<String>> {
    let ours = best(run, figure, |row| row.family == OURS)?;
    let other = best(run, figure, |row| row.family != OURS)?;
    let (ratio, better) = (ours.ratio_to(other, figure.of), figure.better?);
    let with_median = |row: &Row| {
        let median = row.spread(figure.of).map(|it| digits(it.median)).unwrap_or_default();
        format!("{median} ({})", row.label)
    };
    Some(vec![
        run.title.clone().unwrap_or_else(|| run.kind.clone()),
        figure.title.to_owned(),
        with_median(ours),
        with_median(other),
        ratio.map_or_else(|| "–".to_owned(), |ratio| in_words(&ratio)),
        ratio.map_or("", |ratio| verdict(&ratio, better)).to_owned(),
    ])
}

fn in_words(Spread { median, min, max }: &Spread) -> String {
    let range = if min == max { String::new() } else { format!(" ({min:.2}–{max:.2})") };
    format!("{median:.2} ×{range}")
}

/// What a ratio says of the first, if there are several rounds and all agree.
fn verdict(ratio: &Spread, better: Better) -> &'static str {
    if ratio.min == ratio.max {
        return "1 round";
    }
    let is_more = ratio.min > 1.0;
    let is_less = ratio.max < 1.0;
    match better {
        Better::Higher if is_more => "better",
        Better::Lower if is_less => "better",
        _ if is_more || is_less => "worse",
        _ => "not clear",
    }
}

/// The row with the best median among those that are asked for.
fn best<'a>(run: &'a Run, figure: &Figure, is_asked: fn(&Row) -> bool) -> Option<&'a Row> {
    let rows = run.rows.iter().filter(|row| is_asked(row));
    let with_median = rows.filter_map(|row| Some((row.spread(figure.of)?.median, row)));
    let by_median = |(one, _): &(f64, &Row), (other, _): &(f64, &Row)| one.total_cmp(other);
    let best = match figure.better? {
        Better::Higher => with_median.max_by(by_median),
        Better::Lower => with_median.min_by(by_median),
    };
    best.map(|(_, row)| row)
}

/// What is not among the figures, and why.
fn troubles(figures: &Figures) -> String {
    let mut lines = Vec::new();
    for run in &figures.runs {
        let title = run.title.as_deref().unwrap_or(&run.kind);
        for row in &run.rows {
            if let Some(why) = &row.missing {
                lines.push(format!("{}: {why}", row.label));
            } else if let Some(why) = row.failures.last() {
                let (failed, rounds) = (row.failures.len(), row.failures.len() + row.results.len());
                let label = &row.label;
                lines
                    .push(format!("{title}: {label} failed in {failed} of {rounds} rounds: {why}"));
            }
            lines.extend(sections::failed_sizes(row).map(|why| format!("{}, {why}", row.label)));
        }
    }
    lines.extend(figures.failed.iter().map(|(title, why)| format!("{title}: {why}")));
    let mut seen = BTreeSet::new();
    lines.retain(|line| seen.insert(line.clone()));
    if lines.is_empty() {
        return String::new();
    }
    let items = lines.iter().map(|line| format!("<li>{}</li>\n", escape(line)));
    format!(
        "<section class=\"trouble\">\n<h2>Missing and failed</h2>\n<ul>\n{}</ul>\n</section>\n",
        items.collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_all_rounds_say_is_said() {
        let ratio = |min, max| Spread { median: f64::midpoint(min, max), min, max };
        assert_eq!(verdict(&ratio(1.1, 1.3), Better::Higher), "better");
        assert_eq!(verdict(&ratio(1.1, 1.3), Better::Lower), "worse");
        assert_eq!(verdict(&ratio(0.5, 0.7), Better::Lower), "better");
        assert_eq!(verdict(&ratio(0.5, 0.7), Better::Higher), "worse");
        assert_eq!(verdict(&ratio(0.9, 1.1), Better::Higher), "not clear");
        assert_eq!(verdict(&ratio(1.5, 1.5), Better::Higher), "1 round");
    }
}
