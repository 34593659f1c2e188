//! Faults for tests, in place of the module `calls`: system calls and requests of workers fail as
//! planned. A call that fails is not made, so that everything is as it would be after such an
//! error of the kernel: a message is not sent, a buffer not used, a multishot request ended.
//!
//! Only with the feature `faults`, which no program has. Threads other than workers are left alone.

mod calls;
mod plan;
mod ring;

pub(crate) use calls::{epoll_wait, read, recvmmsg, sendmmsg, sendmsg, write, writev};
pub use plan::{Call, Fault, Injection, PANIC, free_buffers};
pub(crate) use plan::{enlist, note_idle};
pub(crate) use ring::{completions, enter, request};
