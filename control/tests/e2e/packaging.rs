//! The unit of systemd. systemd itself does not run in tests: what a unit allows is compared with
//! the system calls of a daemon, or put in place by other means.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Backend, Lab, Program, ping_until_answered, seconds};
use crate::up::hub::Hub;
use crate::up::wait_until_up;

/// A file in scripts/packaging.
fn packaged(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/packaging").join(name)
}

/// The unit with drop-ins, as the file of an instance.
fn unit(lab: &Lab, drop_ins: &[&str]) -> PathBuf {
    let directory = lab.file("unit");
    fs::create_dir_all(&directory).expect("the lab's directory is writable");
    let texts = ["wg-bounce@.service"].iter().chain(drop_ins).map(|name| {
        let text = fs::read_to_string(packaged(name)).expect("a unit");
        // systemd-analyze looks for the program.
        text.replace("/usr/bin/wg-bounce", &Program::under_test().display().to_string())
    });
    let path = directory.join("wg-bounce@wg0.service");
    fs::write(&path, texts.collect::<String>()).expect("the lab's directory is writable");
    path
}

fn systemd_analyze(arguments: &str) -> std::process::Output {
    let mut command = Command::new("systemd-analyze");
    command.args(arguments.split(' ')).output().expect("systemd-analyze: apt-get install systemd")
}

/// systemd accepts the unit, and scores its exposure (0 to 10) as the README says.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn the_unit_is_hardened() {
    let lab = Lab::new();
    for (drop_ins, threshold) in
        [(&[][..], 33), (&["direct.conf"], 28), (&["hooks.conf"], 50), (&["tun-off.conf"], 18)]
    {
        let path = unit(&lab, drop_ins);
        let path = path.display();
        let verified = systemd_analyze(&format!("verify --man=no {path}"));
        let said = String::from_utf8_lossy(&verified.stderr);
        assert!(verified.status.success() && !said.contains("wg-bounce@"), "{said}");
        let scored =
            systemd_analyze(&format!("security --offline=true --threshold={threshold} {path}"));
        let said = String::from_utf8_lossy(&scored.stdout);
        assert!(scored.status.success(), "{drop_ins:?}: {said}");
    }
}

/// The values of a setting, after the drop-ins; an empty one clears those before it.
fn values(unit: &str, name: &str) -> Vec<String> {
    let mut values = Vec::new();
    for value in unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')) {
        match value.trim() {
            "" => values.clear(),
            value => values.push(value.to_owned()),
        }
    }
    values
}

/// The system calls that a unit allows.
fn allowed(unit: &str) -> BTreeSet<String> {
    let mut allowed = BTreeSet::new();
    for value in values(unit, "SystemCallFilter") {
        let (is_denied, list) = match value.strip_prefix('~') {
            Some(list) => (true, list),
            None => (false, value.as_str()),
        };
        for name in list.split(' ').flat_map(expand) {
            match is_denied {
                true => allowed.remove(&name),
                false => allowed.insert(name),
            };
        }
    }
    // Always allowed: systemd.exec(5).
    allowed.extend(expand("@default"));
    allowed
}

/// The system calls of a set like `@network-io`.
fn expand(name: &str) -> Vec<String> {
    if !name.starts_with('@') {
        return vec![name.to_owned()];
    }
    let output = systemd_analyze(&format!("syscall-filter {name}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().skip(1).map(str::trim).filter(|line| !line.starts_with('#'));
    lines.filter(|line| !line.is_empty()).flat_map(expand).collect()
}

/// With the capabilities of the unit, without the right to get others, and with nothing writable
/// but its directories, a hub runs, reloads, saves and ends. It uses only the system calls that the
/// unit allows.
fn the_unit_suffices(backend: Backend, drop_ins: &[&str], more: &str) {
    let lab = Lab::new();
    let set = Hub::new(&lab, backend);
    let (hub, [alice, bob]) = (&set.hub, &set.clients);
    hub.write(&set.file(more));
    let path = unit(&lab, drop_ins);
    let unit = fs::read_to_string(&path).expect("a unit");
    let capabilities = values(&unit, "CapabilityBoundingSet").join(" ").to_lowercase();
    let names = capabilities.split_whitespace().filter_map(|name| name.strip_prefix("cap_"));
    let capabilities: String = names.map(|name| format!(",+{name}")).collect();
    let calls = lab.file("calls");
    let directory = hub.file.parent().expect("a directory").display();
    let script = format!(
        "mkdir -p -m 700 /run/wireguard /run/wg-bounce \
         && for each in /run/wireguard /run/wg-bounce {directory} {trace}; do \
            mount --bind $each $each; done && mount -o remount,bind,ro / \
         && exec setpriv --no-new-privs --bounding-set=-all{capabilities} --inh-caps=-all \
            strace -f -qq -z -e signal=none -o {calls} \"$@\"",
        trace = calls.parent().expect("a directory").display(),
        calls = calls.display(),
    );
    let mut process = hub.start_under(&["unshare", "--mount", "sh", "-c", &script, "sh"], "");
    wait_until_up(&mut process, seconds(20));
    let _clients = [alice.up(), bob.up()];
    ping_until_answered(&alice.namespace, "10.77.0.3");
    hub.write(&set.file(&format!("{more}Address = 10.78.0.1/24\n")));
    hub.run("reload");
    hub.run("save");
    hub.run("down");
    assert_eq!(process.exit_code(), Some(0), "{}", process.output());
    let allowed = allowed(&unit);
    let used = used(&calls);
    assert!(used.contains("sendmsg") && used.contains("execve"), "{used:?}");
    let refused: Vec<_> = used.difference(&allowed).collect();
    assert!(refused.is_empty(), "the unit refuses {refused:?}");
}

/// The names of the system calls in a trace of strace, which has those that succeeded.
fn used(trace: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(trace).expect("strace has written it");
    let name = |line: &str| {
        let (_, call) = line.split_once(char::is_whitespace)?;
        let (name, _) = call.trim_start().split_once('(')?;
        name.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            .then(|| name.to_owned())
    };
    text.lines().filter_map(name).collect()
}

fn the_unit_suffices_for_auto(backend: Backend) {
    the_unit_suffices(backend, &[], "");
}

fn the_unit_suffices_for_direct(backend: Backend) {
    the_unit_suffices(backend, &["direct.conf"], "# wg-bounce: relay = direct\n");
}

fn the_unit_suffices_without_an_interface(backend: Backend) {
    the_unit_suffices(backend, &["tun-off.conf"], "# wg-bounce: tun = off\n");
}

on_both_backends!(
    the_unit_suffices_for_auto,
    the_unit_suffices_for_direct,
    the_unit_suffices_without_an_interface,
);
