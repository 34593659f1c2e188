//! ChaCha20 (RFC 8439 §2.3) over stripes: as many blocks at a time as the vector unit has lanes,
//! of any packets under any keys.
//!
//! Each vector holds one word of the state of every block, so a stripe is sixteen vectors, and a
//! quarter round works on all its blocks at once. Afterwards they are transposed, and each block of
//! key stream goes to its packet.

use super::batch::{OneTimeKey, Packet};

/// Bytes of a block.
pub const BLOCK_LEN: usize = 64;

/// The first four words of every state: "expand 32-byte k" (RFC 8439 §2.3).
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// A vector unit that sees its registers as `W` lanes of 32 bits.
///
/// Implementations are tokens: who has one has seen that the processor can.
pub trait Words<const W: usize>: Copy {
    /// One word of each lane.
    type Word: Copy;
    /// 64 bytes of key stream.
    type Block: Copy;

    /// The same word in each lane.
    fn splat(self, word: u32) -> Self::Word;
    /// A word for each lane.
    fn load(self, words: &[u32; W]) -> Self::Word;
    /// Sum modulo 2^32.
    fn add(self, a: Self::Word, b: Self::Word) -> Self::Word;
    /// The twenty rounds (RFC 8439 §2.3).
    fn rounds(self, state: [Self::Word; 16]) -> [Self::Word; 16];
    /// The words of a key for each lane.
    fn keys(self, keys: [&[u32; 8]; W]) -> [Self::Word; 8];
    /// From words of all lanes to the block of each lane.
    fn blocks(self, state: [Self::Word; 16]) -> [Self::Block; W];
    /// Its first 32 bytes as little-endian words: the one-time key (RFC 8439 §2.6).
    fn one_time_key(self, block: Self::Block) -> OneTimeKey;
    /// Adds key stream to 64 bytes.
    fn apply(self, block: Self::Block, bytes: &mut [u8; BLOCK_LEN]);
    /// Adds key stream to fewer than 64 bytes.
    fn apply_part(self, block: Self::Block, bytes: &mut [u8]);
}

/// Up to `L` blocks that are computed at once.
pub struct Stripe<const L: usize> {
    /// How many lanes have a block.
    count: usize,
    /// Whether all of them are under one key.
    has_one_key: bool,
    /// Number of the block's packet in the batch.
    packets: [u8; L],
    /// Word 12: 0 makes the one-time key, 1 and up the key stream.
    counters: [u32; L],
    /// Words 13 to 15.
    nonces: [[u32; L]; 3],
}

impl<const L: usize> Stripe<L> {
    /// Without a block.
    pub fn new() -> Stripe<L> {
        Stripe {
            count: 0,
            has_one_key: true,
            packets: [0; L],
            counters: [0; L],
            nonces: [[0; L]; 3],
        }
    }

    /// How many more blocks fit in.
    pub fn room(&self) -> usize {
        L - self.count
    }

    /// Whether it has no block.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Forgets its blocks.
    pub fn clear(&mut self) {
        self.count = 0;
        self.has_one_key = true;
    }

    /// Adds `count` blocks of one packet, which must fit in, from the block with counter `first`.
    #[inline(always)]
    pub fn push(&mut self, number: usize, packets: &[Packet<'_>], first: u32, count: usize) {
        let packet = &packets[number];
        if let Some(&before) = self.packets[..self.count].last() {
            self.has_one_key &= std::ptr::eq(packets[usize::from(before)].key, packet.key);
        }
        let [n0, n1, n2] = packet.nonce;
        let [to_n0, to_n1, to_n2] = &mut self.nonces;
        for (lane, counter) in (self.count..self.count + count).zip(first..) {
            self.packets[lane] = number as u8;
            self.counters[lane] = counter;
            to_n0[lane] = n0;
            to_n1[lane] = n1;
            to_n2[lane] = n2;
        }
        self.count += count;
    }
}

/// The states of the blocks of lanes `at` to `at + W` before the first round.
#[inline(always)]
pub fn initial<const W: usize, const L: usize, M: Words<W>>(
    m: M,
    stripe: &Stripe<L>,
    at: usize,
    packets: &[Packet<'_>],
) -> [M::Word; 16] {
    // Lanes without a block compute one that nobody reads.
    let numbers: &[u8; W] = lanes(&stripe.packets, at);
    let first = packets[usize::from(numbers[0])].key;
    let mut state = [m.splat(0); 16];
    for (word, constant) in state.iter_mut().zip(CONSTANTS) {
        *word = m.splat(constant);
    }
    if stripe.has_one_key {
        for (word, of_key) in state[4..].iter_mut().zip(first) {
            *word = m.splat(*of_key);
        }
    } else {
        let mut keys = [first; W];
        for (key, &number) in keys.iter_mut().zip(numbers) {
            *key = packets[usize::from(number)].key;
        }
        state[4..12].copy_from_slice(&m.keys(keys));
    }
    state[12] = m.load(lanes(&stripe.counters, at));
    for (word, nonces) in state[13..].iter_mut().zip(&stripe.nonces) {
        *word = m.load(lanes(nonces, at));
    }
    state
}

/// Lanes `at` to `at + W`.
#[inline(always)]
fn lanes<const W: usize, T>(stripe: &[T], at: usize) -> &[T; W] {
    stripe[at..].first_chunk().expect("a stripe is a whole number of vectors")
}

/// Adds the initial states, and gives each block of lanes `at` to `at + W` to its packet.
#[inline(always)]
pub fn finish<const W: usize, const L: usize, M: Words<W>>(
    m: M,
    stripe: &Stripe<L>,
    at: usize,
    mut state: [M::Word; 16],
    packets: &mut [Packet<'_>],
    keys: &mut [OneTimeKey],
) {
    // Made again, not kept: the rounds need every register.
    let initial = initial(m, stripe, at, packets);
    for (word, first) in state.iter_mut().zip(initial) {
        *word = m.add(*word, first);
    }
    let blocks = m.blocks(state);
    let end = stripe.count.min(at + W);
    let mut lane = at;
    while lane < end {
        let blocks = &blocks[lane - at..end - at];
        let number = usize::from(stripe.packets[lane]);
        let Some(before) = (stripe.counters[lane] as usize).checked_sub(1) else {
            keys[number] = m.one_time_key(blocks[0]);
            lane += 1;
            continue;
        };
        // The next lanes have what follows in this packet.
        let rest = &mut packets[number].body[before * BLOCK_LEN..];
        lane += rest.len().div_ceil(BLOCK_LEN).max(1);
        let (whole, part) = rest.as_chunks_mut();
        if let Some(&block) = blocks.get(whole.len())
            && !part.is_empty()
        {
            m.apply_part(block, part);
        }
        for (&block, bytes) in blocks.iter().zip(whole) {
            m.apply(block, bytes);
        }
    }
}
