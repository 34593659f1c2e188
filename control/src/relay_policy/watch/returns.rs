//! Connections that return to the kernel after workers have relayed them.
//!
//! The kernel remembers the windows of TCP, and has not seen them move: to it, the packets that
//! come now are INVALID, and remain so (`tcp_in_window`, net/netfilter/nf_conntrack_proto_tcp.c).
//! Of a connection that it knows nothing of, it takes up the packets as they are
//! (`nf_conntrack_tcp_loose`).

use std::io;
use std::sync::Arc;

use wg_bounce_dataplane::pairs::{self, Packets};
use wg_bounce_dataplane::snapshot::{DirectRelay, Relay};
use wg_bounce_sys::Family;
use wg_bounce_sys::route::Route;
use wg_bounce_sys::tun::TunHandle;

use super::system::System;
use super::view::View;
use crate::address_number::address;
use crate::limits::RETURNED_CONNECTIONS_MAX;
use crate::netlink::message::Protocol;
use crate::relay_policy::connections;
use crate::relay_policy::kernel::Kernel as _;

/// Makes the kernel forget the connections of TCP between peers that were relayed directly with
/// `before`, and are not with `now`.
pub(super) fn forget(view: &View, handle: &Arc<TunHandle>, before: &Relay, now: &Relay) {
    match try_forget(view, handle, before, now) {
        Ok(0) => {}
        Ok(count) => log::debug!("relay: the kernel takes up {count} connections of TCP anew"),
        Err(error) => log::debug!("relay: cannot delete tracked connections of TCP: {error}"),
    }
}

/// As [`forget`]; returns their number.
///
/// # Errors
/// Those of the namespace, and of the kernel's list.
fn try_forget(
    view: &View,
    handle: &Arc<TunHandle>,
    before: &Relay,
    now: &Relay,
) -> io::Result<usize> {
    let may_return = |family: &Family| {
        let is_direct = |relay: &Relay| *relay.mode.of(*family) == DirectRelay::IfRoutedBack;
        let is_other = before.exceptions.of(*family) != now.exceptions.of(*family);
        is_direct(before) && (!is_direct(now) || is_other)
    };
    let mut count = 0;
    for family in Family::BOTH.into_iter().filter(may_return) {
        let list = || match connections::are_tracked(&mut System::default()) {
            true => connections::of_tcp(&mut System::default(), family, RETURNED_CONNECTIONS_MAX),
            false => Ok(Vec::new()),
        };
        let mut list = view.run(handle, list)??;
        list.retain(|one| {
            !is_by_kernel(before, family, &one.packets) && is_by_kernel(now, family, &one.packets)
        });
        if list.is_empty() {
            continue;
        }
        let mut sockets = view.route_query_sockets(handle, 1)?;
        list.retain(|one| {
            let [from, to] =
                [one.packets.source, one.packets.destination].map(|it| address(it, family));
            sockets[0].ask(from, to, 0).route == Route::Back
        });
        sockets[0].end_turn();
        count += list.len();
        // One that is gone already does not matter.
        view.run(handle, || {
            for one in &list {
                let _ = System::default().query(Protocol::Netfilter, &one.deletion);
            }
        })?;
    }
    Ok(count)
}

fn is_by_kernel(relay: &Relay, family: Family, packets: &Packets) -> bool {
    *relay.mode.of(family) != DirectRelay::IfRoutedBack
        || pairs::between(relay.exceptions.of(family), packets).most.all
}
