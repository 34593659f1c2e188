//! The commands of the real binary that need no daemon and no privileges.
#![forbid(unsafe_code)]

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tempfile::TempDir;
use x25519_dalek::{PublicKey, StaticSecret};

/// The exit code, standard output and standard error.
fn run(arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wg-bounce"));
    command.env_clear().args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    // It may end without reading.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    let code = output.status.code().expect("it exits");
    (code, text(output.stdout), text(output.stderr))
}

fn key(text: &str) -> [u8; 32] {
    let line = text.strip_suffix('\n').expect("one line");
    BASE64_STANDARD.decode(line).expect("base64").try_into().expect("32 bytes")
}

/// A configuration file that only its owner can read.
fn file(directory: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, text).expect("written");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("changed");
    path
}

/// The exit code and the lines that `check` prints, without the path.
fn check(path: &Path) -> (i32, Vec<String>) {
    let path = path.to_str().expect("text");
    let (code, stdout, stderr) = run(&["check", path], "");
    assert_eq!(stderr, "");
    let lines = stdout.lines().map(|line| line.strip_prefix(path).expect("the path").to_owned());
    (code, lines.collect())
}

#[test]
fn keys_are_new_and_fit_together() {
    let [one, other] = [(); 2].map(|()| run(&["genkey"], ""));
    assert_eq!((one.0, one.2.as_str()), (0, ""));
    assert_ne!(one.1, other.1);
    let private = key(&one.1);
    assert_eq!((private[0] & 7, private[31] & 0xc0), (0, 0x40), "clamped");
    let (code, public, _) = run(&["pubkey"], &one.1);
    let expected = PublicKey::from(&StaticSecret::from(private));
    assert_eq!((code, key(&public)), (0, expected.to_bytes()));
    let psks = [(); 8].map(|()| key(&run(&["genpsk"], "").1));
    assert!(psks.iter().any(|key| key[0] & 7 != 0), "not clamped");
    for input in ["", "AAAA\n", &"!".repeat(44)] {
        let (code, stdout, stderr) = run(&["pubkey"], input);
        assert_eq!((code, stdout.as_str()), (1, ""));
        assert!(stderr.starts_with("wg-bounce pubkey: on standard input: a key "), "{stderr}");
    }
}

#[test]
fn check_names_every_error() {
    let directory = TempDir::new().expect("created");
    let key = run(&["genkey"], "").1;
    let text = format!(
        "[Interface]\nPrivateKey = {key}ListenPort = many\n# wg-bounce: relay = sometimes\n\
         # wg-bounce: no-pin = true\n# wg-bounce: colour = red\n\
         [Peer]\nAllowedIPs = 10.0.0.2/32\nEndpoint = 192.0.2.1\n"
    );
    let path = file(&directory, "wg0.conf", &text);
    let (code, lines) = check(&path);
    assert_eq!(code, 1);
    let expected = [
        ":3:14: error: ListenPort: \"many\" is not a number from 0 to 65535",
        ":4:14: error: invalid value 'sometimes' for '--relay <MODE>' \
         [possible values: auto, direct, kernel]",
        ":6:14: error: unknown option colour: see wg-bounce --help",
        ":7:2: error: this peer has no PublicKey",
        ":7:2: warning: this peer has no Endpoint, and [Interface] has no ListenPort: neither can \
         find the other",
        ":9:12: error: Endpoint: the port is missing: \"192.0.2.1:51820\"",
        ": 1 peers, 5 errors, 1 warnings",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn check_warns_of_what_this_host_lacks() {
    let directory = TempDir::new().expect("created");
    let private = run(&["genkey"], "").1;
    let public = run(&["pubkey"], &private).1;
    let taken = UdpSocket::bind("127.0.0.1:0").expect("bound");
    let port = taken.local_addr().expect("bound").port();
    let text = format!(
        "[Interface]\nPrivateKey = {private}ListenPort = {port}\nPostUp = true\n\
         [Peer]\nPublicKey = {public}AllowedIPs = 10.0.0.2/32\n"
    );
    let path = file(&directory, "wgb-none.conf", &text);
    let (code, lines) = check(&path);
    let own = ":5:2: warning: the PublicKey of this peer is that of this host itself";
    assert!(code == 0 && lines.iter().any(|line| line.starts_with(own)), "{lines:#?}");
    let in_use = format!(":3:14: warning: UDP port {port} is in use on this host");
    assert!(lines.iter().any(|line| line.starts_with(&in_use)), "{lines:#?}");
    drop(taken);
    assert!(!check(&path).1.iter().any(|line| line.contains("in use")));

    fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("changed");
    let (code, lines) = check(&path);
    assert!(code == 0 && lines[0].starts_with(": warning: others may read the keys"), "{lines:#?}");
    fs::set_permissions(&path, Permissions::from_mode(0o620)).expect("changed");
    let (code, lines) = check(&path);
    let refused = ":4:10: error: others may write to this file, so its commands are not run";
    assert!(code == 1 && lines.iter().any(|line| line.starts_with(refused)), "{lines:#?}");
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let directory = TempDir::new().expect("created");
    let path = file(&directory, "a name.conf", "");
    for (argument, reason) in [
        ("/nowhere/wg0.conf", "/nowhere/wg0.conf: No such file"),
        ("wgb-none", "/etc/wireguard/wgb-none.conf: No such file"),
        (path.to_str().expect("text"), "the file must be called after its interface"),
        ("/tmp/sixteen-letters-.conf", "the file must be called after its interface"),
        ("/dev/null", "the file must be called after its interface"),
    ] {
        for command in ["check", "strip"] {
            let (code, stdout, stderr) = run(&[command, argument], "");
            assert_eq!((code, stdout.as_str()), (1, ""), "{argument}");
            assert!(stderr.contains(reason), "{stderr}");
        }
    }
}

#[test]
fn a_command_is_no_interface_and_the_help_lists_it() {
    let (code, help, _) = run(&["--help"], "");
    assert_eq!(code, 0);
    assert!(help.starts_with("Userspace WireGuard relay"), "{help}");
    for command in ["check", "explain", "genkey", "genpsk", "pubkey", "strip"] {
        assert!(help.contains(&format!("\n  {command} ")), "{help}");
    }
    assert_eq!(run(&["check"], "").0, 2);
    assert_eq!(run(&["--show-options", "--", "check"], "").0, 0);
}
