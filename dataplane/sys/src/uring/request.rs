//! Sizes of the ring, and the tags that match completions to requests.

use io_uring::{opcode, squeue};

use crate::per_family::Family;

/// Upper limit of the sends, or writes, of one submission.
pub(super) const SUBMIT_MAX: usize = 128;
/// Completion entries: for everything that can be outstanding, and a burst.
pub(super) const COMPLETIONS: u32 = 4096;
/// Frame buffers, each large enough for a super-packet.
pub(super) const FRAMES: u16 = 32;
/// The ring's buffer groups: of trains, and of frames.
pub(super) const TRAIN_GROUP: u16 = 0;
/// See [`TRAIN_GROUP`].
pub(super) const FRAME_GROUP: u16 = 1;

/// All operations of the backend; the ring refuses any other. The newest stands last.
pub(super) const OPERATIONS: [u8; 6] = [
    opcode::RecvMsgMulti::CODE,
    opcode::SendMsg::CODE,
    opcode::Writev::CODE,
    opcode::PollAdd::CODE,
    opcode::AsyncCancel::CODE,
    opcode::ReadMulti::CODE,
];
/// All flags of submission entries that the backend uses; the ring refuses any other.
pub(super) const ENTRY_FLAGS: squeue::Flags =
    squeue::Flags::IO_LINK.union(squeue::Flags::BUFFER_SELECT);

/// The kind of a request: the high half of `user_data`. The low half is an index or a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    /// The multishot receive of a socket.
    Receive(Family),
    /// The one-shot poll for room in a socket.
    Room(Family),
    Read,
    Poll,
    Bell,
    Send,
    Write,
    Cancel,
}

impl Tag {
    const ALL: [Tag; 10] = [
        Tag::Receive(Family::V4),
        Tag::Receive(Family::V6),
        Tag::Room(Family::V4),
        Tag::Room(Family::V6),
        Tag::Read,
        Tag::Poll,
        Tag::Bell,
        Tag::Send,
        Tag::Write,
        Tag::Cancel,
    ];

    /// The `user_data` of a request.
    pub(super) fn data(self, low: u32) -> u64 {
        let number = match self {
            Tag::Receive(Family::V4) => 0,
            Tag::Receive(Family::V6) => 1,
            Tag::Room(Family::V4) => 2,
            Tag::Room(Family::V6) => 3,
            Tag::Read => 4,
            Tag::Poll => 5,
            Tag::Bell => 6,
            Tag::Send => 7,
            Tag::Write => 8,
            Tag::Cancel => 9,
        };
        number << 32 | u64::from(low)
    }

    /// The tag and the low bits of a completion's `user_data`.
    pub(super) fn of(data: u64) -> (Tag, u32) {
        (Tag::ALL[(data >> 32) as usize], data as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_read_back() {
        for tag in Tag::ALL {
            assert_eq!(Tag::of(tag.data(7)), (tag, 7));
        }
    }
}
