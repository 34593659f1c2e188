//! The sizes of a worker's buffers and queues, which follow the memory that it may use.

/// The sizes for one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Receive buffers, 64 KiB each.
    pub buffers: u16,
    /// Receive buffer of each UDP socket, and the most that it has in flight (bytes).
    pub socket_buffer: usize,
    /// Packets that wait for handshakes (bytes): one peer that scans the addresses of many absent
    /// ones must not fill the memory with the staged packets of each.
    pub staged: usize,
    /// Packets that wait for room in one socket (bytes).
    pub queued: usize,
    /// Datagrams that wait for the worker that owns their session.
    pub hand_offs: usize,
    /// Address pairs that are remembered (about 70 bytes each). A power of two.
    pub flows: usize,
    /// Each of three filters that remember the senders of initiations during a flood (bytes). A
    /// power of two.
    pub greylist: usize,
}

impl Sizes {
    /// The sizes of a worker that has [`Sizes::FULL_MEMORY`] or more: no size is larger.
    pub const FULL: Sizes = Sizes {
        // The bursts that a 10 Gbit/s link delivers within a millisecond or two.
        buffers: 128,
        // The kernel's own default holds only a few trains.
        socket_buffer: 16 << 20,
        staged: 64 << 20,
        queued: 32 << 20,
        hand_offs: 1024,
        // More pairs than talk at once through a large hub, few enough for a shared cache.
        flows: 1 << 14,
        // Few strangers pass for known at 100,000 initiations per second.
        greylist: 1 << 20,
    };
    /// The least sizes, with which everything still works: 2 MiB for a worker when all is full.
    pub const LEAST: Sizes = Sizes {
        buffers: 8,
        // One train, with the kernel's overhead: it grants the double.
        socket_buffer: 64 << 10,
        // More than all the packets of one peer.
        staged: 192 << 10,
        // A few super-packets.
        queued: 256 << 10,
        hand_offs: 64,
        flows: 1 << 10,
        greylist: 1 << 13,
    };
    /// The memory of a worker for which [`Sizes::FULL`] is meant (bytes). With that, all together
    /// is about 210 MiB; the kernel grants each of the two sockets the double of its buffer.
    pub const FULL_MEMORY: u64 = 256 << 20;

    /// The sizes for a worker that may use `memory` bytes: all in the same proportion.
    #[must_use]
    pub fn within(memory: u64) -> Sizes {
        let (full, least) = (Sizes::FULL, Sizes::LEAST);
        let scaled = |least: usize, full: usize| {
            let wanted = u128::from(memory) * full as u128 / u128::from(Sizes::FULL_MEMORY);
            usize::try_from(wanted).unwrap_or(full).clamp(least, full)
        };
        let flows = scaled(least.flows, full.flows);
        Sizes {
            buffers: scaled(least.buffers.into(), full.buffers.into()) as u16,
            socket_buffer: scaled(least.socket_buffer, full.socket_buffer),
            staged: scaled(least.staged, full.staged),
            queued: scaled(least.queued, full.queued),
            hand_offs: scaled(least.hand_offs, full.hand_offs),
            flows: 1 << flows.ilog2(),
            greylist: 1 << scaled(least.greylist, full.greylist).ilog2(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{PACKET_MAX, STAGED_PACKETS_MAX};

    #[test]
    fn sizes_follow_the_memory() {
        assert_eq!(Sizes::within(Sizes::FULL_MEMORY), Sizes::FULL);
        assert_eq!(Sizes::within(u64::MAX), Sizes::FULL);
        assert_eq!(Sizes::within(0), Sizes::LEAST);
        let quarter = Sizes::within(Sizes::FULL_MEMORY / 4 - 1);
        assert_eq!((quarter.buffers, quarter.flows), (31, 1 << 11));
        assert_eq!(quarter.socket_buffer >> 20, 3);
    }

    #[test]
    fn one_peer_does_not_fill_the_staging_of_others() {
        assert!(Sizes::FULL.staged > STAGED_PACKETS_MAX as usize * PACKET_MAX);
        assert!(Sizes::LEAST.staged > STAGED_PACKETS_MAX as usize * 1420);
    }
}
