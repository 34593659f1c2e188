//! Command line and environment of the real binary. Needs no privileges.
#![forbid(unsafe_code)]

use std::process::{Command, Output};

fn run(variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wg-bounce"));
    command.env_clear().envs(variables.iter().copied()).args(arguments);
    command.output().expect("the binary runs")
}

/// The line of `--show-options` about `option`.
fn shown(variables: &[(&str, &str)], arguments: &[&str], option: &str) -> String {
    let output = run(variables, &[arguments, &["--show-options", "wg0"]].concat());
    let text = String::from_utf8(output.stdout).expect("text");
    let prefix = format!("{option} = ");
    let line = text.lines().find_map(|line| line.strip_prefix(&prefix));
    line.unwrap_or_else(|| panic!("{option} is not in {text:?}")).to_owned()
}

#[test]
fn a_flag_wins_over_its_variable_and_both_over_the_default() {
    let cases = [
        ("io", "WG_BOUNCE_IO", "mmsg", "uring", Some("auto")),
        ("workers", "WG_BOUNCE_WORKERS", "3", "2", None),
        ("relay", "WG_BOUNCE_RELAY", "direct", "kernel", Some("auto")),
        ("gso", "WG_BOUNCE_GSO", "off", "on", Some("on")),
        ("gro", "WG_BOUNCE_GRO", "off", "on", Some("on")),
        ("tun-offload", "WG_BOUNCE_TUN_OFFLOAD", "off", "on", Some("on")),
        ("buffers", "WG_BOUNCE_BUFFERS", "256", "64", Some("128")),
        ("log-level", "WG_BOUNCE_LOG_LEVEL", "error", "silent", None),
    ];
    for (option, variable, in_variable, in_flag, default) in cases {
        if let Some(default) = default {
            assert_eq!(shown(&[], &[], option), format!("{default} (default)"));
        }
        let set = [(variable, in_variable)];
        assert_eq!(shown(&set, &[], option), format!("{in_variable} (${variable})"));
        let flag = format!("--{option}");
        let by_flag = shown(&set, &[&flag, in_flag], option);
        assert_eq!(by_flag, format!("{in_flag} (command line)"));
    }
}

#[test]
fn switches_are_read_from_the_environment() {
    for (option, variable) in
        [("foreground", "WG_BOUNCE_FOREGROUND"), ("no-pin", "WG_BOUNCE_NO_PIN")]
    {
        assert_eq!(shown(&[], &[], option), "false (default)");
        for (word, value) in [("1", "true"), ("true", "true"), ("0", "false"), ("no", "false")] {
            let line = shown(&[(variable, word)], &[], option);
            assert!(line.starts_with(value), "{variable}={word}: {line}");
        }
        let flag = format!("--{option}");
        assert_eq!(shown(&[(variable, "0")], &[&flag], option), "true (command line)");
    }
}

#[test]
fn a_usage_error_exits_with_code_two_and_names_its_source() {
    let rejects = |variables: &[(&str, &str)], arguments: &[&str], hint: &str| {
        let output = run(variables, arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(hint), "{arguments:?}: {text}");
    };
    rejects(&[("WG_BOUNCE_GSO", "perhaps")], &["wg0"], "WG_BOUNCE_GSO is set");
    rejects(&[("WG_TUN_FD", "x")], &["wg0"], "WG_TUN_FD=x");
    rejects(&[], &["--relay", "ask", "wg0"], "kernel");
    rejects(&[], &["sixteen-bytes-ab"], "15 bytes");
    rejects(&[], &[], "NAME");
}

#[test]
fn help_and_version_succeed() {
    let help = run(&[], &["--help"]);
    assert!(help.status.success());
    let text = String::from_utf8(help.stdout).expect("text");
    for word in [
        "--foreground",
        "--io",
        "--log-level",
        "--workers",
        "LOG_LEVEL",
        "WG_BOUNCE_IO",
        "WG_PROCESS_FOREGROUND",
    ] {
        assert!(text.contains(word), "{word} is missing in {text}");
    }
    assert!(!text.contains("TEST_TIMERS"), "a hook for tests only is not documented");
    let version = run(&[], &["--version"]);
    assert!(version.status.success());
    let expected = format!("wg-bounce {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8_lossy(&version.stdout), expected);
}
