//! Commands of ours beside wg(8) and wg-quick(8): the same files mean the same.

use std::fs;
use std::path::Path;

use crate::harness::{Backend, Daemon, Program};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config_file/tests/corpus");

/// `strip` prints what `wg-quick strip` prints. Whatever `wg setconf` accepts of it, `check`
/// accepts, and the other way round for the settings that `wg` has.
fn files_mean_the_same(backend: Backend) {
    let (daemon, _lab) = Daemon::alone(backend);
    let program = Program::under_test();
    let program = program.display();
    let mut accepted = 0;
    for entry in fs::read_dir(CORPUS).expect("the folder is there") {
        let path = entry.expect("a file").path();
        // Names of hosts cannot be resolved here.
        let text = fs::read_to_string(&path).expect("a text");
        let text = text.replace("home-server.example-vpn.dev:", "192.0.2.3:");
        let directory = tempfile::TempDir::new().expect("created");
        let copy = directory.path().join("wg0.conf");
        fs::write(&copy, text).expect("written");
        let copy = copy.display();
        let run = |line: &str| daemon.namespace.attempt(line);
        let stripped = run(&format!("{program} strip {copy}")).expect_ok();
        let expected = run(&format!("wg-quick strip {copy}"));
        let is_read = expected.is_ok();
        if is_read {
            assert_eq!(stripped.trim_end(), expected.stdout.trim_end(), "{}", path.display());
        }
        let line = format!("wg setconf {} /dev/stdin", daemon.interface);
        let is_set = daemon.namespace.attempt_with(&line, &stripped).is_ok();
        let checked = run(&format!("{program} check {copy}"));
        let is_checked = checked.is_ok();
        accepted += usize::from(is_checked);
        let name = Path::new(path.file_name().expect("a name"));
        if name == Path::new("hooks.conf") {
            // Only wg-quick reads hooks, and only wg-bounce its own options.
            assert!(is_set && !is_checked, "{checked:?}");
            continue;
        }
        assert_eq!(is_checked, is_set && is_read, "{}: {checked:#?}", path.display());
    }
    assert!(accepted >= 2, "{accepted}");
}

on_both_backends!(files_mean_the_same);
