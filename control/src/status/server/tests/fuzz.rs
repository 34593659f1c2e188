//! Fuzz target: requests to the status socket. Each gets one line, which is a reply; a request that
//! is understood means the same when it is written again.

use std::sync::Arc;

use nix::sys::eventfd::EventFd;
use wg_bounce_fuzz::Target;

use crate::status::deadline::fake::Client;
use crate::status::server::{Asker, serve};
use crate::status::{Reply, Request, VERSION, Verb};

/// Bytes that arrive at once, at most.
const CHUNK: usize = 1024;

#[test]
fn status_requests() {
    Target {
        test: concat!(module_path!(), "::status_requests"),
        corpus: &[concat!(env!("CARGO_MANIFEST_DIR"), "/src/status/server/tests/corpus")],
        words: &[
            b"\"version\":1",
            b"\"request\":\"show\"",
            b"\"request\":\"events\"",
            b"\"request\":\"name\"",
            b"\"request\":\"host\"",
            b"\"names\":{",
            b"\"addresses\":[\"10.0.0.1/24\"]",
            b"\"mtu\":1420",
            b"\n",
        ],
        check: target,
    }
    .run();
}

fn target(data: &[u8]) {
    let line = data.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
    let request = serde_json::from_slice::<Request>(line);
    if let Ok(request) = &request {
        let text = serde_json::to_string(request).expect("it can be written");
        let again: Request = serde_json::from_str(&text).expect("it can be read again");
        assert_eq!(serde_json::to_string(&again).expect("it can be written"), text);
        if matches!(request.verb, Verb::Name { .. }) && request.version == VERSION {
            return; // the names are those of the whole process
        }
    }
    let wake = Arc::new(EventFd::new().expect("an eventfd"));
    // The control thread has ended.
    let (asker, _) = Asker::new(wake);
    let (stream, received) = Client::connect(data, CHUNK);
    let events = serve(stream, &asker).expect("served");
    assert!(events.is_none());
    let received = received.lock().expect("not poisoned");
    let [reply @ .., b'\n'] = &received[..] else { panic!("not a line") };
    assert!(!reply.contains(&b'\n'), "one line");
    let reply: Reply = serde_json::from_slice(reply).expect("a reply");
    assert_eq!(reply.version, VERSION);
    assert!(reply.error.is_some() && reply.report.is_none(), "nothing can be answered");
}
