//! Clients against a server with a stand-in for the control thread.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use nix::sys::eventfd::EventFd;
use wg_bounce_dataplane::peer::PeerId;
use wg_bounce_sys::clock;
use wg_bounce_sys::clock::Millis;
use wg_bounce_uapi::types::{Change, DeviceState, Errno, Request, SetRequest};

use super::requests::{Answer, Limits, RuntimeHandle};
use super::*;

const GET: &[u8] = b"get=1\n\n";

/// Answers `get` with the port stored by `set`, until all clients have disconnected.
fn start_runtime() -> RuntimeHandle {
    let wake = Arc::new(EventFd::new().expect("eventfd"));
    let (runtime, requests) = RuntimeHandle::new(wake);
    thread::spawn(move || {
        let mut listen_port = 0;
        for request in requests {
            let answer = match request.request {
                Request::Get => Answer::State(Box::new(state(listen_port)), None),
                Request::Explain(question) => Answer::Text(format!("{question:?}\nend")),
                Request::Set(SetRequest { changes, rejected }) => {
                    for change in changes {
                        if let Change::ListenPort(port) = change {
                            listen_port = port;
                        }
                    }
                    Answer::Done(rejected.map_or(Errno::OK, |rejection| rejection.errno))
                }
            };
            request.reply.send(answer);
        }
    });
    runtime
}

fn state(listen_port: u16) -> DeviceState {
    DeviceState { private_key: None, listen_port, fwmark: 0, peers: Vec::new() }
}

fn limits(request_time_max: u64, connections_max: usize) -> Limits {
    Limits {
        request_time_max: Millis(request_time_max),
        connections_max,
        idle_min: Millis(0),
        clock: clock::boot_time,
    }
}

/// Starts a server in a directory of its own; returns the path of its socket.
fn start_server(name: &str, limits: Limits) -> std::path::PathBuf {
    let directory = format!("wg-bounce-uapi-{name}-{}", std::process::id());
    let directory = std::env::temp_dir().join(directory);
    std::fs::create_dir_all(&directory).expect("temporary directory");
    let path = directory.join("wg0.sock");
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).expect("bind");
    start(listener, start_runtime(), limits).expect("threads");
    path
}

fn connect(path: &std::path::Path) -> UnixStream {
    let stream = UnixStream::connect(path).expect("listening");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
    stream
}

/// Reads up to the empty line that ends a reply.
fn answer(stream: &mut UnixStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\n\n") {
        match stream.read(&mut byte) {
            Ok(1) => text.push(byte[0]),
            Ok(_) => break,
            Err(error) => panic!("no answer: {error}"),
        }
    }
    String::from_utf8(text).expect("text")
}

#[test]
fn pipelined_requests_are_all_answered_in_order() {
    let mut client = connect(&start_server("pipeline", limits(20_000, 4)));
    let requests = b"set=1\nlisten_port=1\n\nget=1\n\nset=1\nlisten_port=2\n\nget=1\n\n";
    client.write_all(requests).expect("sent");
    let answers: Vec<String> = (0..4).map(|_| answer(&mut client)).collect();
    assert_eq!(answers[0], "errno=0\n\n");
    assert!(answers[1].contains("listen_port=1\n"), "{answers:?}");
    assert_eq!(answers[2], "errno=0\n\n");
    assert!(answers[3].contains("listen_port=2\n"), "{answers:?}");
}

/// The control thread is asked for the next part only when the one before has been sent.
#[test]
fn a_long_answer_comes_in_parts() {
    let (mut near, far) = UnixStream::pair().expect("a pair");
    near.write_all(GET).expect("sent");
    near.shutdown(std::net::Shutdown::Write).expect("open");
    let ask = |_, after: Option<PeerId>| {
        let number = after.map_or(1, |PeerId(last)| last + 1);
        let part = Box::new(state(number as u16));
        Some(Answer::State(part, (number < 3).then_some(PeerId(number))))
    };
    connection::serve(&Client::new(far, Millis(0)), ask, limits(20_000, 4)).expect("a reply");
    let expected = "listen_port=1\nlisten_port=2\nlisten_port=3\nerrno=0\n\n";
    assert_eq!(answer(&mut near), expected);
}

#[test]
fn a_stalled_set_delays_no_other_client_and_is_cut_off() {
    let path = start_server("stalled", limits(400, 4));
    let mut stalled = connect(&path);
    stalled.write_all(b"set=1\nlisten_port=7\nfwm").expect("sent");
    let mut other = connect(&path);
    other.write_all(GET).expect("sent");
    assert!(!answer(&mut other).contains("listen_port=7"), "nothing of it is applied");
    assert_eq!(answer(&mut stalled), "", "closed when its time is over");
    thread::sleep(Duration::from_millis(500));
    other.write_all(GET).expect("an idle connection stays open");
    assert!(answer(&mut other).ends_with("errno=0\n\n"));
}

#[test]
fn a_trickling_request_is_cut_off_too() {
    let mut client = connect(&start_server("trickle", limits(300, 4)));
    client.write_all(b"set=1\n").expect("sent");
    let cut_off = (0..100).any(|_| {
        thread::sleep(Duration::from_millis(20));
        client.write_all(b"listen_port=1\n").is_err()
    });
    assert!(cut_off, "each byte must not renew the time");
}

#[test]
fn an_error_leaves_the_connection_usable() {
    let mut client = connect(&start_server("error", limits(20_000, 4)));
    client.write_all(b"set=1\nlisten_port=3\nnonsense\n\n").expect("sent");
    assert_eq!(answer(&mut client), "errno=-71\n\n");
    client.write_all(GET).expect("sent");
    assert!(answer(&mut client).contains("listen_port=3\n"), "what stood before is applied");
}

#[test]
fn an_unknown_operation_closes_the_connection() {
    let mut client = connect(&start_server("unknown", limits(20_000, 4)));
    client.write_all(b"frobnicate=1\n").expect("sent");
    assert_eq!(answer(&mut client), "");
}

#[test]
fn the_longest_idle_client_makes_room() {
    let path = start_server("room", limits(20_000, 3));
    let ask = |client: &mut UnixStream| {
        client.write_all(GET).expect("sent");
        answer(client)
    };
    let mut clients: Vec<UnixStream> = (0..3).map(|_| connect(&path)).collect();
    clients.iter_mut().for_each(|client| assert!(ask(client).ends_with("errno=0\n\n")));
    thread::sleep(Duration::from_millis(5)); // the clock's unit is a millisecond
    assert!(ask(&mut clients[0]).ends_with("errno=0\n\n"));
    // In the middle of a request: closed after the idle ones.
    clients[1].write_all(b"set=1\n").expect("sent");
    thread::sleep(Duration::from_millis(50));
    let mut late = connect(&path);
    assert!(ask(&mut late).ends_with("errno=0\n\n"));
    assert_eq!(answer(&mut clients[2]), "", "idle for longest");
    clients[1].write_all(b"\n").expect("sent");
    assert_eq!(answer(&mut clients[1]), "errno=0\n\n");
    assert!(ask(&mut clients[0]).ends_with("errno=0\n\n"));
}

#[test]
fn a_client_that_was_just_active_is_spared() {
    let spared = Limits { idle_min: Millis(300), ..limits(20_000, 1) };
    let path = start_server("spared", spared);
    let mut first = connect(&path);
    first.write_all(GET).expect("sent");
    answer(&mut first);
    let mut second = connect(&path);
    second.write_all(GET).expect("sent");
    thread::sleep(Duration::from_millis(100));
    first.write_all(GET).expect("sent");
    assert!(answer(&mut first).ends_with("errno=0\n\n"), "still served");
    assert!(answer(&mut second).ends_with("errno=0\n\n"), "served in the end");
    assert_eq!(answer(&mut first), "", "which made room");
}

#[test]
fn a_request_dropped_by_control_closes_the_connection() {
    let (runtime, requests) = RuntimeHandle::new(Arc::new(EventFd::new().expect("eventfd")));
    drop(requests);
    let (mut client, server) = UnixStream::pair().expect("pair");
    let server = Client::new(server, clock::boot_time());
    let thread = thread::spawn(move || serve(&server, &runtime, limits(20_000, 1)));
    client.write_all(GET).expect("sent");
    assert_eq!(answer(&mut client), "");
    thread.join().expect("no panic");
}
