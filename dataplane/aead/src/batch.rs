//! Seals and opens batches on a vector unit.
//!
//! 1. Queue the blocks of all packets, one-time keys included, in stripes ([`Queue`]).
//! 2. Compute each stripe when it is full.
//! 3. Compute tags, packets of similar length in one vector.
//!
//! Opening computes one-time keys and tags first, and decrypts only authentic packets. A forged
//! packet stays unchanged and costs no decryption.

use crate::chacha::{BLOCK_LEN, Stripe};
use crate::limits::BATCH;
#[cfg(test)]
use crate::memcheck;
use crate::packet::{OneTimeKey, Packet, Tag};
use crate::wipe;

/// A vector unit that computes `L` blocks of ChaCha20 at once.
pub trait Unit<const L: usize>: Copy {
    /// Minimum of packets in a batch for which the unit beats `ring`.
    const PACKETS_MIN: usize;
    /// Longest body for which the unit beats `ring` (bytes).
    const BODY_LEN_MAX: usize;

    /// Computes the blocks of a stripe: writes one-time keys to `keys`, and XORs key stream onto
    /// bodies.
    fn compute(self, stripe: &Stripe<L>, packets: &mut [Packet<'_>], keys: &mut [OneTimeKey]);
    /// Writes the tags of the packets in `order` to `tags`, both indexed by packet.
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
        let blocks = body_blocks(&packets[number]);
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

/// Verifies up to [`BATCH`] packets and decrypts the authentic ones in place. Returns a mask with
/// a bit set for each authentic packet.
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
            let blocks = body_blocks(&packets[number]);
            queue.push(number, 1, blocks, packets, &mut keys);
        }
    }
    queue.finish(packets, &mut keys);
    // The correct tag of a forged packet must not stay in memory either.
    wipe::values(&mut tags[..packets.len()]);
    wipe(unit, &mut keys[..packets.len()]);
    authentic
}

/// Blocks of key stream for the body of a packet. Block 0, the one-time key, is not counted.
fn body_blocks(packet: &Packet<'_>) -> usize {
    packet.body.len().div_ceil(BLOCK_LEN)
}

/// Zeroes one-time keys, spilled vectors on the stack, and the vector registers.
fn wipe<const L: usize, U: Unit<L>>(unit: U, keys: &mut [OneTimeKey]) {
    wipe::values(keys);
    wipe::stack();
    unit.clear();
}

/// Whether two tags are equal, in constant time: must not leak which byte differs.
fn is_equal(received: &Tag, computed: &Tag) -> bool {
    let is_equal = u128::from_le_bytes(*received) ^ u128::from_le_bytes(*computed) == 0;
    #[cfg(test)]
    let is_equal = memcheck::published(is_equal);
    is_equal
}

/// The packets sorted by length, so that packets of one length share vectors.
fn by_length<'a>(packets: &[Packet<'_>], order: &'a mut [u8; BATCH]) -> &'a [u8] {
    let order = &mut order[..packets.len()];
    for (entry, number) in order.iter_mut().zip(0..) {
        *entry = number;
    }
    let length = |number: u8| packets[usize::from(number)].body.len();
    if !order.is_sorted_by_key(|&number| length(number)) {
        order.sort_unstable_by_key(|&number| length(number));
    }
    order
}

/// Blocks waiting for a full stripe.
struct Queue<const L: usize, U> {
    unit: U,
    /// The stripe being filled, and the full one before it, which is computed only when the next
    /// one is full too: by then its words have left the store buffer and load as vectors without a
    /// stall.
    stripes: [Stripe<L>; 2],
    /// Index of the stripe being filled.
    filling: usize,
}

impl<const L: usize, U: Unit<L>> Queue<L, U> {
    fn new(unit: U) -> Queue<L, U> {
        Queue { unit, stripes: [Stripe::new(), Stripe::new()], filling: 0 }
    }

    /// Queues `blocks` blocks of a packet, from block counter `first` on.
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
            let stripe = &mut self.stripes[self.filling];
            let count = blocks.min(stripe.free_lanes());
            stripe.push(number, packets, first, count);
            if stripe.free_lanes() == 0 {
                self.filling ^= 1;
                self.compute(self.filling, packets, keys);
            }
            first += count as u32;
            blocks -= count;
        }
    }

    /// Computes all waiting blocks, in order.
    fn finish(&mut self, packets: &mut [Packet<'_>], keys: &mut [OneTimeKey]) {
        self.compute(self.filling ^ 1, packets, keys);
        self.compute(self.filling, packets, keys);
    }

    fn compute(&mut self, index: usize, packets: &mut [Packet<'_>], keys: &mut [OneTimeKey]) {
        let stripe = &mut self.stripes[index];
        if !stripe.is_empty() {
            self.unit.compute(stripe, packets, keys);
            stripe.clear();
        }
    }
}
