//! What was measured, read back from the JSON lines.
//!
//! A file holds runs one after another. Each begins with a line that says what it is; lines of
//! its implementations and measurements follow. Before a run that was part of a plan, there is a
//! line with its title; after one that failed as a whole, a line that says why.

use serde_json::Value;

use crate::statistics::Spread;

/// The subcommands that measure.
const KINDS: [&str; 5] = ["iperf", "blast", "storm", "latency", "scale"];

/// Everything that the files hold.
#[derive(Debug, Default)]
pub struct Figures {
    /// In the order of the files.
    pub runs: Vec<Run>,
    /// Runs of a plan that gave nothing: title and reason.
    pub failed: Vec<(String, String)>,
}

/// One run of a subcommand.
#[derive(Debug)]
pub struct Run {
    /// The subcommand.
    pub kind: String,
    /// What a plan calls it.
    pub title: Option<String>,
    /// Where it was measured.
    pub machine: Value,
    /// The subcommand's options.
    pub options: Value,
    /// In the order of the run.
    pub rows: Vec<Row>,
}

/// One implementation in a run.
#[derive(Debug)]
pub struct Row {
    /// What it is called.
    pub label: String,
    /// Rows of one family are not each other's rivals.
    pub family: String,
    /// Version and path.
    pub program: Option<(String, String)>,
    /// Why it is missing, if it is.
    pub missing: Option<String>,
    /// Results, each with its round.
    pub results: Vec<(u64, Value)>,
    /// Why rounds failed.
    pub failures: Vec<String>,
}

impl Figures {
    /// Reads one file's lines. What is not understood is a failure, with the line's number.
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

    /// The runs of one subcommand.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Run> {
        self.runs.iter().filter(move |run| run.kind == kind)
    }
}

impl Run {
    fn read(&mut self, kind: &str, record: &Value) -> Result<(), String> {
        let label = text_of(record, "implementation").ok_or("no \"implementation\"")?;
        match kind {
            "implementation" => {
                let missing = text_of(record, "missing");
                let part = |name| text_of(record, name).unwrap_or_default();
                self.rows.push(Row {
                    family: text_of(record, "family").unwrap_or_else(|| label.clone()),
                    program: missing.is_none().then(|| (part("version"), part("path"))),
                    label,
                    missing,
                    results: Vec::new(),
                    failures: Vec::new(),
                });
                Ok(())
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
                Ok(())
            }
            // A later version may write more: what is known is still shown.
            _ => Ok(()),
        }
    }
}

impl Row {
    /// The spread of a figure over the rounds; none if no round has it.
    pub fn spread(&self, figure: impl Fn(&Value) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.results.iter().filter_map(|(_, result)| figure(result)))
    }

    /// This row's figure by the other's, round by round: both saw the same machine.
    pub fn ratio_to(&self, other: &Row, figure: impl Fn(&Value) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.results.iter().filter_map(|(round, result)| {
            let (_, others) = other.results.iter().find(|(of_other, _)| of_other == round)?;
            // By nothing there is no ratio.
            Some(figure(result)? / figure(others)?).filter(|ratio| ratio.is_finite())
        }))
    }
}

fn text_of(record: &Value, name: &str) -> Option<String> {
    record[name].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
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
            r#"{"kind":"iperf","machine":{},"options":{"streams":1}}"#,
            "\n",
            r#"{"kind":"implementation","implementation":"a","version":"1","path":"/a"}"#,
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
        assert_eq!(first.title.as_deref(), Some("first"));
        assert_eq!((second.kind.as_str(), &second.title), ("storm", &None));
        let [a, b] = first.rows.as_slice() else { panic!("{first:?}") };
        assert_eq!(a.spread(|it| it["x"].as_f64()).map(|it| it.median), Some(2.0));
        assert_eq!(a.failures, ["why"]);
        assert_eq!(b.missing.as_deref(), Some("not there"));
        assert_eq!(figures.failed, [("second".to_owned(), "no namespace".to_owned())]);
    }

    #[test]
    fn a_ratio_is_of_rounds_that_both_have() {
        let row = |results| Row {
            label: String::new(),
            family: String::new(),
            program: None,
            missing: None,
            results,
            failures: Vec::new(),
        };
        let one = row(vec![(1, 6.into()), (2, 8.into()), (4, 0.into())]);
        let other = row(vec![(2, 2.into()), (3, 1.into()), (4, 0.into())]);
        let ratio = one.ratio_to(&other, Value::as_f64).expect("round 2");
        assert_eq!((ratio.min, ratio.max), (4.0, 4.0));
    }

    #[test]
    fn what_is_no_record_is_refused_with_its_line() {
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
