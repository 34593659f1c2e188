//! The control socket, used in ways that `wg` never does.

use std::os::unix::fs::PermissionsExt;

use crate::harness::{Backend, Daemon, KeyPair, Uapi, socket_path};

/// wireguard-go loses one of them.
fn pipelined_requests_are_answered_in_order(backend: Backend) {
    let (daemon, _lab) = Daemon::alone(backend);
    let mut uapi = Uapi::connect(&daemon.interface);
    uapi.send("get=1\n\nset=1\nfwmark=1\n\nget=1\n\nset=1\nfwmark=2\n\nget=1\n\n");
    let marked = |reply: &[String]| reply.iter().find(|line| line.starts_with("fwmark")).cloned();
    let reply = uapi.reply();
    assert_eq!(marked(&reply), None);
    assert_eq!(uapi.reply(), ["errno=0"]);
    let reply = uapi.reply();
    assert_eq!(marked(&reply).as_deref(), Some("fwmark=1"));
    assert_eq!(reply.last().map(String::as_str), Some("errno=0"));
    assert_eq!(uapi.reply(), ["errno=0"]);
    let reply = uapi.reply();
    assert_eq!(marked(&reply).as_deref(), Some("fwmark=2"));
}

/// A client that stops in the middle of a request blocks no other client, unlike in wireguard-go.
fn a_stalled_client_blocks_no_other(backend: Backend) {
    let (daemon, _lab) = Daemon::alone(backend);
    let mut stalled = Uapi::connect(&daemon.interface);
    stalled.send("set=1\nlisten_port=4");
    let mut other = Uapi::connect(&daemon.interface);
    assert_eq!(other.ask("get=1").last().map(String::as_str), Some("errno=0"));
    assert_eq!(other.ask("set=1\nfwmark=7"), ["errno=0"]);
    stalled.send("242\n\n");
    assert_eq!(stalled.reply(), ["errno=0"], "the stalled client may continue");
    let state = other.ask("get=1");
    assert!(state.contains(&"listen_port=4242".to_owned()), "{state:?}");
    assert!(state.contains(&"fwmark=7".to_owned()), "{state:?}");
}

fn bad_lines_are_rejected_and_the_connection_stays_open(backend: Backend) {
    let (daemon, _lab) = Daemon::alone(backend);
    let mut uapi = Uapi::connect(&daemon.interface);
    let peer = KeyPair::new().public_hex();
    for (lines, errno) in [
        ("private_key=12".to_owned(), -22),
        ("private_key=xyz".to_owned(), -22),
        ("listen_port=65536".to_owned(), -22),
        ("nonsense=1".to_owned(), -22),
        ("nonsense".to_owned(), -71),
        (format!("public_key={peer}\nendpoint=host.example:1"), -22),
        (format!("public_key={peer}\nallowed_ip=10.0.0.0/33"), -22),
        (format!("public_key={peer}\nprotocol_version=2"), -22),
        (format!("public_key={peer}\npersistent_keepalive_interval=65536"), -22),
        (format!("public_key={peer}\nlisten_port=1"), -22),
    ] {
        let reply = uapi.ask(&format!("set=1\n{lines}"));
        assert_eq!(reply, [format!("errno={errno}")], "{lines}");
    }
    assert_eq!(uapi.ask("set=1\nfwmark=3\nnonsense=1"), ["errno=-22"]);
    let state = uapi.ask("get=1");
    assert!(state.contains(&"fwmark=3".to_owned()), "changes before the error apply: {state:?}");
}

fn an_unknown_operation_closes_the_connection(backend: Backend) {
    let (daemon, _lab) = Daemon::alone(backend);
    for operation in ["delete=1\n\n", "get=2\n\n", "\n", "get\n\n"] {
        let mut uapi = Uapi::connect(&daemon.interface);
        uapi.send(operation);
        assert!(uapi.is_closed(), "after {operation:?}");
    }
    let mut uapi = Uapi::connect(&daemon.interface);
    assert_eq!(uapi.ask("get=1").last().map(String::as_str), Some("errno=0"));
}

/// A `get` reply has the order that clients rely on.
fn a_get_reply_has_the_documented_order(backend: Backend) {
    let (daemon, _lab) = Daemon::alone(backend);
    let (peer, mut uapi) = (KeyPair::new(), Uapi::connect(&daemon.interface));
    assert!(uapi.ask("get=1").iter().all(|line| !line.starts_with("private_key")));
    let set = format!(
        "set=1\nprivate_key={}\nlisten_port=4243\nfwmark=9\npublic_key={}\n\
         endpoint=[2001:db8::1]:7\npersistent_keepalive_interval=5\nallowed_ip=10.9.9.9/8",
        daemon.key.private_hex(),
        peer.public_hex()
    );
    assert_eq!(uapi.ask(&set), ["errno=0"]);
    let expected = [
        format!("private_key={}", daemon.key.private_hex()),
        "listen_port=4243".to_owned(),
        "fwmark=9".to_owned(),
        format!("public_key={}", peer.public_hex()),
        format!("preshared_key={}", "0".repeat(64)),
        "protocol_version=1".to_owned(),
        "endpoint=[2001:db8::1]:7".to_owned(),
        "last_handshake_time_sec=0".to_owned(),
        "last_handshake_time_nsec=0".to_owned(),
        "tx_bytes=0".to_owned(),
        "rx_bytes=0".to_owned(),
        "persistent_keepalive_interval=5".to_owned(),
        "allowed_ip=10.0.0.0/8".to_owned(),
        "errno=0".to_owned(),
    ];
    assert_eq!(uapi.ask("get=1"), expected);
}

/// `update_only` creates no peer, `remove` and `replace_allowed_ips` work, a leading `-` removes
/// one prefix, and no setting leaks into the next peer.
fn flags_of_a_peer_work(backend: Backend) {
    let (daemon, _lab) = Daemon::alone(backend);
    let (first, second) = (KeyPair::new().public_hex(), KeyPair::new().public_hex());
    let mut uapi = Uapi::connect(&daemon.interface);
    let mut allowed = |request: String| {
        assert_eq!(uapi.ask(&format!("set=1\n{request}")), ["errno=0"], "{request}");
        let state = uapi.ask("get=1").into_iter();
        let wanted = ["public_key=", "allowed_ip="];
        let lines = state.filter_map(|line| {
            wanted.iter().find_map(|key| line.strip_prefix(key)).map(str::to_owned)
        });
        lines.collect::<Vec<_>>()
    };
    assert!(allowed(format!("public_key={first}\nupdate_only=true")).is_empty());
    let two = format!("public_key={first}\nallowed_ip=10.1.0.0/16\nallowed_ip=10.2.0.0/16");
    assert_eq!(allowed(two), [first.as_str(), "10.1.0.0/16", "10.2.0.0/16"]);
    let minus = format!("public_key={first}\nallowed_ip=-10.1.0.0/16");
    assert_eq!(allowed(minus), [first.as_str(), "10.2.0.0/16"]);
    let replace = format!(
        "public_key={first}\nreplace_allowed_ips=true\nallowed_ip=10.3.0.0/16\n\
         public_key={second}\nremove=true"
    );
    assert_eq!(allowed(replace), [first.as_str(), "10.3.0.0/16"]);
    let replace_peers = format!("replace_peers=true\npublic_key={second}");
    assert_eq!(allowed(replace_peers), [second.as_str()]);
}

/// An endless line is rejected without taking memory.
fn an_endless_line_is_rejected(backend: Backend) {
    let (daemon, _lab) = Daemon::alone(backend);
    let mut uapi = Uapi::connect(&daemon.interface);
    uapi.send(&format!("set=1\nprivate_key={}\n\n", "0".repeat(100_000)));
    assert!(["errno=-5", "errno=-22"].contains(&uapi.reply()[0].as_str()));
    let mut other = Uapi::connect(&daemon.interface);
    assert_eq!(other.ask("get=1").last().map(String::as_str), Some("errno=0"));
}

fn the_socket_is_accessible_to_its_owner_only(backend: Backend) {
    let (daemon, _lab) = Daemon::alone(backend);
    let metadata = std::fs::metadata(socket_path(&daemon.interface)).expect("it listens");
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
}

/// Clients that connect and send nothing hold every connection; `wg` gets in all the same, and only
/// the longest idle one pays for it.
fn idle_clients_do_not_lock_out_wg(backend: Backend) {
    let (daemon, _lab) = Daemon::alone(backend);
    let mut clients: Vec<_> = (0..64).map(|_| Uapi::connect(&daemon.interface)).collect();
    for client in &mut clients {
        assert_eq!(client.ask("get=1").last().map(String::as_str), Some("errno=0"));
    }
    daemon.set("fwmark 5");
    assert_eq!(daemon.show("fwmark").trim(), "0x5");
    assert!(clients[0].is_closed(), "idle for longest");
    let last = clients.last_mut().expect("64 of them");
    assert_eq!(last.ask("get=1").last().map(String::as_str), Some("errno=0"));
    // Clients that stopped in the middle of a request do not keep it out either.
    clients.clear();
    let mut stalled: Vec<_> = (0..64).map(|_| Uapi::connect(&daemon.interface)).collect();
    stalled.iter_mut().for_each(|client| client.send("set=1\nfwma"));
    assert_eq!(daemon.show("fwmark").trim(), "0x5");
}

on_both_backends!(
    pipelined_requests_are_answered_in_order,
    a_stalled_client_blocks_no_other,
    bad_lines_are_rejected_and_the_connection_stays_open,
    an_unknown_operation_closes_the_connection,
    a_get_reply_has_the_documented_order,
    flags_of_a_peer_work,
    an_endless_line_is_rejected,
    the_socket_is_accessible_to_its_owner_only,
    idle_clients_do_not_lock_out_wg,
);
