//! The atomics, lanes and swapped pointers of the modules that loom models. With `cfg(loom)` they
//! are loom's, or stand-ins made of loom's atomics, so that `models` runs the code itself
//! in every interleaving. All other builds get the originals under their own types.

#[cfg(loom)]
mod stand_ins;

#[cfg(not(loom))]
pub use {
    arc_swap::{ArcSwapOption, Guard},
    crossbeam_channel::{Receiver, Sender, TrySendError, bounded},
    std::sync::atomic,
};

#[cfg(loom)]
pub use {
    crossbeam_channel::TrySendError,
    loom::sync::atomic,
    stand_ins::{ArcSwapOption, EventFd, Guard, Receiver, Sender, bounded},
};
