//! The page: the machine, the programs, a comparison at a glance, what is missing, and the figures.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde_json::Value;

use super::html::{escape, section, table};
use super::sections;
use crate::columns::{Better, Column, SUBJECTS, Subject, Table, digits};
use crate::machine::describe;
use crate::record::{Figures, OURS, Row, Run};
use crate::statistics::Spread;
use crate::table::ratio_in_words;

/// The whole page.
pub fn render(figures: &Figures) -> String {
    let sections: String =
        SUBJECTS.iter().map(|subject| sections::of(subject, &figures.runs)).collect();
    let parts = [header(figures), glance(&figures.runs), troubles(figures), sections];
    let style = include_str!("style.css");
    format!(include_str!("page.html"), style = style, body = parts.concat())
}

fn header(figures: &Figures) -> String {
    let machines: BTreeSet<_> = figures.runs.iter().map(|run| describe(&run.machine)).collect();
    let machines = machines.iter().map(|it| format!("<p class=\"lead\">{}</p>\n", escape(it)));
    let loads = figures.runs.iter().filter_map(|run| run.machine["load_average"].as_f64());
    let load = loads.reduce(f64::max).unwrap_or_default();
    let mut programs: Vec<Vec<String>> = Vec::new();
    for row in figures.runs.iter().flat_map(|run| &run.rows) {
        let (Some(version), Some(path)) = (&row.version, &row.path) else { continue };
        if programs.iter().all(|program| program[0] != escape(&row.label)) {
            let told = told(&figures.runs, &row.label);
            programs.push([&row.label, version, path, &told].map(|it| escape(it)).into());
        }
    }
    let titles = ["implementation", "version", "program", "its log"].map(str::to_owned);
    format!(
        "<h1>WireGuard relays side by side</h1>\n{}\
         <p class=\"lead\">Load average at the start of a run: at most {load}.</p>\n{}",
        machines.collect::<String>(),
        section("Implementations", "", &table(&titles, &programs))
    )
}

/// Log lines about how an implementation ran, each different line once.
fn told(runs: &[Run], label: &str) -> String {
    let rows = runs.iter().flat_map(|run| &run.rows).filter(|row| row.label == label);
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

/// For each run, ours next to the best of the others: the columns with bars, of a list at its last
/// item.
fn glance(runs: &[Run]) -> String {
    let mut lines = Vec::new();
    for run in runs {
        for table in Subject::of(&run.kind).tables(&run.options) {
            let Some(name) = table.names(run).pop() else { continue };
            lines.extend(table.compared().filter_map(|column| compared(run, table, &name, column)));
        }
    }
    if lines.is_empty() {
        return String::new();
    }
    let titles = ["run", "figure", "best wg-bounce", "best other", "ratio", ""];
    let lead = "The best variant of wg-bounce and the best other implementation, by their medians, \
                and the ratio of the first to the second within each round: median \
                (smallest–largest). If rounds disagree, the difference is not clear.";
    section("At a glance", lead, &table(&titles.map(str::to_owned), &lines))
}

fn compared(run: &Run, table: &Table, name: &str, column: &Column) -> Option<Vec<String>> {
    let of = table.figure(column, name);
    let ours = column.best(&run.rows, of, |row| row.family == OURS)?;
    let other = column.best(&run.rows, of, |row| row.family != OURS)?;
    let (ratio, better) = (ours.ratio_to(other, of), column.better?);
    let with_median = |row: &Row| {
        let median = row.spread(of).map(|it| digits(it.median)).unwrap_or_default();
        format!("{median} ({})", row.title())
    };
    let place = match table.heading.trim_end_matches(':').replace("{}", name) {
        heading if heading.is_empty() => heading,
        heading => format!(" · {heading}"),
    };
    let cells = [
        run.title().to_owned(),
        format!("{}{place}", column.title),
        with_median(ours),
        with_median(other),
        ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{} ×", ratio_in_words(ratio))),
        ratio.map_or("", |ratio| verdict(&ratio, better)).to_owned(),
    ];
    Some(cells.iter().map(|cell| escape(cell)).collect())
}

/// Verdict on the first of a ratio, if there are several rounds and all agree.
fn verdict(ratio: &Spread, better: Better) -> &'static str {
    if ratio.min == ratio.max {
        return "1 round";
    }
    match [ratio.min, ratio.max].map(|it| better.compare(it, 1.0)) {
        [Ordering::Greater, Ordering::Greater] => "better",
        [Ordering::Less, Ordering::Less] => "worse",
        _ => "not clear",
    }
}

/// The list of missing figures, with reasons.
fn troubles(figures: &Figures) -> String {
    let mut lines = Vec::new();
    for run in &figures.runs {
        for row in &run.rows {
            if let Some(why) = &row.missing {
                lines.push(format!("{}: {why}", row.label));
            } else if let Some(why) = row.trouble() {
                lines.push(format!("{}: {} {why}", run.title(), row.label));
            }
            for table in Subject::of(&run.kind).tables(&run.options) {
                let parts = row.results.iter().flat_map(|(_, result)| table.parts(result));
                for (name, part) in parts.filter(|_| table.list.is_some()) {
                    let place = table.heading.trim_end_matches(':').replace("{}", &name);
                    let why = part["failure"].as_str();
                    lines.extend(why.map(|why| format!("{}, {place}: {why}", row.label)));
                }
            }
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
    fn a_verdict_needs_all_rounds() {
        let ratio = |min, max| Spread { median: f64::midpoint(min, max), min, max };
        assert_eq!(verdict(&ratio(1.1, 1.3), Better::Higher), "better");
        assert_eq!(verdict(&ratio(1.1, 1.3), Better::Lower), "worse");
        assert_eq!(verdict(&ratio(0.5, 0.7), Better::Lower), "better");
        assert_eq!(verdict(&ratio(0.5, 0.7), Better::Higher), "worse");
        assert_eq!(verdict(&ratio(0.9, 1.1), Better::Higher), "not clear");
        assert_eq!(verdict(&ratio(1.5, 1.5), Better::Higher), "1 round");
    }
}
