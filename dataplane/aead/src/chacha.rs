//! ChaCha20 (RFC 8439 §2.3) over stripes: one block per lane of the vector unit, of any packets
//! under any keys.
//!
//! Each vector holds one word of the state of every block, so a stripe is sixteen vectors, and a
//! quarter round works on all its blocks at once. Afterwards the vectors are transposed, and each
//! block of key stream is XORed onto its packet.

use crate::packet::{OneTimeKey, Packet};

/// Bytes of a block.
pub const BLOCK_LEN: usize = 64;

/// The first four words of every state: "expand 32-byte k" (RFC 8439 §2.3).
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// A vector unit with registers of `W` 32-bit lanes.
///
/// Implementations are tokens: holding one proves CPU support.
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
    /// The words of each lane's key.
    fn keys(self, keys: [&[u32; 8]; W]) -> [Self::Word; 8];
    /// Transposes: from the words of all lanes to the block of each lane.
    fn blocks(self, state: [Self::Word; 16]) -> [Self::Block; W];
    /// The one-time key: the first 32 bytes of a block (RFC 8439 §2.6).
    fn one_time_key(self, block: Self::Block) -> OneTimeKey;
    /// XORs key stream onto 64 bytes.
    fn apply(self, block: Self::Block, bytes: &mut [u8; BLOCK_LEN]);
    /// XORs key stream onto fewer than 64 bytes.
    fn apply_part(self, block: Self::Block, bytes: &mut [u8]);
}

/// Up to `L` blocks, which are computed at once.
pub struct Stripe<const L: usize> {
    /// Lanes in use.
    count: usize,
    /// Whether all blocks are under one key.
    has_one_key: bool,
    /// Index of each block's packet in the batch.
    packets: [u8; L],
    /// Word 12: the block counter. Block 0 is the one-time key, the others are key stream.
    counters: [u32; L],
    /// Words 13 to 15: the nonce.
    nonces: [[u32; L]; 3],
}

impl<const L: usize> Stripe<L> {
    /// An empty stripe.
    pub fn new() -> Stripe<L> {
        Stripe {
            count: 0,
            has_one_key: true,
            packets: [0; L],
            counters: [0; L],
            nonces: [[0; L]; 3],
        }
    }

    /// Lanes without a block.
    pub fn free_lanes(&self) -> usize {
        L - self.count
    }

    /// Whether no lane has a block.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Removes all blocks.
    pub fn clear(&mut self) {
        self.count = 0;
        self.has_one_key = true;
    }

    /// Adds `count` blocks of one packet, from block counter `first` on. There must be enough free
    /// lanes.
    #[inline(always)]
    pub fn push(&mut self, number: usize, packets: &[Packet<'_>], first: u32, count: usize) {
        let packet = &packets[number];
        if let Some(&previous) = self.packets[..self.count].last() {
            self.has_one_key &= std::ptr::eq(packets[usize::from(previous)].key, packet.key);
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

/// The initial states of the blocks in `W` lanes from `first_lane` on.
#[inline(always)]
pub fn initial<const W: usize, const L: usize, M: Words<W>>(
    m: M,
    stripe: &Stripe<L>,
    first_lane: usize,
    packets: &[Packet<'_>],
) -> [M::Word; 16] {
    // The blocks of unused lanes are computed and never read.
    let numbers: &[u8; W] = lanes(&stripe.packets, first_lane);
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
    state[12] = m.load(lanes(&stripe.counters, first_lane));
    for (word, nonces) in state[13..].iter_mut().zip(&stripe.nonces) {
        *word = m.load(lanes(nonces, first_lane));
    }
    state
}

/// `W` lanes from `first_lane` on.
#[inline(always)]
fn lanes<const W: usize, T>(stripe: &[T], first_lane: usize) -> &[T; W] {
    stripe[first_lane..].first_chunk().expect("a stripe is a whole number of vectors")
}

/// Adds the initial states, and delivers the block of each of `W` lanes from `first_lane` on to its
/// packet.
#[inline(always)]
pub fn finish<const W: usize, const L: usize, M: Words<W>>(
    m: M,
    stripe: &Stripe<L>,
    first_lane: usize,
    mut state: [M::Word; 16],
    packets: &mut [Packet<'_>],
    keys: &mut [OneTimeKey],
) {
    // Computed again, not kept: the rounds need every register.
    let initial = initial(m, stripe, first_lane, packets);
    for (word, first) in state.iter_mut().zip(initial) {
        *word = m.add(*word, first);
    }
    let blocks = m.blocks(state);
    let end = stripe.count.min(first_lane + W);
    let mut lane = first_lane;
    while lane < end {
        let blocks = &blocks[lane - first_lane..end - first_lane];
        let number = usize::from(stripe.packets[lane]);
        let Some(block) = (stripe.counters[lane] as usize).checked_sub(1) else {
            keys[number] = m.one_time_key(blocks[0]);
            lane += 1;
            continue;
        };
        // The next lanes hold the following blocks of this packet.
        let rest = &mut packets[number].body[block * BLOCK_LEN..];
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
