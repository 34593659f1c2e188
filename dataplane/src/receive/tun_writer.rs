//! Writes decrypted packets to the TUN: packets of one flow as super-packets, from where they lie.

use std::io::{self, IoSlice};
use std::ops::Range;

use wg_bounce_sys::clock::Millis;
use wg_bounce_sys::{Errno, TunWrite};

use crate::ip;
use crate::limits::{COALESCE_PACKETS_MAX, TUN_GSO_REPROBE_AFTER};
use crate::offload::{Coalescer, CoalescerOptions, VNET_HEADER_LEN};
use crate::recycle::recycle;
use crate::turn::Turn;

/// The place of a decrypted IP packet.
#[derive(Clone, Copy)]
struct Place {
    train: u32,
    offset: u32,
}

/// The TUN writer of one worker.
pub(super) struct TunWriter {
    coalescer: Coalescer<Place>,
    options: CoalescerOptions,
    /// The time until which nothing is coalesced, because the TUN refused a super-packet.
    off_until: Option<Millis>,
    was_refused: bool,
    frames: Vec<TunWrite>,
    pieces: Vec<IoSlice<'static>>,
    outcomes: Vec<Errno>,
}

impl TunWriter {
    /// Allocates all its memory here. `seed` is random: it keys the flow table.
    pub(super) fn new(options: CoalescerOptions, seed: u64) -> TunWriter {
        TunWriter {
            coalescer: Coalescer::new(COALESCE_PACKETS_MAX, options, seed),
            options,
            off_until: None,
            was_refused: false,
            frames: Vec::with_capacity(COALESCE_PACKETS_MAX),
            pieces: Vec::with_capacity(2 * COALESCE_PACKETS_MAX),
            outcomes: Vec::with_capacity(COALESCE_PACKETS_MAX),
        }
    }

    /// Whether `packets` more can be pushed before the next write.
    pub(super) fn has_room(&self, packets: usize) -> bool {
        self.coalescer.len() + packets <= COALESCE_PACKETS_MAX
    }

    /// Adds the packet at `plaintext` of a train of the turn. There must be room for it.
    pub(super) fn push(&mut self, train: u32, plaintext: Range<usize>, turn: &Turn<'_>) {
        let place = Place { train, offset: plaintext.start as u32 };
        let packet = &turn.trains[train as usize].buffer[plaintext];
        self.coalescer.push(place, packet).expect("the caller made room");
    }

    /// Writes what was pushed.
    ///
    /// # Errors
    /// EBADFD: the TUN device was deleted.
    pub(super) fn write(&mut self, turn: &mut Turn<'_>) -> io::Result<()> {
        if self.coalescer.is_empty() {
            return Ok(());
        }
        self.frames.clear();
        for group in self.coalescer.groups() {
            let first = group.first();
            let offset = first.handle.offset as usize;
            let buffer = &mut turn.trains[first.handle.train as usize].buffer;
            let packet = &mut buffer[offset..offset + first.len];
            // Hash before `finish` rewrites the headers for the whole group.
            let queue = ip::flow_hash(packet) as usize % turn.channels.neighbours.len();
            let header = group.finish(packet);
            // The virtio header overwrites the data message's header.
            buffer[offset - VNET_HEADER_LEN..offset].copy_from_slice(&header.to_bytes());
            self.frames.push(TunWrite { queue, pieces: 0..0 });
        }
        let mut pieces = recycle(std::mem::take(&mut self.pieces));
        for (group, frame) in self.coalescer.groups().zip(&mut self.frames) {
            let begin = pieces.len();
            for (index, member) in group.members().enumerate() {
                let offset = member.handle.offset as usize;
                let buffer = &turn.trains[member.handle.train as usize].buffer;
                let from = if index == 0 {
                    offset - VNET_HEADER_LEN
                } else {
                    offset + member.payload_offset
                };
                pieces.push(IoSlice::new(&buffer[from..offset + member.len]));
            }
            frame.pieces = begin..pieces.len();
        }
        let result = turn.io.write(&self.frames, &pieces, &mut self.outcomes);
        self.pieces = recycle(pieces);
        result?;
        let is_rejected = self.process_outcomes(turn)?;
        self.coalescer.clear();
        if self.off_until.is_some_and(|until| turn.now >= until) {
            self.off_until = None;
            self.coalescer.set_options(self.options);
        }
        if is_rejected {
            self.pause_coalescing(turn);
        }
        Ok(())
    }

    /// Counts what was written; returns whether the kernel rejected a super-packet (EINVAL).
    fn process_outcomes(&mut self, turn: &mut Turn<'_>) -> io::Result<bool> {
        let mut is_rejected = false;
        for (group, &outcome) in self.coalescer.groups().zip(&self.outcomes) {
            turn.written(group.count() as u64, outcome)?;
            is_rejected |= group.count() > 1 && outcome == libc::EINVAL;
        }
        Ok(is_rejected)
    }

    /// Coalesces nothing for a while: some kernels reject every super-packet, others one kind.
    fn pause_coalescing(&mut self, turn: &Turn<'_>) {
        let was_refused = std::mem::replace(&mut self.was_refused, true);
        let level = if was_refused { log::Level::Debug } else { log::Level::Warn };
        log::log!(
            level,
            "worker {}: kernel rejected a GSO write to the TUN; disabling TUN GSO for {} s",
            turn.worker,
            TUN_GSO_REPROBE_AFTER.0 / 1000
        );
        self.off_until = Some(turn.now + TUN_GSO_REPROBE_AFTER);
        self.coalescer.set_options(CoalescerOptions { tcp: false, udp: false });
    }
}
