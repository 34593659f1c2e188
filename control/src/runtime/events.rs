//! The events for clients of the status socket.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64ct::{Base64, Encoding as _};
use wg_bounce_dataplane::peer::{Peer, PeerId};
use wg_bounce_sys::clock::Millis;

use crate::limits::EVENT_CLIENTS_MAX;
use crate::short_key;
use crate::status::events::{About, Change, Event, Lane};

/// The clients, and the peers that have a session.
pub(super) struct Announcer {
    /// A session is this old at most.
    lifetime: Millis,
    connected: BTreeMap<PeerId, Connected>,
    /// The ends of sessions, in order: all have one lifetime.
    ends: VecDeque<(Millis, PeerId)>,
    clients: Vec<Lane>,
}

struct Connected {
    peer: Arc<Peer>,
    since: Millis,
}

impl Announcer {
    /// No clients yet.
    pub fn new(lifetime: Millis) -> Announcer {
        let (connected, ends) = (BTreeMap::new(), VecDeque::new());
        Announcer { lifetime, connected, ends, clients: Vec::new() }
    }

    /// Sends the events to this client too; false if there are enough.
    pub fn add(&mut self, lane: Lane) -> bool {
        self.clients.retain(Lane::is_in_use);
        let is_admitted = self.clients.len() < EVENT_CLIENTS_MAX;
        if is_admitted {
            self.clients.push(lane);
            log::debug!("status socket: a client follows the events");
        }
        is_admitted
    }

    /// A peer has a session, or another one, or none.
    pub fn session(&mut self, peer: &Arc<Peer>, is_there: bool, now: Millis, wall: Duration) {
        let change = if is_there {
            self.ends.push_back((now + self.lifetime, peer.id));
            let connected = Connected { peer: Arc::clone(peer), since: now };
            match self.connected.insert(peer.id, connected) {
                None => Change::Connected,
                Some(_) => Change::Rekeyed,
            }
        } else if self.connected.remove(&peer.id).is_some() {
            Change::Gone
        } else {
            return;
        };
        self.send(wall, || change(about(peer)));
    }

    /// The time at which [`Announcer::end_sessions`] is due.
    pub fn next_end(&self) -> Option<Millis> {
        self.ends.front().map(|(end, _)| *end)
    }

    /// Finds the peers whose sessions are too old.
    pub fn end_sessions(&mut self, now: Millis, wall: Duration) {
        while let Some((_, id)) = self.ends.front().copied().filter(|(end, _)| *end <= now) {
            self.ends.pop_front();
            let is_old = |one: &Connected| now.since(one.since) >= self.lifetime;
            if self.connected.get(&id).is_some_and(is_old)
                && let Some(Connected { peer, .. }) = self.connected.remove(&id)
            {
                self.send(wall, || Change::Gone(about(&peer)));
            }
        }
    }

    /// A peer sends from another address or port.
    pub fn roamed(&mut self, peer: &Peer, wall: Duration) {
        self.send(wall, || Change::Roamed(about(peer)));
    }

    /// A handshake was refused.
    pub fn refused(&mut self, key: &[u8; 32], from: Option<SocketAddr>, why: &str, wall: Duration) {
        let about = || About { endpoint: from, ..of_key(key) };
        self.send(wall, || Change::Refused { about: about(), reason: why.to_owned() });
    }

    /// The forwarding between peers has changed.
    pub fn relay(&mut self, summary: &str, wall: Duration) {
        self.send(wall, || Change::Relay { summary: summary.to_owned() });
    }

    fn send(&mut self, wall: Duration, change: impl FnOnce() -> Change) {
        if self.clients.is_empty() {
            return;
        }
        let time = wall.as_secs_f64();
        let event = Arc::new(Event { time, change: change() });
        self.clients.retain(|client| client.send(&event));
    }
}

fn about(peer: &Peer) -> About {
    let endpoint = peer.endpoint().map(|endpoint| endpoint.remote);
    About { endpoint, ..of_key(&peer.public_key) }
}

fn of_key(key: &[u8; 32]) -> About {
    let public_key = Base64::encode_string(key);
    About { public_key, name: short_key::name_of(key), endpoint: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::events::Following;

    const LIFETIME: Millis = Millis(180_000);

    fn kinds(events: &Following) -> Vec<String> {
        let name = |event: Arc<Event>| {
            let json = serde_json::to_value(&*event).expect("JSON");
            json["event"].as_str().expect("a name").to_owned()
        };
        events.events.try_iter().map(name).collect()
    }

    #[test]
    fn a_session_that_is_not_renewed_ends() {
        let (lane, received) = Lane::new(10);
        let mut events = Announcer::new(LIFETIME);
        assert!(events.add(lane));
        let peer = Arc::new(Peer::new(PeerId(1), [7; 32]));
        let wall = Duration::ZERO;
        events.session(&peer, false, Millis(0), wall);
        events.session(&peer, true, Millis(1), wall);
        events.session(&peer, true, Millis(120_000), wall);
        events.end_sessions(Millis(200_000), wall);
        assert_eq!(kinds(&received), ["connected", "rekeyed"]);
        assert_eq!(events.next_end(), Some(Millis(300_000)));
        events.end_sessions(Millis(300_000), wall);
        events.session(&peer, false, Millis(540_000), wall);
        assert_eq!(kinds(&received), ["gone"]);
        assert_eq!(events.next_end(), None);
    }

    #[test]
    fn a_slow_client_learns_that_it_has_missed_events() {
        let (lane, received) = Lane::new(2);
        let mut events = Announcer::new(LIFETIME);
        assert!(events.add(lane));
        let relay = |events: &mut Announcer| events.relay("direct", Duration::ZERO);
        (0..5).for_each(|_| relay(&mut events));
        assert_eq!(received.missed(), 0, "first those that wait");
        assert_eq!(kinds(&received), ["relay", "relay"]);
        assert_eq!((received.missed(), received.missed()), (3, 0));
        (0..3).for_each(|_| relay(&mut events));
        drop(received);
        relay(&mut events);
        assert!(events.clients.is_empty());
    }

    #[test]
    fn clients_that_have_left_make_room() {
        let mut events = Announcer::new(LIFETIME);
        let clients: Vec<_> = (0..EVENT_CLIENTS_MAX)
            .map(|_| {
                let (lane, received) = Lane::new(1);
                assert!(events.add(lane));
                received
            })
            .collect();
        assert!(!events.add(Lane::new(1).0));
        drop(clients);
        let (lane, _received) = Lane::new(1);
        assert!(events.add(lane));
    }
}
