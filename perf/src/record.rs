//! Runs and their results, as they are measured or read back from JSON lines.
//!
//! A file holds runs one after another. Each begins with a line that names the subcommand; lines of
//! its implementations and measurements follow. A run that was part of a plan is preceded by a line
//! with its title, and a run that failed as a whole is followed by a line with the reason.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::{Failure, while_doing};
use crate::statistics::Spread;

/// The subcommands that measure.
const KINDS: [&str; 5] = ["iperf", "blast", "storm", "latency", "scale"];

/// Family of our own rows.
pub const OURS: &str = "wg-bounce";

/// Contents of the files.
#[derive(Debug, Default)]
pub struct Figures {
    /// In the order of the files.
    pub runs: Vec<Run>,
    /// Runs of a plan without results: title and reason.
    pub failed: Vec<(String, String)>,
}

/// One run of a subcommand.
#[derive(Debug, Default)]
pub struct Run {
    /// The subcommand.
    pub kind: String,
    /// Its title in a plan.
    pub title: Option<String>,
    /// The machine on which it was measured.
    pub machine: Value,
    /// The subcommand's options.
    pub options: Value,
    /// One for each implementation.
    pub rows: Vec<Row>,
}

/// One implementation in a run, and its JSON line.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename = "implementation")]
pub struct Row {
    /// The implementation as given on the command line.
    #[serde(rename = "implementation")]
    pub label: String,
    /// Rows of one family are not compared with each other.
    #[serde(default)]
    pub family: String,
    /// First line of the program's --version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Why it cannot be run, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// Results, each with its round.
    #[serde(skip)]
    pub results: Vec<(u64, Value)>,
    /// Reasons of the rounds that failed.
    #[serde(skip)]
    pub failures: Vec<String>,
}

impl Figures {
    /// Reads one file's lines. Fails, with the line's number, on anything unexpected.
    pub fn read(&mut self, text: &str) -> Result<(), String> {
        let mut title = None;
        for (number, line) in (1..).zip(text.lines()) {
            let record: Value = serde_json::from_str(line)
                .map_err(|error| format!("line {number} is not JSON: {error}"))?;
            let at = |why: &str| format!("line {number}: {why}");
            match record["kind"].as_str().ok_or_else(|| at("no \"kind\""))? {
                "run" => title = text_of(&record, "title"),
                "run_failed" => {
                    let of_run = || self.runs.last().and_then(|run| run.title.clone());
                    let run = text_of(&record, "title").or(title.take()).or_else(of_run);
                    let run = run.unwrap_or_else(|| "a run".to_owned());
                    let why = text_of(&record, "why").unwrap_or_else(|| "unknown".to_owned());
                    self.failed.push((run, why));
                }
                kind if KINDS.contains(&kind) => self.runs.push(Run {
                    kind: kind.to_owned(),
                    title: title.take(),
                    machine: record["machine"].clone(),
                    options: record["options"].clone(),
                    rows: Vec::new(),
                }),
                kind => {
                    let run = self.runs.last_mut().ok_or_else(|| at("no run has begun"))?;
                    run.read(kind, &record).map_err(|why| at(&why))?;
                }
            }
        }
        Ok(())
    }
}

impl Run {
    fn read(&mut self, kind: &str, record: &Value) -> Result<(), String> {
        let label = text_of(record, "implementation").ok_or("no \"implementation\"")?;
        match kind {
            "implementation" => {
                let mut row = Row::deserialize(record).map_err(|error| error.to_string())?;
                if row.family.is_empty() {
                    row.family = label;
                }
                self.rows.push(row);
            }
            "measurement" => {
                let row = self.rows.iter_mut().find(|row| row.label == label);
                let row = row.ok_or_else(|| format!("{label} was not introduced"))?;
                match text_of(record, "failure") {
                    Some(failure) => row.failures.push(failure),
                    None => {
                        let round = record["round"].as_u64().unwrap_or_default();
                        row.results.push((round, record["result"].clone()));
                    }
                }
            }
            // A later version may write more; show the rest.
            _ => {}
        }
        Ok(())
    }

    /// The results of all rows.
    pub fn results(&self) -> impl Iterator<Item = &Value> {
        self.rows.iter().flat_map(|row| &row.results).map(|(_, result)| result)
    }

    /// Its title, or else the subcommand.
    pub fn title(&self) -> &str {
        self.title.as_deref().unwrap_or(&self.kind)
    }

    /// The options that were given, in a line.
    pub fn describe_options(&self) -> String {
        let options = self.options.as_object().into_iter().flatten();
        let option = |(name, it): (&String, &Value)| {
            Some(format!("{} {}", name.replace('_', " "), text(it)?))
        };
        options.filter_map(option).collect::<Vec<_>>().join(" · ")
    }
}

/// An option's value; none if it was not given.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::Bool(true) => Some("yes".to_owned()),
        Value::String(text) => Some(text.clone()),
        Value::Array(items) if items.is_empty() => None,
        Value::Array(items) => Some(items.iter().filter_map(text).collect::<Vec<_>>().join(", ")),
        other => Some(other.to_string()),
    }
}

fn text_of(record: &Value, name: &str) -> Option<String> {
    record[name].as_str().map(str::to_owned)
}

impl Row {
    /// Its label, for a public implementation with its version: they differ a lot in speed.
    pub fn title(&self) -> String {
        let version = self.version.as_deref().unwrap_or_default();
        let is_number = |word: &&str| word.trim_start_matches('v').starts_with(char::is_numeric);
        match version.split_whitespace().find(is_number) {
            Some(number) if self.family != OURS => {
                format!("{} {}", self.label, number.trim_start_matches('v'))
            }
            _ => self.label.clone(),
        }
    }

    /// The spread of a figure over the rounds; none if no round has it.
    pub fn spread(&self, figure: impl Fn(&Value) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.results.iter().filter_map(|(_, result)| figure(result)))
    }

    /// This row's figure divided by the other's, within each round: both ran under the same
    /// conditions.
    pub fn ratio_to(&self, other: &Row, figure: impl Fn(&Value) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.results.iter().filter_map(|(round, result)| {
            let (_, others) = other.results.iter().find(|(of_other, _)| of_other == round)?;
            // Nothing can be compared with zero.
            Some(figure(result)? / figure(others)?).filter(|ratio| ratio.is_finite())
        }))
    }

    /// The reason for missing results, in a line.
    pub fn trouble(&self) -> Option<String> {
        let (failed, rounds) = (self.failures.len(), self.failures.len() + self.results.len());
        let failure = self.failures.last();
        let failure = failure.map(|why| format!("failed in {failed} of {rounds} rounds: {why}"));
        self.missing.clone().or(failure)
    }
}

/// Writer of JSON lines, if they are wanted.
pub struct Lines(Option<File>);

impl Lines {
    /// Appends to the file at `path`, which may hold earlier runs.
    pub fn open(path: Option<&Path>) -> Result<Lines, Failure> {
        let open = |path: &Path| {
            let file = File::options().append(true).create(true).open(path);
            file.map_err(while_doing(format!("cannot write {}", path.display())))
        };
        Ok(Lines(path.map(open).transpose()?))
    }

    /// Writes a line.
    pub fn write(&mut self, record: &Value) -> Result<(), Failure> {
        let Some(file) = &mut self.0 else { return Ok(()) };
        // One write per line: a reader that follows the file sees whole lines.
        file.write_all(format!("{record}\n").as_bytes())
            .map_err(while_doing("cannot write the JSON lines"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<Figures, String> {
        let mut figures = Figures::default();
        figures.read(text).map(|()| figures)
    }

    #[test]
    fn runs_follow_one_another() {
        let figures = read(concat!(
            r#"{"kind":"run","title":"first"}"#,
            "\n",
            r#"{"kind":"iperf","machine":{},"options":{"streams":1,"udp":null,"load":["1%"]}}"#,
            "\n",
            r#"{"kind":"implementation","implementation":"a","version":"a v1.2","path":"/a"}"#,
            "\n",
            r#"{"kind":"implementation","implementation":"b","missing":"not there"}"#,
            "\n",
            r#"{"kind":"measurement","implementation":"a","round":1,"result":{"x":2}}"#,
            "\n",
            r#"{"kind":"measurement","implementation":"a","round":2,"failure":"why"}"#,
            "\n",
            r#"{"kind":"run_failed","title":"second","why":"no namespace"}"#,
            "\n",
            r#"{"kind":"storm"}"#,
            "\n",
        ))
        .expect("well-formed");
        let [first, second] = figures.runs.as_slice() else { panic!("{figures:?}") };
        assert_eq!((first.title(), second.title()), ("first", "storm"));
        assert_eq!(first.describe_options(), "load 1% · streams 1");
        let [a, b] = first.rows.as_slice() else { panic!("{first:?}") };
        assert_eq!(a.spread(|it| it["x"].as_f64()).map(|it| it.median), Some(2.0));
        assert_eq!((a.title().as_str(), b.title().as_str()), ("a 1.2", "b"));
        assert_eq!(a.trouble().as_deref(), Some("failed in 1 of 2 rounds: why"));
        assert_eq!(b.trouble().as_deref(), Some("not there"));
        let named = |it| json!({ "kind": "implementation", "implementation": it, "family": it });
        let mut record = named("a");
        (record["path"], record["version"]) = (json!("/a"), json!("a v1.2"));
        assert_eq!(json!(a), record);
        assert_eq!(figures.failed, [("second".to_owned(), "no namespace".to_owned())]);
    }

    #[test]
    fn only_public_implementations_have_their_version_in_the_title() {
        let title = |family: &str, version: &str| {
            let (label, version) = (format!("{family}@/new"), Some(version.to_owned()));
            Row { label, family: family.to_owned(), version, ..Row::default() }.title()
        };
        let newest = "wireguard-go@/new 0.0.20250522";
        assert_eq!(title("wireguard-go", "wireguard-go v0.0.20250522"), newest);
        assert_eq!(title("wireguard-go", ""), "wireguard-go@/new");
        assert_eq!(title(OURS, "wg-bounce 0.1.0"), "wg-bounce@/new");
    }

    #[test]
    fn a_ratio_is_of_rounds_that_both_have() {
        let row = |results| Row { results, ..Row::default() };
        let one = row(vec![(1, 6.into()), (2, 8.into()), (4, 0.into())]);
        let other = row(vec![(2, 2.into()), (3, 1.into()), (4, 0.into())]);
        let ratio = one.ratio_to(&other, Value::as_f64).expect("round 2");
        assert_eq!((ratio.min, ratio.max), (4.0, 4.0));
    }

    #[test]
    fn an_unexpected_line_is_refused_with_its_number() {
        for (text, why) in [
            ("{\"kind\":\"iperf\"}\nnonsense\n", "line 2"),
            ("{}\n", "no \"kind\""),
            (r#"{"kind":"measurement","implementation":"a"}"#, "no run has begun"),
            ("{\"kind\":\"iperf\"}\n{\"kind\":\"measurement\",\"implementation\":\"a\"}", "line 2"),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }
}
