//! Fuzz target: datagrams of netlink, and everything that is read from their messages. What is cut
//! short is an error, and never a message of its own; what cannot be read is a reason against
//! relaying directly.

use wg_bounce_fuzz::{Random, Target};
use wg_bounce_sys::Family;

use super::super::fake::{self, FakeKernel, WG0};
use crate::link::message::{Event, event};
use crate::netlink::attribute::{Attribute, attributes};
use crate::netlink::message::{Message, Protocol, Reply, Request, build, frames};
use crate::relay_policy::announced::Announced;
use crate::relay_policy::reading::Known;
use crate::relay_policy::source::{Source, changed_by_route};

/// Bytes of a netlink header.
const HEADER_LEN: usize = 16;
/// The number of the request that replies are read for.
const SEQUENCE: u32 = 7;
/// Depth of nested attributes that are read.
const DEPTH: usize = 4;
/// Parents of tc filters at ingress and egress.
const FILTER_PARENTS: [u32; 2] = [0xffff_fff2, 0xffff_fff3];

/// A list that a source reads: its protocol, the type of the request and of its messages, and the
/// bytes in front of their attributes.
const LISTS: [(Source, Protocol, u16, u16, usize); 5] = [
    (Source::Link, Protocol::Route, 18, 16, 16),
    (Source::Rules(Family::V4), Protocol::Route, 34, 32, 12),
    (Source::Rules(Family::V6), Protocol::Route, 34, 32, 12),
    (Source::TrafficControl, Protocol::Route, 38, 36, 20),
    (Source::Connections, Protocol::Netfilter, 0x101, 0x100, 4),
];

#[test]
fn kernel_messages() {
    Target {
        test: concat!(module_path!(), "::kernel_messages"),
        corpus: &[concat!(env!("CARGO_MANIFEST_DIR"), "/src/relay_policy/tests/corpus/netlink")],
        words: &[
            &[2, 0, 0, 0, 7, 0, 0, 0],
            &[3, 0, 2, 0, 7, 0, 0, 0],
            &[16, 0, 0, 0, 7, 0, 0, 0],
            &[8, 0, 4, 0, 0x8c, 5, 0, 0],
            &[8, 0, 3, 0, b'w', b'g', b'0', 0],
            &[4, 0, 15, 0x80],
        ],
        check: target,
    }
    .run();
}

fn target(data: &[u8]) {
    for request in [Request::dump(18, &[]), Request::get(18, &[])] {
        let mut reply = Reply::to(&request, SEQUENCE);
        let _ = reply.add(data);
    }
    let Ok(all) = frames(data) else { return };
    let messages: Vec<Message> = all.into_iter().map(|frame| frame.message).collect();
    check_cut(data, &messages, &mut Random::of_input(data));
    let again: Vec<_> =
        messages.iter().flat_map(|one| build::frame(one.kind, 0, 0, &one.payload)).collect();
    let again = frames(&again).expect("as it was read");
    assert!(again.iter().map(|frame| &frame.message).eq(&messages), "rendered and read again");
    let mut announced = Announced::default();
    for message in &messages {
        for length in [0, 4, 12, 16, 20] {
            if let Ok((fixed, attributes)) = message.split(length) {
                assert_eq!(fixed.len(), length);
                check_attributes(&attributes, DEPTH);
            }
        }
        if let Some(Event::Present(link)) = event(message) {
            assert_eq!(link.index.to_ne_bytes(), message.payload[4..8]);
            assert!(!link.name.contains('\0'));
        }
        let _ = changed_by_route(message, &fake::at());
        announced.add(message);
    }
    check_sources(&messages);
}

/// A datagram that is cut short is an error, except behind a whole message.
fn check_cut(data: &[u8], messages: &[Message], random: &mut Random) {
    let cut = random.below(data.len() + 1);
    let (mut start, mut whole) = (0, (cut == 0).then_some(0));
    for (number, message) in messages.iter().enumerate() {
        let end = start + HEADER_LEN + message.payload.len();
        start = end.next_multiple_of(4);
        if (end..=start).contains(&cut) {
            whole = Some(number + 1);
        }
    }
    let read = frames(&data[..cut]).ok();
    let read: Option<Vec<_>> = read.map(|all| all.into_iter().map(|one| one.message).collect());
    assert_eq!(read.as_deref(), whole.map(|count| &messages[..count]), "cut to {cut}");
}

fn check_attributes(all: &[Attribute<'_>], depth: usize) {
    let again: Vec<_> = all.iter().flat_map(|one| build::attribute(one.kind, one.value)).collect();
    assert_eq!(attributes(&again).expect("as it was read"), all);
    for attribute in all {
        assert_eq!(attribute.u32().is_ok(), attribute.value.len() == 4);
        assert_eq!(attribute.u32_be().is_ok(), attribute.value.len() == 4);
        assert!(!attribute.text().contains('\0'));
        if depth > 0
            && let Ok(nested) = attribute.nested()
        {
            check_attributes(&nested, depth - 1);
        }
    }
}

/// A message that cannot be read is a finding.
fn check_sources(messages: &[Message]) {
    let of_kind = |kind| messages.iter().filter(move |message| message.kind == kind).cloned();
    let mut kernel = FakeKernel::quiet();
    kernel.set("netfilter/nf_conntrack_count", "1");
    for (_, protocol, question, kind, _) in LISTS {
        let answer: Vec<_> = of_kind(kind).collect();
        if !answer.is_empty() {
            kernel.answers.insert((protocol, question), Ok(answer));
        }
    }
    for (question, kind) in [(0x25, 0x24), (0x28, 0x27)] {
        let answer: Vec<_> = of_kind(kind).collect();
        if !answer.is_empty() {
            kernel.answers.insert((Protocol::Xfrm, question), Ok(answer));
        }
    }
    for parent in FILTER_PARENTS {
        kernel.filters.insert(parent, of_kind(44).collect());
    }
    assert_eq!(fake::at().index, WG0);
    for (source, _, _, kind, length) in LISTS {
        let reading = source.read(&mut kernel, &fake::at(), Known::default());
        let is_broken = |message: &Message| message.split(length).is_err();
        let of_interest = if source == Source::Link { 1 } else { usize::MAX };
        if of_kind(kind).take(of_interest).any(|message| is_broken(&message)) {
            assert!(!reading.findings.is_empty(), "{source:?}: cut short, and no reason");
        }
    }
    let _ = Source::Ipsec.read(&mut kernel, &fake::at(), Known::default());
}
