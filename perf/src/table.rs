//! A run's tables on the terminal: a line for each implementation, including missing and failed
//! ones.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::columns::{Subject, Table, digits};
use crate::machine;
use crate::record::Run;
use crate::statistics::Spread;

/// All tables of a run, with the machine, the notes and the programs.
pub fn render(run: &Run) -> String {
    let subject = Subject::of(&run.kind);
    let (machine, load) = (machine::describe(&run.machine), &run.machine["load_average"]);
    let mut text = format!(
        "{}: {}\n{machine}, load {load} at the start\n\n",
        run.kind,
        run.describe_options()
    );
    for table in subject.tables(&run.options) {
        for name in table.names(run) {
            if !table.heading.is_empty() {
                text += &format!("{}\n\n", table.heading.replace("{}", &name));
            }
            text += &render_one(run, table, &name);
            text.push('\n');
        }
    }
    text += &format!(
        "Medians of the rounds (smallest–largest). × best other: ratio within each round to the \
         best other implementation; –: not known. {}\n",
        subject.note
    );
    for row in &run.rows {
        if let (Some(version), Some(path)) = (&row.version, &row.path) {
            text += &format!("{}: {version} ({path})\n", row.label);
        }
    }
    text
}

/// The main figures of one result, for the progress line.
pub fn summary(run: &Run, result: &Value) -> String {
    let mut parts = Vec::new();
    for table in Subject::of(&run.kind).tables(&run.options) {
        for (name, part) in table.parts(result) {
            let figures = table
                .compared()
                .filter_map(|it| Some(format!("{} {}", it.title, digits(it.of(part)?))))
                .chain(part["failure"].as_str().map(str::to_owned))
                .collect::<Vec<_>>();
            let name = if name.is_empty() { name } else { format!("{name}: ") };
            parts.push(name + &figures.join(", "));
        }
    }
    parts.join("; ")
}

/// Median, and the range if the rounds differ.
pub fn median_and_range(spread: Option<Spread>) -> String {
    spread.map_or("–".to_owned(), |spread| in_words(spread, digits))
}

/// A ratio and its range.
pub fn ratio_in_words(ratio: Spread) -> String {
    in_words(ratio, |it| format!("{it:.2}"))
}

fn in_words(Spread { median, min, max }: Spread, word: impl Fn(f64) -> String) -> String {
    let range =
        if min == max { String::new() } else { format!(" ({}–{})", word(min), word(max)) };
    word(median) + &range
}

/// A table of strings: titles, then a line for each row with results. The last column is of one
/// ratio, if there is something to compare with.
fn render_one(run: &Run, table: &Table, name: &str) -> String {
    let with_results = run.rows.iter().filter(|row| !row.results.is_empty());
    let families: BTreeSet<_> = with_results.map(|row| &row.family).collect();
    let compared: Vec<_> = table.compared().filter(|_| families.len() > 1).collect();
    let mut titles = vec!["implementation".to_owned()];
    titles.extend(table.columns.iter().map(|column| column.title.clone()));
    titles.extend(compared.iter().map(|column| format!("{} × best other", column.title)));
    let mut lines = vec![titles];
    for row in &run.rows {
        let spreads = table.spreads(row, name);
        if spreads.iter().any(Option::is_some) {
            let mut cells = vec![row.title()];
            cells.extend(spreads.into_iter().map(median_and_range));
            cells.extend(compared.iter().map(|column| {
                let of = table.figure(column, name);
                let other = column.best(&run.rows, of, |other| other.family != row.family);
                let ratio = other.and_then(|other| Some((row.ratio_to(other, of)?, other)));
                ratio.map_or("–".to_owned(), |(ratio, other)| {
                    format!("{} × {}", ratio_in_words(ratio), other.title())
                })
            }));
            lines.push(cells);
        }
        let items = row.results.iter().filter_map(|(_, result)| table.part(result, name));
        let of_item = items.rev().find_map(|it| it["failure"].as_str()).map(str::to_owned);
        lines.extend(row.trouble().or(of_item).map(|why| vec![row.title(), why]));
    }
    align(&lines)
}

/// Columns of strings, separated by two spaces; the last cell of each line has no width.
fn align(lines: &[Vec<String>]) -> String {
    let columns = lines[0].len();
    let width = |column: usize| {
        let cells = lines.iter().filter(|line| line.len() == columns || column == 0);
        cells.map(|line| line[column].chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let (last, cells) = line.split_last().expect("a line has cells");
        for (column, (cell, &width)) in cells.iter().zip(&widths).enumerate() {
            let cell =
                if column == 0 { format!("{cell:width$}") } else { format!("{cell:>width$}") };
            text += &format!("{cell}  ");
        }
        text += &format!("{last}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::record::Row;

    /// A row of `storm` with these rates, some of which are missing, and this CPU time each.
    fn row(label: &str, family: &str, rates: &[Option<f64>], cost: Value) -> Row {
        let rounds = (1..).zip(rates);
        let result = |(round, rate): (u64, &Option<f64>)| {
            Some((
                round,
                json!({ "handshakes_per_second": (*rate)?, "cpu_ns_per_handshake": cost }),
            ))
        };
        let results = rounds.filter_map(result).collect();
        let failed = rates.iter().filter(|rate| rate.is_none());
        let failures = failed.map(|_| "it ended unexpectedly".to_owned()).collect();
        Row { label: label.into(), family: family.into(), results, failures, ..Row::default() }
    }

    fn lines(rows: Vec<Row>) -> Vec<String> {
        let run = Run { kind: "storm".into(), rows, ..Run::default() };
        let table = Subject::of("storm").tables(&run.options).nth(1).expect("two parts");
        render_one(&run, table, "").lines().skip(1).map(str::to_owned).collect()
    }

    #[test]
    fn rows_are_compared_with_the_best_of_another_family() {
        let lines = lines(vec![
            row("ours-a", "ours", &[Some(6.0), Some(3.0), Some(4.0)], json!(5e4)),
            row("ours-b", "ours", &[Some(9.0), Some(9.0), Some(9.0)], json!(6e4)),
            row("slow", "slow", &[Some(1.0), Some(1.0), Some(1.0)], json!(1e5)),
            row("quick", "quick", &[Some(2.0), Some(1.5), Some(4.0)], json!(2e5)),
        ]);
        // Round by round 3, 2 and 1; where less is better, the best other is the lowest.
        let ratios = "2.00 (1.00–3.00) × quick  0.50 × slow";
        assert!(lines[0].ends_with(ratios), "{}", lines[0]);
        assert!(lines[2].contains(" × ours-b  "), "{}", lines[2]);
        let figures = "ours-a               4 (3–6)      50        –        –     –  ";
        assert!(lines[0].starts_with(figures), "{}", lines[0]);
    }

    #[test]
    fn the_newest_wireguard_go_is_the_best_other_with_its_version() {
        let go = |label: &str, version: &str, rate| {
            let version = Some(format!("wireguard-go v{version}"));
            Row { version, ..row(label, "wireguard-go", &[Some(rate)], Value::Null) }
        };
        let lines = lines(vec![
            row("ours", "ours", &[Some(6.0)], Value::Null),
            go("wireguard-go", "0.0.20220316", 1.0),
            go("wireguard-go@/new", "0.0.20250522", 3.0),
        ]);
        assert!(lines[0].contains("2.00 × wireguard-go@/new 0.0.20250522"), "{}", lines[0]);
        assert!(lines[1].starts_with("wireguard-go 0.0.20220316 "), "{}", lines[1]);
    }

    #[test]
    fn a_single_row_has_no_ratio() {
        assert!(!lines(vec![row("one", "one", &[Some(1.0)], Value::Null)])[0].contains('×'));
    }

    #[test]
    fn rounds_in_which_either_failed_are_not_compared() {
        let lines = lines(vec![
            row("one", "one", &[Some(2.0), None, Some(4.0)], Value::Null),
            row("two", "two", &[Some(1.0), Some(1.0), None], Value::Null),
        ]);
        assert!(lines[0].contains(" 2.00 × two"), "{}", lines[0]);
        assert_eq!(lines[1], "one             failed in 1 of 3 rounds: it ended unexpectedly");
    }

    #[test]
    fn a_missing_program_has_a_line() {
        let gone = Row {
            missing: Some("not there".into()),
            ..row("a-missing-program", "gone", &[], Value::Null)
        };
        let lines = lines(vec![row("here", "here", &[Some(1.0)], Value::Null), gone]);
        assert_eq!(lines[1], "a-missing-program  not there");
    }

    #[test]
    fn a_row_without_the_figure_is_not_the_best() {
        let lines = lines(vec![
            row("ours", "ours", &[Some(1.0)], json!(5e4)),
            row("kernel", "kernel", &[Some(2.0)], Value::Null),
            row("dear", "dear", &[Some(1.0)], json!(1e5)),
        ]);
        assert!(lines[0].ends_with("0.50 × dear"), "{}", lines[0]);
        assert!(lines[1].ends_with("  –"), "{}", lines[1]);
    }
}
