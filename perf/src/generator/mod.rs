//! The load generator: it plays all the peers of one relay by itself, over the real protocol.
//!
//! 1. `plan`, `load`, `traffic`: what it is to play, and how much it sends.
//! 2. `initiator`, `peer`, `roster`, `seed`: handshakes, sessions, and the keys of everyone.
//! 3. `packet`, `pool`: inner packets, and messages encrypted before the clock starts.
//! 4. `network`, `relay`: the relay and the paths to it, here or on another machine.
//! 5. `drive`, `receive`, `silence`: the loop that sends and receives, and what it counts.
//! 6. `bench`, `phase`, `direct`: a relay with all its peers, made to work in phases; the same path
//!    without a relay.

mod bench;
mod direct;
mod drive;
mod initiator;
mod load;
mod network;
mod packet;
mod peer;
mod phase;
mod plan;
mod pool;
mod receive;
mod relay;
mod roster;
mod seed;
mod silence;
mod traffic;

pub use bench::Bench;
pub use initiator::{Answer, INITIATION_LEN, Initiator, RESPONSE_LEN, addressee};
pub use load::Load;
pub use network::{Network, Path};
pub use packet::Kind;
pub use peer::{Keys, Randomness, decode, encode};
pub use phase::Phase;
pub use plan::{GroupPlan, Setup, TRAIN_MAX, check_trains};
pub use receive::Sampler;
pub use relay::{Relay, Remote};
pub use roster::Roster;
pub use seed::Seed;
pub use silence::Silence;
pub use traffic::Traffic;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

use crate::failure::Failure;

/// A core for the generator, and a descriptor for every peer, here and in daemons that use one
/// for each.
pub fn prepare_process(core: usize) -> Result<(), Failure> {
    let refused = |what: String| move |errno| Failure::step(format!("{what}: {errno}"));
    let mut cores = CpuSet::new();
    cores.set(core).map_err(refused(format!("core {core}")))?;
    sched_setaffinity(Pid::from_raw(0), &cores).map_err(refused(format!("core {core}")))?;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).map_err(refused("descriptors".into()))?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).map_err(refused("descriptors".into()))
}
