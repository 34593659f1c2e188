//! Sets and maps of nftables.

use super::super::source::Source;
use super::fake::{self, FakeKernel};
use super::netfilter::{ACCEPT, expression, number, verdict, with_rules};
use super::{DIRECT, KERNEL, expect};
use crate::netlink::message::Message;
use crate::netlink::message::Protocol::Netfilter;
use crate::netlink::message::build::{attribute, message, text};
use crate::relay_policy::reading::Known;
use crate::relay_policy::rules::sets::{self, Element, Set};

/// An element of a set: its key and more.
pub fn element(key: &[u8], more: &[Vec<u8>]) -> Vec<u8> {
    let parts = [&[attribute(1, &attribute(1, key))][..], more].concat();
    attribute(1, &parts.concat())
}

/// A rule that looks for the name of the interface that packets leave by in a set `s` with these
/// flags and elements, and what follows.
fn with_set(flags: u32, elements: &[Vec<u8>], then: &[Vec<u8>]) -> impl FnOnce(&mut FakeKernel) {
    const OIFNAME: u32 = 7;
    let name = [text(1, "t"), text(2, "s")];
    let set = message(0xa09, &[1, 0, 0, 0], &[&name[..], &[number(3, flags)]].concat());
    let list = attribute(3, &elements.concat());
    let list = message(0xa0c, &[1, 0, 0, 0], &[&name[..], &[list]].concat());
    let mut lookup = vec![text(1, "s"), number(2, 1)];
    if flags & 8 != 0 {
        lookup.push(number(3, 0));
    }
    let load = expression("meta", &[number(1, 1), number(2, OIFNAME)]);
    let rule = [&[load, expression("lookup", &lookup)], then].concat();
    move |kernel: &mut FakeKernel| {
        with_rules(1, ACCEPT, &[&rule])(kernel);
        kernel.push(Netfilter, 0xa0a, set);
        kernel.push(Netfilter, 0xa0d, list);
    }
}

fn name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

#[test]
fn elements_of_sets_and_maps_are_looked_at() {
    let drop = [verdict(0)];
    let plain = |names: &[&str]| -> Vec<Vec<u8>> {
        names.iter().map(|one| element(&name(one), &[])).collect()
    };
    expect(with_set(0, &plain(&["eth0", "lo"]), &drop), DIRECT, "");
    expect(with_set(0, &plain(&["eth0", "wg0"]), &drop), KERNEL, "may drop");
    expect(with_set(0, &[], &drop), DIRECT, "");
    // Rules add elements; elements count.
    expect(with_set(0x20, &plain(&["eth0"]), &drop), KERNEL, "set s is not understood");
    let counted = element(&name("eth0"), &[attribute(7, &text(1, "counter"))]);
    expect(with_set(0, &[counted], &drop), KERNEL, "set s is not understood");
    let cut = attribute(1, &[1, 0, 0]);
    expect(with_set(0, &[cut], &drop), KERNEL, "lookup is not understood");

    let says = |code: i32| {
        let verdict = attribute(2, &number(1, code.cast_unsigned()));
        vec![attribute(2, &verdict)]
    };
    let map = [element(&name("eth0"), &says(0)), element(&name("wg0"), &says(1))];
    expect(with_set(8, &map, &drop), DIRECT, "");
    let map = [element(&name("eth0"), &says(1)), element(&name("wg0"), &says(0))];
    expect(with_set(8, &map, &[]), KERNEL, "may drop");
    let others = [number(3, 2), says(0).remove(0)].concat();
    let map = [element(&name("eth0"), &says(1)), attribute(1, &others)];
    expect(with_set(8, &map, &[]), KERNEL, "may drop");
    // The element of all other keys accepts, until it expires.
    let others = [number(3, 2), says(1).remove(0)].concat();
    let map = [attribute(1, &others)];
    expect(with_set(8, &map, &drop), DIRECT, "");
    expect(with_set(8 | 0x10, &map, &drop), KERNEL, "may drop");
}

/// The elements of a set with these flags and keys; those with `true` end a range.
fn read(flags: u32, keys: &[(&[u8], bool)], limit: usize) -> Option<Set> {
    let end = |ends: bool| if ends { vec![number(3, 1)] } else { Vec::new() };
    let elements: Vec<_> = keys.iter().map(|(key, ends)| element(key, &end(*ends))).collect();
    let name = [text(1, "t"), text(2, "s")];
    let set = message(0xa09, &[1, 0, 0, 0], &[&name[..], &[number(3, flags)]].concat());
    // In two messages, as a long list comes.
    let lists: Vec<Message> = elements
        .chunks(2)
        .map(|part| message(0xa0c, &[1, 0, 0, 0], &[attribute(3, &part.concat())]))
        .collect();
    let ((family, table, name), kind) = sets::kind(&set).expect("whole");
    assert_eq!((family, table.as_str(), name.as_str()), (1, "t", "s"));
    kind.elements(&lists, limit).expect("whole")
}

#[test]
fn ranges_end_before_the_next_key() {
    let keys: [(&[u8], bool); 5] = [
        (&[10, 2, 0, 0], false),
        (&[0; 4], true),
        (&[10, 1, 0, 0], true),
        (&[10, 0, 0, 7], false),
        (&[10, 1, 0, 9], false),
    ];
    let found = read(4, &keys, 5).expect("few");
    let range = |first: [u8; 4], last: [u8; 4]| Element {
        first: first.to_vec(),
        last: Some(last.to_vec()),
        verdict: Vec::new(),
    };
    let expected = [
        range([10, 2, 0, 0], [255; 4]),
        range([10, 0, 0, 7], [10, 0, 255, 255]),
        range([10, 1, 0, 9], [10, 1, 255, 255]),
    ];
    assert_eq!(found.elements, expected);
    assert_eq!(read(4, &keys, 4), None, "too many");
    assert!(read(0x10, &keys[..1], 5).expect("few").may_expire);
    // Several fields: their ends come with them.
    let found = read(0x84, &keys[..1], 5).expect("few");
    assert_eq!(found.elements[0].last, None);
}

/// Each byte of a set and of its elements is changed, and both are cut short.
#[test]
fn broken_sets_never_panic() {
    let says = |code: u32| attribute(2, &attribute(2, &number(1, code)));
    let elements = [
        element(&name("wg0"), &[says(0), number(3, 0)]),
        element(&name("wg1"), &[number(3, 1)]),
        element(&name("eth0"), &[says(1), attribute(10, &attribute(1, &name("eth9")))]),
    ];
    let judge = |change: &dyn Fn(&mut Vec<u8>, usize), question: u16| {
        let mut length = 1;
        let mut at = 0;
        while at < length {
            let mut kernel = FakeKernel::quiet();
            with_set(4 | 8, &elements, &[])(&mut kernel);
            let answer = kernel.answers.get_mut(&(Netfilter, question)).expect("pushed");
            let message = &mut answer.as_mut().expect("not refused")[0];
            length = message.payload.len();
            change(&mut message.payload, at);
            Source::Nftables.read(&mut kernel, &fake::at(), Known::default());
            at += 1;
        }
    };
    for question in [0xa0a, 0xa0d] {
        judge(&|payload, at| payload.truncate(at), question);
        for value in [0, 1, 0x7f, 0xff] {
            judge(&|payload, at| payload[at] = value, question);
        }
    }
}
