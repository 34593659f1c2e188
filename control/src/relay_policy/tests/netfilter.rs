//! Chains, flowtables, legacy tables, IPVS, BPF links.

use std::sync::Arc;

use wg_bounce_sys::Family;

use super::super::kernel::NetfilterLink;
use super::super::reason::Finding;
use super::super::source::Source;
use super::fake::{self, FakeKernel, LegacyTable};
use super::{DIRECT, KERNEL, V4_ONLY, V6_ONLY, expect};
use crate::netlink::message::Message;
use crate::netlink::message::Protocol::Netfilter;
use crate::netlink::message::build::{attribute, message, text};
use crate::relay_policy::reading::{Known, Reading};

const GETCHAIN: u16 = 0xa04;
const GETRULE: u16 = 0xa07;
const GETFLOWTABLE: u16 = 0xa17;
const DROP: u32 = 0;
pub const ACCEPT: u32 = 1;

pub fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

/// The handle of a chain.
pub fn handle(value: u64) -> Vec<u8> {
    attribute(2, &value.to_be_bytes())
}

/// A base chain of a table `t` of a family, with `rules` rules.
fn chain(family: u8, hook: u32, devices: &[Vec<u8>], rules: u32, policy: u32) -> Message {
    let mut place = vec![number(1, hook), number(2, 0)];
    if !devices.is_empty() {
        place.push(attribute(4, &devices.concat()));
    }
    let attributes = [
        text(1, "t"),
        handle(1),
        text(3, "c"),
        attribute(4, &place.concat()),
        number(5, policy),
        number(6, rules),
    ];
    message(0xa03, &[family, 0, 0, 0], &attributes)
}

/// A rule of the chain `c` of a table `t`.
fn rule(family: u8, expressions: &[Vec<u8>]) -> Message {
    let attributes = [
        text(1, "t"),
        text(2, "c"),
        attribute(3, &5u64.to_be_bytes()),
        attribute(4, &expressions.concat()),
    ];
    message(0xa06, &[family, 0, 0, 0], &attributes)
}

/// An expression in a rule.
pub fn expression(name: &str, data: &[Vec<u8>]) -> Vec<u8> {
    attribute(1, &[text(1, name), attribute(2, &data.concat())].concat())
}

fn counter() -> Vec<u8> {
    expression("counter", &[])
}

pub fn verdict(code: i32) -> Vec<u8> {
    let verdict = attribute(2, &number(1, code.cast_unsigned()));
    expression("immediate", &[number(1, 0), attribute(2, &verdict)])
}

/// Loads what `key` (NFT_META_*) says into register 1, and compares it.
fn meta(key: u32, operation: u32, value: &[u8]) -> [Vec<u8>; 2] {
    let value = attribute(3, &attribute(1, value));
    [
        expression("meta", &[number(1, 1), number(2, key)]),
        expression("cmp", &[number(1, 1), number(2, operation), value]),
    ]
}

/// This chain; with a rule in it that counts, if it has any.
fn with(message: Message) -> impl FnOnce(&mut FakeKernel) {
    move |kernel: &mut FakeKernel| {
        let has_rule = message.payload.ends_with(&number(6, 1));
        let rule = rule(message.payload[0], &[counter()]);
        kernel.push(Netfilter, GETCHAIN, message);
        if has_rule {
            kernel.push(Netfilter, GETRULE, rule);
        }
    }
}

/// A chain in the hook `forward` with these rules.
pub fn with_rules(family: u8, policy: u32, rules: &[&[Vec<u8>]]) -> impl FnOnce(&mut FakeKernel) {
    move |kernel: &mut FakeKernel| {
        let message = chain(family, 2, &[], rules.len() as u32, policy);
        kernel.push(Netfilter, GETCHAIN, message);
        for (number, one) in rules.iter().enumerate() {
            let mut rule = rule(family, one);
            if number > 0 {
                rule.payload.extend(attribute(6, &5u64.to_be_bytes())); // the one before
            }
            kernel.push(Netfilter, GETRULE, rule);
        }
    }
}

#[test]
fn base_chains_on_the_path_count_for_their_families() {
    for hook in [0, 2, 4] {
        let said = |family| {
            format!("nftables: chain c of table {family} t, rule handle 5: counts packets")
        };
        expect(with(chain(2, hook, &[], 1, ACCEPT)), V6_ONLY, &said("ip"));
        expect(with(chain(10, hook, &[], 1, ACCEPT)), V4_ONLY, &said("ip6"));
        expect(with(chain(1, hook, &[], 1, ACCEPT)), KERNEL, &said("inet"));
    }
    for hook in [1, 3] {
        expect(with(chain(1, hook, &[], 1, DROP)), DIRECT, ""); // input and output
    }
    expect(with(chain(1, 9, &[], 1, ACCEPT)), KERNEL, "hook number 9");
    expect(with(chain(77, 0, &[], 1, ACCEPT)), KERNEL, "table number 77 t");
    expect(with(chain(7, 2, &[], 1, ACCEPT)), DIRECT, ""); // bridge
}

#[test]
fn an_empty_chain_counts_only_if_it_does_not_accept() {
    expect(with(chain(1, 2, &[], 0, ACCEPT)), DIRECT, "");
    expect(with(chain(1, 2, &[], 0, DROP)), KERNEL, "default policy is not ACCEPT");
}

#[test]
fn a_chain_without_a_hook_does_not_count_by_itself() {
    let message = message(0xa03, &[1, 0, 0, 0], &[text(1, "t"), text(3, "c"), number(6, 5)]);
    expect(with(message), DIRECT, "");
}

#[test]
fn a_chain_without_a_number_of_rules_counts() {
    let place = attribute(4, &number(1, 2));
    let message =
        message(0xa03, &[1, 0, 0, 0], &[text(1, "t"), text(3, "c"), place, number(5, ACCEPT)]);
    expect(with(message), KERNEL, "cannot read nftables");
}

#[test]
fn chains_of_devices_count_if_the_interface_is_among_them() {
    let both = [text(1, "eth0"), text(1, "wg0")];
    expect(with(chain(5, 0, &both, 1, ACCEPT)), KERNEL, "netdev t, rule handle 5");
    expect(with(chain(5, 1, &both, 1, ACCEPT)), KERNEL, "netdev t, rule handle 5");
    expect(with(chain(1, 5, &both, 1, ACCEPT)), KERNEL, "inet t, rule handle 5");
    expect(with(chain(5, 0, &[text(1, "eth0")], 1, ACCEPT)), DIRECT, "");
    expect(with(chain(5, 0, &[text(2, "wg")], 1, ACCEPT)), KERNEL, "netdev t");
    expect(with(chain(5, 0, &[text(2, "eth")], 1, ACCEPT)), DIRECT, "");
    expect(with(chain(5, 0, &[text(9, "?")], 1, ACCEPT)), KERNEL, "netdev t");
}

#[test]
fn rules_of_nftables_are_followed() {
    const IIF: u32 = 4;
    const IIFNAME: u32 = 6;
    const OIFNAME: u32 = 7;
    const NFPROTO: u32 = 15;
    const MARK: u32 = 3;
    let padded = |name: &str| {
        let mut name = name.as_bytes().to_vec();
        name.resize(16, 0);
        name
    };
    let rule = |parts: &[&[Vec<u8>]]| parts.concat();
    let (drop, accept) = ([verdict(0)], [verdict(1)]);
    let masquerade = [expression("masq", &[])];

    // The documented rules of a relay.
    let from_us = rule(&[&meta(IIFNAME, 0, b"wg0\0"), &[counter()], &accept]);
    expect(with_rules(1, DROP, &[&from_us]), DIRECT, "");
    let to_world = rule(&[&meta(OIFNAME, 0, &padded("eth0")), &masquerade]);
    expect(with_rules(1, ACCEPT, &[&to_world]), DIRECT, "");
    let state = [
        expression("ct", &[number(1, 1), number(2, 0)]),
        expression("bitwise", &[number(1, 1), number(2, 1), number(3, 4)]),
        expression("cmp", &[number(1, 1), number(2, 1), attribute(3, &attribute(1, &[0; 4]))]),
    ];
    let established = rule(&[&state, &accept]);
    expect(with_rules(1, DROP, &[&established, &from_us]), DIRECT, "");
    expect(with_rules(1, DROP, &[&established]), KERNEL, "default policy is not ACCEPT");

    let said = |what: &str| format!("chain c of table inet t, rule handle 5: {what}");
    expect(with_rules(1, ACCEPT, &[&masquerade]), KERNEL, &said("may apply masq to packets"));
    let to_us = rule(&[&meta(OIFNAME, 0, b"wg"), &drop]);
    expect(with_rules(1, ACCEPT, &[&to_us]), KERNEL, &said("may drop packets between peers"));
    let to_others = rule(&[&meta(OIFNAME, 1, &padded("wg0")), &drop]);
    expect(with_rules(1, ACCEPT, &[&to_others]), DIRECT, "");
    let by_index = rule(&[&meta(IIF, 1, &7u32.to_ne_bytes()), &drop]);
    expect(with_rules(1, ACCEPT, &[&by_index]), DIRECT, "");
    let of_v6 = rule(&[&meta(NFPROTO, 0, &[10]), &drop]);
    expect(with_rules(1, ACCEPT, &[&of_v6]), V4_ONLY, &said("may drop"));
    // No packet between peers has a mark.
    let marked = rule(&[&meta(MARK, 0, &[1, 0, 0, 0]), &drop]);
    expect(with_rules(1, ACCEPT, &[&marked]), DIRECT, "");
    let unmarked = rule(&[&meta(MARK, 1, &[1, 0, 0, 0]), &drop]);
    expect(with_rules(1, ACCEPT, &[&unmarked]), KERNEL, &said("may drop"));
    let marks = [expression("meta", &[number(3, 1), number(2, MARK)])];
    expect(with_rules(1, ACCEPT, &[&marks]), KERNEL, &said("may apply meta set"));
    let limited = rule(&[&[expression("limit", &[])], &accept]);
    expect(with_rules(1, ACCEPT, &[&limited]), KERNEL, &said("limit is not understood"));
    for (name, expected) in [("comment", DIRECT), ("conntrack", DIRECT), ("recent", V6_ONLY)] {
        let matched = rule(&[&[expression("match", &[text(1, name)])], &accept]);
        let reason = if expected == DIRECT { "" } else { "match recent is not understood" };
        expect(with_rules(2, ACCEPT, &[&matched]), expected, reason);
    }
    let target = [expression("target", &[text(1, "TCPMSS")])];
    expect(with_rules(1, ACCEPT, &[&target]), KERNEL, &said("may apply TCPMSS"));
    // What is known about a register is forgotten when it is written to.
    let [load, compare] = meta(IIFNAME, 0, &padded("eth0"));
    let other = expression("payload", &[number(1, 1), number(2, 1), number(3, 0), number(4, 4)]);
    let overwritten = rule(&[&[load, other, compare], &drop]);
    expect(with_rules(1, ACCEPT, &[&overwritten]), KERNEL, &said("may drop"));
    let other = expression("meta", &[number(1, 9), number(2, MARK)]); // the second word of it
    let [load, compare] = meta(IIFNAME, 0, &padded("eth0"));
    let overwritten = rule(&[&[load, other, compare], &drop]);
    expect(with_rules(1, ACCEPT, &[&overwritten]), KERNEL, &said("may drop"));
    // A jump to a chain that is not listed.
    expect(with_rules(1, ACCEPT, &[&[verdict(-3)]]), KERNEL, &said("immediate is not understood"));
    let unlisted = [expression("lookup", &[text(1, "vip"), number(2, 1)])];
    expect(with_rules(1, ACCEPT, &[&unlisted]), KERNEL, &said("set vip is not understood"));
    // TCP options may be removed.
    let removed = rule(&[&meta(OIFNAME, 0, b"eth0\0"), &[expression("exthdr", &[number(2, 2)])]]);
    expect(with_rules(1, ACCEPT, &[&removed]), DIRECT, "");
    expect(with_rules(1, ACCEPT, &[&removed[2..]]), KERNEL, &said("exthdr is not understood"));
}

/// A list that ends early, or a transaction that is being prepared.
#[test]
fn lists_that_contradict_each_other_are_read_again() {
    let change = |kernel: &mut FakeKernel| {
        kernel.push(Netfilter, GETCHAIN, chain(1, 2, &[], 2, ACCEPT));
        kernel.push(Netfilter, GETRULE, rule(1, &[verdict(1)]));
    };
    expect(change, KERNEL, "cannot read nftables");
    let change = |kernel: &mut FakeKernel| {
        kernel.push(Netfilter, GETCHAIN, chain(1, 2, &[], 0, ACCEPT));
        kernel.push(Netfilter, GETRULE, rule(1, &[verdict(0)]));
    };
    expect(change, KERNEL, "cannot read nftables: the rules keep changing");
    // The rule before this one is missing.
    let change = |kernel: &mut FakeKernel| {
        kernel.push(Netfilter, GETCHAIN, chain(1, 2, &[], 1, ACCEPT));
        let mut rule = rule(1, &[verdict(1)]);
        rule.payload.extend(attribute(6, &4u64.to_be_bytes()));
        kernel.push(Netfilter, GETRULE, rule);
    };
    expect(change, KERNEL, "the rules keep changing");
    // Listed twice.
    let change = |kernel: &mut FakeKernel| {
        for _ in 0..2 {
            kernel.push(Netfilter, GETCHAIN, chain(1, 2, &[], 1, ACCEPT));
        }
        kernel.push(Netfilter, GETRULE, rule(1, &[verdict(1)]));
    };
    expect(change, KERNEL, "the rules keep changing");
}

/// An expression with numbers and bytes.
fn bytes(name: &str, numbers: &[Vec<u8>], values: &[(u16, &[u8])]) -> Vec<u8> {
    let values = values.iter().map(|(kind, value)| attribute(*kind, &attribute(1, value)));
    expression(name, &[numbers.to_vec(), values.collect()].concat())
}

/// Changes each byte, and cuts `whole` short: never a panic, and what is cut short is not followed.
#[track_caller]
fn break_everywhere(whole: &[u8], judge: impl Fn(Vec<u8>) -> Vec<Finding>) {
    for at in 0..whole.len() {
        assert_eq!(judge(whole[..at].to_vec()).len(), 1, "cut to {at} bytes");
        let mut changed = whole.to_vec();
        for value in [0, 1, 0x7f, 0xff] {
            changed[at] = value;
            judge(changed.clone());
        }
    }
}

#[test]
fn broken_rules_never_panic() {
    let parts = [
        meta(6, 0, b"eth0\0").concat(),
        expression("payload", &[number(1, 8), number(2, 1), number(3, 12), number(4, 4)]),
        bytes(
            "bitwise",
            &[number(1, 8), number(2, 9), number(3, 4)],
            &[(4, &[255; 4]), (5, &[0; 4])],
        ),
        bytes("range", &[number(1, 9), number(2, 0)], &[(3, &[10, 0, 0, 0]), (4, &[11, 0, 0, 0])]),
        expression("fib", &[number(1, 8), number(2, 3), number(3, 2)]),
        bytes("immediate", &[number(1, 8)], &[(2, &[10, 0, 0, 1])]),
        expression("lookup", &[text(1, "__set0"), number(2, 8)]),
        counter(),
        verdict(1),
    ];
    let whole = rule(1, &parts);
    let judge = |message: Message| {
        let mut kernel = FakeKernel::quiet();
        kernel.push(Netfilter, GETCHAIN, chain(1, 2, &[], 1, ACCEPT));
        kernel.push(Netfilter, GETRULE, message);
        Source::Nftables.read(&mut kernel, &fake::at(), Known::default()).findings
    };
    assert_eq!(judge(whole.clone()), []);
    break_everywhere(&whole.payload, |payload| judge(Message { payload, ..whole.clone() }));
}

#[test]
fn broken_legacy_tables_never_panic() {
    let verdicts = [("", 4 * 152), ("", -2), ("", -2), ("ERROR", 0), ("LOG", 0), ("", -5)];
    let whole = legacy(Family::V4, &[(0, 1), (2, 2)], &verdicts);
    let judge = |table: LegacyTable| {
        let mut kernel = FakeKernel::quiet();
        kernel.list("ip_tables_names", "filter\n");
        kernel.legacy.insert((Family::V4, "filter".to_owned()), table);
        Source::LegacyTables(Family::V4).read(&mut kernel, &fake::at(), Known::default()).findings
    };
    assert_eq!(judge(whole.clone()).len(), 1);
    break_everywhere(&whole.entries, |entries| judge(LegacyTable { entries, ..whole.clone() }));
}

/// The generation is asked for before and after the lists, and what contradicts itself is read
/// again.
#[test]
fn rules_are_read_in_one_generation() {
    let mut kernel = FakeKernel::quiet();
    kernel.push(Netfilter, 0xa10, message(0xa0f, &[0; 4], &[number(1, 7)]));
    kernel.push(Netfilter, GETCHAIN, chain(1, 2, &[], 1, ACCEPT));
    kernel.change = Some(|kernel| kernel.push(Netfilter, GETRULE, rule(1, &[verdict(1)])));
    assert_eq!(Source::Nftables.read(&mut kernel, &fake::at(), Known::default()).findings, []);
    let asked = kernel.requests.iter().filter(|(_, kind, _)| *kind == 0xa10).count();
    assert_eq!((asked, kernel.pauses), (4, 1), "before and after each time");
}

#[test]
fn flowtables_count_if_the_interface_is_among_their_devices() {
    for (device, expected) in [("wg0", KERNEL), ("eth0", DIRECT)] {
        let place = [number(1, 0), attribute(3, &text(1, device))].concat();
        let attributes = [text(1, "t"), text(2, "fast"), attribute(3, &place)];
        let message = message(0xa16, &[1, 0, 0, 0], &attributes);
        let change = |kernel: &mut FakeKernel| kernel.push(Netfilter, GETFLOWTABLE, message);
        expect(change, expected, if expected == KERNEL { "flowtable fast" } else { "direct" });
    }
}

#[test]
fn an_unexpected_message_type_is_malformed() {
    let other = message(0xa99, &[1, 0, 0, 0], &[]);
    expect(with(other), KERNEL, "cannot read nftables");
}

/// Entries of legacy iptables: each a policy or a rule with this verdict, one after the other.
fn legacy(family: Family, hooks: &[(usize, usize)], verdicts: &[(&str, i32)]) -> LegacyTable {
    let (entry_len, target_at) =
        if family == Family::V4 { (112usize, 88) } else { (168usize, 140) };
    let mut entries = Vec::new();
    for (target, verdict) in verdicts {
        let mut entry = vec![0; entry_len];
        entry[target_at..target_at + 2].copy_from_slice(&(entry_len as u16).to_ne_bytes());
        let next = (entry_len + 40) as u16;
        entry[target_at + 2..target_at + 4].copy_from_slice(&next.to_ne_bytes());
        let mut body = vec![0; 40];
        body[2..2 + target.len()].copy_from_slice(target.as_bytes());
        body[32..36].copy_from_slice(&verdict.to_ne_bytes());
        entry.extend(body);
        entries.extend(entry);
    }
    let length = entry_len + 40;
    let mut info = vec![0; 84];
    let mut mask = 0u32;
    for (hook, (first, policy)) in [2, 4].into_iter().zip(hooks) {
        mask |= 1 << hook;
        let place = 36 + 4 * hook;
        info[place..place + 4].copy_from_slice(&((first * length) as u32).to_ne_bytes());
        let place = 56 + 4 * hook;
        info[place..place + 4].copy_from_slice(&((policy * length) as u32).to_ne_bytes());
    }
    info[32..36].copy_from_slice(&mask.to_ne_bytes());
    LegacyTable { info, entries }
}

#[test]
fn legacy_tables_count_with_rules_or_another_policy() {
    let accept = ("", -2);
    for (family, list, mine) in
        [(Family::V4, "ip_tables_names", V6_ONLY), (Family::V6, "ip6_tables_names", V4_ONLY)]
    {
        let with = |table: LegacyTable| {
            move |kernel: &mut FakeKernel| {
                kernel.list(list, "filter\n");
                kernel.legacy.insert((family, "filter".to_owned()), table);
            }
        };
        let two = [(0, 0), (1, 1)];
        expect(with(legacy(family, &two, &[accept, accept])), DIRECT, "");
        let table = legacy(family, &[(0, 1), (2, 2)], &[accept; 3]);
        expect(with(table), DIRECT, "");
        let said = "tables-legacy: chain FORWARD of table filter, rule 1: may apply LOG";
        let table = legacy(family, &[(0, 1), (2, 2)], &[("LOG", 0), accept, accept]);
        expect(with(table), mine, said);
        let said = "chain FORWARD of table filter, rule 1: counts packets";
        let next = if family == Family::V4 { 152 } else { 208 };
        let table = legacy(family, &[(0, 1), (2, 2)], &[("", next), accept, accept]);
        expect(with(table), mine, said);
        // Accepted before the policy.
        let table = legacy(family, &[(0, 1), (2, 2)], &[accept, ("", -1), accept]);
        expect(with(table), DIRECT, "");
        // A jump into a chain of the user, which begins after the entry that names it.
        let chain = [("", 4 * next), ("", -1), accept, ("ERROR", 0), ("", -1), ("", -5)];
        let table = legacy(family, &[(0, 1), (2, 2)], &chain);
        expect(with(table), mine, ", rule 1: may drop packets between peers");
        // What iptables(8) never writes: a target ERROR within a chain, a jump into one.
        for bad in [("ERROR", 0), ("", 2 * next + 1), ("", 2 * next)] {
            let table = legacy(family, &[(0, 2), (3, 3)], &[bad, accept, accept, accept]);
            expect(with(table), mine, "cannot read");
        }
        let dropping = legacy(family, &two, &[accept, ("", -1)]);
        expect(
            with(dropping),
            mine,
            "chain POSTROUTING of table filter: default policy is not ACCEPT",
        );
        let odd = legacy(family, &two, &[("LOG", -2), accept]);
        expect(with(odd), mine, "chain FORWARD of table filter: default policy is not ACCEPT");
        let short = legacy(family, &two, &[accept]);
        expect(with(short), mine, "tables-legacy tables: ");
    }
    // Listed, but removed before it was read.
    expect(|kernel| kernel.list("ip_tables_names", "nat\n"), DIRECT, "");
}

/// A large table is copied only if it may hold a policy that matters.
#[test]
fn large_legacy_tables_with_rules_are_not_copied() {
    let accept = ("", -2);
    for (hooks, copies) in [([(0, 1), (2, 2)], 0), ([(0, 0), (1, 1)], 1)] {
        let mut kernel = FakeKernel::quiet();
        kernel.list("ip_tables_names", "filter\n");
        let mut table = legacy(Family::V4, &hooks, &[accept; 3]);
        table.info[80..].copy_from_slice(&2_000_000u32.to_ne_bytes());
        kernel.legacy.insert((Family::V4, "filter".to_owned()), table);
        let found = Source::LegacyTables(Family::V4)
            .read(&mut kernel, &fake::at(), Known::default())
            .findings;
        assert_eq!((found.is_empty(), kernel.legacy_copies), (copies == 1, copies));
    }
}

/// Counters of a legacy table change all the time, and it is not parsed again for that.
#[test]
fn legacy_tables_are_compared_without_counters() {
    let mut kernel = FakeKernel::quiet();
    kernel.list("ip_tables_names", "filter\n");
    let table = legacy(Family::V4, &[(0, 1), (2, 2)], &[("", -1), ("", -2), ("", -2)]);
    let mut read = |table: LegacyTable, before: Option<&Reading>| {
        kernel.legacy.insert((Family::V4, "filter".to_owned()), table);
        let known = Known { before, ..Known::default() };
        Source::LegacyTables(Family::V4).read(&mut kernel, &fake::at(), known)
    };
    let first = read(table.clone(), None);
    let mut counted = table.clone();
    counted.entries[96..112].fill(7);
    let second = read(counted.clone(), Some(&first));
    assert_eq!(second, first);
    assert!(Arc::ptr_eq(&second.copies[0], &first.copies[0]));
    counted.entries[0] = 10;
    let third = read(counted, Some(&second));
    assert_ne!(third.copies, first.copies);
}

#[test]
fn virtual_services_count() {
    let heading =
        "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port ...\n  -> \n";
    expect(|kernel| kernel.list("ip_vs", heading), DIRECT, "");
    let service = format!("{heading}TCP  0A4D0001:0050 rr\n");
    expect(|kernel| kernel.list("ip_vs", &service), KERNEL, "IPVS");
}

#[test]
fn programs_linked_to_netfilter_count_on_the_path() {
    let link = |family, hook| {
        move |kernel: &mut FakeKernel| kernel.links = vec![NetfilterLink { id: 5, family, hook }]
    };
    expect(link(2, 0), V6_ONLY, "BPF link 5 attaches a program to netfilter hook prerouting");
    expect(link(10, 2), V4_ONLY, "hook forward");
    expect(link(2, 1), DIRECT, ""); // input
    expect(link(300, 9), KERNEL, "of unknown number");
}
