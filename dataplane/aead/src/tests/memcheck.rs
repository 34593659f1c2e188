//! Under Valgrind's memcheck (`scripts/constant-time`), secrets are marked as undefined: a branch
//! or an address that depends on one is reported as an error. Elsewhere the marks are no-ops, and
//! this is one more test.

use std::arch::asm;

use super::*;

/// Memcheck's requests (`valgrind/memcheck.h`): 'M' 'C' and a number.
const BASE: usize = (b'M' as usize) << 24 | (b'C' as usize) << 16;
const MAKE_MEM_UNDEFINED: usize = BASE + 1;
const MAKE_MEM_DEFINED: usize = BASE + 2;

/// A client request (`valgrind/valgrind.h`): rotations that have no effect, which Valgrind knows.
fn request<T>(request: usize, memory: *const [T]) {
    let start = memory.cast::<T>() as usize;
    let arguments = [request, start, memory.len() * size_of::<T>(), 0, 0, 0];
    // SAFETY: the rotations come to 128 bits and the exchange is with itself, so that no register
    // changes but the one that is the result.
    unsafe {
        asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") &arguments,
            inout("rdx") 0_usize => _,
        );
    }
}

/// Marks memory as a secret.
fn hide(secret: *const [u8]) {
    request(MAKE_MEM_UNDEFINED, secret);
}

/// Marks a key as a secret, wherever it stands in its expanded form.
fn hide_key(key: &Key) {
    let secret: [u8; 32] = bytes(key.words());
    let memory = key.memory();
    let mut copy = vec![0; memory.len()];
    // SAFETY: both are as long. What has no value there gets one by the request.
    unsafe { memory.cast::<u8>().copy_to_nonoverlapping(copy.as_mut_ptr(), copy.len()) };
    request(MAKE_MEM_DEFINED, &raw mut copy[..]);
    let places = copy.windows(secret.len()).enumerate().filter(|(_, bytes)| *bytes == secret);
    for (at, _) in places {
        hide(std::ptr::slice_from_raw_parts(memory.cast::<u8>().wrapping_add(at), secret.len()));
    }
}

/// The same value, which is no secret any more.
pub(crate) fn published<T: Copy>(value: T) -> T {
    let mut published = [value];
    request(MAKE_MEM_DEFINED, &raw mut published[..]);
    published[0]
}

/// Batches of several lengths, with forgeries; keys, plaintexts and what comes of them are secrets.
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
            let mut batch: Vec<Seal<'_>> = messages
                .iter_mut()
                .enumerate()
                .map(|(number, message)| Seal {
                    key: &keys[number % mix],
                    counter: number as u64,
                    message,
                })
                .collect();
            aead.seal(&mut batch);
            // Ciphertext is what all may see, but what is done to it must not depend on it either.
            for message in messages.iter_mut().step_by(3) {
                let at = 16 + random.below(message.len() - 16);
                message[at] ^= 1 << random.below(8);
            }
            let mut batch: Vec<Open<'_>> = messages
                .iter_mut()
                .enumerate()
                .map(|(number, message)| Open {
                    key: &keys[number % mix],
                    counter: number as u64,
                    message,
                    authentic: false,
                })
                .collect();
            aead.open(&mut batch);
            for (number, opened) in batch.iter().enumerate() {
                assert_eq!(opened.authentic, number % 3 != 0, "{path:?}");
            }
            // Dropping a key zeroes it, which defines it again.
        }
    }
}

/// What `scripts/constant-time` expects to be reported: otherwise it would prove nothing.
#[test]
#[ignore = "scripts/constant-time runs it under memcheck, where it must fail"]
fn what_depends_on_secrets_is_seen() {
    let key = Key::new(&[7; 32]);
    hide_key(&key);
    let is_odd = key.words()[3] & 1 == 1;
    println!("{}", if is_odd { "odd" } else { "even" });
}
