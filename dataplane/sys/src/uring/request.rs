//! Sizes of the ring, and the tags that match completions to requests.

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

/// The kind of a request: the high half of `user_data`. The low half is an index or a generation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    V4,
    V6,
    Read,
    Poll,
    Bell,
    Send,
    Write,
    Cancel,
    RoomV4,
    RoomV6,
}

impl Tag {
    const ALL: [Tag; 10] = [
        Tag::V4,
        Tag::V6,
        Tag::Read,
        Tag::Poll,
        Tag::Bell,
        Tag::Send,
        Tag::Write,
        Tag::Cancel,
        Tag::RoomV4,
        Tag::RoomV6,
    ];

    /// The `user_data` of a request.
    pub(super) fn data(self, low: u32) -> u64 {
        (self as u64) << 32 | u64::from(low)
    }

    /// The tag and the low bits of a completion's `user_data`.
    pub(super) fn of(data: u64) -> (Tag, u32) {
        (Tag::ALL[(data >> 32) as usize], data as u32)
    }
}
