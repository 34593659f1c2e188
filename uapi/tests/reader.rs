//! Parsing a connection: pipelining, limits, and the conditions that end it.

use wg_bounce_uapi::limits::{LINE_LEN_MAX, REQUEST_LEN_MAX};
use wg_bounce_uapi::parse::{Incoming, RequestReader};
use wg_bounce_uapi::render::render_explain;
use wg_bounce_uapi::types::{Change, Errno, Request, SetRequest};

/// Everything that a reader yields for these bytes.
fn read_all(reader: &mut RequestReader, mut input: &[u8]) -> Vec<Incoming> {
    let mut all = Vec::new();
    while let Some(incoming) = reader.read(&mut input, &|_| None) {
        all.push(incoming);
    }
    assert!(input.is_empty(), "the reader consumes everything before it returns None");
    all
}

fn only_set(mut all: Vec<Incoming>) -> SetRequest {
    assert_eq!(all.len(), 1);
    let Some(Incoming::Request(Request::Set(set))) = all.pop() else { panic!("not a set") };
    set
}

fn is_get(incoming: &Incoming) -> bool {
    matches!(incoming, Incoming::Request(Request::Get))
}

#[test]
fn pipelined_requests_come_out_in_order() {
    let mut reader = RequestReader::new();
    let all = read_all(&mut reader, b"get=1\n\nset=1\nfwmark=1\n\nset=1\n\nget=1\n\nget=1");
    assert_eq!(all.len(), 4);
    assert!(is_get(&all[0]) && is_get(&all[3]));
    let Incoming::Request(Request::Set(set)) = &all[1] else { panic!() };
    assert!(matches!(set.changes[..], [Change::Fwmark(1)]));
    let Incoming::Request(Request::Set(set)) = &all[2] else { panic!() };
    assert!(set.changes.is_empty() && set.rejected.is_none());
    assert!(!reader.is_idle(), "a request has begun");
    assert!(is_get(&read_all(&mut reader, b"\n\n")[0]));
    assert!(reader.is_idle());
}

#[test]
fn one_call_yields_one_request_and_leaves_the_rest() {
    let mut reader = RequestReader::new();
    let mut input: &[u8] = b"get=1\n\nset=1\n\n";
    assert!(is_get(&reader.read(&mut input, &|_| None).expect("complete")));
    assert_eq!(input, b"set=1\n\n");
    assert!(reader.is_idle());
}

#[test]
fn explain_needs_two_addresses_of_one_ip_version() {
    let read = |lines: &str| {
        let text = format!("explain=1\n{lines}\n");
        let mut all = read_all(&mut RequestReader::new(), text.as_bytes());
        assert_eq!(all.len(), 1, "{lines}");
        match all.remove(0) {
            Incoming::Request(Request::Explain(question)) => {
                assert_eq!(render_explain(&question), text);
                None
            }
            Incoming::Refused(rejection) => Some(rejection.errno),
            _ => panic!("{lines}"),
        }
    };
    assert_eq!(read("source=10.0.0.1\ndestination=10.0.0.2\n"), None);
    assert_eq!(read("source=fd00::1\ndestination=fd00::2\n"), None);
    for wrong in [
        "",
        "source=10.0.0.1\n",
        "source=10.0.0.1\ndestination=fd00::2\n",
        "source=10.0.0.1\ndestination=10.0.0.2\nport=9\n",
        "source=10.0.0.1\ndestination=10.0.0.2\nsource=me\n",
        "source 10.0.0.1\ndestination=10.0.0.2\n",
    ] {
        assert_eq!(read(wrong), Some(Errno::INVALID), "{wrong}");
    }
    let long = format!("source={}\n", "1".repeat(LINE_LEN_MAX));
    assert_eq!(read(&long), Some(Errno::IO));
}

#[test]
fn an_unknown_operation_ends_the_connection() {
    for first in ["\n", "get=2\n", "get=1 \n", "get\n", "fwmark=1\n", "\u{0}\n", "\r\n"] {
        let mut reader = RequestReader::new();
        let all = read_all(&mut reader, format!("{first}get=1\n\n").as_bytes());
        assert!(matches!(all[..], [Incoming::Unknown]), "{first:?}");
        assert!(read_all(&mut reader, b"get=1\n\n").is_empty(), "{first:?}");
    }
}

#[test]
fn an_overlong_operation_ends_the_connection() {
    let mut reader = RequestReader::new();
    assert!(read_all(&mut reader, &[b'x'; 2 * LINE_LEN_MAX]).is_empty());
    assert!(matches!(read_all(&mut reader, b"\n")[..], [Incoming::Unknown]));
}

#[test]
fn a_line_after_get_is_rejected() {
    let mut reader = RequestReader::new();
    let all = read_all(&mut reader, b"get=1\nfwmark=1\n\nget=1\n\n");
    let Incoming::Refused(rejection) = &all[0] else { panic!() };
    assert_eq!(rejection.errno, Errno::INVALID);
    assert!(is_get(&all[1]), "the connection stays usable");
}

#[test]
fn the_connection_stays_usable_after_an_error() {
    let mut reader = RequestReader::new();
    let all = read_all(&mut reader, b"set=1\nfwmark=1\nnonsense\nfwmark=2\n\nget=1\n\n");
    let Incoming::Request(Request::Set(set)) = &all[0] else { panic!() };
    assert_eq!(set.rejected.as_ref().expect("rejected").errno, Errno::PROTOCOL);
    assert!(matches!(set.changes[..], [Change::Fwmark(1)]));
    assert!(is_get(&all[1]));
}

#[test]
fn lines_up_to_the_limit_are_read_and_longer_ones_are_errors() {
    let longest = format!("fwmark={}2", "0".repeat(LINE_LEN_MAX - 8));
    for chunk_len in [1, 7, LINE_LEN_MAX, usize::MAX] {
        for (line, expected) in [(longest.clone(), None), (format!("{longest}3"), Some(Errno::IO))]
        {
            let mut reader = RequestReader::new();
            let text = format!("set=1\nfwmark=1\n{line}\n\n");
            let chunks = text.as_bytes().chunks(chunk_len.min(text.len()));
            let set = only_set(chunks.flat_map(|chunk| read_all(&mut reader, chunk)).collect());
            assert_eq!(set.rejected.map(|rejection| rejection.errno), expected);
            let mark = if expected.is_none() { 2 } else { 1 };
            assert!(matches!(set.changes[..], [Change::Fwmark(found)] if found == mark));
        }
    }
}

#[test]
fn carriage_returns_are_accepted_as_by_wireguard_go() {
    let set = only_set(read_all(&mut RequestReader::new(), b"set=1\r\nfwmark=1\r\n\r\n"));
    assert!(set.rejected.is_none());
    assert!(matches!(set.changes[..], [Change::Fwmark(1)]));
}

#[test]
fn an_endless_request_takes_bounded_memory_and_is_rejected() {
    let mut reader = RequestReader::new();
    assert!(read_all(&mut reader, b"set=1\n").is_empty());
    let chunk = b"fwmark=1\n".repeat(1 << 17);
    for _ in 0..=REQUEST_LEN_MAX / chunk.len() {
        assert!(read_all(&mut reader, &chunk).is_empty());
    }
    let set = only_set(read_all(&mut reader, b"fwmark=2\n\n"));
    assert_eq!(set.rejected.expect("rejected").errno, Errno::IO);
    assert!(matches!(set.changes[..], [Change::Fwmark(1)]), "the part within the limit applies");
    assert_eq!(read_all(&mut reader, b"get=1\n\n").len(), 1);
}
