//! Questions about packets between two addresses.

use std::io;
use std::sync::Arc;

use wg_bounce_sys::Family;
use wg_bounce_sys::route::Route;
use wg_bounce_sys::tun::TunHandle;
use wg_bounce_uapi::types::Explain;

use super::Watch;
use super::view::View;
use crate::limits::RELAY_QUESTIONS_MAX;
use crate::relay_policy::explain;
use crate::relay_policy::source::Source;

impl Watch {
    /// Takes questions; everything is read again before they are answered.
    pub(super) fn take_questions(&mut self) {
        for question in self.of_clients.try_iter().take(RELAY_QUESTIONS_MAX) {
            if self.view.is_none() || self.questions.len() >= RELAY_QUESTIONS_MAX {
                (question.answer)(None);
                continue;
            }
            self.questions.push(question);
            self.changed.extend(Source::ALL);
        }
    }

    /// Answers the first `count` questions, unless rules wait for the peers' addresses.
    pub(super) fn answer_questions(&mut self, count: usize) {
        let dependence = self.dependence();
        let mut later = self.questions.split_off(count);
        for question in std::mem::take(&mut self.questions) {
            if dependence.asks && dependence.version < Some(question.version) {
                later.push(question);
            } else {
                (question.answer)(self.explanation(&question.about));
            }
        }
        self.questions = later;
    }

    fn explanation(&self, about: &Explain) -> Option<String> {
        let (view, (relay, decision, _)) = (self.view.as_ref()?, self.reported.as_ref()?);
        let routes = routes(view, &self.handle, about).ok()?;
        let (interface, addresses) = (&view.interface, self.addresses.as_ref());
        let pairs = relay.exceptions.of(Family::of(about.source));
        let facts = explain::Facts { interface, about, routes, decision, pairs, addresses };
        Some(explain::explain(&facts, self.readings.values().map(|dated| &dated.reading)))
    }
}

/// For each direction whether the kernel's route leads back into the interface; else the way that
/// it leads instead.
///
/// # Errors
/// Those of [`View::route_query_sockets`].
fn routes(
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
