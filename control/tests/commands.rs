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
        ":6:14: error: unknown option \"colour\": see wg-bounce --help",
        ":7:2: error: this peer has no PublicKey",
        ":7:2: warning: this peer has no Endpoint, and [Interface] has no ListenPort: neither can \
         find the other",
        ":9:12: error: Endpoint: the port is missing: \"192.0.2.1:51820\"",
        ": 1 peer, 5 errors, 1 warning",
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
    let refused = ":4:10: warning: others can write to this file or its directory, and so run";
    assert!(code == 0 && lines.iter().any(|line| line.starts_with(refused)), "{lines:#?}");
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let directory = TempDir::new().expect("created");
    let path = file(&directory, "a name.conf", "");
    for (argument, reason) in [
        ("/nowhere/wg0.conf", "/nowhere/wg0.conf: No such file"),
        // Its directory may be for root alone.
        ("wgb-none", "/etc/wireguard/wgb-none.conf: "),
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
    for command in
        ["add-peer", "check", "explain", "genkey", "genpsk", "pubkey", "remove-peer", "strip"]
    {
        assert!(help.contains(&format!("\n  {command} ")), "{help}");
    }
    assert_eq!(run(&["check"], "").0, 2);
    assert_eq!(run(&["--show-options", "--", "check"], "").0, 0);
}

/// A hub without peers, and the path of its file.
#[test]
fn every_command_has_a_manual_page_and_completions() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().to_str().expect("text");
    let (code, _, stderr) = run(&["man", path], "");
    assert_eq!((code, stderr.as_str()), (0, ""));
    let page = |name: &str| {
        let text = fs::read_to_string(directory.path().join(format!("{name}.8")));
        text.unwrap_or_else(|_| panic!("no page {name}"))
    };
    assert!(page("wg-bounce").contains(r"\-\-relay"));
    let [bash, zsh, fish] = ["bash", "zsh", "fish"].map(|shell| {
        let (code, text, _) = run(&["completions", shell], "");
        assert_eq!(code, 0);
        text
    });
    let (_, help, _) = run(&["--help"], "");
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.take_while(|line| !line.starts_with("Arguments"));
    let commands: Vec<_> = commands
        .filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next())
        .filter(|word| *word != "help" && help.contains(&format!("\n  {word} ")))
        .collect();
    assert!(commands.len() > 12, "{commands:?}");
    for name in commands {
        assert!(page(&format!("wg-bounce-{name}")).contains(".SH NAME"), "{name}");
        for text in [&bash, &zsh, &fish] {
            assert!(text.contains(name), "{name}");
        }
    }
    let mut check = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().expect("bash");
    check.stdin.take().expect("a pipe").write_all(bash.as_bytes()).expect("it reads");
    assert!(check.wait().expect("it ends").success());
    let (code, _, stderr) = run(&["man", "/nonexistent"], "");
    assert_eq!(code, 1);
    assert!(stderr.contains("/nonexistent/"), "{stderr}");
}

fn hub(directory: &TempDir, address: &str) -> (String, String) {
    let private = run(&["genkey"], "").1;
    let text = format!(
        "[Interface]\nPrivateKey = {private}Address = {address}\nListenPort = 51820\n# the end"
    );
    let path = file(directory, "wgb-hub.conf", &text);
    (path.to_str().expect("text").to_owned(), text)
}

/// Adds a peer to the file. `more` begins with the hub's endpoint.
fn add_peer(path: &str, name: &str, more: &[&str]) -> (i32, String, String) {
    run(&[&["add-peer", name, "--on", path, "--endpoint"], more].concat(), "")
}

fn read(path: &str) -> String {
    fs::read_to_string(path).expect("a text")
}

#[test]
fn peers_are_added_to_the_file_and_removed_from_it() {
    let directory = TempDir::new().expect("created");
    let (path, text) = hub(&directory, "10.7.0.1/24, fd77::1/64");
    let add = |name: &str, more: &[&str]| add_peer(&path, name, more);
    let (code, client, stderr) = add("alice", &["hub.example.org"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    for line in [
        "# Name = alice",
        "Address = 10.7.0.2/32, fd77::2/128",
        "AllowedIPs = 10.7.0.0/24, fd77::/64",
        "Endpoint = hub.example.org:51820",
        "PersistentKeepalive = 25",
    ] {
        assert!(client.lines().any(|one| one == line), "{line} is not in {client}");
    }
    let of = |text: &str, name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(" = "));
        lines.find_map(|(known, value)| (known == name).then(|| format!("{value}\n")))
    };
    let private = of(&client, "PrivateKey").expect("a key");
    let (hubs, public) = (read(&path), run(&["pubkey"], &private).1);
    assert!(hubs.starts_with(&text) && !hubs.contains(private.trim()), "{hubs}");
    assert_eq!(of(&hubs, "PublicKey"), Some(public));
    assert_eq!(of(&hubs, "PresharedKey"), of(&client, "PresharedKey"));

    let key = run(&["pubkey"], &run(&["genkey"], "").1).1;
    let options = ["2001:db8::1", "--public-key", key.trim(), "--keepalive", "0"];
    let (code, client, _) = add(
        "Bob's phone",
        &[&options[..], &["--allowed", "0.0.0.0/0,::/0", "--dns", "1.1.1.1"]].concat(),
    );
    assert_eq!(code, 0);
    assert!(client.contains("Endpoint = [2001:db8::1]:51820\n") && !client.contains("Keepalive"));
    assert!(
        client.contains("AllowedIPs = 0.0.0.0/0, ::/0\n") && client.contains("DNS = 1.1.1.1\n")
    );
    assert!(client.contains("Address = 10.7.0.3/32") && !client.contains("\nPrivateKey"));

    let svg = directory.path().join("code.svg");
    let (code, drawing, _) =
        add("carol", &["192.0.2.1:9", "--qr", "--svg", svg.to_str().expect("text")]);
    assert!(code == 0 && drawing.contains('█') && !drawing.contains("Key"), "{drawing}");
    assert!(read(svg.to_str().expect("text")).contains("<svg"));

    for peer in ["alice", key.trim(), "carol"] {
        assert_eq!(
            run(&["remove-peer", peer, "--on", &path], ""),
            (0, String::new(), String::new())
        );
    }
    assert_eq!(read(&path), text + "\n");
}

#[test]
fn what_cannot_be_added_changes_nothing() {
    let directory = TempDir::new().expect("created");
    let (path, _) = hub(&directory, "10.7.0.1/30");
    let add = |name: &str, more: &[&str]| add_peer(&path, name, more);
    assert_eq!(add("alice", &["192.0.2.1"]).0, 0);
    let before = read(&path);
    let taken = file(&directory, "taken", "");
    let taken = taken.to_str().expect("text");
    let cases: [(&str, &[&str], i32, &str); 5] = [
        ("alice", &["192.0.2.1"], 1, "has a peer alice already"),
        ("bob", &["192.0.2.1"], 1, "no address of 10.7.0.0/30 is free"),
        ("two\nlines", &["192.0.2.1"], 2, "on one line"),
        ("bob", &["192.0.2.1", "--allowed", "10.0.0"], 2, "is not an address"),
        ("bob", &["192.0.2.1", "--public-key", "x"], 2, "a key has 44 characters"),
    ];
    for (name, more, expected, reason) in cases {
        let (code, stdout, stderr) = add(name, more);
        assert_eq!((code, stdout.as_str()), (expected, ""), "{name} {more:?}");
        assert!(stderr.contains(reason), "{stderr}");
    }
    assert_eq!(run(&["remove-peer", "alice", "--on", &path], "").0, 0);
    let before_last = read(&path);
    let long = vec!["10.100.100.100/32"; 300].join(",");
    let own = run(
        &["pubkey"],
        before.lines().find_map(|line| line.strip_prefix("PrivateKey = ")).expect("a key"),
    )
    .1;
    let cases: [(&[&str], &str); 5] = [
        (&["192.0.2.1", "--out", taken], "File exists"),
        (&["192.0.2.1", "--public-key", own.trim()], "that of the hub itself"),
        (&["192.0.2.1", "--allowed", &long, "--qr"], "cannot make a QR code"),
        (&["not a host"], "neither an IP address nor a host name"),
        (&["192.0.2.1:0"], "as a port"),
    ];
    for (more, reason) in cases {
        let (code, stdout, stderr) = add("bob", more);
        assert_eq!((code, stdout.as_str()), (1, ""), "{more:?}");
        assert!(stderr.contains(reason), "{stderr}");
    }
    assert_eq!(read(&path), before_last);
    fs::write(&path, before.clone() + "[Peer]\nAllowedIPs = 10.7.0.9/32\n").expect("written");
    let injected = "1.1.1.1\nPostUp = true";
    assert_eq!(add("bob", &["192.0.2.1", "--dns", injected]).0, 2);
    let injected = "[fe80::1%x\nAllowedIPs = ::/0\n]:1";
    assert_eq!(add("bob", &[injected]).0, 1);
    let (code, _, stderr) = add("bob", &["192.0.2.1"]);
    assert!(code == 1 && stderr.contains("error: this peer has no PublicKey"), "{stderr}");
    let left = fs::read_dir(directory.path()).expect("readable").count();
    assert_eq!(left, 2, "no temporary file");
}

/// A name belongs to the section that it stands in, before any setting: else nobody is removed by
/// it.
#[test]
fn a_name_above_a_heading_removes_nobody() {
    let directory = TempDir::new().expect("created");
    let keys = [(); 2].map(|()| run(&["pubkey"], &run(&["genkey"], "").1).1);
    let text = format!(
        "[Interface]\nListenPort = 51820\n\n# Name = alice\n[Peer]\nPublicKey = {}\
         AllowedIPs = 0.0.0.0/0\n\n# Name = bob\n[Peer]\nPublicKey = {}AllowedIPs = 0.0.0.0/0\n",
        keys[0], keys[1]
    );
    let path = file(&directory, "wgb-hub.conf", &text);
    let lines = check(&path).1;
    for line in [4, 9] {
        let start = format!(":{line}:3: warning: this names nothing");
        assert!(lines.iter().any(|line| line.starts_with(&start)), "{lines:#?}");
    }
    let both = ":12:14: warning: 0.0.0.0/0 is of the peer in line 5 too: this peer gets it";
    assert!(lines.iter().any(|line| line == both), "{lines:#?}");
    let path = path.to_str().expect("text");
    for name in ["alice", "bob"] {
        let (code, _, stderr) = run(&["remove-peer", name, "--on", path], "");
        assert!(code == 1 && stderr.contains("no such peer"), "{stderr}");
    }
    assert_eq!(read(path), text);
    assert_eq!(run(&["remove-peer", keys[1].trim(), "--on", path], "").0, 0);
    assert!(!read(path).contains(keys[1].trim()) && read(path).contains(keys[0].trim()));
}

/// A symbolic link keeps its name; a draft beside the file stays; networks within others give no
/// second address; what a terminal would obey is escaped.
#[test]
fn files_of_operators_are_left_as_they_are() {
    let directory = TempDir::new().expect("created");
    let (path, text) = hub(&directory, "10.7.0.1/24, 10.7.0.9/24, 10.7.0.200/28");
    let link = directory.path().join("wgb-link.conf");
    let target = directory.path().join("production-hub-2024.txt");
    fs::rename(&path, &target).expect("moved");
    std::os::unix::fs::symlink(&target, &link).expect("linked");
    let draft = file(&directory, "production-hub-2024.txt.new", "draft");
    let link = link.to_str().expect("text");
    let (code, client, _) = add_peer(link, "alice", &["a.b"]);
    assert_eq!(code, 0);
    assert!(client.contains("\nAddress = 10.7.0.2/32\n"), "{client}");
    assert!(client.contains("\nAllowedIPs = 10.7.0.0/24\n"), "{client}");
    assert!(fs::symlink_metadata(link).expect("there").is_symlink());
    assert!(read(target.to_str().expect("text")).starts_with(&text));
    assert_eq!(read(draft.to_str().expect("text")), "draft");

    let odd = "[Interface]\r\nListenPort = 1\r\n[Peer] # \x1b]0;x\x07\r\nAllowedIPs = \x1b[2J\r\n";
    let odd = file(&directory, "wgb-odd.conf", odd);
    let (code, lines) = check(&odd);
    assert!(code == 1 && !lines.iter().any(|line| line.contains('\x1b')), "{lines:#?}");
    fs::write(&odd, b"[Interface]\n# J\xfcrgen\n").expect("written");
    let (code, _, stderr) = run(&["check", odd.to_str().expect("text")], "");
    assert!(code == 1 && stderr.contains("wgb-odd.conf:2: not in UTF-8"), "{stderr}");
}

#[test]
fn many_peers_are_added_at_once() {
    let directory = TempDir::new().expect("created");
    let (path, text) = hub(&directory, "10.7.0.1/29, fd77::1/64");
    let clients = directory.path().join("clients");
    fs::create_dir(&clients).expect("created");
    let clients = clients.to_str().expect("text");
    let add = |names: &[&str]| {
        let options = ["--on", &path, "--endpoint", "a.b", "--out-dir", clients];
        run(&[&["add-peer"], names, &options].concat(), "")
    };
    assert_eq!(add(&["a", "b", "c"]), (0, String::new(), String::new()));
    for (name, address) in [("a", "10.7.0.2/32"), ("b", "10.7.0.3/32"), ("c", "10.7.0.4/32")] {
        let client = read(&format!("{clients}/{name}.conf"));
        assert!(client.contains(&format!("Address = {address}, fd77::")), "{client}");
    }
    let (code, lines) = check(Path::new(&path));
    assert!(
        code == 0 && lines.last().is_some_and(|line| line.starts_with(": 3 peers")),
        "{lines:?}"
    );
    let before = read(&path);
    for (names, reason) in [
        (&["d", "d"][..], "two new peers are called d"),
        (&["d", "b"], "has a peer b already"),
        (&["d", "e", "f", "g"], "no address of 10.7.0.0/29 is free"),
        (&["d", "../e"], "wg-quick takes no such file"),
    ] {
        let (code, _, stderr) = add(names);
        assert!(code == 1 && stderr.contains(reason), "{stderr}");
    }
    assert_eq!(read(&path), before);
    assert_eq!(fs::read_dir(clients).expect("readable").count(), 3, "nothing is left");
    let (code, _, stderr) = run(&["add-peer", "d", "e", "--on", &path, "--endpoint", "a.b"], "");
    assert!(code == 2 && stderr.contains("--out-dir"), "{stderr}");
    assert!(before.starts_with(&text));
}
