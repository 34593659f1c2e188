//! The load generator: it plays all peers of one relay, over the real protocol.
//!
//! 1. `plan`: options of the load, and what the generator makes of them.
//! 2. `keys`, `peers`, `initiator`, `session`: keys, handshakes and sessions.
//! 3. `packet`, `pool`: inner packets, and messages encrypted before the clock starts.
//! 4. `network`: the relay and the paths to it, here or on another machine.
//! 5. `drive`, `receive`, `loss_detector`: the loop that sends and receives, and what it counts.
//! 6. `bench`, `phase`: a relay with all its peers, measured in phases.

mod bench;
mod drive;
mod initiator;
mod keys;
mod loss_detector;
mod network;
mod packet;
mod peers;
mod phase;
mod plan;
mod pool;
mod receive;
mod session;

pub use bench::Bench;
pub use initiator::{Answer, INITIATION_LEN, Initiator, RESPONSE_LEN, addressee};
pub use keys::{Keys, encode, public_key, random_key};
pub use loss_detector::LossDetector;
pub use network::{Network, Path, Relay};
pub use packet::Kind;
pub use peers::{Peers, Seed};
pub use phase::Phase;
pub use plan::{GroupPlan, Load, Setup, Traffic};
pub use receive::Sampler;
