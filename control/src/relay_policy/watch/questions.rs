//! Questions about packets between two addresses.

use std::io;
use std::sync::Arc;

use wg_bounce_sys::route::Route;
use wg_bounce_sys::tun::TunHandle;
use wg_bounce_uapi::types::Explain;

use super::view::View;

/// A question.
pub struct Question {
    /// The packets that it is about. The addresses are of one IP version and of different peers.
    pub about: Explain,
    /// The version of the peers' addresses.
    pub version: u64,
    /// Takes the answer; none if the watch cannot answer now.
    pub answer: Box<dyn FnOnce(Option<String>) + Send>,
}

/// For each direction whether the kernel's route leads back into the interface; else the way that
/// it leads instead.
///
/// # Errors
/// Those of [`View::route_query_sockets`].
pub(super) fn routes(
    view: &View,
    handle: &Arc<TunHandle>,
    about: &Explain,
) -> io::Result<[Result<(), &'static str>; 2]> {
    let mut sockets = view.route_query_sockets(handle, 1)?;
    let (one, other) = (about.source, about.destination);
    let mut ask = |from, to| sockets[0].ask(from, to, 0).route;
    let routes = [ask(one, other), ask(other, one)];
    sockets[0].end_turn();
    Ok(routes.map(way))
}

fn way(route: Route) -> Result<(), &'static str> {
    match route {
        Route::Back => Ok(()),
        Route::Local => Err("to the host itself"),
        Route::Refused => Err("refused (a martian, rp_filter, or a rejecting route)"),
        Route::None => Err("none"),
        Route::Elsewhere => Err("out of another interface, or possibly so"),
        Route::Unknown => Err("not known"),
    }
}
