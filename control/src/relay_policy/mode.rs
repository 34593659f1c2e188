//! The operator's choice (`--relay`).

use clap::ValueEnum;
use wg_bounce_dataplane::snapshot::DirectRelay;

/// `--relay`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// direct while no firewall rule, packet capture or traffic shaping applies; else kernel
    Auto,
    /// Inside the daemon; netfilter, tc and packet captures do not see packets between peers
    Direct,
    /// Through the interface and the kernel's IP forwarding
    Kernel,
}

impl Mode {
    /// The relaying while the kernel does not forward, or while that cannot be seen. The kernel
    /// then forwards as its routes say, but with `direct` the operator expects packets between
    /// peers to stay in the tunnel.
    pub fn without_forwarding(self) -> DirectRelay {
        match self {
            Mode::Auto | Mode::Kernel => DirectRelay::Never,
            Mode::Direct => DirectRelay::LocalOnly,
        }
    }
}
