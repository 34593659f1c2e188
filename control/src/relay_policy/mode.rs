//! The operator's choice (`--relay`).

use clap::ValueEnum;

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
