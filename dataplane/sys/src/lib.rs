//! Every system call of wg-bounce. A leaf: it knows no worker, peer or session.
//!
//! **Packet path.** [`uring`] and [`mmsg`] are two backends with one interface ([`Backend`]): wait
//! for arrivals, send trains, write frames. Both use
//! - [`socket`]: the UDP sockets of a listen port, and single sends outside a batch;
//! - [`tun`]: the TUN device and its queues;
//! - [`memory`]: receive buffers. A [`memory::Slot`] has one owner: the kernel while it is offered,
//!   the worker afterwards;
//! - [`message`]: socket addresses and control messages as bytes;
//! - [`route`], [`output_route`]: route lookups for the worker, which do not allocate;
//! - [`scheduler`]: the time slice of a worker;
//! - [`clock`], and the types that all of these share.
//!
//! **Control only**, never called per packet: [`bpf`] (BPF programs that see packets), [`xtables`]
//! (tables of legacy iptables), [`netlink`] (sockets), [`inherit`] (inherited descriptors).

// Packet path.
mod backend;
#[cfg(not(feature = "faults"))]
mod calls;
pub mod clock;
mod endpoint;
mod enter;
#[cfg(feature = "faults")]
pub mod faults;
mod io;
pub mod memory;
pub mod message;
pub mod mmsg;
pub mod namespace;
pub mod output_route;
mod per_family;
mod retry;
pub mod route;
mod route_message;
pub mod scheduler;
mod send_header;
pub mod socket;
pub mod tun;
pub mod uring;

// Control only.
pub mod bpf;
pub mod inherit;
pub mod netlink;
pub mod xtables;

#[cfg(feature = "faults")]
use faults as calls;

pub use backend::Backend;
pub use endpoint::Endpoint;
pub use io::{Errno, Frame, NOT_TRIED, OuterHeader, Outgoing, Ready, Sockets, Train, TunWrite};
pub use per_family::{Family, PerFamily};
