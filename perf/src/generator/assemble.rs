//! Generators put together: peers connected through a relay, or the same peers without one.

use std::net::{IpAddr, UdpSocket};

use super::drive::{Generator, Group, Receiver};
use super::keys::{Keys, Randomness};
use super::network::{Network, Path};
use super::packet::Flow;
use super::peers::{Role, inner_address};
use super::plan::{GroupPlan, Setup};
use super::pool::{Pool, Source};
use super::receive::Sampler;
use super::relay::Relay;
use super::session::{Session, connect};
use crate::failure::Failure;
use crate::interrupt::Interrupt;

/// Messages of a pool at most, however small they are: sealing them takes a while.
const POOL_MESSAGES_MAX: usize = 1_000_000;

/// The same for a direct path, whose rate is low.
const DIRECT_MESSAGES_MAX: usize = 100_000;

/// A peer that can send or receive.
type Peer = (UdpSocket, Session);

/// Shakes hands for every peer; peers in the order of the `ends`.
pub fn shake_hands(
    relay: &Relay,
    public: &[u8; 32],
    ends: &[(Keys, IpAddr)],
    plans: &[GroupPlan],
    interrupt: &Interrupt,
) -> Result<Vec<Peer>, Failure> {
    let paths = plans
        .iter()
        .flat_map(|plan| std::iter::repeat_n([Path::Senders, plan.path], plan.pairs).flatten());
    let sockets = relay.sockets(&paths.collect::<Vec<_>>())?;
    let mut randomness = Randomness::open()?;
    let mut peers = Vec::new();
    for (index, (socket, (keys, _))) in (0..).zip(sockets.into_iter().zip(ends)) {
        interrupt.check()?;
        let session = connect(&socket, keys, public, index, &mut randomness)?;
        peers.push((socket, session));
    }
    Ok(peers)
}

/// A generator of connected peers, senders and receivers alternating.
pub fn through_relay(
    plans: &[GroupPlan],
    peers: Vec<Peer>,
    setup: &Setup,
    relay: Option<u32>,
    interrupt: &Interrupt,
) -> Result<Generator, Failure> {
    let (mut groups, mut receivers) = (Vec::new(), Vec::new());
    let mut peers = peers.into_iter();
    for plan in plans {
        let pairs = std::iter::from_fn(|| Some([peers.next()?, peers.next()?])).take(plan.pairs);
        let pool =
            |sources| Pool::new(sources, plan.train, setup.is_padded, plan.pool, POOL_MESSAGES_MAX);
        groups.push(group(pairs, plan, setup, &mut receivers, pool)?);
    }
    Generator::new(groups, receivers, Sampler::new(setup.check_every), relay, interrupt)
}

/// A generator with the senders in their usual place and the receivers in the relay's, each pair
/// with a key of its own.
pub fn direct(
    network: &Network,
    plan: &GroupPlan,
    setup: &Setup,
    interrupt: &Interrupt,
) -> Result<Generator, Failure> {
    let mut randomness = Randomness::open()?;
    let mut pairs = Vec::new();
    for (sender, receiver) in network.direct_pairs(plan.pairs)? {
        let key = randomness.key()?;
        pairs.push([(sender, Session::shared(key)), (receiver, Session::shared(key))]);
    }
    let mut receivers = Vec::new();
    let pool = |sources| {
        let most = DIRECT_MESSAGES_MAX;
        Pool::new(sources, plan.train, setup.is_padded, plan.pool, most).without_relay()
    };
    let group = group(pairs.into_iter(), plan, setup, &mut receivers, pool)?;
    Generator::new(vec![group], receivers, Sampler::new(setup.check_every), None, interrupt)
}

/// The senders of one plan as a group; its receivers are added to `receivers`.
fn group(
    pairs: impl Iterator<Item = [Peer; 2]>,
    plan: &GroupPlan,
    setup: &Setup,
    receivers: &mut Vec<Receiver>,
    pool: impl FnOnce(Vec<Source>) -> Pool,
) -> Result<Group, Failure> {
    let (mut senders, mut sources) = (Vec::new(), Vec::new());
    let first = receivers.len();
    for (pair, [(sender, session), receiver]) in (first..).zip(pairs) {
        let [source, destination] =
            [Role::Sender, Role::Receiver].map(|role| inner_address(role, pair, setup.family));
        let flow = Flow::new(setup.kind, source, destination, plan.size);
        sources.push(Source { flow, session });
        senders.push(sender);
        receivers.push(Receiver::new(receiver.0, receiver.1, plan.size)?);
    }
    Group::new(senders, first, pool(sources))
}
