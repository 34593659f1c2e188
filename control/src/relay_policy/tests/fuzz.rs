//! Feeds mutated lists of the kernel to the readers of rules: those of nftables, of x_tables within
//! it, of sets, and of legacy tables. No input may make them panic or take long. And what is judged
//! direct must be so packet by packet: the judgement about all packets together is compared with
//! the way of single ones.
//!
//! The lists in `corpus` are those of the kernel (Linux 6.18) under the recipes of the same name.
//! `WG_BOUNCE_FUZZ_SECONDS` sets the duration (default 1), `WG_BOUNCE_FUZZ_SEED` the seed (default
//! 1). An input depends only on the seed and its round, so a failure replays.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use wg_bounce_dataplane::pairs::{Packets, Pairs};
use wg_bounce_dataplane::transport::Transport;
use wg_bounce_sys::Family;
use wg_bounce_sys::clock::{self, Millis};

use super::fake::{self, FakeKernel, LegacyTable};
use crate::netlink::message::{Message, Protocol};
use crate::relay_policy::base_chain::WayEnd;
use crate::relay_policy::reading::{Known, Reading};
use crate::relay_policy::reason::Finding;
use crate::relay_policy::rules::addresses::Addresses;
use crate::relay_policy::source::Source;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/relay_policy/tests/corpus");

/// Longest time for one input.
const LATE: Millis = Millis(5000);

/// Packets that are looked at one by one, for each input.
const PACKETS: usize = 20;

/// Requests for lists of nftables, and the type of the answers: chains, rules, sets, elements.
const LISTS: [(u16, u16); 4] = [(0xa04, 0xa03), (0xa07, 0xa06), (0xa0a, 0xa09), (0xa0d, 0xa0c)];

/// Addresses and ports that rules of the corpus name, and others.
const HOSTS: [u8; 5] = [1, 2, 3, 4, 200];
const PORTS: [u16; 8] = [7, 25, 53, 80, 135, 443, 465, 40_000];
const PROTOCOLS: [u16; 7] = [1, 6, 17, 47, 58, 132, Transport::ICMP_ERROR];

/// Lists of one kernel.
#[derive(Clone, Debug)]
enum Lists {
    Nftables(Vec<Message>),
    Legacy(BTreeMap<(Family, String), LegacyTable>),
}

/// Seeded randomness.
struct Random(ChaCha8Rng);

impl Random {
    /// That of one round.
    fn new(seed: u64, round: u64) -> Random {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(round);
        Random(random)
    }

    fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`, which is not zero.
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

impl Lists {
    fn read(path: &Path) -> Lists {
        let bytes = fs::read(path).expect("a readable file");
        let mut rest = bytes.as_slice();
        if path.extension().is_some_and(|kind| kind == "nft") {
            let mut messages = Vec::new();
            while !rest.is_empty() {
                let length = u32::from_ne_bytes(*rest.first_chunk().expect("a header")) as usize;
                let kind = u16::from_ne_bytes([rest[4], rest[5]]);
                messages.push(Message { kind, payload: rest[16..length].to_vec() });
                rest = &rest[length.next_multiple_of(4)..];
            }
            return Lists::Nftables(messages);
        }
        let mut take = |length: usize| {
            let (part, more) = rest.split_at(length);
            rest = more;
            part.to_vec()
        };
        let mut tables = BTreeMap::new();
        let mut left = bytes.len();
        while left > 0 {
            let header = take(2);
            let family = if header[0] == 4 { Family::V4 } else { Family::V6 };
            let name = String::from_utf8(take(header[1].into())).expect("a name");
            let mut part = || {
                let length = u32::from_ne_bytes(take(4).try_into().expect("four bytes"));
                take(length as usize)
            };
            let table = LegacyTable { info: part(), entries: part() };
            left -= 2 + name.len() + 8 + table.info.len() + table.entries.len();
            tables.insert((family, name), table);
        }
        Lists::Legacy(tables)
    }

    fn mutate(&mut self, random: &mut Random) {
        match self {
            Lists::Nftables(messages) if random.below(8) == 0 => {
                let at = random.below(messages.len());
                let message = messages[random.below(messages.len())].clone();
                messages[at] = message;
            }
            Lists::Nftables(messages) => {
                let at = random.below(messages.len());
                mutate(&mut messages[at].payload, random);
            }
            Lists::Legacy(tables) => {
                let at = random.below(tables.len());
                let table = tables.values_mut().nth(at).expect("as many");
                let is_info = random.below(20) == 0;
                mutate(if is_info { &mut table.info } else { &mut table.entries }, random);
            }
        }
    }

    fn judge(self, addresses: &Addresses) -> Reading {
        let mut kernel = FakeKernel::quiet();
        let known = Known { addresses: Some(addresses), ..Known::default() };
        match self {
            Lists::Nftables(messages) => {
                for (question, kind) in LISTS {
                    for message in messages.iter().filter(|message| message.kind == kind) {
                        kernel.push(Protocol::Netfilter, question, message.clone());
                    }
                }
                Source::Nftables.read(&mut kernel, &fake::at(), known)
            }
            Lists::Legacy(tables) => {
                let names: Vec<_> = tables.keys().map(|(_, name)| format!("{name}\n")).collect();
                kernel.list("ip_tables_names", &names.concat());
                kernel.list("ip6_tables_names", &names.concat());
                kernel.legacy = tables;
                let mut both = Reading::default();
                for family in Family::BOTH {
                    let source = Source::LegacyTables(family);
                    let reading = source.read(&mut kernel, &fake::at(), known);
                    both.findings.extend(reading.findings);
                    both.chains.extend(reading.chains);
                    for family in Family::BOTH {
                        let pairs = reading.pairs.of(family).iter().cloned();
                        both.pairs.of_mut(family).extend(pairs);
                    }
                }
                both
            }
        }
    }
}

/// Changes a byte, a word, or copies some bytes over others: most of what was, remains.
fn mutate(bytes: &mut [u8], random: &mut Random) {
    let length = bytes.len();
    let at = random.below(length);
    match random.below(5) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.next() as u8,
        2 => bytes[at] = random.pick(&[0, 1, 2, 4, 6, 17, 25, 53, 80, 255]),
        3 => {
            let from = random.below(length);
            let count = random.below((length - at.max(from)).min(40)) + 1;
            bytes.copy_within(from..from + count, at);
        }
        _ => {
            let word = random.pick(&[0, 1, 2, 3, u32::MAX, -1i32 as u32, 0xffff_fffb]);
            let word = if random.below(2) == 0 { word.to_be_bytes() } else { word.to_ne_bytes() };
            let end = length.min(at + 4);
            bytes[at..end].copy_from_slice(&word[..end - at]);
        }
    }
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

/// Compares the judgement with the ways of single packets.
fn check(reading: &Reading, random: &mut Random) -> Result<usize, String> {
    let mut direct = 0;
    for number in 0..PACKETS {
        let family = Family::BOTH[number % 2];
        let packet = packet(family, random);
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
            if !matches!(way.end, WayEnd::Accepted | WayEnd::Policy(true)) {
                return Err(format!("{packet:?} is direct, but meets {}: {way:?}", chain.name));
            }
        }
    }
    Ok(direct)
}

fn addresses() -> Addresses {
    let prefixes = ["10.77.0.0/25", "10.77.0.200/32", "fd77::/121", "fd77::c8/128"];
    Addresses::new(1, prefixes.map(|prefix| prefix.parse().expect("a prefix")))
}

fn corpus() -> io::Result<Vec<(String, Lists)>> {
    let mut paths =
        fs::read_dir(CORPUS)?.map(|one| Ok(one?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    Ok(paths.iter().map(|path| (name(path).unwrap_or_default(), Lists::read(path))).collect())
}

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// The lists as they are: all rules of the corpus are understood.
#[test]
fn the_corpus_is_understood() {
    let mut random = Random::new(1, 0);
    for (name, lists) in corpus().expect("readable") {
        let reading = lists.judge(&addresses());
        let whole = reading.findings.iter().chain(&reading.of_pairs);
        let text: Vec<_> = whole.map(|finding| finding.reason.to_string()).collect();
        assert!(!reading.chains.is_empty(), "{name}: {text:?}");
        let unclear = text.iter().find(|text| text.contains("not understood"));
        assert!(unclear.is_none() || name.starts_with("ping-limit"), "{name}: {text:?}");
        check(&reading, &mut random).expect(&name);
    }
}

#[test]
fn fuzz() {
    let seconds = variable("WG_BOUNCE_FUZZ_SECONDS", 1);
    let seed = variable("WG_BOUNCE_FUZZ_SEED", 1);
    let end = clock::boot_time() + Millis(1000 * seconds);
    let (corpus, addresses) = (corpus().expect("readable"), addresses());
    let (mut round, mut direct, mut followed) = (0u64, 0, 0);
    while clock::boot_time() < end {
        let mut random = Random::new(seed, round);
        let (name, mut lists) = corpus[random.below(corpus.len())].clone();
        for _ in 0..random.below(8) {
            lists.mutate(&mut random);
        }
        let start = clock::boot_time();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let reading = lists.clone().judge(&addresses);
            followed += usize::from(!reading.chains.is_empty());
            direct += check(&reading, &mut random)?;
            Ok::<_, String>(())
        }));
        let is_late = clock::boot_time() > start + LATE;
        let is_ok = matches!(result, Ok(Ok(()))) && !is_late;
        assert!(
            is_ok,
            "{name}, round {round}, late: {is_late}: {result:?}; replay with \
             WG_BOUNCE_FUZZ_SEED={seed}"
        );
        round += 1;
    }
    println!(
        "{round} lists in {seconds} s, seed {seed}: {followed} followed, {direct} packets direct"
    );
    assert!(round < 100 || direct > 0);
}
