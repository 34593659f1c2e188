//! Fuzz targets: the readers of rules. Lists of nftables, with x_tables and sets within it, and
//! legacy tables. No input may make them panic or take long. And what is judged direct must be so
//! packet by packet: the judgement about all packets together is compared with the way of single
//! ones.
//!
//! The lists in `corpus` that have names are those of the kernel (Linux 6.18) under the recipes of
//! the same name.

mod netlink;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use wg_bounce_dataplane::pairs::{Packets, Pairs};
use wg_bounce_dataplane::transport::Transport;
use wg_bounce_fuzz::{Random, Target};
use wg_bounce_sys::Family;

use super::fake::{self, FakeKernel, LegacyTable};
use crate::netlink::message::{Message, Protocol};
use crate::relay_policy::base_chain::WayEnd;
use crate::relay_policy::reading::{Known, Reading};
use crate::relay_policy::reason::Finding;
use crate::relay_policy::rules::addresses::Addresses;
use crate::relay_policy::source::Source;

const NFTABLES: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/src/relay_policy/tests/corpus/nftables");
const LEGACY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/relay_policy/tests/corpus/legacy");

/// Packets that are looked at one by one, for each input.
const PACKETS: usize = 20;

/// Bytes of a netlink header (`struct nlmsghdr`).
const HEADER_LEN: usize = 16;

/// Requests for lists of nftables, and the type of the answers: chains, rules, sets, elements.
const LISTS: [(u16, u16); 4] = [(0xa04, 0xa03), (0xa07, 0xa06), (0xa0a, 0xa09), (0xa0d, 0xa0c)];

/// Addresses and ports that rules of the corpus name, and others.
const HOSTS: [u8; 5] = [1, 2, 3, 4, 200];
const PORTS: [u16; 8] = [7, 25, 53, 80, 135, 443, 465, 40_000];
const PROTOCOLS: [u16; 7] = [1, 6, 17, 47, 58, 132, Transport::ICMP_ERROR];

#[test]
fn nftables() {
    Target {
        test: concat!(module_path!(), "::nftables"),
        corpus: &[NFTABLES],
        words: &[b"payload\0", b"immediate\0", b"lookup\0", b"bitwise\0", b"cmp\0", b"wg0\0"],
        check: |data| _ = check(&judge_nftables(data), data),
    }
    .run();
}

#[test]
fn legacy() {
    Target {
        test: concat!(module_path!(), "::legacy"),
        corpus: &[LEGACY],
        words: &[b"ACCEPT\0", b"multiport\0", b"conntrack\0", b"comment\0", b"wg0\0"],
        check: |data| _ = check(&judge_legacy(data), data),
    }
    .run();
}

/// The recipes as they are: all rules are understood, and some packets are direct.
#[test]
fn the_corpus_is_understood() {
    let mut direct = 0;
    for (folder, judge) in
        [(NFTABLES, judge_nftables as fn(&[u8]) -> Reading), (LEGACY, judge_legacy)]
    {
        for file in fs::read_dir(folder).expect("a folder") {
            let path = file.expect("readable").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            // Inputs that libFuzzer has found are named by their hash.
            if name.len() == 40 {
                continue;
            }
            let data = fs::read(&path).expect("readable");
            let reading = judge(&data);
            let whole = reading.findings.iter().chain(&reading.of_pairs);
            let text: Vec<_> = whole.map(|finding| finding.reason.to_string()).collect();
            assert!(!reading.chains.is_empty(), "{name}: {text:?}");
            let unclear = text.iter().find(|text| text.contains("not understood"));
            assert!(unclear.is_none() || name == "ping-limit", "{name}: {text:?}");
            direct += check(&reading, &data);
        }
    }
    assert!(direct > 100, "{direct} packets are direct");
}

/// The judgement about lists of nftables: netlink messages in a row.
fn judge_nftables(data: &[u8]) -> Reading {
    let mut kernel = FakeKernel::quiet();
    for message in messages(data) {
        let question = LISTS.iter().find(|(_, kind)| *kind == message.kind);
        if let Some((question, _)) = question {
            kernel.push(Protocol::Netfilter, *question, message);
        }
    }
    read(Source::Nftables, &mut kernel)
}

/// The messages of an input. One that is longer than the rest ends with it.
fn messages(data: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut rest = data;
    while let Some((header, _)) = rest.split_first_chunk::<HEADER_LEN>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let length = length.clamp(HEADER_LEN, rest.len());
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        messages.push(Message { kind, payload: rest[HEADER_LEN..length].to_vec() });
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    messages
}

/// The judgement about legacy tables. Of each: the IP version, the length of its name, the name,
/// and what the kernel says about it and has in it, each with its length in four bytes.
fn judge_legacy(data: &[u8]) -> Reading {
    let mut kernel = FakeKernel::quiet();
    kernel.legacy = tables(data);
    let names: Vec<_> = kernel.legacy.keys().map(|(_, name)| format!("{name}\n")).collect();
    kernel.list("ip_tables_names", &names.concat());
    kernel.list("ip6_tables_names", &names.concat());
    let mut both = Reading::default();
    for family in Family::BOTH {
        let reading = read(Source::LegacyTables(family), &mut kernel);
        both.findings.extend(reading.findings);
        both.chains.extend(reading.chains);
        for family in Family::BOTH {
            let pairs = reading.pairs.of(family).iter().cloned();
            both.pairs.of_mut(family).extend(pairs);
        }
    }
    both
}

fn tables(data: &[u8]) -> BTreeMap<(Family, String), LegacyTable> {
    let mut rest = data;
    let mut take = |length: usize| {
        let (part, more) = rest.split_at(length.min(rest.len()));
        rest = more;
        (part.to_vec(), more.is_empty())
    };
    let mut tables = BTreeMap::new();
    loop {
        let (header, _) = take(2);
        let [version, length] = header[..] else { return tables };
        let family = if version == 4 { Family::V4 } else { Family::V6 };
        let name = String::from_utf8_lossy(&take(length.into()).0).into_owned();
        let mut part = || {
            let length = take(4).0.try_into().map_or(0, u32::from_ne_bytes);
            take(length as usize)
        };
        let ((info, _), (entries, is_last)) = (part(), part());
        tables.insert((family, name), LegacyTable { info, entries });
        if is_last {
            return tables;
        }
    }
}

fn read(source: Source, kernel: &mut FakeKernel) -> Reading {
    let prefixes = ["10.77.0.0/25", "10.77.0.200/32", "fd77::/121", "fd77::c8/128"];
    let addresses = Addresses::new(1, prefixes.map(|prefix| prefix.parse().expect("a prefix")));
    source.read(kernel, &fake::at(), Known { addresses: Some(&addresses), ..Known::default() })
}

/// Compares the judgement with the ways of single packets; returns how many were direct.
fn check(reading: &Reading, data: &[u8]) -> usize {
    let mut random = Random::of_input(data);
    let mut direct = 0;
    for number in 0..PACKETS {
        let family = Family::BOTH[number % 2];
        let packet = packet(family, &mut random);
        let is_of_family = |finding: &&Finding| finding.families.contain(family);
        let by_kernel = |pairs: &Arc<Pairs>| pairs.of(&packet).most.all;
        if reading.findings.iter().any(|finding| is_of_family(&finding))
            || reading.pairs.of(family).iter().any(by_kernel)
        {
            continue;
        }
        direct += 1;
        for chain in reading.chains.iter().map(|judged| &judged.chain) {
            if !chain.families.contain(family) {
                continue;
            }
            let way = chain.way(&fake::at(), family, &packet);
            assert!(
                matches!(way.end, WayEnd::Accepted | WayEnd::Policy(true)),
                "{packet:?} is direct, but meets {}: {way:?}",
                chain.name
            );
        }
    }
    direct
}

fn packet(family: Family, random: &mut Random) -> Packets {
    let mut address = || match (family, random.pick(&HOSTS)) {
        (Family::V4, host) => 0x0a4d_0000 + u128::from(host),
        (Family::V6, host) => (0xfd77 << 112) + u128::from(host),
    };
    let pair = (address(), address());
    let protocol = random.pick(&PROTOCOLS);
    let mut port = || if matches!(protocol, 6 | 17) { random.pick(&PORTS) } else { 0 };
    let (source_port, destination_port) = (port(), port());
    Packets::of_pair(pair).with(Transport { protocol, source_port, destination_port })
}
