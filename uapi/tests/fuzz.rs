//! Requests as text. No input may make the reader panic, the chunks in which the input arrives must
//! not matter, and the checks of [`common::transcript`] must hold: a rendered request parses back.

#![forbid(unsafe_code)]

mod common;

use common::transcript;
use wg_bounce_fuzz::Target;

/// Fragments that mutation inserts.
const WORDS: [&[u8]; 29] = [
    b"set=1\n",
    b"get=1\n",
    b"\n",
    b"\n\n",
    b"\r\n",
    b"=",
    b"true",
    b"-",
    b"/",
    b"%",
    b"[",
    b"]",
    b":",
    b"0",
    b"65536",
    b"4294967296",
    b"::ffff:1.2.3.4",
    b"fe80::1%eth0",
    b"remove=true\n",
    b"replace_allowed_ips=true\n",
    b"allowed_ip=10.0.0.1\n",
    b"\xff\xfe",
    b"\0",
    b"+1",
    b"private_key=",
    b"listen_port=0\n",
    b"explain=1\n",
    b"protocol=udp\n",
    b"port=",
];

#[test]
fn requests() {
    Target {
        test: concat!(module_path!(), "::requests"),
        corpus: &[concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus")],
        words: &WORDS,
        check: target,
    }
    .run();
}

fn target(data: &[u8]) {
    let whole = transcript(std::iter::once(data));
    assert_eq!(whole, transcript(data.chunks(1)), "chunks must not matter");
    assert_eq!(whole, transcript(data.chunks(61)), "chunks must not matter");
}
