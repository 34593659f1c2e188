//! The plans of `all`: tables of command lines in `plan.json`, each with the duration of its
//! measurements.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

/// One run of a subcommand, as a line of a plan.
#[derive(Clone, Debug, Deserialize)]
pub struct Run {
    /// Its title in the report.
    pub title: String,
    /// The subcommand.
    pub kind: String,
    /// Its arguments except for those below.
    pub arguments: String,
    /// Implementations, separated by commas; in `plan.json` the name of such a list.
    pub implementations: String,
    /// Rounds.
    pub rounds: u32,
    /// Seconds of one measurement, including set-up and pauses, on a machine with two cores.
    pub seconds: u32,
}

/// The contents of `plan.json`.
#[derive(Deserialize)]
struct Plans {
    /// Lists of implementations: with relay modes, without them for runs that do not depend on
    /// forwarding, and with all relay modes and AEADs.
    implementations: BTreeMap<String, String>,
    /// By name: `quick` (everything once and short), `usual` and `full` (all combinations).
    #[serde(flatten)]
    plans: BTreeMap<String, Vec<Run>>,
}

impl Run {
    /// Estimated duration.
    pub fn estimate(&self) -> Duration {
        let implementations = self.implementations.split(',').count();
        let measurements = u32::try_from(implementations).expect("a handful") * self.rounds;
        Duration::from_secs((measurements * self.seconds).into())
    }

    /// Its command line, without the program.
    pub fn words(&self) -> Vec<String> {
        let Run { kind, arguments, implementations, rounds, .. } = self;
        let line = format!("{kind} {arguments} --rounds {rounds} --implementations");
        line.split_whitespace().chain([implementations.as_str()]).map(str::to_owned).collect()
    }
}

/// The runs of the plan of this name.
pub fn plan(name: &str) -> Vec<Run> {
    let Plans { implementations, mut plans } =
        serde_json::from_str(include_str!("plan.json")).expect("a test reads it");
    let mut runs = plans.remove(name).expect("a plan of this name");
    for run in &mut runs {
        run.implementations = implementations[&run.implementations].clone();
    }
    runs
}

/// Estimated duration of all of them.
pub fn estimate(runs: &[Run]) -> Duration {
    runs.iter().map(Run::estimate).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_plan_ends_within_half_an_hour() {
        // With a margin for machines slower than the table assumes.
        assert!(estimate(&plan("usual")) <= Duration::from_secs(27 * 60));
        assert!(estimate(&plan("quick")) <= Duration::from_secs(8 * 60));
    }

    #[test]
    fn titles_are_unique() {
        for size in ["quick", "usual", "full"] {
            let mut titles: Vec<_> =
                plan(size).into_iter().map(|run| (run.kind, run.title)).collect();
            let all = titles.len();
            titles.sort();
            titles.dedup();
            assert_eq!(titles.len(), all, "{size:?}");
        }
    }

    #[test]
    fn the_usual_plan_has_every_section_of_the_report() {
        let runs = plan("usual");
        for kind in ["iperf", "blast", "latency", "storm", "scale"] {
            assert!(runs.iter().any(|run| run.kind == kind), "{kind}");
        }
        let words = runs[1].words().join(" ");
        assert!(words.starts_with("iperf --topology relay --seconds 3 --streams 16 --rounds 3"));
        assert!(words.ends_with("boringtun,gotatun,kernel"), "{words}");
    }
}
