//! Options of subcommands for which packets are a means, not what is measured.

use clap::Args;

use super::network::Path;
use super::packet::Kind;
use super::plan::{GroupPlan, TRAIN_MAX, check_trains};
use crate::failure::Failure;
use crate::star::Family;

/// Pairs of peers, and the packets between them.
#[derive(Args, Clone, Debug)]
pub struct Traffic {
    /// Pairs of peers that send packets, a sender and a receiver each
    #[arg(long, value_name = "N", default_value_t = 4)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub pairs: u32,

    /// Bytes of each inner IP packet
    #[arg(long, value_name = "BYTES", default_value_t = 1408)]
    pub size: usize,

    /// Packets that are sent with one system call (UDP_SEGMENT); 1: every datagram alone
    #[arg(long, value_name = "N", default_value_t = 4)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(TRAIN_MAX)))]
    pub train: u32,
}

impl Traffic {
    /// Fails if there are no such packets or trains.
    pub fn check(&self, kind: Kind, family: Family) -> Result<(), Failure> {
        check_trains(kind, family, self.size, self.train as usize)
    }

    /// What is sent, with a pool of so many bytes.
    pub fn plan(&self, pool: usize) -> GroupPlan {
        GroupPlan {
            pairs: self.pairs as usize,
            path: Path::Receivers,
            size: self.size,
            train: self.train as usize,
            pool,
        }
    }
}
