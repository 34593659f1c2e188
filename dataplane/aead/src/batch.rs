//! Seals and opens batches on a vector unit.
//!
//! 1. The blocks of all packets, one-time keys included, are queued in stripes ([`Queue`]).
//! 2. A stripe that is full is computed.
//! 3. The tags of packets of like length are computed side by side.
//!
//! Opening computes one-time keys and tags first, and decrypts only what is authentic: what is
//! forged stays as it came, and costs no decryption.

use super::chacha::{BLOCK_LEN, Stripe};
use super::{BATCH, wipe};

/// One packet of a batch.
pub struct Packet<'a> {
    /// Words of the key (RFC 8439 §2.3).
    pub key: &'a [u32; 8],
    /// Words of the nonce.
    pub nonce: [u32; 3],
    /// What is encrypted in place.
    pub body: &'a mut [u8],
    /// Its tag: written, or verified.
    pub tag: &'a mut Tag,
    /// Additional data, which WireGuard has none of: the vectors of others have.
    #[cfg(test)]
    pub aad: &'a [u8],
}

impl Packet<'_> {
    /// Blocks of key stream for its body; block 0 is the one-time key.
    fn blocks(&self) -> usize {
        self.body.len().div_ceil(BLOCK_LEN)
    }

    /// Additional data.
    #[cfg(test)]
    pub fn aad(&self) -> &[u8] {
        self.aad
    }

    /// Additional data: none.
    #[cfg(not(test))]
    pub fn aad(&self) -> &[u8] {
        &[]
    }
}

/// A Poly1305 key: `r`, then `s`, two little-endian words each (RFC 8439 §2.6).
pub type OneTimeKey = [u64; 4];
/// A Poly1305 tag.
pub type Tag = [u8; 16];

/// A vector unit that computes `L` blocks of ChaCha20 at once.
pub trait Unit<const L: usize>: Copy {
    /// With fewer packets than these, one at a time is as fast.
    const FEWEST: usize;
    /// The longest body that is faster here than by itself (bytes).
    const LONGEST: usize;

    /// Computes the blocks of a stripe: one-time keys into `keys`, key stream over bodies.
    fn compute(self, stripe: &Stripe<L>, packets: &mut [Packet<'_>], keys: &mut [OneTimeKey]);
    /// The tags of the packets that `order` names, into their places in `tags`.
    fn tags(self, packets: &[Packet<'_>], order: &[u8], keys: &[OneTimeKey], tags: &mut [Tag]);
    /// Clears all vector registers.
    fn clear(self);
}

/// Encrypts up to [`BATCH`] packets in place and writes their tags.
pub fn seal<const L: usize, U: Unit<L>>(unit: U, packets: &mut [Packet<'_>]) {
    if packets.is_empty() {
        return;
    }
    let mut keys = [[0; 4]; BATCH];
    let mut queue = Queue::new(unit);
    for number in 0..packets.len() {
        let blocks = packets[number].blocks();
        queue.push(number, 0, 1 + blocks, packets, &mut keys);
    }
    queue.finish(packets, &mut keys);
    let mut tags = [[0; 16]; BATCH];
    unit.tags(packets, by_length(packets, &mut [0; BATCH]), &keys, &mut tags);
    for (packet, tag) in packets.iter_mut().zip(tags) {
        *packet.tag = tag;
    }
    wipe(unit, &mut keys[..packets.len()]);
}

/// Verifies up to [`BATCH`] packets and decrypts in place those that are authentic; a bit for
/// each of these.
pub fn open<const L: usize, U: Unit<L>>(unit: U, packets: &mut [Packet<'_>]) -> u64 {
    if packets.is_empty() {
        return 0;
    }
    let mut keys = [[0; 4]; BATCH];
    let mut queue = Queue::new(unit);
    for number in 0..packets.len() {
        queue.push(number, 0, 1, packets, &mut keys);
    }
    queue.finish(packets, &mut keys);
    let mut tags = [[0; 16]; BATCH];
    unit.tags(packets, by_length(packets, &mut [0; BATCH]), &keys, &mut tags);
    let mut authentic = 0;
    for number in 0..packets.len() {
        if is_equal(packets[number].tag, &tags[number]) {
            authentic |= 1 << number;
            let blocks = packets[number].blocks();
            queue.push(number, 1, blocks, packets, &mut keys);
        }
    }
    queue.finish(packets, &mut keys);
    // What would make a forged packet authentic is nobody's business either.
    wipe::values(&mut tags[..packets.len()]);
    wipe(unit, &mut keys[..packets.len()]);
    authentic
}

/// Leaves nothing of a batch: not its one-time keys, nor what vectors have put aside on the stack,
/// nor the vectors.
fn wipe<const L: usize, U: Unit<L>>(unit: U, keys: &mut [OneTimeKey]) {
    wipe::values(keys);
    wipe::stack();
    unit.clear();
}

/// Whether two tags are equal. Without a branch: which byte differs is nobody's business.
fn is_equal(received: &Tag, computed: &Tag) -> bool {
    let is_equal = u128::from_le_bytes(*received) ^ u128::from_le_bytes(*computed) == 0;
    #[cfg(test)]
    let is_equal = super::tests::published(is_equal);
    is_equal
}

/// The packets by length, so that those of one length share vectors.
fn by_length<'a>(packets: &[Packet<'_>], order: &'a mut [u8; BATCH]) -> &'a [u8] {
    let order = &mut order[..packets.len()];
    for (place, number) in order.iter_mut().zip(0..) {
        *place = number;
    }
    let length = |number: u8| packets[usize::from(number)].body.len();
    if !order.is_sorted_by_key(|&number| length(number)) {
        order.sort_unstable_by_key(|&number| length(number));
    }
    order
}

/// Blocks that wait until a stripe of them is full.
struct Queue<const L: usize, U> {
    unit: U,
    /// One that is filled, and one that is full: it is computed only when the next one is full,
    /// too. Until then what was written to it has left the store buffer, and can be loaded as
    /// vectors without a stall.
    stripes: [Stripe<L>; 2],
    /// Which one is filled.
    filled: usize,
}

impl<const L: usize, U: Unit<L>> Queue<L, U> {
    fn new(unit: U) -> Queue<L, U> {
        Queue { unit, stripes: [Stripe::new(), Stripe::new()], filled: 0 }
    }

    /// Queues `blocks` blocks of a packet from the one with counter `first`.
    #[inline(always)]
    fn push(
        &mut self,
        number: usize,
        mut first: u32,
        mut blocks: usize,
        packets: &mut [Packet<'_>],
        keys: &mut [OneTimeKey],
    ) {
        while blocks > 0 {
            let stripe = &mut self.stripes[self.filled];
            let count = blocks.min(stripe.room());
            stripe.push(number, packets, first, count);
            if stripe.room() == 0 {
                self.filled ^= 1;
                self.compute(self.filled, packets, keys);
            }
            first += count as u32;
            blocks -= count;
        }
    }

    /// Computes what still waits.
    fn finish(&mut self, packets: &mut [Packet<'_>], keys: &mut [OneTimeKey]) {
        self.compute(self.filled ^ 1, packets, keys);
        self.compute(self.filled, packets, keys);
    }

    fn compute(&mut self, which: usize, packets: &mut [Packet<'_>], keys: &mut [OneTimeKey]) {
        let stripe = &mut self.stripes[which];
        if !stripe.is_empty() {
            self.unit.compute(stripe, packets, keys);
            stripe.clear();
        }
    }
}
