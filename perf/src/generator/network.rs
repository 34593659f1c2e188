//! The relay in its namespace, and a namespace for all the peers that the generator plays, with
//! several networks between the two, so that what delays one path leaves the others alone:
//!
//! ```text
//!                  ┌── 198.18.0.0/24, fd18:0::/64 ── senders ───┐
//!     relay (.1)  ─┼── 198.18.1.0/24, fd18:1::/64 ── receivers ─┼─  generator (.2)
//!     10.64.0.1/10 ├── 198.18.2.0/24, fd18:2::/64 ── thin ──────┤
//!     fd77::1/48   └── 198.18.3.0/24, fd18:3::/64 ── slow ──────┘
//! ```
//!
//! Inside the tunnel sender `i` is 10.80.0.1 + i (fd77:0:0:1::1 + i), receiver `i` 10.96.0.1 + i.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use super::peer::Keys;
use super::relay::{Relay, Step};
use crate::daemon::{Daemon, INTERFACE, MTU, PORT, configure, setconf};
use crate::failure::{Failure, while_doing};
use crate::implementation::Program;
use crate::interrupt::Interrupt;
use crate::namespace::{FORWARDING, Namespace};
use crate::star::Family;

/// Addresses of many peers of one relay, each behind an address of its own (RFC 6598).
pub const ORIGINS: &str = "100.64.0.0/10";

/// A network between generator and relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// What all senders use.
    Senders,
    /// What most receivers use.
    Receivers,
    /// What the receiver of a thin flow uses.
    Thin,
    /// What a receiver behind a slow link uses.
    Slow,
}

impl Path {
    const ALL: [Path; 4] = [Path::Senders, Path::Receivers, Path::Thin, Path::Slow];

    fn name(self) -> &'static str {
        match self {
            Path::Senders => "senders",
            Path::Receivers => "receivers",
            Path::Thin => "thin",
            Path::Slow => "slow",
        }
    }

    /// Address of the relay (1) or of the generator (2) in this network.
    fn address(self, host: u8, family: Family) -> IpAddr {
        let number = self as u8; // in the order of the declaration
        match family {
            Family::V4 => Ipv4Addr::new(198, 18, number, host).into(),
            Family::V6 => {
                let (number, host) = (number.into(), host.into());
                Ipv6Addr::new(0xfd18, number, 0, 0, 0, 0, 0, host).into()
            }
        }
    }
}

/// Which end of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Packets come from it.
    Sender,
    /// Packets go to it.
    Receiver,
}

/// Address inside the tunnel of an end of pair number `pair`.
pub fn inner_address(role: Role, pair: usize, family: Family) -> IpAddr {
    let number = u32::try_from(pair).expect("the options bound it") + 1;
    match family {
        Family::V4 => {
            let base = Ipv4Addr::new(10, if role == Role::Sender { 80 } else { 96 }, 0, 0);
            Ipv4Addr::from_bits(base.to_bits() + number).into()
        }
        Family::V6 => {
            let network = if role == Role::Sender { 1 } else { 2 };
            let base = Ipv6Addr::new(0xfd77, 0, 0, network, 0, 0, 0, 0);
            Ipv6Addr::from_bits(base.to_bits() + u128::from(number)).into()
        }
    }
}

/// A relay that runs, and the networks around it.
pub struct Network {
    // Dropped in this order: the daemon ends before its namespace.
    daemon: Daemon,
    relay: Namespace,
    generator: Namespace,
    outer: Family,
    core: usize,
}

impl Network {
    /// Starts `program` on one core.
    pub fn build(
        program: &Program,
        outer: Family,
        core: usize,
        interrupt: &Interrupt,
    ) -> Result<Network, Failure> {
        let relay = Namespace::new("relay", interrupt)?;
        relay.run(FORWARDING)?;
        let generator = Namespace::new("generator", interrupt)?;
        for path in Path::ALL {
            let name = path.name();
            let peer = generator.pid();
            relay
                .run(&format!("ip link add name {name} type veth peer name {name} netns {peer}"))?;
            for (namespace, host) in [(&relay, 1), (&generator, 2)] {
                let v4 = path.address(host, Family::V4);
                let v6 = path.address(host, Family::V6);
                namespace.run(&format!("ip address add {v4}/24 dev {name}"))?;
                namespace.run(&format!("ip address add {v6}/64 dev {name} nodad"))?;
                namespace.run(&format!("ip link set {name} up"))?;
            }
        }
        let daemon = Daemon::start(program, &relay, Some(core))?;
        Ok(Network { daemon, relay, generator, outer, core })
    }

    /// Gives the relay its key and its peers, each a public key and an address inside the tunnel,
    /// and brings its interface up.
    pub fn configure<'a>(
        &self,
        keys: &Keys,
        peers: impl Iterator<Item = (&'a str, IpAddr)>,
    ) -> Result<(), Failure> {
        configure(&self.relay, &keys.private, &sections(peers))?;
        self.bring_up()
    }

    /// The same, the interface left down; how long `wg setconf` took. None if it took longer than
    /// `limit`.
    pub fn set_peers<'a>(
        &self,
        keys: &Keys,
        peers: impl Iterator<Item = (&'a str, IpAddr)>,
        limit: Duration,
    ) -> Result<Option<Duration>, Failure> {
        setconf(&self.relay, &keys.private, &sections(peers), limit)
    }

    /// Runs a command line with `input` where the relay is; how long that took. None if it has not
    /// ended within `limit`.
    pub fn time(
        &self,
        line: &str,
        input: &str,
        limit: Duration,
    ) -> Result<Option<Duration>, Failure> {
        self.relay.time(line, input, limit)
    }

    /// Brings the relay's interface up, with its addresses.
    pub fn bring_up(&self) -> Result<(), Failure> {
        for line in [
            format!("ip address add 10.64.0.1/10 dev {INTERFACE}"),
            format!("ip address add fd77::1/48 dev {INTERFACE} nodad"),
            format!("ip link set {INTERFACE} mtu {MTU} up"),
        ] {
            self.relay.run(&line)?;
        }
        Ok(())
    }

    /// So many pairs of connected sockets: where senders are, and in the relay's place.
    pub fn direct_pairs(&self, pairs: usize) -> Result<Vec<(UdpSocket, UdpSocket)>, Failure> {
        let bind = |host| move |_| UdpSocket::bind((Path::Senders.address(host, self.outer), 0));
        let senders = open_inside(&self.generator, || (0..pairs).map(bind(2)).collect())?;
        let receivers = open_inside(&self.relay, || (0..pairs).map(bind(1)).collect())?;
        let ends: Vec<(UdpSocket, UdpSocket)> = senders.into_iter().zip(receivers).collect();
        for (sender, receiver) in &ends {
            let connect = || {
                sender.connect(receiver.local_addr()?)?;
                receiver.connect(sender.local_addr()?)
            };
            connect().map_err(while_doing("connecting the ends of a direct path"))?;
        }
        Ok(ends)
    }

    /// Gives the generator all addresses of [`ORIGINS`], and one socket that can send from any and
    /// gets what is sent to any.
    pub fn socket_of_many(&self) -> Result<UdpSocket, Failure> {
        let (network, via) = (ORIGINS, Path::Senders.address(2, Family::V4));
        self.generator.run(&format!("ip route add local {network} dev lo"))?;
        self.relay.run(&format!("ip route add {network} via {via}"))?;
        let socket = || Ok(vec![UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?]);
        open_inside(&self.generator, socket).map(|mut sockets| sockets.swap_remove(0))
    }

    /// Where the relay listens for what comes from [`Network::socket_of_many`].
    pub fn relay_address() -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(198, 18, Path::Senders as u8, 1), PORT)
    }

    /// Lets the relay send at most so many Mbit/s on a path.
    pub fn slow_down(&self, path: Path, megabits: u32) -> Result<(), Failure> {
        let name = path.name();
        let line = format!(
            "tc qdisc replace dev {name} root tbf rate {megabits}mbit burst 64kb latency 50ms"
        );
        self.relay.run(&line).map(drop)
    }

    /// If the relay has ended, which it should not have, that is a failure.
    pub fn check(&mut self) -> Result<(), Failure> {
        self.daemon.check()
    }
}

impl Relay for Network {
    fn sockets(&self, paths: &[Path]) -> Result<Vec<UdpSocket>, Failure> {
        open_inside(&self.generator, || {
            let socket = |path: &Path| {
                let socket = UdpSocket::bind((path.address(2, self.outer), 0))?;
                socket.connect(SocketAddr::new(path.address(1, self.outer), PORT))?;
                Ok(socket)
            };
            paths.iter().map(socket).collect()
        })
    }

    fn pid(&self) -> Option<u32> {
        self.daemon.pid()
    }

    fn core(&self) -> Option<usize> {
        Some(self.core)
    }

    fn told(&self) -> Vec<String> {
        self.daemon.told()
    }

    /// A daemon that has ended explains a failure better than its silence can.
    fn explain(&mut self, failure: Failure, _: Step) -> Failure {
        match failure {
            Failure::Interrupted => failure,
            Failure::Step(_) => self.check().err().unwrap_or(failure),
        }
    }
}

/// Peers as `wg` takes them.
fn sections<'a>(peers: impl Iterator<Item = (&'a str, IpAddr)>) -> String {
    let section = |(public, address): (&str, IpAddr)| {
        let length = if address.is_ipv4() { 32 } else { 128 };
        format!("[Peer]\nPublicKey = {public}\nAllowedIPs = {address}/{length}\n")
    };
    peers.map(section).collect()
}

/// What `open` opens inside a namespace.
fn open_inside(
    namespace: &Namespace,
    open: impl FnOnce() -> std::io::Result<Vec<UdpSocket>> + Send,
) -> Result<Vec<UdpSocket>, Failure> {
    let place = format!("/proc/{}/ns/net", namespace.pid());
    let enter_and_open = || {
        setns(File::open(&place)?, CloneFlags::CLONE_NEWNET)?;
        open()
    };
    // In a thread of its own, which alone enters the namespace.
    let opened =
        thread::scope(|scope| scope.spawn(enter_and_open).join().expect("it does not panic"));
    opened.map_err(while_doing("opening the generator's sockets"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_have_addresses_of_their_own() {
        let text = |role, pair, family| inner_address(role, pair, family).to_string();
        assert_eq!(text(Role::Sender, 0, Family::V4), "10.80.0.1");
        assert_eq!(text(Role::Receiver, 1000, Family::V4), "10.96.3.233");
        assert_eq!(text(Role::Sender, 0xffff, Family::V6), "fd77::1:0:0:1:0");
        assert_eq!(Path::Slow.address(2, Family::V4).to_string(), "198.18.3.2");
        assert_eq!(Path::Thin.address(1, Family::V6).to_string(), "fd18:2::1");
    }
}
