//! The plans of `all`: tables of command lines, each with the duration of its measurements.

use std::time::Duration;

/// Ours with its own choice of relay mode and through the kernel, with both backends; and the
/// others.
const RELAYS: &str = "wg-bounce-uring,wg-bounce-mmsg,wg-bounce-kernel-uring,\
    wg-bounce-kernel-mmsg,wireguard-go,boringtun,gotatun,kernel";

/// The same without relay modes, for runs that do not depend on forwarding.
const DAEMONS: &str = "wg-bounce-uring,wg-bounce-mmsg,wireguard-go,boringtun,gotatun";

/// Ours with all relay modes and AEADs, and the others.
const EVERYTHING: &str = "wg-bounce-uring,wg-bounce-mmsg,wg-bounce-direct-uring,\
    wg-bounce-direct-mmsg,wg-bounce-kernel-uring,wg-bounce-kernel-mmsg,wg-bounce-ring-uring,\
    wg-bounce-avx2-uring,wg-bounce-avx512-uring,wireguard-go,boringtun,gotatun,kernel";

/// Size of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Each measurement once, and short, as a test.
    Quick,
    /// The default.
    Usual,
    /// All combinations.
    Full,
}

/// One run of a subcommand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its title in the report.
    pub title: String,
    /// The subcommand.
    pub kind: &'static str,
    /// Its arguments except for those below.
    pub arguments: String,
    /// Implementations, separated by commas.
    pub implementations: String,
    /// Rounds.
    pub rounds: u32,
    /// Seconds of one measurement, including set-up and pauses, on a machine with two cores.
    pub seconds: u32,
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

/// A line of the table: title, subcommand, arguments, implementations, rounds, seconds.
type Line = (&'static str, &'static str, &'static str, &'static str, u32, u32);

const USUAL: &[Line] = &[
    ("TCP, 1 stream", "iperf", "--topology relay --seconds 3", RELAYS, 3, 6),
    ("TCP, 16 streams", "iperf", "--topology relay --seconds 3 --streams 16", RELAYS, 3, 6),
    ("UDP at 500 Mbit/s", "iperf", "--topology relay --seconds 3 --udp 500", RELAYS, 3, 6),
    ("TCP, 1 stream, IPv6", "iperf", "--topology relay --seconds 3 --family 6", RELAYS, 3, 6),
    ("1 pair, trains of 44", "blast", "--seconds 1", RELAYS, 3, 5),
    ("16 pairs, trains of 4", "blast", "--seconds 1 --pairs 16 --train 4", RELAYS, 3, 5),
    ("16 pairs, single datagrams", "blast", "--seconds 1 --pairs 16 --train 1", RELAYS, 3, 5),
    ("16 pairs, trains of 44, 64 bytes", "blast", "--seconds 1 --pairs 16 --size 64", RELAYS, 3, 5),
    ("Latency, 4 pairs, trains of 4", "latency", "--seconds 1", RELAYS, 2, 9),
    ("1,000 peers at once", "storm", "", DAEMONS, 2, 12),
    ("10 to 10,000 peers", "scale", "--peers 10,1000,10000", DAEMONS, 1, 40),
];

const QUICK: &[Line] = &[
    ("TCP, 1 stream", "iperf", "--topology relay --seconds 1", RELAYS, 1, 4),
    ("UDP at 100 Mbit/s", "iperf", "--topology relay --seconds 1 --udp 100", RELAYS, 1, 4),
    ("1 pair, trains of 44", "blast", "--seconds 1", RELAYS, 1, 5),
    ("16 pairs, trains of 4", "blast", "--seconds 1 --pairs 16 --train 4", RELAYS, 1, 5),
    ("Latency, 4 pairs, trains of 4", "latency", "--seconds 1", DAEMONS, 1, 9),
    ("100 peers at once", "storm", "--peers 100", DAEMONS, 1, 12),
    ("10 to 1,000 peers", "scale", "--peers 10,1000", DAEMONS, 1, 20),
];

/// In addition to all combinations of `iperf`.
const FULL: &[Line] = &[
    ("1 pair, trains of 44", "blast", "", EVERYTHING, 5, 8),
    ("1 pair, trains of 44, IPv6 in IPv6", "blast", "--family 6 --outer 6", EVERYTHING, 5, 8),
    ("1 pair, trains of 16", "blast", "--train 16", EVERYTHING, 5, 8),
    ("1 pair, trains of 4", "blast", "--train 4", EVERYTHING, 5, 8),
    ("1 pair, single datagrams", "blast", "--train 1", EVERYTHING, 5, 8),
    ("16 pairs, trains of 44", "blast", "--pairs 16", EVERYTHING, 5, 8),
    ("16 pairs, trains of 4", "blast", "--pairs 16 --train 4", EVERYTHING, 5, 8),
    ("16 pairs, single datagrams", "blast", "--pairs 16 --train 1", EVERYTHING, 5, 8),
    ("1,000 pairs, trains of 4", "blast", "--pairs 1000 --train 4", EVERYTHING, 5, 12),
    ("16 pairs, trains of 44, 64 bytes", "blast", "--pairs 16 --size 64", EVERYTHING, 5, 8),
    (
        "16 pairs, trains of 4, 64 bytes",
        "blast",
        "--pairs 16 --train 4 --size 64",
        EVERYTHING,
        5,
        8,
    ),
    ("1 pair, single 64-byte datagrams", "blast", "--train 1 --size 64", EVERYTHING, 5, 8),
    ("1 pair, trains of 44, 512 bytes", "blast", "--size 512 --kind udp", EVERYTHING, 5, 8),
    ("A thin flow next to others", "blast", "--fairness", EVERYTHING, 3, 20),
    ("Latency, 4 pairs, trains of 4", "latency", "--load 10%,30%,50%,80%,95%", EVERYTHING, 5, 18),
    ("Latency, 1 pair, single datagrams", "latency", "--pairs 1 --train 1", EVERYTHING, 5, 14),
    ("1,000 peers at once", "storm", "", DAEMONS, 5, 12),
    ("10,000 peers at once", "storm", "--peers 10000", DAEMONS, 3, 40),
    ("10 to 100,000 peers", "scale", "--peers 10,1000,10000,100000", DAEMONS, 2, 240),
];

/// The runs of a plan.
pub fn plan(size: Size) -> Vec<Run> {
    match size {
        Size::Quick => QUICK.iter().map(run).collect(),
        Size::Usual => USUAL.iter().map(run).collect(),
        Size::Full => every_iperf().into_iter().chain(FULL.iter().map(run)).collect(),
    }
}

fn run(&(title, kind, arguments, implementations, rounds, seconds): &Line) -> Run {
    Run {
        title: title.to_owned(),
        kind,
        arguments: arguments.to_owned(),
        implementations: implementations.to_owned(),
        rounds,
        seconds,
    }
}

/// Topologies × families × directions × loads.
fn every_iperf() -> Vec<Run> {
    const LOADS: [(&str, &str); 4] = [
        ("TCP, 1 stream", "--streams 1"),
        ("TCP, 4 streams", "--streams 4"),
        ("TCP, 16 streams", "--streams 16"),
        ("UDP at 500 Mbit/s", "--udp 500"),
    ];
    let mut runs = Vec::new();
    for topology in ["relay", "pair"] {
        for family in [4, 6] {
            for direction in ["forward", "reverse", "both"] {
                for (title, load) in LOADS {
                    runs.push(Run {
                        title: format!("{title}, {topology}, {direction}, IPv{family}"),
                        kind: "iperf",
                        arguments: format!(
                            "{load} --topology {topology} --family {family} \
                             --direction {direction} --seconds 5"
                        ),
                        implementations: EVERYTHING.to_owned(),
                        rounds: 3,
                        seconds: 8,
                    });
                }
            }
        }
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
        assert!(estimate(&plan(Size::Usual)) <= Duration::from_secs(27 * 60));
        assert!(estimate(&plan(Size::Quick)) <= Duration::from_secs(8 * 60));
    }

    #[test]
    fn titles_are_unique() {
        for size in [Size::Quick, Size::Usual, Size::Full] {
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
        let runs = plan(Size::Usual);
        for kind in ["iperf", "blast", "latency", "storm", "scale"] {
            assert!(runs.iter().any(|run| run.kind == kind), "{kind}");
        }
        let words = runs[1].words().join(" ");
        assert!(words.starts_with("iperf --topology relay --seconds 3 --streams 16 --rounds 3"));
        assert!(words.ends_with("boringtun,gotatun,kernel"), "{words}");
    }
}
