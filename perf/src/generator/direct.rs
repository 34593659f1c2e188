//! The same senders and receivers with no relay between them: what the path alone takes.

use super::drive::{Generator, Group, Receiver};
use super::network::{Network, Role, inner_address};
use super::packet::Flow;
use super::peer::{Randomness, Session};
use super::plan::{GroupPlan, Setup};
use super::pool::{Pool, Source};
use super::receive::Sampler;
use crate::failure::Failure;
use crate::interrupt::Interrupt;

/// Messages of a pool at most.
const POOL_MESSAGES_MAX: usize = 100_000;

/// Senders where those of a relay are, receivers in the relay's place, each pair with a key of its
/// own.
pub fn generator(
    network: &Network,
    plan: &GroupPlan,
    setup: &Setup,
    interrupt: &Interrupt,
) -> Result<Generator, Failure> {
    let mut randomness = Randomness::open()?;
    let (mut senders, mut receivers, mut sources) = (Vec::new(), Vec::new(), Vec::new());
    for (pair, (sender, receiver)) in network.direct_pairs(plan.pairs)?.into_iter().enumerate() {
        let key = randomness.key()?;
        let [source, destination] =
            [Role::Sender, Role::Receiver].map(|role| inner_address(role, pair, setup.family));
        let flow = Flow::new(setup.kind, source, destination, plan.size);
        sources.push(Source { flow, session: Session::shared(key) });
        senders.push(sender);
        receivers.push(Receiver::new(receiver, Session::shared(key), plan.size)?);
    }
    let pool = Pool::new(sources, plan.train, setup.is_padded, plan.pool, POOL_MESSAGES_MAX);
    let group = Group::new(senders, 0, pool.without_relay())?;
    Generator::new(vec![group], receivers, Sampler::new(setup.check_every), None, interrupt)
}
