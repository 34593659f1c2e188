//! libFuzzer, through bolero, in a process of its own for each target: it ends its process.

use std::os::unix::fs::symlink;
use std::process::Command;
use std::{env, fs};

use crate::environment::{folder, seconds, seed};

/// The arguments of libFuzzer, for the process that it runs in.
const ARGUMENTS: &str = "BOLERO_LIBFUZZER_ARGS";

/// A target, for libFuzzer.
pub struct Job<'a> {
    /// Its name.
    pub name: &'a str,
    /// The name of its test within this program.
    pub test: &'a str,
    /// The folders of its corpus.
    pub corpus: &'a [&'a str],
    /// Bytes that are worth inserting.
    pub words: &'a [&'a [u8]],
    /// The command that runs the test alone.
    pub command: &'a str,
}

/// Runs a target, or starts the process that does.
///
/// # Panics
/// If an input fails.
pub fn run(target: &Job<'_>, check: fn(&[u8])) {
    if env::var_os(ARGUMENTS).is_some() {
        return bolero::check!().for_each(move |input: &[u8]| check(input));
    }
    // Everything is named relative to this folder: arguments are separated by spaces.
    let folder = folder().join(target.name);
    fs::create_dir_all(folder.join("corpus")).expect("a writable folder");
    let mut trees = String::new();
    for (number, tree) in target.corpus.iter().enumerate() {
        let name = format!("tree{number}");
        let link = folder.join(&name);
        let _ = fs::remove_file(&link);
        symlink(tree, &link).expect("a writable folder");
        trees.push_str(&format!("{name} "));
    }
    let words = target.words.iter().map(|word| format!("\"{}\"\n", quoted(word)));
    fs::write(folder.join("words"), words.collect::<String>()).expect("a writable folder");
    let arguments = match env::var("WG_BOUNCE_FUZZ_MERGE").is_ok_and(|value| value == "1") {
        true => "-set_cover_merge=1 -use_counters=0 tree0 corpus".to_owned(),
        false => format!(
            "corpus {trees}-max_total_time={} -seed={} -timeout=100 -dict=words \
             -artifact_prefix=./ -reload=0 -print_final_stats=1",
            seconds(),
            seed()
        ),
    };
    println!("{}: libFuzzer {arguments} (in {})", target.name, folder.display());
    let status = Command::new(env::current_exe().expect("it runs"))
        // On the main thread: libFuzzer's limit for one input works on no other.
        .args(["--exact", target.test, "--nocapture", "--test-threads=1"])
        .env(ARGUMENTS, arguments)
        // The processes that libFuzzer starts by itself, to merge, run this test too.
        .env("BOLERO_LIBTEST_HARNESS", "1")
        .env("BOLERO_TEST_NAME", target.test)
        .current_dir(&folder)
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "the input is in the file that libFuzzer names, in {0}; replay: \
         WG_BOUNCE_FUZZ_INPUT={0}/FILE {1}",
        folder.display(),
        target.command
    );
}

/// Bytes as in a dictionary of libFuzzer.
fn quoted(word: &[u8]) -> String {
    let quote = |byte: &u8| match byte {
        b'"' | b'\\' => format!("\\{}", char::from(*byte)),
        b' '..=b'~' => char::from(*byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    };
    word.iter().map(quote).collect()
}
