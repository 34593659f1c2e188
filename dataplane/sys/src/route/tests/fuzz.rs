//! Fuzz target: the kernel's replies to questions about routes. A reply that is cut short, or in
//! which anything cannot be read, never says that a packet may go back into the interface.

use wg_bounce_fuzz::{Random, Target};

use super::super::{Route, read_forwarding, read_source_address};
use crate::route_message::{HEADER_LEN, Message, ROUTE_LEN};

const INTERFACE: u32 = 7;

#[test]
fn route_replies() {
    Target {
        test: concat!(module_path!(), "::route_replies"),
        corpus: &[concat!(env!("CARGO_MANIFEST_DIR"), "/src/route/tests/corpus")],
        words: &[
            &[8, 0, 4, 0, 7, 0, 0, 0],
            &[8, 0, 4, 0, 8, 0, 0, 0],
            &[8, 0, 7, 0, 10, 9, 0, 1],
            &[12, 0, 8, 0, 8, 0, 2, 0, 0x58, 2, 0, 0],
            &[12, 0, 9, 0, 8, 0, 0, 0, 7, 0, 0, 0],
            &[4, 0, 22, 0],
        ],
        check: target,
    }
    .run();
}

fn target(data: &[u8]) {
    let Some(sequence) = data.get(8..12).and_then(|bytes| bytes.first_chunk().copied()) else {
        assert!(Message::read(data, 0).is_none());
        return;
    };
    let sequence = u32::from_ne_bytes(sequence);
    let route = |bytes: &[u8]| {
        let message = Message::read(bytes, sequence)?;
        Some(read_forwarding(message, INTERFACE).route)
    };
    assert!(Message::read(data, sequence.wrapping_add(1)).is_none(), "of another request");
    if route(data) == Some(Route::Back) {
        assert!(are_whole(data), "every attribute is whole");
    }
    let cut = Random::of_input(data).below(data.len() + 1);
    let length = u32::from_ne_bytes([data[0], data[1], data[2], data[3]]) as usize;
    if cut < length && route(&data[..cut]).is_some_and(|route| route != Route::Unknown) {
        panic!("cut to {cut}");
    }
    if let Some(message) = Message::read(data, sequence) {
        let _ = read_source_address(message, INTERFACE);
    }
}

/// Whether the attributes of a reply end where it ends.
fn are_whole(data: &[u8]) -> bool {
    let length = u32::from_ne_bytes([data[0], data[1], data[2], data[3]]) as usize;
    let mut at = HEADER_LEN + ROUTE_LEN;
    while at < length {
        let Some(bytes) = data.get(at..at + 2) else { return false };
        let attribute = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        if attribute < 4 || at + attribute > length {
            return false;
        }
        at += attribute.next_multiple_of(4);
    }
    true
}
