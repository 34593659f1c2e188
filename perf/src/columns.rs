//! The tables of all subcommands, as data in `columns.json`: each column is declared once, for the
//! terminal, the progress lines and the report. Figures are read from the JSON results.

use std::cmp::Ordering;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::Value;

use crate::record::{Row, Run};
use crate::statistics::Spread;

/// A column.
#[derive(Deserialize)]
pub struct Column {
    /// With its unit.
    pub title: String,
    /// The better end, if any. Such columns are compared with the best other implementation, and
    /// have a bar in the report.
    pub better: Option<Better>,
    /// Figures of a result, or of an item of a list in it: JSON pointers, or names of [`derived`]
    /// ones. The column shows the product of these …
    times: Vec<String>,
    /// … divided by these …
    #[serde(default)]
    over: Vec<String>,
    /// … times this …
    scale: Option<f64>,
    /// … and divided by this.
    unit: Option<f64>,
}

/// The better end of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
}

impl Better {
    /// The better of two figures comes last.
    pub fn compare(self, one: f64, other: f64) -> Ordering {
        if self == Better::Higher { one.total_cmp(&other) } else { other.total_cmp(&one) }
    }
}

impl Column {
    /// The column's figure.
    pub fn of(&self, part: &Value) -> Option<f64> {
        let product = |names: &[String]| names.iter().map(|name| derived(part, name)).product();
        let (times, over): (Option<f64>, Option<f64>) = (product(&self.times), product(&self.over));
        Some(times? * self.scale.unwrap_or(1.0) / (over? * self.unit.unwrap_or(1.0)))
    }

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

/// A figure of a result: one that follows from others, or the one at a JSON pointer.
fn derived(result: &Value, name: &str) -> Option<f64> {
    let at = |pointer| result.pointer(pointer)?.as_f64();
    match name {
        // None if one of the daemons is the kernel, which is not a process.
        "measured CPU seconds" => {
            let daemons = result["daemons"].as_array()?;
            let mut measured = daemons.iter().filter(|daemon| daemon["measured"] == true);
            measured.try_fold(0.0, |sum, it| Some(sum + it["cpu_seconds"].as_f64()?))
        }
        "lost bytes" => Some(at("/iperf3/bytes_sent")? - at("/iperf3/bytes")?),
        "late packets" => Some(at("/capacity/reordered")? + at("/capacity/reordered_samples")?),
        pointer => at(pointer),
    }
}

/// A table: a row for each implementation.
#[derive(Deserialize)]
pub struct Table {
    /// With {} for the name of a list's item.
    #[serde(default)]
    pub heading: String,
    /// A list in the results with a table for each of its items.
    pub list: Option<List>,
    /// Option that must be set for this table, and option that must not.
    when: Option<String>,
    unless: Option<String>,
    /// Columns after the implementation.
    pub columns: Vec<Column>,
}

/// A list in results: its field, and the field of its items that names them.
#[derive(Deserialize)]
pub struct List {
    field: String,
    key: String,
}

impl Table {
    /// The columns with a better end.
    pub fn compared(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| column.better.is_some())
    }

    /// The parts of a result, with their names: the items of the list, or the result itself. Each
    /// has a table of its own.
    pub fn parts<'a>(&self, result: &'a Value) -> Vec<(String, &'a Value)> {
        let Some(List { field, key }) = &self.list else { return vec![(String::new(), result)] };
        let number = |item: &Value| digits(item[key].as_f64().unwrap_or_default());
        let name = |item: &Value| item[key].as_str().map_or_else(|| number(item), str::to_owned);
        let items = result[field].as_array().into_iter().flatten();
        items.map(|item| (name(item), item)).collect()
    }

    /// The part of this name.
    pub fn part<'a>(&self, result: &'a Value, name: &str) -> Option<&'a Value> {
        self.parts(result).into_iter().find(|(it, _)| it == name).map(|(_, part)| part)
    }

    /// The names of all parts, in the order of the first result that has them.
    pub fn names(&self, run: &Run) -> Vec<String> {
        if self.list.is_none() {
            return vec![String::new()];
        }
        let mut names = Vec::new();
        for (name, _) in run.results().flat_map(|result| self.parts(result)) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// Reads a column's figure from the part of this name.
    pub fn figure(&self, column: &Column, name: &str) -> impl Fn(&Value) -> Option<f64> + Copy {
        move |result| column.of(self.part(result, name)?)
    }

    /// The spread of each column in the part of this name.
    pub fn spreads(&self, row: &Row, name: &str) -> Vec<Option<Spread>> {
        self.columns.iter().map(|column| row.spread(self.figure(column, name))).collect()
    }
}

/// A subcommand's tables.
#[derive(Deserialize)]
pub struct Subject {
    /// The subcommand.
    pub kind: String,
    /// Heading of its section in the report.
    pub title: String,
    /// Explanation of the tables.
    pub note: String,
    tables: Vec<Table>,
}

/// All subcommands that measure, in the report's order.
pub static SUBJECTS: LazyLock<Vec<Subject>> =
    LazyLock::new(|| serde_json::from_str(include_str!("columns.json")).expect("tests read it"));

impl Subject {
    /// The subcommand of a run.
    pub fn of(kind: &str) -> &'static Subject {
        SUBJECTS.iter().find(|it| it.kind == kind).expect("runs are of these kinds")
    }

    /// The tables of a run with these options.
    pub fn tables(&self, options: &Value) -> impl Iterator<Item = &Table> {
        let is_set = |option: &String| !matches!(options[option], Value::Null | Value::Bool(false));
        let is_there = move |table: &&Table| {
            table.when.as_ref().is_none_or(is_set) && !table.unless.as_ref().is_some_and(is_set)
        };
        self.tables.iter().filter(is_there)
    }
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
    let (mut separated, length) = (whole.to_owned(), whole.len());
    for at in (1..length).rev().filter(|at| (length - at).is_multiple_of(3)) {
        separated.insert(at, ',');
    }
    format!("{sign}{separated}{fraction}")
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
        let figure = |title: &str, seconds| {
            let options = json!({ "udp_megabits_per_second": 500 });
            let table = Subject::of("iperf").tables(&options).next().expect("of UDP");
            let column = table.columns.iter().find(|column| column.title == title);
            let figure = column.expect("it is there").of(&result(seconds));
            figure.map(|figure| (figure * 1e6).round() / 1e6)
        };
        assert_eq!(figure("CPU s/GB", json!(3.0)), Some(1.5));
        assert_eq!(figure("CPU s/GB", Value::Null), None, "the kernel");
        assert_eq!(figure("lost %", Value::Null), Some(20.0));
        assert_eq!(figure("sent Gbit/s", Value::Null), Some(5.0));
        assert_eq!(figure("machine s/GB", Value::Null), Some(4.0));
    }
}
