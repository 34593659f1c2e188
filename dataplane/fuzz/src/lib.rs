//! Drives fuzz targets: functions that feed bytes to real code and check what it does with them.
//!
//! A target is a test ([`Target::run`]). It runs the files of its corpus, which are regression
//! cases as well, and then inputs that are mutated from them. Built by `scripts/fuzz`, libFuzzer
//! mutates instead, guided by the code that inputs reach.
//!
//! - `WG_BOUNCE_FUZZ_SECONDS`: duration of the mutation (default 1).
//! - `WG_BOUNCE_FUZZ_SEED`: its seed (default 1). An input depends on the seed and its round only.
//! - `WG_BOUNCE_FUZZ_INPUT`: a file to run instead of all else. A failure prints this variable.
//! - `WG_BOUNCE_FUZZ_DIR`: the folder for failing inputs and, with libFuzzer, for what it finds
//!   (default: that of temporary files).
//! - `WG_BOUNCE_FUZZ_MERGE=1`: adds what libFuzzer has found to the corpus, if it reaches more.

#![forbid(unsafe_code)]

mod environment;
#[cfg(fuzzing)]
mod guided;
mod mutation;
mod random;

use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{env, fs, panic};

use environment::{folder, seconds, seed};
pub use random::Random;

/// Longest time for one input.
const LATE: Duration = Duration::from_secs(5);

/// Inputs between two looks at the clock, at most.
const INPUTS_PER_LOOK: u64 = 50;

/// A fuzz target.
pub struct Target<'a> {
    /// The path of its test, with the crate: `concat!(module_path!(), "::name")`.
    pub test: &'a str,
    /// The folders of its corpus. The first one gets what libFuzzer finds.
    pub corpus: &'a [&'a str],
    /// Bytes that are worth inserting.
    pub words: &'a [&'a [u8]],
    /// Panics if the code does with an input what it must not.
    pub check: fn(&[u8]),
}

impl Target<'_> {
    /// Runs the target as the environment says.
    ///
    /// # Panics
    /// If an input fails, or takes too long.
    pub fn run(&self) {
        if let Ok(file) = env::var("WG_BOUNCE_FUZZ_INPUT") {
            return (self.check)(&fs::read(file).expect("a readable file"));
        }
        #[cfg(fuzzing)]
        guided::run(
            &guided::Job {
                name: self.name(),
                test: self.test_name(),
                corpus: self.corpus,
                words: self.words,
                command: &self.command(),
            },
            self.check,
        );
        #[cfg(not(fuzzing))]
        self.run_bounded();
    }

    #[cfg_attr(fuzzing, expect(dead_code, reason = "libFuzzer runs instead"))]
    fn run_bounded(&self) {
        let corpus = self.corpus();
        for (path, input) in &corpus {
            self.run_one(input, || path.clone());
        }
        let inputs: Vec<_> = corpus.into_iter().map(|(_, input)| input).collect();
        let (seconds, seed) = (seconds(), seed());
        let (end, mut round) = (now() + Duration::from_secs(seconds), 0);
        while now() < end {
            for _ in 0..INPUTS_PER_LOOK {
                let input =
                    mutation::input(&inputs, self.words, &mut Random::of_round(seed, round));
                let start = now();
                self.run_one(&input, || self.keep(&input, seed, round));
                round += 1;
                if now() > start + LATE / 50 {
                    break;
                }
            }
        }
        let (name, files) = (self.name(), inputs.len());
        println!("{name}: {files} files, {round} inputs in {seconds} s, seed {seed}: no failure");
    }

    /// Runs one input, which is `kept` in a file if it fails.
    fn run_one(&self, input: &[u8], kept: impl FnOnce() -> PathBuf) {
        let run = || {
            let start = now();
            (panic::catch_unwind(|| (self.check)(input)), now() > start + LATE)
        };
        let (mut result, mut is_late) = run();
        if result.is_ok() && is_late {
            // The machine may have been busy, or asleep.
            (result, is_late) = run();
        }
        if result.is_ok() && !is_late {
            return;
        }
        let file = kept();
        eprintln!("replay: WG_BOUNCE_FUZZ_INPUT={} {}", file.display(), self.command());
        match result {
            Err(failure) => panic::resume_unwind(failure),
            Ok(()) => panic!("an input took longer than {LATE:?}"),
        }
    }

    /// Writes a failing input to a file.
    fn keep(&self, input: &[u8], seed: u64, round: u64) -> PathBuf {
        let file = folder().join(format!("wg-bounce-fuzz-{}-{seed}-{round}", self.name()));
        fs::write(&file, input).expect("a writable folder for the failing input");
        file
    }

    /// The corpus, by file.
    fn corpus(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let files = |folder| fs::read_dir(folder).expect("a folder of the corpus");
        let files = self.corpus.iter().flat_map(files);
        let mut paths: Vec<_> = files
            .map(|file| file.expect("readable").path())
            .filter(|path| path.is_file())
            .collect();
        paths.sort();
        let read = |path: PathBuf| (path.clone(), fs::read(path).expect("readable"));
        paths.into_iter().map(read).collect()
    }

    /// The name of the test within its program.
    fn test_name(&self) -> &str {
        self.test.split_once("::").map_or(self.test, |(_, name)| name)
    }

    /// The last part of that name.
    fn name(&self) -> &str {
        self.test.rsplit("::").next().unwrap_or(self.test)
    }

    /// The command that runs the test alone.
    fn command(&self) -> String {
        let package = env::var("CARGO_PKG_NAME").map(|name| format!("-p {name} "));
        format!("cargo test {}{}", package.unwrap_or_default(), self.test_name())
    }
}

#[expect(clippy::disallowed_methods, reason = "limits the duration of a run")]
fn now() -> Instant {
    Instant::now()
}
