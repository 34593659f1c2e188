//! What becomes of a decrypted packet: relayed to another peer, given to the kernel, or dropped.
//!
//! 1. Its source must be the sender's by the longest match over the allowed IPs of all peers.
//! 2. If a peer owns its destination, and its family may be relayed by workers, the kernel's
//!    route for it decides with the policy ([`course`]). Both look-ups are remembered
//!    ([`Flows`]) until the configuration, or the kernel's routes, change.

use std::net::IpAddr;
use std::sync::Arc;

use wg_bounce_sys::route::Route;
use wg_bounce_sys::route::RouteSocket;

use crate::counters::DropReason;
use crate::flows::{Flow, FlowKey, Flows};
use crate::ip::{self, Packet};
use crate::ip_forward::is_fast_path;
use crate::peer::{Peer, PeerId};
use crate::snapshot::{DirectRelay, Snapshot};

/// Routes that one turn asks the kernel for, at some microseconds each: a peer that scans
/// addresses must not hold up the others for longer.
const QUESTIONS_PER_TURN: usize = 256;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To the TUN.
    Deliver,
    /// To the peer that owns its destination ([`Router::receiver`]).
    Relay,
    /// Nowhere.
    Drop(DropReason),
}

/// The router of one worker.
pub struct Router {
    flows: Flows,
    /// Where the kernel is asked for its routes.
    socket: Option<RouteSocket>,
    /// Questions left in this turn.
    questions: usize,
    /// The pair of the packet before, and its place: packets come in runs.
    last: Option<(FlowKey, usize)>,
    /// The source of the packet before, and who owns it.
    last_source: Option<(IpAddr, Option<PeerId>)>,
}

impl Router {
    /// Takes all its memory here; `seed` is random.
    pub fn new(seed: u64) -> Router {
        Router {
            flows: Flows::new(seed),
            socket: None,
            questions: 0,
            last: None,
            last_source: None,
        }
    }

    /// Asks the kernel here from now on.
    pub fn set_socket(&mut self, socket: RouteSocket) {
        self.socket = Some(socket);
    }

    /// A turn begins: what was remembered of the packet before may be void.
    pub fn begin_turn(&mut self) {
        self.questions = QUESTIONS_PER_TURN;
        self.last = None;
        self.last_source = None;
    }

    /// What becomes of a packet of `sender` that was parsed to `ip`.
    pub fn course(
        &mut self,
        packet: &[u8],
        ip: &Packet,
        sender: &Peer,
        snapshot: &Snapshot,
    ) -> Verdict {
        let relay = &snapshot.relay;
        let relaying = if ip.source.is_ipv4() { relay.v4 } else { relay.v6 };
        if relaying == DirectRelay::Never {
            return match self.owner_of(ip.source, snapshot) == Some(sender.id) {
                true => Verdict::Deliver,
                false => Verdict::Drop(DropReason::SourceNotAllowed),
            };
        }
        let key = FlowKey::new(ip, ip::traffic_class(packet));
        let Some(flow) = self.flow(key, sender.id, snapshot) else {
            return Verdict::Drop(DropReason::SourceNotAllowed);
        };
        let Some(receiver) = &flow.receiver else { return Verdict::Deliver };
        let may_relay = receiver.id != sender.id
            && receiver.path().is_some()
            && is_fast_path(packet, ip, snapshot.mtu);
        course(relaying, flow.route, may_relay)
    }

    /// The owner of the destination of the packet that was judged last.
    ///
    /// # Panics
    /// If its course was not [`Verdict::Relay`].
    pub fn receiver(&self) -> &Arc<Peer> {
        let (_, place) = self.last.expect("a packet was judged");
        self.flows.get(place).receiver.as_ref().expect("only such are relayed")
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

    /// What is known of a pair, brought up to date; nothing if the source is not `sender`'s.
    fn flow(&mut self, key: FlowKey, sender: PeerId, snapshot: &Snapshot) -> Option<&Flow> {
        if let Some((last, place)) = self.last
            && last == key
        {
            return Some(self.flows.get(place)).filter(|flow| flow.sender == Some(sender));
        }
        let place = match self.flows.find(&key) {
            Some(place) => {
                let flow = self.flows.get_mut(place);
                if flow.epoch != snapshot.epoch {
                    (flow.sender, flow.receiver) = owners(&key, snapshot);
                    flow.epoch = snapshot.epoch;
                }
                place
            }
            None => {
                let (owner, receiver) = owners(&key, snapshot);
                if owner != Some(sender) {
                    return None; // who spoofs shall not make others be forgotten
                }
                let (epoch, route) = (snapshot.epoch, Route::Unknown);
                self.flows.insert(Flow { key, epoch, sender: owner, receiver, routes: 0, route })
            }
        };
        self.last = Some((key, place));
        let flow = self.flows.get_mut(place);
        if flow.sender != Some(sender) {
            return None;
        }
        let is_current = flow.routes == snapshot.relay.routes && flow.route != Route::Unknown;
        // Only what two peers say to each other can be relayed: nobody else's pair is asked for.
        // When this turn's questions are used up, an old answer is better than none.
        if !is_current
            && flow.receiver.is_some()
            && self.questions > 0
            && let Some(socket) = &mut self.socket
        {
            self.questions -= 1;
            flow.route = socket.ask(key.source(), key.destination(), key.dscp());
            flow.routes = snapshot.relay.routes;
        }
        Some(flow)
    }
}

fn owners(key: &FlowKey, snapshot: &Snapshot) -> (Option<PeerId>, Option<Arc<Peer>>) {
    let sender = snapshot.routes.lookup(key.source()).map(|peer| peer.id);
    (sender, snapshot.routes.lookup(key.destination()).cloned())
}

/// What becomes of a packet from peer to peer, by the kernel's route for it. `may_relay`: it is
/// plain, and goes to another peer whose endpoint is known.
fn course(relaying: DirectRelay, route: Route, may_relay: bool) -> Verdict {
    match (relaying, route) {
        (DirectRelay::Never, _) => Verdict::Deliver,
        (DirectRelay::IfRoutedBack, Route::Back) if may_relay => Verdict::Relay,
        (DirectRelay::IfRoutedBack, _) => Verdict::Deliver,
        // The kernel's own addresses may lie within a peer's allowed IPs; and what it refuses, it
        // shall refuse in its own way.
        (DirectRelay::Always, Route::Local | Route::Refused) => Verdict::Deliver,
        // It may be for the kernel itself.
        (DirectRelay::Always, Route::Unknown) => Verdict::Drop(DropReason::NotPunted),
        (DirectRelay::Always, _) if may_relay => Verdict::Relay,
        (DirectRelay::Always, Route::Back | Route::None) => Verdict::Deliver,
        // It would leave by another interface, in clear text.
        (DirectRelay::Always, Route::Elsewhere) => Verdict::Drop(DropReason::NotPunted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: [Route; 6] =
        [Route::Back, Route::Local, Route::Refused, Route::None, Route::Elsewhere, Route::Unknown];

    #[test]
    fn the_kernel_gets_everything_unless_its_route_leads_back() {
        for route in ROUTES {
            for may_relay in [true, false] {
                assert_eq!(course(DirectRelay::Never, route, may_relay), Verdict::Deliver);
                let expected = match route == Route::Back && may_relay {
                    true => Verdict::Relay,
                    false => Verdict::Deliver,
                };
                assert_eq!(course(DirectRelay::IfRoutedBack, route, may_relay), expected);
            }
        }
    }

    #[test]
    fn what_is_not_plain_never_leaves_by_another_interface() {
        use Verdict::{Deliver, Drop, Relay};
        let not_punted = Drop(DropReason::NotPunted);
        let plain = [Relay, Deliver, Deliver, Relay, Relay, not_punted];
        let other = [Deliver, Deliver, Deliver, Deliver, not_punted, not_punted];
        for (number, route) in ROUTES.into_iter().enumerate() {
            assert_eq!(course(DirectRelay::Always, route, true), plain[number], "{route:?}");
            assert_eq!(course(DirectRelay::Always, route, false), other[number], "{route:?}");
        }
    }
}
