//! The route of a decrypted packet: relayed to another peer, given to the kernel, or dropped.
//!
//! 1. Its source must belong to the sender, by the longest match over the allowed IPs of all
//!    peers.
//! 2. If a peer owns its destination and workers may relay its family, the kernel's route for it
//!    and the relay mode decide ([`decide`]). Both look-ups are cached ([`Flows`]) until the
//!    configuration or the kernel's routes change.

use std::net::IpAddr;
use std::sync::Arc;

use wg_bounce_sys::Family;
use wg_bounce_sys::route::{Reply, Route, RouteSocket};

use crate::counters::DropReason;
use crate::flows::{Conversations, Flow, FlowKey, Flows};
use crate::icmp::{self, IcmpError, is_unicast};
use crate::ip::{self, Packet};
use crate::ip_forward::{self, Forwarding, has_whole_header, is_fast_path, is_syn, refusal};
use crate::limits::ROUTE_QUERIES_PER_TURN;
use crate::pairs::{self, Exceptions, Packets, Spread};
use crate::peer::{Peer, PeerId};
use crate::snapshot::{DirectRelay, Snapshot};
use crate::transport::{Quoted, Transport};

/// The router's decision about one packet.
#[derive(Clone, Copy)]
pub enum Verdict<'a> {
    /// Give it to the kernel, through the TUN. Without one, it is for the hub itself
    /// ([`crate::own_host::answer`]).
    Deliver,
    /// Seal it again for this peer, which owns its destination.
    Relay(Relayed<'a>),
    /// Drop it, and answer with this error.
    Refuse(IcmpError),
    /// Drop and count it.
    Drop(DropReason),
}

/// A packet that is relayed.
#[derive(Clone, Copy)]
pub struct Relayed<'a> {
    /// The peer that owns its destination.
    pub to: &'a Arc<Peer>,
    /// The MTU of its route (bytes).
    pub mtu: usize,
}

/// The router of one worker.
pub struct Router {
    flows: Flows,
    /// The socket for route queries to the kernel.
    socket: Option<RouteSocket>,
    /// Route queries left in this turn.
    route_queries: usize,
    /// The flow of the previous packet, and its slot: packets arrive in runs.
    last: Option<(FlowKey, usize)>,
    /// The source of the previous packet, and its owner.
    last_source: Option<(IpAddr, Option<PeerId>)>,
}

impl Router {
    /// Allocates all its memory here; `seed` is random, `flows` a power of two.
    pub fn new(seed: u64, flows: usize) -> Router {
        Router {
            flows: Flows::new(seed, flows),
            socket: None,
            route_queries: 0,
            last: None,
            last_source: None,
        }
    }

    /// Queries the kernel through this socket from now on.
    pub fn set_socket(&mut self, socket: Option<RouteSocket>) {
        self.socket = socket;
    }

    /// Begins a turn: the snapshot may have changed since the previous packet.
    pub fn begin_turn(&mut self) {
        self.route_queries = ROUTE_QUERIES_PER_TURN;
        self.last = None;
        self.last_source = None;
    }

    /// Ends a turn.
    pub fn end_turn(&mut self) {
        if let Some(socket) = &mut self.socket {
            socket.end_turn();
        }
    }

    /// Decides about a packet of `sender` that was parsed to `ip`.
    pub fn verdict(
        &mut self,
        packet: &[u8],
        ip: &Packet,
        sender: &Peer,
        snapshot: &Snapshot,
    ) -> Verdict<'_> {
        let mode = *snapshot.relay.mode.of(Family::of(ip.source));
        if mode == DirectRelay::Never {
            return match self.owner_of(ip.source, snapshot) == Some(sender.id) {
                true => Verdict::Deliver,
                false => Verdict::Drop(DropReason::SourceNotAllowed),
            };
        }
        let key = FlowKey::new(ip, ip::traffic_class(packet));
        let Some(flow) = self.flow(key, sender.id, snapshot) else {
            return Verdict::Drop(DropReason::SourceNotAllowed);
        };
        let Reply { route, mtu } = flow.reply;
        let link_mtu = snapshot.forwarding_mtu(Family::of(ip.destination));
        let mtu = mtu.map_or(link_mtu, |mtu| link_mtu.min(mtu as usize));
        if mode == DirectRelay::Alone {
            return alone(packet, ip, flow, mtu, snapshot);
        }
        let is_other = |to: &Arc<Peer>| to.id != sender.id && to.path().is_some();
        let may_relay = flow.receiver.as_ref().is_some_and(is_other)
            && is_fast_path(packet, ip, mtu)
            && (mode != DirectRelay::IfRoutedBack
                || route == Route::Back && is_left_alone(flow, packet, ip, snapshot));
        let flow = &*flow;
        let Some(receiver) = &flow.receiver else { return Verdict::Deliver };
        let is_stale = flow.routes != snapshot.relay.routes;
        match decide(mode, route, may_relay) {
            Decision::Relay => Verdict::Relay(Relayed { to: receiver, mtu }),
            // The kernel would answer for a route that this packet does not take, or not at all.
            _ if mode == DirectRelay::Always
                && matches!(route, Route::None | Route::Elsewhere)
                && let Some(error) = refusal(packet, ip, mtu) =>
            {
                Verdict::Refuse(error)
            }
            Decision::Drop(reason) => Verdict::Drop(reason),
            // With `direct`, the kernel gets nothing on the strength of an old answer.
            Decision::Deliver if is_stale && mode != DirectRelay::IfRoutedBack => {
                Verdict::Drop(DropReason::NotPunted)
            }
            Decision::Deliver => Verdict::Deliver,
        }
    }

    /// Whether the kernel forwards a packet that arrives from the interface back out of it.
    pub fn is_back(&mut self, source: IpAddr, destination: IpAddr) -> bool {
        let reply = self.socket.as_mut().map(|socket| socket.ask(source, destination, 0));
        reply.is_some_and(|reply| reply.route == Route::Back)
    }

    /// The source address of the hub's own packets to `destination` out of the interface.
    pub fn source_address(&mut self, destination: IpAddr, snapshot: &Snapshot) -> Option<IpAddr> {
        match *snapshot.relay.mode.of(Family::of(destination)) {
            DirectRelay::Alone => snapshot.relay.own_host.source_address(destination),
            _ => self.socket.as_mut()?.source_address(destination),
        }
    }

    fn owner_of(&mut self, source: IpAddr, snapshot: &Snapshot) -> Option<PeerId> {
        match self.last_source {
            Some((known, owner)) if known == source => owner,
            _ => {
                let owner = snapshot.routes.lookup(source).map(|peer| peer.id);
                self.last_source = Some((source, owner));
                owner
            }
        }
    }

    /// The up-to-date flow of a pair; none if the source does not belong to `sender`.
    fn flow(&mut self, key: FlowKey, sender: PeerId, snapshot: &Snapshot) -> Option<&mut Flow> {
        if let Some((last, slot)) = self.last
            && last == key
        {
            return Some(self.flows.get_mut(slot)).filter(|flow| flow.sender == Some(sender));
        }
        let slot = match self.flows.find(&key) {
            Some(slot) => {
                let flow = self.flows.get_mut(slot);
                if flow.epoch != snapshot.epoch {
                    (flow.sender, flow.receiver) = owners(&key, snapshot);
                    flow.exceptions = of_pair(&key, snapshot);
                    flow.of_last = Conversations::default();
                    flow.epoch = snapshot.epoch;
                }
                slot
            }
            None => {
                let (owner, receiver) = owners(&key, snapshot);
                if owner != Some(sender) {
                    return None; // a spoofed source must not evict a legitimate flow
                }
                self.flows.insert(Flow {
                    key,
                    epoch: snapshot.epoch,
                    sender: owner,
                    receiver,
                    exceptions: of_pair(&key, snapshot),
                    of_last: Conversations::default(),
                    routes: 0,
                    reply: Reply::default(),
                })
            }
        };
        self.last = Some((key, slot));
        let flow = self.flows.get_mut(slot);
        if flow.sender != Some(sender) {
            return None;
        }
        let is_current = flow.routes == snapshot.relay.routes && flow.reply.route != Route::Unknown;
        // Query the kernel only when both ends are peers: nothing else can be relayed. Once this
        // turn's queries are used up, a stale answer is better than none.
        if !is_current
            && flow.receiver.is_some()
            && self.route_queries > 0
            && let Some(socket) = &mut self.socket
        {
            self.route_queries -= 1;
            flow.reply = socket.ask(key.source(), key.destination(), key.dscp());
            flow.routes = snapshot.relay.routes;
        }
        Some(flow)
    }
}

fn owners(key: &FlowKey, snapshot: &Snapshot) -> (Option<PeerId>, Option<Arc<Peer>>) {
    let sender = snapshot.routes.lookup(key.source()).map(|peer| peer.id);
    // Without a kernel that would drop it as a martian.
    let sender = sender.filter(|_| !snapshot.relay.own_host.has(key.source()));
    (sender, snapshot.routes.lookup(key.destination()).cloned())
}

/// Decides about a packet of `flow` without a kernel. `mtu`: of the way to its
/// receiver (bytes).
fn alone<'a>(
    packet: &[u8],
    ip: &Packet,
    flow: &'a Flow,
    mtu: usize,
    snapshot: &Snapshot,
) -> Verdict<'a> {
    let host = &snapshot.relay.own_host;
    if !is_unicast(ip.source) || host.is_broadcast(ip.destination) {
        return Verdict::Drop(DropReason::NotForwarded);
    }
    if host.has(ip.destination) {
        return Verdict::Deliver;
    }
    match (&flow.receiver, ip_forward::alone(packet, ip, mtu)) {
        (_, Forwarding::Drop) => Verdict::Drop(DropReason::NotForwarded),
        // As with Linux, which has a route to its own networks, and looks for a route first.
        (None, _) if !host.is_on_link(ip.destination) => Verdict::Refuse(IcmpError::NoRoute),
        (_, Forwarding::Refuse(error)) => Verdict::Refuse(error),
        (None, _) => Verdict::Refuse(IcmpError::Unreachable),
        (Some(to), Forwarding::Forward) if to.path().is_none() => {
            Verdict::Refuse(IcmpError::Unreachable)
        }
        (Some(to), Forwarding::Forward) => Verdict::Relay(Relayed { to, mtu }),
    }
}

fn of_pair(key: &FlowKey, snapshot: &Snapshot) -> Spread {
    let packets = Packets::from_to(key.source(), key.destination());
    between(&packets, Family::of(key.source()), snapshot)
}

fn between(packets: &Packets, family: Family, snapshot: &Snapshot) -> Spread {
    pairs::between(snapshot.relay.exceptions.of(family), packets)
}

/// Whether the kernel's rules leave a packet of `flow` as it is.
fn is_left_alone(flow: &mut Flow, packet: &[u8], ip: &Packet, snapshot: &Snapshot) -> bool {
    let exceptions = exceptions(flow, packet, ip, snapshot);
    !exceptions.all
        && (!exceptions.without_header || has_whole_header(packet, ip))
        && (!exceptions.syn || !is_syn(packet, ip))
        && (!exceptions.icmp_errors
            || !icmp::is_error(packet, ip)
            || quotes_direct(packet, ip, snapshot))
}

/// The packets left to the kernel of the conversation that a packet of `flow` belongs to.
fn exceptions(flow: &mut Flow, packet: &[u8], ip: &Packet, snapshot: &Snapshot) -> Exceptions {
    if !flow.exceptions.depends() {
        return flow.exceptions.most;
    }
    let Some(transport) = Transport::of(packet, ip) else { return Exceptions::ALL };
    let place = flow.of_last.place(transport);
    match *place {
        Some((last, exceptions)) if last == transport => exceptions,
        _ => {
            let packets = Packets::from_to(ip.source, ip.destination).with(transport);
            let all = snapshot.relay.exceptions.of(Family::of(ip.source));
            // ICMP errors of the pair are direct, or all of it would be by the kernel.
            let exceptions = pairs::both_ways(all, &packets).most;
            *place = Some((transport, exceptions));
            exceptions
        }
    }
}

/// Whether an ICMP error is about a packet between peers that workers may relay: the kernel knows
/// nothing of it.
fn quotes_direct(packet: &[u8], ip: &Packet, snapshot: &Snapshot) -> bool {
    let Some(Quoted { source, destination, transport }) = Quoted::by(packet, ip) else {
        return false;
    };
    let of_pair = Packets::from_to(source, destination);
    let packets = transport.map_or(of_pair, |transport| of_pair.with(transport));
    snapshot.routes.lookup(source).is_some()
        && snapshot.routes.lookup(destination).is_some()
        && !between(&packets, Family::of(source), snapshot).most.all
}

/// A verdict about a packet from peer to peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Deliver,
    Relay,
    Drop(DropReason),
}

/// Decides about a packet from peer to peer by the kernel's route for it. `may_relay`: it is on
/// the fast path, and goes to another peer whose endpoint is known.
fn decide(mode: DirectRelay, route: Route, may_relay: bool) -> Decision {
    match (mode, route) {
        (DirectRelay::Never, _) => Decision::Deliver,
        (DirectRelay::IfRoutedBack, Route::Back) if may_relay => Decision::Relay,
        (DirectRelay::IfRoutedBack, _) => Decision::Deliver,
        // The kernel's own addresses may lie within a peer's allowed IPs; and a packet that the
        // kernel refuses gets the kernel's own refusal.
        (DirectRelay::Always, Route::Local | Route::Refused) => Decision::Deliver,
        // It may be for the kernel itself.
        (DirectRelay::Always, Route::Unknown) => Decision::Drop(DropReason::NotPunted),
        (DirectRelay::Always, _) if may_relay => Decision::Relay,
        (DirectRelay::Always, Route::Back | Route::None) => Decision::Deliver,
        // It would leave by another interface, in clear text.
        (DirectRelay::Always, Route::Elsewhere) => Decision::Drop(DropReason::NotPunted),
        // It never leaves the host.
        (DirectRelay::LocalOnly, Route::Local) => Decision::Deliver,
        // `Alone` has its own decision.
        (DirectRelay::LocalOnly | DirectRelay::Alone, _) => {
            Decision::Drop(DropReason::NotForwarded)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Decision::{Deliver, Drop, Relay};
    use super::*;

    const NOT_PUNTED: Decision = Drop(DropReason::NotPunted);

    const ROUTES: [Route; 6] =
        [Route::Back, Route::Local, Route::Refused, Route::None, Route::Elsewhere, Route::Unknown];

    #[test]
    fn the_kernel_gets_everything_unless_its_route_leads_back() {
        for route in ROUTES {
            for may_relay in [true, false] {
                assert_eq!(decide(DirectRelay::Never, route, may_relay), Deliver);
                let expected = if route == Route::Back && may_relay { Relay } else { Deliver };
                assert_eq!(decide(DirectRelay::IfRoutedBack, route, may_relay), expected);
            }
        }
    }

    #[test]
    fn slow_path_packets_never_leave_by_another_interface() {
        let fast_path = [Relay, Deliver, Deliver, Relay, Relay, NOT_PUNTED];
        let slow_path = [Deliver, Deliver, Deliver, Deliver, NOT_PUNTED, NOT_PUNTED];
        for (index, route) in ROUTES.into_iter().enumerate() {
            assert_eq!(decide(DirectRelay::Always, route, true), fast_path[index], "{route:?}");
            assert_eq!(decide(DirectRelay::Always, route, false), slow_path[index], "{route:?}");
        }
    }
    #[test]
    fn local_only_means_that_the_kernel_has_nothing_to_forward() {
        for route in ROUTES {
            for may_relay in [true, false] {
                let expected = match route {
                    Route::Local => Deliver,
                    _ => Drop(DropReason::NotForwarded),
                };
                let decided = decide(DirectRelay::LocalOnly, route, may_relay);
                assert_eq!(decided, expected, "{route:?}");
            }
        }
    }
}
