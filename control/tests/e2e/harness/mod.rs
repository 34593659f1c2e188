//! Building blocks of the end-to-end tests: namespaces, daemons, commands, traffic.

/// Defines one test per function and I/O backend. Cargo ignores them by default: they need root.
macro_rules! on_both_backends {
    ($($name:ident),+ $(,)?) => {
        on_both_backends!(@uring Uring: $($name),+);
        on_both_backends!(@mmsg Mmsg: $($name),+);
    };
    (@$module:ident $backend:ident: $($name:ident),+) => {
        mod $module {
            $(
                #[test]
                #[ignore = "needs root: creates network namespaces"]
                fn $name() {
                    super::$name(crate::harness::Backend::$backend);
                }
            )+
        }
    };
}

mod arena;
mod capture;
mod command;
mod conversation;
mod crowd;
mod daemon;
mod fake_peer;
mod flood;
mod keys;
mod lab;
mod packet;
mod proxy;
mod relay;
mod spoof;
mod testbed;
mod threads;
mod traffic;
mod uapi;
mod wait;

pub use arena::{Arena, arena_hub};
pub use capture::Counter;
pub use command::{Background, Outcome};
pub use conversation::{TCP_PORTS, UDP_PORTS, by_tcp, by_udp, serve};
pub use crowd::{Crowd, Origin, Storm};
pub use daemon::{Backend, Daemon, Program, RelayMode};
pub use fake_peer::FakePeer;
pub use flood::{Flood, Forgery, forged_responses, noise, send_segments};
pub use keys::{KeyPair, hex, random_bytes};
pub use lab::{Lab, Namespace};
pub use packet::{DF, Draft, IcmpError, MF, forwarded, has_right_checksum, reassemble, trim};
pub use proxy::{Proxy, SlowPath};
pub use relay::{ALICE, BOB, Family, HUB, HUB_PORT, MALLORY, Options, Relay, endpoint};
pub use spoof::{SOURCES, spoofed};
pub use testbed::{DefaultRoute, MTU, Observed, Testbed, TestbedOptions, Way, slow_reads};
pub use threads::Threads;
pub use traffic::{Iperf, IperfServer, counters_sum, ping, ping_until_answered, tcp_reorders};
pub use uapi::{Uapi, socket_path};
pub use wait::{becomes, eventually, holds_for, now, seconds, within};
