//! Handshakes leave no secrets in memory: all writable memory of the process is searched for them
//! once both ends are done.
//!
//! Registers are not inspected. Each implementation of X25519 is searched in a process of its own,
//! which knows the secrets only in disguise: another process has computed them.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::env;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::process::Command;

use wg_bounce_control::noise::{
    Dh, DhChoice, Identity, InitiationParams, Secret, initiate, open_initiation,
};
use wg_bounce_control::tai64n::Timestamp;
use wg_bounce_dataplane::wire::{INITIATION_LEN, RESPONSE_LEN};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroize as _;

/// Names the part of the test that a child process runs.
const PART: &str = "WG_BOUNCE_TEST_RESIDUE";
/// XORed onto the words of secrets, so that they do not occur as such.
const DISGUISE: u64 = 0x5a17_93c6_e02b_84fd;

/// What the private keys are computed from, so that the search does not find the program itself:
/// static and ephemeral of the initiator, and of the responder.
const SEEDS: [u8; 4] = [11, 22, 33, 44];

/// In a box, so that no move leaves a copy.
fn private_key(number: usize) -> Box<Secret> {
    let mut byte = SEEDS[number];
    let mut key = Box::new(Secret::default());
    for place in key.iter_mut() {
        byte = byte.wrapping_mul(181).wrapping_add(89);
        *place = byte.rotate_left(3) ^ SEEDS[number];
    }
    (key[0], key[31]) = (key[0] & 248, key[31] & 127 | 64);
    key
}

/// A whole handshake; returns the keys of the session as the responder has them.
#[inline(never)]
fn shake_hands(dh: Dh) -> [Box<Secret>; 2] {
    let initiator = Identity::with(dh, &private_key(0));
    let responder = Identity::with(dh, &private_key(2));
    let static_static = initiator.static_static(responder.public()).expect("good keys");
    let params = InitiationParams {
        remote_static: responder.public(),
        static_static: &static_static,
        ephemeral: &private_key(1),
        timestamp: Timestamp([7; 12]),
        local_index: 1,
    };
    let mut initiation = [0; INITIATION_LEN];
    let initiated = initiate(&initiator, &params, &mut initiation).expect("good keys");
    let claimed = open_initiation(&responder, &initiation).expect("authentic");
    let static_static = responder.static_static(&claimed.remote_static).expect("good keys");
    let proven = claimed.prove(&static_static).expect("authentic");
    let mut response = [0; RESPONSE_LEN];
    let psk = Secret::default();
    let theirs = proven.respond(&psk, &private_key(3), 2, &mut response).expect("good keys");
    let ours = initiated.finish(&initiator, &psk, &response).expect("authentic");
    assert_eq!(ours.send, theirs.receive);
    [&theirs.send, &theirs.receive].map(|key| {
        let mut copy = Box::new(Secret::default());
        copy.copy_from_slice(&**key);
        copy
    })
}

/// Every secret of that handshake, with a description.
fn secrets() -> Vec<(&'static str, Box<Secret>)> {
    let mut secrets: Vec<(&'static str, Box<Secret>)> =
        vec![("a static private key", private_key(0)), ("a static private key", private_key(2))];
    for number in [1, 3] {
        secrets.push(("an ephemeral private key", private_key(number)));
    }
    for (what, one, other) in [("es", 1, 2), ("ss", 0, 2), ("ee", 1, 3), ("se", 0, 3)] {
        let public = PublicKey::from(&StaticSecret::from(**private_key(other)));
        let shared = StaticSecret::from(**private_key(one)).diffie_hellman(&public);
        secrets.push((what, Box::new(Secret::new(shared.to_bytes()))));
    }
    let dalek = Dh::new(DhChoice::Dalek).expect("it runs everywhere");
    secrets.extend(shake_hands(dalek).map(|key| ("a session's key", key)));
    secrets
}

fn words(secret: &[u8; 32]) -> impl Iterator<Item = u64> {
    secret.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word))
}

/// The secrets found in the writable memory of this process, at every multiple of four bytes: how
/// often each.
fn search(disguised: &HashMap<u64, String>) -> HashMap<String, usize> {
    let maps = fs::read_to_string("/proc/self/maps").expect("Linux has it");
    let memory = File::open("/proc/self/mem").expect("one's own memory is readable");
    let mut found = HashMap::new();
    let mut piece = vec![0; 1 << 20];
    for line in maps.lines().filter(|line| line.contains(" rw") && !line.contains("[vvar")) {
        let (range, _) = line.split_once(' ').expect("a range");
        let (start, end) = range.split_once('-').expect("two addresses");
        let [mut at, end] =
            [start, end].map(|address| u64::from_str_radix(address, 16).expect("hexadecimal"));
        while at < end {
            let length = piece.len().min((end - at) as usize);
            // A guard page, or a mapping that was just removed.
            let Ok(()) = memory.read_exact_at(&mut piece[..length], at) else { break };
            for offset in (0..length.saturating_sub(7)).step_by(4) {
                let word: [u8; 8] = piece[offset..offset + 8].try_into().expect("eight bytes");
                if let Some(what) = disguised.get(&(u64::from_le_bytes(word) ^ DISGUISE)) {
                    *found.entry(what.clone()).or_insert(0) += 1;
                }
            }
            // The copy must not be found when its own place is searched.
            piece[..length].zeroize();
            at += length as u64;
        }
    }
    found
}

/// The child that computes the secrets, and prints their words in disguise.
fn print_secrets() {
    for (what, secret) in secrets() {
        for word in words(&secret) {
            println!("secret {:x} {what}", word ^ DISGUISE);
        }
    }
}

/// The child that shakes hands with one implementation, and searches.
fn shake_hands_and_search(choice: DhChoice) {
    let disguised = env::var("WG_BOUNCE_TEST_SECRETS").expect("set by the parent");
    let disguised = disguised.lines().map(|line| {
        let (word, what) = line.split_once(' ').expect("a word and what it is");
        (u64::from_str_radix(word, 16).expect("hexadecimal"), what.to_owned())
    });
    let disguised: HashMap<u64, String> = disguised.collect();
    let Ok(dh) = Dh::new(choice) else { return };
    // Planted secrets are found: otherwise the search would prove nothing.
    let planted = private_key(3);
    assert!(search(&disguised).contains_key("an ephemeral private key"));
    drop(planted);
    assert_eq!(search(&disguised), HashMap::new(), "before the handshake");
    drop(shake_hands(dh));
    assert_eq!(search(&disguised), HashMap::new(), "after a handshake with {dh}");
}

#[test]
fn no_secret_of_a_handshake_is_left_in_memory() {
    match env::var(PART).as_deref() {
        Ok("secrets") => return print_secrets(),
        Ok("graviola") => return shake_hands_and_search(DhChoice::Graviola),
        Ok("dalek") => return shake_hands_and_search(DhChoice::Dalek),
        _ => {}
    }
    let run = |part: &str, secrets: &str| {
        let mut child = Command::new(env::current_exe().expect("a path"));
        child.args(["--nocapture", "--test-threads=1"]).env(PART, part);
        let output = child.env("WG_BOUNCE_TEST_SECRETS", secrets).output().expect("it runs");
        let text =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success(), "{part}: {}", text.concat());
        text.concat()
    };
    let printed = run("secrets", "");
    let secrets: Vec<&str> =
        printed.lines().filter_map(|line| line.split_once("secret ").map(|(_, it)| it)).collect();
    assert_eq!(secrets.len(), 10 * 4, "{printed}");
    for part in ["graviola", "dalek"] {
        run(part, &secrets.join("\n"));
    }
}
