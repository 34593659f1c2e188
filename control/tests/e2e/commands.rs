//! Commands of ours beside wg(8) and wg-quick(8): the same files mean the same.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::harness::{Backend, Daemon, Lab, Namespace, Program, ping, ping_until_answered};

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

/// A hub and its clients with files that `add-peer` wrote: they reach each other at once. A peer
/// that is removed does not.
fn peers_come_and_go(backend: Backend) {
    let lab = Lab::new();
    let (hub, names) = (lab.namespace("hub"), ["alice", "bob"]);
    hub.sysctl("net.ipv4.ip_forward=1");
    hub.sysctl("net.ipv6.conf.all.forwarding=1");
    let directory = lab.file("commands");
    fs::create_dir(&directory).expect("the lab's directory is writable");
    let interface = lab.interface("h");
    let config = directory.join(format!("{interface}.conf"));
    let program = Program::under_test();
    let program = program.display();
    let key = hub.run(&format!("{program} genkey"));
    let text = format!(
        "# The hub.\n[Interface]\nPrivateKey = {key}Address = 10.77.0.1/24, fd77::1/64\n\
         ListenPort = 51820\n"
    );
    fs::write(&config, &text).expect("written");
    fs::set_permissions(&config, Permissions::from_mode(0o640)).expect("changed");
    let wg_quick = |namespace: &Namespace, verb: &str, file: &Path| {
        namespace.run(&format!(
            "env WG_QUICK_USERSPACE_IMPLEMENTATION={program} WG_BOUNCE_IO={} WG_BOUNCE_WORKERS=1 \
             wg-quick {verb} {}",
            backend.name(),
            file.display()
        ))
    };
    wg_quick(&hub, "up", &config);
    let on = format!("--on {}", config.display());
    let clients = names.map(|name| {
        let client = lab.namespace(name);
        lab.link((&hub, name), (&client, "out0"), 1500);
        let network = if name == "alice" { "192.168.1" } else { "192.168.2" };
        hub.run(&format!("ip address add {network}.1/24 dev {name}"));
        client.run(&format!("ip address add {network}.2/24 dev out0"));
        let file = directory.join(format!("{}.conf", lab.interface(&name[..1])));
        let line = format!(
            "{program} add-peer {name} {on} --endpoint {network}.1 --out {}",
            file.display()
        );
        assert_eq!(hub.run(&line), "", "{name}'s key is in the file alone");
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
        let again = hub.attempt(&line);
        assert!(!again.is_ok() && again.stderr.contains("already"), "{again:?}");
        wg_quick(&client, "up", &file);
        (client, file)
    });
    let [(alice, of_alice), (bob, of_bob)] = &clients;
    for (from, to) in [(alice, ["10.77.0.3", "fd77::3"]), (bob, ["10.77.0.2", "fd77::2"])] {
        to.into_iter().for_each(|address| ping_until_answered(from, address));
    }
    let checked = hub.run(&format!("{program} check {}", config.display()));
    assert!(checked.contains("2 peers, 0 errors, 1 warning\n"), "its mode: {checked}");
    let mode = fs::metadata(&config).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o640, "it stays as it was");

    hub.run(&format!("{program} remove-peer bob {on}"));
    assert_eq!(hub.run(&format!("wg show {interface} peers")).lines().count(), 1);
    assert_eq!(ping(alice, "10.77.0.3", "-c 2 -i 0.02 -W 1"), (2, 0));
    ping_until_answered(alice, "10.77.0.1");
    hub.run(&format!("{program} remove-peer alice {on}"));
    assert_eq!(fs::read_to_string(&config).expect("a text"), text, "as it was before");
    let missing = hub.attempt(&format!("{program} remove-peer alice {on}"));
    assert!(!missing.is_ok() && missing.stderr.contains("no such peer: \"alice\""), "{missing:?}");
    wg_quick(alice, "down", of_alice);
    wg_quick(bob, "down", of_bob);
    wg_quick(&hub, "down", &config);
}

on_both_backends!(files_mean_the_same, peers_come_and_go);
