//! Feeds mutated requests to the reader. No input may make it panic, the chunks in which the input
//! arrives must not matter, and the checks of [`common::transcript`] must hold.
//!
//! `WG_BOUNCE_FUZZ_SECONDS` sets the duration (default 1), `WG_BOUNCE_FUZZ_SEED` the seed (default
//! 1). An input depends only on the seed and its round, so a failure replays.

#![forbid(unsafe_code)]

mod common;

use std::time::{Duration, Instant};

use common::transcript;

/// Requests that mutation starts from.
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

/// Fragments that mutation inserts.
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

/// SplitMix64: a small seeded generator, good enough to choose mutations.
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

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn fuzz() {
    let seconds = variable("WG_BOUNCE_FUZZ_SECONDS", 1);
    let seed = variable("WG_BOUNCE_FUZZ_SEED", 1);
    #[expect(clippy::disallowed_methods, reason = "only bounds how long the test runs")]
    let now = Instant::now;
    let end = now() + Duration::from_secs(seconds);
    let mut rounds = 0;
    while now() < end {
        for round in rounds..rounds + 100 {
            let input = input(seed, round);
            let is_ok = std::panic::catch_unwind(|| check(&input)).is_ok();
            assert!(
                is_ok,
                "round {round}; replay with WG_BOUNCE_FUZZ_SEED={seed}; input: {}",
                input.escape_ascii()
            );
        }
        rounds += 100;
    }
    println!("{rounds} inputs in {seconds} s, seed {seed}: no failure");
}

/// The input of one round, a function of its arguments alone.
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
    let whole = transcript(std::iter::once(bytes));
    assert_eq!(whole, transcript(bytes.chunks(1)), "chunks must not matter");
    assert_eq!(whole, transcript(bytes.chunks(61)), "chunks must not matter");
}
