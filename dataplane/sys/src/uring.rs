//! The preferred backend: one io_uring per worker.
//!
//! Receives and TUN reads are multishot requests into provided buffers. Sends and writes are
//! submitted together and have completed when the call returns. Only the worker's own thread uses
//! the ring.

mod prepare;
mod provided;
mod request;
mod ring;
mod submit;

pub use prepare::Prepared;
pub use ring::Uring;
