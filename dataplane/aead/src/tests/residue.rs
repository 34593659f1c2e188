//! Batches leave no secrets in memory. They run on a thread whose stack the test provides, and
//! searches afterwards. The memory of a key is inspected when it is freed.
//!
//! Registers are not inspected.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::HashMap;
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::poly::CLAMP;

/// A stack, which shares no page with other data.
#[repr(align(4096))]
struct Stack([u8; 256 << 10]);

/// Runs `work` on a thread with that stack.
fn run_on<F: FnMut() + Send>(stack: &mut Stack, work: &mut F) {
    extern "C" fn start<F: FnMut()>(work: *mut c_void) -> *mut c_void {
        // SAFETY: `work` is from `run_on`, which waits until the thread has ended.
        unsafe { (*work.cast::<F>())() };
        std::ptr::null_mut()
    }
    // SAFETY: stack and work outlive the thread, which is joined and owns neither.
    unsafe {
        let mut attributes = MaybeUninit::uninit();
        assert_eq!(libc::pthread_attr_init(attributes.as_mut_ptr()), 0);
        let mut attributes = attributes.assume_init();
        let memory = stack.0.as_mut_ptr().cast();
        assert_eq!(libc::pthread_attr_setstack(&mut attributes, memory, stack.0.len()), 0);
        let mut thread = MaybeUninit::uninit();
        let work = std::ptr::from_mut(work).cast();
        assert_eq!(libc::pthread_create(thread.as_mut_ptr(), &attributes, start::<F>, work), 0);
        assert_eq!(libc::pthread_join(thread.assume_init(), std::ptr::null_mut()), 0);
        libc::pthread_attr_destroy(&mut attributes);
    }
}

/// Secret 32-bit and 64-bit words, with descriptions.
#[derive(Default)]
struct Secrets {
    words: HashMap<u32, &'static str>,
    wide: HashMap<u64, &'static str>,
}

impl Secrets {
    fn add_words(&mut self, what: &'static str, words: &[u32]) {
        self.words.extend(words.iter().map(|word| (*word, what)));
    }

    /// Adds a number as limbs of 26 bits (AVX2) and of 44 bits (AVX-512), in 64-bit words.
    fn add_limbs(&mut self, what: &'static str, number: u128) {
        for width in [26, 44] {
            for limb in 0..128_u32.div_ceil(width) {
                let limb = (number >> (limb * width)) as u64 & ((1 << width) - 1);
                // Small numbers, such as lengths, occur anywhere.
                for multiple in [limb, 5 * limb, 20 * limb] {
                    if multiple >= 1 << 20 {
                        self.wide.insert(multiple, what);
                    }
                }
            }
        }
    }

    /// Adds the values that sealing a packet computes from its key.
    fn add_packet(&mut self, key: &[u32; 8], counter: u64, length: usize) {
        self.add_words("the key", key);
        let initial: Vec<u32> = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]
            .into_iter()
            .chain(*key)
            .chain([0, 0, counter as u32, (counter >> 32) as u32])
            .collect();
        for number in 0..=length.div_ceil(64) {
            let mut state: Vec<u32> = initial.clone();
            state[12] = number as u32;
            let block = chacha20(&state);
            let what = if number == 0 { "a one-time key" } else { "key stream" };
            self.add_words(what, &block);
            let rounds = std::array::from_fn::<u32, 16, _>(|it| block[it].wrapping_sub(state[it]));
            self.add_words("a state after the last round", &rounds);
            if number == 0 {
                let word = |low: usize| u64::from(block[low]) | u64::from(block[low + 1]) << 32;
                let (low, high) = (word(0) & CLAMP[0], word(2) & CLAMP[1]);
                self.add_words("r", &[low as u32, high as u32]);
                self.add_limbs("limbs of r", u128::from(low) | u128::from(high) << 64);
            }
        }
    }

    /// The secrets found in memory: how often, and the offset of the first.
    fn found_in(&self, memory: &[u8]) -> HashMap<&'static str, (usize, usize)> {
        let mut found = HashMap::new();
        let mut add = |what, offset| found.entry(what).or_insert((0, offset)).0 += 1;
        let (words, _) = memory.as_chunks::<4>();
        for (number, word) in words.iter().enumerate() {
            if let Some(what) = self.words.get(&u32::from_le_bytes(*word)) {
                add(*what, 4 * number);
            }
        }
        let (words, _) = memory.as_chunks::<8>();
        for (number, word) in words.iter().enumerate() {
            if let Some(what) = self.wide.get(&u64::from_le_bytes(*word)) {
                add(*what, 8 * number);
            }
        }
        found
    }
}

/// A block, computed as in RFC 8439 §2.3.
fn chacha20(state: &[u32]) -> [u32; 16] {
    let mut x: [u32; 16] = state.try_into().unwrap();
    for _ in 0..10 {
        for [a, b, c, d] in [
            [0, 4, 8, 12],
            [1, 5, 9, 13],
            [2, 6, 10, 14],
            [3, 7, 11, 15],
            [0, 5, 10, 15],
            [1, 6, 11, 12],
            [2, 7, 8, 13],
            [3, 4, 9, 14],
        ] {
            for [a, b, d, bits] in [[a, b, d, 16], [c, d, b, 12], [a, b, d, 8], [c, d, b, 7]] {
                x[a] = x[a].wrapping_add(x[b]);
                x[d] = (x[d] ^ x[a]).rotate_left(bits as u32);
            }
        }
    }
    std::array::from_fn(|word| x[word].wrapping_add(state[word]))
}

/// The secrets that sealing and opening a batch, under keys of this seed, leave on the stack.
fn residue(aead: Aead, lengths: &[usize], seed: u64) -> [HashMap<&'static str, (usize, usize)>; 2] {
    let mut random = Random::new(seed);
    let keys: Vec<Key> = (0..2).map(|_| Key::new(&random.bytes(32).try_into().unwrap())).collect();
    let mut secrets = Secrets::default();
    let counter = |number: usize| 0x1_2345_6789 * (number as u64 + 1);
    for (number, length) in lengths.iter().enumerate() {
        secrets.add_packet(keys[number % 2].words(), counter(number), *length);
    }
    let mut messages: Vec<Vec<u8>> = lengths.iter().map(|length| vec![0x5a; length + 32]).collect();
    [false, true].map(|is_opening| {
        let mut stack = Box::new(Stack([0; _]));
        let each = messages.iter_mut().map(|message| &mut message[..]);
        if is_opening {
            let mut batch = to_open(&keys, counter, each);
            run_on(&mut stack, &mut || aead.open(&mut batch));
            assert!(
                batch.iter().all(|opened| opened.authentic),
                "a message is not authentic: wrong keys"
            );
        } else {
            let mut batch = to_seal(&keys, counter, each);
            run_on(&mut stack, &mut || aead.seal(&mut batch));
        }
        secrets.found_in(&stack.0)
    })
}

/// Planted secrets are found: otherwise the search would prove nothing.
#[test]
fn finds_planted_secrets() {
    let mut secrets = Secrets::default();
    let key: [u32; 8] = std::array::from_fn(|word| 0x1234_5678 * (word as u32 + 1));
    secrets.add_packet(&key, 7, 100);
    let mut stack = Box::new(Stack([0; _]));
    run_on(&mut stack, &mut || {
        let mut sample = Sample::new(&bytes(&key), &[0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0], &[], &[]);
        sample.body = vec![0; 100];
        let stream = sample.sealed().body;
        let mut copy = [0; 100];
        copy.copy_from_slice(&stream);
        std::hint::black_box((&mut copy, key));
    });
    let found = secrets.found_in(&stack.0);
    assert!(found.contains_key("the key") && found.contains_key("key stream"), "{found:?}");
}

#[test]
fn no_secret_is_left_on_the_stack() {
    // `ring` does not wipe its stack.
    for (path, aead) in paths().filter(|(path, _)| !matches!(path, Choice::Ring | Choice::Auto)) {
        for lengths in [&[1420; 12][..], &[64; 40], &[100, 0, 1, 900, 17, 64, 333], &[1000; 66]] {
            // Addresses on the stack differ from run to run, and once in thousands of runs one
            // equals one of tens of thousands of secret words. A real leftover is found under
            // other keys too.
            for (number, what) in ["sealing", "opening"].into_iter().enumerate() {
                let search = |seed| residue(aead, lengths, seed)[number].clone();
                let finds: Vec<_> =
                    (50..53).map(search).take_while(|found| !found.is_empty()).collect();
                assert!(
                    finds.len() < 3,
                    "{path:?}, {what} {lengths:?}: {finds:x?} (count, offset)"
                );
            }
        }
    }
}

/// An allocator that inspects one block when it is freed.
struct Watching;

static WATCHED: AtomicUsize = AtomicUsize::new(0);
static WAS_ZERO: AtomicBool = AtomicBool::new(false);

#[global_allocator]
static ALLOCATOR: Watching = Watching;

// SAFETY: all calls go to the system's allocator.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller upholds the contract of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if WATCHED.load(Ordering::Relaxed) == memory as usize {
            // SAFETY: the block is still allocated, and its owner has initialised it.
            let bytes = unsafe { std::slice::from_raw_parts(memory, layout.size()) };
            WAS_ZERO.store(bytes.iter().all(|&byte| byte == 0), Ordering::Relaxed);
            WATCHED.store(0, Ordering::Relaxed);
        }
        // SAFETY: the caller upholds the contract of the system's allocator.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[test]
fn dropping_a_key_zeroes_it() {
    let key = Key::new(&[0xa5; 32]);
    WATCHED.store(key.memory().cast::<u8>() as usize, Ordering::Relaxed);
    drop(key);
    assert_eq!(WATCHED.load(Ordering::Relaxed), 0, "its memory was not freed");
    assert!(WAS_ZERO.load(Ordering::Relaxed), "its memory was not zero");
}
