//! Tests for Valgrind's memcheck (`scripts/constant-time`), which reports branches and addresses
//! that depend on secrets. Without Valgrind they pass like any other test.

use super::*;
use crate::memcheck::{hide, publish};

/// Marks a key as secret, wherever it is in its expanded form.
fn hide_key(key: &Key) {
    let secret: [u8; 32] = bytes(key.words());
    let memory = key.memory();
    let mut copy = vec![0; memory.len()];
    // SAFETY: both have this length; the request below defines bytes that are padding.
    unsafe { memory.cast::<u8>().copy_to_nonoverlapping(copy.as_mut_ptr(), copy.len()) };
    publish(&raw mut copy[..]);
    let copies = copy.windows(secret.len()).enumerate().filter(|(_, bytes)| *bytes == secret);
    for (offset, _) in copies {
        let start = memory.cast::<u8>().wrapping_add(offset);
        hide(std::ptr::slice_from_raw_parts(start, secret.len()));
    }
}

/// Batches of several lengths, with forgeries. Keys, plaintexts and all derived values are secret.
#[test]
fn nothing_depends_on_secrets() {
    let mut random = Random::new(40);
    for (path, aead) in paths() {
        for (count, longest) in [(2, 1500), (5, 300), (9, 100), (17, 1500), (64, 200), (66, 20)] {
            let keys: Vec<Key> =
                (0..3).map(|_| Key::new(&random.bytes(32).try_into().unwrap())).collect();
            keys.iter().for_each(hide_key);
            let mut messages: Vec<Vec<u8>> = (0..count)
                .map(|_| {
                    let length = 32 + random.below(longest);
                    random.bytes(length)
                })
                .collect();
            messages.iter().for_each(|message| hide(&raw const message[16..]));
            let mix = random.below(3) + 1;
            let counter = |number| number as u64;
            let bytes = messages.iter_mut().map(|message| &mut message[..]);
            aead.seal(&mut to_seal(&keys[..mix], counter, bytes));
            // Ciphertext is public, but memcheck still treats it as secret: opening must not
            // depend on it either.
            for message in messages.iter_mut().step_by(3) {
                let offset = 16 + random.below(message.len() - 16);
                message[offset] ^= 1 << random.below(8);
            }
            let bytes = messages.iter_mut().map(|message| &mut message[..]);
            let mut batch = to_open(&keys[..mix], counter, bytes);
            aead.open(&mut batch);
            for (number, opened) in batch.iter().enumerate() {
                assert_eq!(opened.authentic, number % 3 != 0, "{path:?}");
            }
            // Dropping a key zeroes it, which makes it public again.
        }
    }
}

/// A planted branch on a secret, which memcheck must report: otherwise it would prove nothing.
#[test]
#[ignore = "scripts/constant-time runs it under memcheck, where it must fail"]
fn planted_branch_on_a_secret() {
    let key = Key::new(&[7; 32]);
    hide_key(&key);
    let is_odd = key.words()[3] & 1 == 1;
    println!("{}", if is_odd { "odd" } else { "even" });
}
