//! The load: options of packets and rates, and what the generator makes of them.

use std::str::FromStr;

use clap::Args;
use serde::{Serialize, Serializer};

use super::network::Path;
use super::packet::{Kind, size_min};
use super::session::{OVERHEAD, PADDING};
use crate::daemon::MTU;
use crate::failure::Failure;
use crate::options::{Family, within};

/// Properties that all peers of a relay have in common.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Protocol of the inner packets.
    pub kind: Kind,
    /// IP version inside the tunnel.
    pub family: Family,
    /// IP version that carries the tunnel.
    pub outer: Family,
    /// Whether packets are padded to a multiple of 16 bytes.
    pub is_padded: bool,
    /// A packet of one in this many trains is decrypted and checked.
    pub check_every: usize,
    /// Core of the relay.
    pub relay_core: usize,
}

impl Setup {
    /// IPv4 in IPv4, padded, with few checks: `kind` on `relay_core`.
    pub fn plain(kind: Kind, relay_core: usize) -> Setup {
        let (family, outer) = (Family::V4, Family::V4);
        Setup { kind, family, outer, is_padded: true, check_every: 64, relay_core }
    }
}

/// Pairs that send the same packets.
#[derive(Clone, Copy, Debug)]
pub struct GroupPlan {
    /// Number of pairs.
    pub pairs: usize,
    /// Path of their receivers.
    pub path: Path,
    /// Bytes of a packet.
    pub size: usize,
    /// Packets of a train.
    pub train: usize,
    /// Bytes of the pool.
    pub pool: usize,
}

/// Datagrams of the longest train that every kernel with UDP_SEGMENT takes (UDP_MAX_SEGMENTS).
const TRAIN_MAX: u64 = 64;

/// Bytes of the longest train: kernels segment trains near a datagram's limit in software.
const TRAIN_BYTES_MAX: usize = 65_000;

/// Pairs of peers, and the packets between them.
#[derive(Args, Clone, Debug, Serialize)]
pub struct Traffic {
    /// Pairs of a sending and a receiving peer, each with its own socket
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = within::<usize>(1..=8000))]
    pub pairs: usize,

    /// Bytes of each inner IP packet
    #[arg(long, value_name = "BYTES", default_value_t = 1408)]
    pub size: usize,

    /// Packets sent with one system call (UDP_SEGMENT); 1 sends every datagram alone
    #[arg(long, value_name = "N", default_value_t = 4)]
    #[arg(value_parser = within::<usize>(1..=TRAIN_MAX))]
    pub train: usize,

    /// Packets in flight at most; reduced for a daemon that loses some
    #[arg(long, value_name = "N", default_value_t = 512)]
    #[arg(value_parser = within::<usize>(1..=100_000))]
    pub window: usize,
}

impl Traffic {
    /// Fails if there are no such packets, or no such trains of them.
    pub fn check(&self, kind: Kind, family: Family) -> Result<(), Failure> {
        let (size, smallest) = (self.size, size_min(kind, family == Family::V6));
        if !(smallest..=MTU as usize).contains(&size) {
            let why = format!("--size {size}: must be between {smallest} and {MTU} bytes");
            return Err(Failure::step(why));
        }
        let bytes = self.train * (size.next_multiple_of(PADDING) + OVERHEAD);
        if self.train > 1 && bytes > TRAIN_BYTES_MAX {
            return Err(Failure::step(format!(
                "--train {}: {bytes} bytes exceed the {TRAIN_BYTES_MAX} of a train",
                self.train
            )));
        }
        Ok(())
    }

    /// The group that sends this, with a pool of `mebibytes`.
    pub fn plan(&self, mebibytes: usize) -> GroupPlan {
        GroupPlan {
            pairs: self.pairs,
            path: Path::Receivers,
            size: self.size,
            train: self.train,
            pool: mebibytes << 20,
        }
    }
}

/// Rate of an open loop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Load {
    /// Packets per second.
    Rate(f64),
    /// Percent of the capacity that was just measured.
    Percent(f64),
}

impl Load {
    /// Packets per second, given the capacity in packets per second.
    pub fn rate(self, capacity: f64) -> f64 {
        match self {
            Load::Rate(rate) => rate,
            Load::Percent(percent) => capacity * percent / 100.0,
        }
    }

    /// The load as given on the command line.
    pub fn label(self) -> String {
        match self {
            Load::Rate(rate) => format!("{rate} packets/s"),
            Load::Percent(percent) => format!("{percent}%"),
        }
    }
}

impl Serialize for Load {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.label())
    }
}

impl FromStr for Load {
    type Err = String;

    fn from_str(text: &str) -> Result<Load, String> {
        let (number, of): (_, fn(f64) -> Load) = match text.strip_suffix('%') {
            Some(number) => (number, Load::Percent),
            None => (text, Load::Rate),
        };
        match number.parse::<f64>() {
            Ok(number) if number > 0.0 && number.is_finite() => Ok(of(number)),
            _ => Err("expected packets per second, or a percentage such as 80%".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Load, String> {
        text.parse()
    }

    #[test]
    fn a_load_is_a_rate_or_a_percentage() {
        let rates = ["10%", "80%", "50000"].map(|text| parse(text).expect("well-formed"));
        assert_eq!(rates.map(|load| load.rate(1000.0)), [100.0, 800.0, 50_000.0]);
        assert_eq!(rates[1].label(), "80%");
        for text in ["0", "x%", "-1", "inf", ""] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
