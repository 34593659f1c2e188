//! Feeds mutated requests to the reader for a given time, on stable Rust:
//! `cargo run --release -p wg-bounce-uapi --example fuzz -- [SECONDS] [SEED]`.
//!
//! It must never panic, whatever comes; besides, for every input:
//! 1. chunks do not matter: byte by byte gives what the whole gives;
//! 2. what was understood, rendered and read again, is the same;
//! 3. an error's reason is short and printable.
//!
//! A failure prints the seed and the round, which replay it.

#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use wg_bounce_uapi::parse::{Incoming, RequestReader};
use wg_bounce_uapi::render::render_set;
use wg_bounce_uapi::types::{Rejection, Request};

/// What inputs start from.
const SEEDS: [&str; 4] = [
    "get=1\n\n",
    "set=1\nprivate_key=e84b5a6d2717c1003a13b431570353dbaca9146cf150c5f8575680feba52027a\n\
     listen_port=12912\nfwmark=1\nreplace_peers=true\n\
     public_key=b85996fecc9c7f1fc6d2572a76eda11d59bcd20be8e543b15ce4bd85a8e75a33\n\
     preshared_key=188515093e952f5f22e865cef3012e72f8b5f0b598ac0309d5dacce3b70fcf52\n\
     replace_allowed_ips=true\nallowed_ip=192.168.4.4/32\n\
     endpoint=[abcd:23::33%2]:51820\n\
     public_key=58402e695ba1772b1cc9309755f043251ea77fdcf10fbe63989ceb7e19321376\n\
     persistent_keepalive_interval=111\nallowed_ip=-192.168.4.6/32\nendpoint=182.122.22.19:3233\n\
     public_key=662e14fd594556f522604703340351258903b64f35553763f19426ab2a515c58\nremove=true\n\n",
    "set=1\npublic_key=0000000000000000000000000000000000000000000000000000000000000000\n\
     update_only=true\nallowed_ip=::/0\nprotocol_version=1\n\nget=1\n\n",
    "set=1\nfwmark=x\n\nget=1\nx\n\n",
];

/// Pieces that mutations put in.
const WORDS: [&[u8]; 26] = [
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
];

/// splitmix64: small, seeded, good enough to choose mutations.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not zero.
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| match arguments.next() {
        Some(text) => text.parse().expect("usage: fuzz [SECONDS] [SEED]"),
        None => default,
    };
    let (seconds, seed) = (number(10), number(1));
    #[expect(clippy::disallowed_methods, reason = "a run's length is all that it measures")]
    let now = Instant::now;
    let end = now() + Duration::from_secs(seconds);
    let mut rounds = 0;
    while now() < end {
        for round in rounds..rounds + 1000 {
            let input = input(seed, round);
            if std::panic::catch_unwind(|| check(&input)).is_err() {
                eprintln!("seed {seed}, round {round}: {}", input.escape_ascii());
                std::process::exit(1);
            }
        }
        rounds += 1000;
    }
    println!("uapi fuzz: {rounds} inputs in {seconds} s, seed {seed}: no fault");
}

/// The input of one round; depends on nothing but its arguments.
fn input(seed: u64, round: u64) -> Vec<u8> {
    let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ round);
    let mut bytes = SEEDS[random.below(SEEDS.len())].as_bytes().to_vec();
    for _ in 0..random.below(12) {
        mutate(&mut bytes, &mut random);
    }
    bytes
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    let end = at + random.below(bytes.len() - at + 1).min(80);
    match random.below(8) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        1 if at < bytes.len() => bytes[at] = random.next() as u8,
        2 => drop(bytes.drain(at..end)),
        3 => {
            let copy = bytes[at..end].to_vec();
            let to = random.below(bytes.len() + 1);
            bytes.splice(to..to, copy);
        }
        4 => {
            let other = SEEDS[random.below(SEEDS.len())].as_bytes();
            bytes.truncate(at);
            bytes.extend_from_slice(&other[random.below(other.len())..]);
        }
        5 => {
            let long = vec![b'0' + random.below(75) as u8; random.below(9000)];
            bytes.splice(at..at, long);
        }
        _ => {
            let word = WORDS[random.below(WORDS.len())];
            bytes.splice(at..at, word.iter().copied());
        }
    }
}

fn check(bytes: &[u8]) {
    let whole = transcript(bytes, bytes.len().max(1));
    assert_eq!(whole, transcript(bytes, 1), "chunks must not matter");
    assert_eq!(whole, transcript(bytes, 61), "chunks must not matter");
}

/// All that a reader yields of these bytes, as text.
fn transcript(bytes: &[u8], chunk_len: usize) -> Vec<String> {
    let mut reader = RequestReader::new();
    let mut all = Vec::new();
    for mut chunk in bytes.chunks(chunk_len) {
        while let Some(incoming) = reader.read(&mut chunk, &zones) {
            all.push(match incoming {
                Incoming::Request(Request::Get) => "get".to_owned(),
                Incoming::Request(Request::Set(set)) => {
                    let text = render_set(&set).to_string();
                    assert_eq!(text, reread(&text), "what is rendered parses back");
                    format!("{text}{}", set.rejected.map(reason).unwrap_or_default())
                }
                Incoming::Refused(rejection) => reason(rejection),
                Incoming::Unknown => "unknown".to_owned(),
            });
        }
    }
    all
}

fn reread(text: &str) -> String {
    let incoming = RequestReader::new().read(&mut text.as_bytes(), &|_| None);
    let Some(Incoming::Request(Request::Set(set))) = incoming else { panic!("not a set: {text}") };
    assert_eq!(set.rejected, None);
    render_set(&set).to_string()
}

fn reason(rejection: Rejection) -> String {
    assert!(rejection.reason.len() < 400);
    assert!(rejection.reason.bytes().all(|byte| (b' '..0x7f).contains(&byte)));
    format!("{} {}", rejection.errno.0, rejection.reason)
}

fn zones(name: &str) -> Option<u32> {
    name.starts_with('e').then_some(7)
}
