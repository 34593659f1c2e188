//! Host names in endpoints: looked up by a thread of their own, and again while a peer is silent.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use nix::sys::eventfd::{EfdFlags, EventFd};
use wg_bounce_sys::clock::Millis;

use crate::config_file::model::Endpoint;
use crate::config_file::state::{State, Wanted};

/// The intervals, which tests divide.
#[derive(Clone, Copy)]
pub(super) struct Intervals {
    /// Between two looks at the peers.
    pub look: Millis,
    /// A handshake is overdue this long after the last one: REKEY_AFTER_TIME and some more, as in
    /// the reresolve-dns script of wireguard-tools.
    overdue: Duration,
    /// The time that an endpoint has to answer.
    answer: Millis,
}

impl Intervals {
    /// The usual ones, divided.
    pub fn divided(divisor: u64) -> Intervals {
        let millis = |seconds: u64| (seconds * 1000 / divisor).max(1);
        let overdue = Duration::from_millis(millis(135));
        Intervals { look: Millis(millis(10)), overdue, answer: Millis(millis(15)) }
    }
}

/// A host name and a port.
type Host = (String, u16);

/// A message of the thread.
enum Message {
    /// The addresses of a host.
    Found(Host, Result<Vec<SocketAddr>, String>),
    /// All hosts that were asked for are done.
    End,
}

/// Results that wait to be read; the thread waits for room.
const RESULTS_MAX: usize = 64;

/// The endpoints with host names.
pub(super) struct Names {
    peers: BTreeMap<[u8; 32], Named>,
    intervals: Intervals,
    requests: Sender<BTreeSet<Host>>,
    results: Receiver<Message>,
    wake: Arc<EventFd>,
    /// A round is on its way.
    is_asking: bool,
}

/// One endpoint.
struct Named {
    endpoint: Endpoint,
    /// The name of the peer, for messages.
    title: String,
    /// The address that was set last.
    current: Option<Tried>,
    /// The last error, so that it is logged once.
    error: Option<String>,
}

/// An address that was set.
#[derive(Clone, Copy)]
struct Tried {
    address: SocketAddr,
    since: Millis,
    /// The bytes sent to the peer before.
    sent: u64,
}

impl Names {
    /// Starts the thread.
    ///
    /// # Errors
    /// Those of the system calls.
    pub fn start(intervals: Intervals) -> io::Result<Names> {
        let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let (requests, asked) = bounded::<BTreeSet<Host>>(1);
        let (found, results) = bounded(RESULTS_MAX);
        let bell = Arc::clone(&wake);
        thread::Builder::new().name("resolver".into()).spawn(move || {
            let send = |message| {
                let sent = found.send(message);
                // It fails only if the counter is full, and then it is readable.
                let _ = bell.write(1);
                sent
            };
            for hosts in asked {
                for host in hosts {
                    let addresses = (host.0.as_str(), host.1).to_socket_addrs();
                    let addresses = addresses.map(Iterator::collect);
                    let addresses = addresses.map_err(|error| error.to_string());
                    if send(Message::Found(host, addresses)).is_err() {
                        return;
                    }
                }
                if send(Message::End).is_err() {
                    return;
                }
            }
        })?;
        let peers = BTreeMap::new();
        Ok(Names { peers, intervals, requests, results, wake, is_asking: false })
    }

    /// Takes over the endpoints of a configuration; what is known about unchanged ones stays.
    pub fn set(&mut self, peers: &BTreeMap<[u8; 32], Wanted<'_>>) {
        let mut before = std::mem::take(&mut self.peers);
        for (key, peer) in peers {
            let named = peer.endpoint.filter(|one| one.address().is_none());
            let Some(endpoint) = named else { continue };
            let known = before.remove(key).filter(|known| known.endpoint == *endpoint);
            let new = || Named {
                endpoint: endpoint.clone(),
                title: peer.name.map_or_else(|| endpoint.host.clone(), str::to_owned),
                current: None,
                error: None,
            };
            self.peers.insert(*key, known.unwrap_or_else(new));
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Whether the endpoint of this peer is a host name without an address.
    pub fn is_unknown(&self, key: &[u8; 32]) -> bool {
        self.peers.get(key).is_some_and(|named| named.current.is_none())
    }

    /// Whether each endpoint has an address.
    pub fn are_all_known(&self) -> bool {
        self.peers.values().all(|named| named.current.is_some())
    }

    /// Whether one that has no address could not be looked up.
    pub fn has_failed(&self) -> bool {
        self.peers.values().any(|named| named.current.is_none() && named.error.is_some())
    }

    /// Whether the result of a round waits to be [`Names::found`].
    pub fn has_result(&self) -> bool {
        !self.results.is_empty()
    }

    /// The addresses that were set last.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.peers.values().filter_map(|named| Some(named.current?.address))
    }

    /// Asks for the addresses of all endpoints that have none, and of silent peers.
    pub fn look(&mut self, running: &State, now: Millis, wall_time: Duration) {
        if self.is_asking {
            return;
        }
        let intervals = self.intervals;
        let is_due = |(key, named): &(&[u8; 32], &Named)| {
            named.is_silent(running, key, intervals, now, wall_time)
        };
        let due = self.peers.iter().filter(is_due).map(|(_, named)| named.host());
        let hosts: BTreeSet<_> = due.collect();
        if hosts.is_empty() {
            return;
        }
        self.is_asking = match self.requests.try_send(hosts) {
            Ok(()) | Err(TrySendError::Full(_)) => true,
            Err(TrySendError::Disconnected(_)) => false,
        };
    }

    /// The addresses to set for the peers whose hosts were looked up: the first one, or, while it
    /// is silent, the next one.
    pub fn found(
        &mut self,
        running: &State,
        now: Millis,
        wall_time: Duration,
    ) -> Vec<([u8; 32], SocketAddr)> {
        let _ = self.wake.read();
        let mut found = BTreeMap::new();
        for message in self.results.try_iter() {
            match message {
                Message::Found(host, result) => drop(found.insert(host, result)),
                Message::End => self.is_asking = false,
            }
        }
        let intervals = self.intervals;
        let mut changes = Vec::new();
        for (key, named) in &mut self.peers {
            let Some(result) = found.get(&named.host()) else { continue };
            let addresses = match result {
                Ok(addresses) => addresses,
                Err(error) => {
                    if named.error.as_ref() != Some(error) {
                        let (title, host) = (&named.title, &named.endpoint.host);
                        log::warn!("{title}: cannot resolve {host}: {error}; trying again");
                        named.error = Some(error.clone());
                    }
                    continue;
                }
            };
            named.error = None;
            // It may have spoken meanwhile.
            if !named.is_silent(running, key, intervals, now, wall_time) {
                continue;
            }
            let peer = running.peers.get(key);
            let last = peer.and_then(|peer| peer.endpoint);
            let at = addresses.iter().position(|address| Some(*address) == last);
            // An address that was not tried yet may answer.
            let step = usize::from(named.current.is_some());
            let next = at.map_or(0, |at| (at + step) % addresses.len());
            let Some(address) = addresses.get(next) else { continue };
            if last != Some(*address) {
                let (title, host) = (&named.title, &named.endpoint.host);
                log::info!("{title}: endpoint {address} ({host})");
                changes.push((*key, *address));
            }
            let sent = peer.map_or(0, |peer| peer.sent);
            named.current = Some(Tried { address: *address, since: now, sent });
        }
        changes
    }
}

impl Named {
    fn host(&self) -> Host {
        (self.endpoint.host.clone(), self.endpoint.port)
    }

    /// Whether the peer has no address, or a handshake is overdue: the last one is long ago, and
    /// the peer was sent something, such as initiations, since the address was set.
    fn is_silent(
        &self,
        running: &State,
        key: &[u8; 32],
        intervals: Intervals,
        now: Millis,
        wall_time: Duration,
    ) -> bool {
        let Some(Tried { since, sent, .. }) = self.current else {
            return true;
        };
        let Some(peer) = running.peers.get(key) else { return false };
        // The daemon reports whole seconds.
        let last = Duration::from_secs(peer.last_handshake + 1);
        wall_time.saturating_sub(last) > intervals.overdue
            && now.since(since) >= intervals.answer
            && peer.sent > sent
    }
}

impl AsFd for Names {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
