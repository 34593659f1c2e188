//! Chains, flowtables, legacy tables, IPVS, BPF links.

use wg_bounce_sys::Family;

use super::super::kernel::NetfilterLink;
use super::super::source::Source;
use super::fake::{self, FakeKernel, LegacyTable};
use super::{DIRECT, KERNEL, V4_ONLY, V6_ONLY, expect};
use crate::netlink::message::Message;
use crate::netlink::message::Protocol::Netfilter;
use crate::netlink::message::build::{attribute, message, text};

const GETCHAIN: u16 = 0xa04;
const GETFLOWTABLE: u16 = 0xa17;
const DROP: u32 = 0;
const ACCEPT: u32 = 1;

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

/// A base chain of a table `t` of a family, with `rules` rules.
fn chain(family: u8, hook: u32, devices: &[Vec<u8>], rules: u32, policy: u32) -> Message {
    let mut place = vec![number(1, hook), number(2, 0)];
    if !devices.is_empty() {
        place.push(attribute(4, &devices.concat()));
    }
    let attributes = [
        text(1, "t"),
        text(3, "c"),
        attribute(4, &place.concat()),
        number(5, policy),
        number(6, rules),
    ];
    message(0xa03, &[family, 0, 0, 0], &attributes)
}

fn with(message: Message) -> impl FnOnce(&mut FakeKernel) {
    move |kernel: &mut FakeKernel| kernel.push(Netfilter, GETCHAIN, message)
}

#[test]
fn base_chains_on_the_path_count_for_their_families() {
    for (hook, name) in [(0, "prerouting"), (2, "forward"), (4, "postrouting")] {
        let said = |family| format!("chain c of table {family} t, hook {name}: has rules");
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
    expect(with(chain(5, 0, &both, 1, ACCEPT)), KERNEL, "netdev t, hook ingress");
    expect(with(chain(5, 1, &both, 1, ACCEPT)), KERNEL, "netdev t, hook egress");
    expect(with(chain(1, 5, &both, 1, ACCEPT)), KERNEL, "inet t, hook ingress");
    expect(with(chain(5, 0, &[text(1, "eth0")], 1, ACCEPT)), DIRECT, "");
    expect(with(chain(5, 0, &[text(2, "wg")], 1, ACCEPT)), KERNEL, "ingress");
    expect(with(chain(5, 0, &[text(2, "eth")], 1, ACCEPT)), DIRECT, "");
    expect(with(chain(5, 0, &[text(9, "?")], 1, ACCEPT)), KERNEL, "ingress");
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
        let said = "tables-legacy: chain FORWARD of table filter: has rules";
        let table = legacy(family, &[(0, 1), (2, 2)], &[accept; 3]);
        expect(with(table), mine, said);
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
fn legacy_tables_with_rules_are_not_copied() {
    let accept = ("", -2);
    for (hooks, copies) in [([(0, 1), (2, 2)], 0), ([(0, 0), (1, 1)], 1)] {
        let mut kernel = FakeKernel::quiet();
        kernel.list("ip_tables_names", "filter\n");
        let table = legacy(Family::V4, &hooks, &[accept; 3]);
        kernel.legacy.insert((Family::V4, "filter".to_owned()), table);
        let found = Source::LegacyTables(Family::V4).read(&mut kernel, &fake::at());
        assert_eq!((found.is_empty(), kernel.legacy_copies), (copies == 1, copies));
    }
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
