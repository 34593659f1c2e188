//! Fuzz target: heads of HTTP requests for metrics. The answer is a whole response, or nothing if
//! the head ends early; the chunks in which the head arrives do not matter.

use std::str;
use std::sync::{Arc, Mutex};

use nix::sys::eventfd::EventFd;
use wg_bounce_fuzz::Target;
use wg_bounce_sys::clock;

use crate::limits::METRICS_HEAD_LEN_MAX;
use crate::metrics::server::{Source, serve};
use crate::status::deadline::fake::Client;
use crate::status::server::Asker;

/// Bytes that arrive at once: as many as are read at once, and fewer.
const CHUNKS: [usize; 3] = [1024, 1, 61];

#[test]
fn http_heads() {
    Target {
        test: concat!(module_path!(), "::http_heads"),
        corpus: &[concat!(env!("CARGO_MANIFEST_DIR"), "/src/metrics/server/tests/corpus")],
        words: &[
            b"GET /metrics HTTP/1.1\r\n",
            b"POST ",
            b"Host: a\r\n",
            b"\r\n",
            b"\n\n",
            b"?x=1",
            b"HTTP/1.0",
        ],
        check: target,
    }
    .run();
}

fn target(data: &[u8]) {
    let [answer, others @ ..] = CHUNKS.map(|chunk| answer(data, chunk));
    if data.len() < METRICS_HEAD_LEN_MAX {
        assert!(others.iter().all(|other| *other == answer), "chunks do not matter");
    }
    if answer.is_empty() {
        return;
    }
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).expect("a status");
    assert!(["200", "400", "404", "405", "431"].contains(&status), "{status}");
    assert_eq!(status == "200", body == "text");
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    assert_eq!(length, Some(body.len().to_string().as_str()));
}

/// The answer to a request that arrives in chunks.
fn answer(data: &[u8], chunk: usize) -> String {
    let (asker, _) = Asker::new(Arc::new(EventFd::new().expect("an eventfd")));
    let last = Mutex::new(Some((clock::uptime(), "text".into())));
    let source = Source { asker, has_names: true, last };
    let (stream, received) = Client::connect(data, chunk);
    serve(stream, &source).expect("served");
    let received = received.lock().expect("not poisoned");
    str::from_utf8(&received).expect("a text").to_owned()
}
