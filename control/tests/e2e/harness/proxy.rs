//! A man in the middle that forwards datagrams between a peer and the hub, and may inject others.

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::flood::unspecified;
use super::lab::Namespace;
use super::threads::Threads;

/// Receive timeout, after which a thread checks whether to stop.
const PATIENCE: Duration = Duration::from_millis(100);

/// Two threads in the peer's namespace, one per direction; stopped when dropped.
pub struct Proxy {
    /// The endpoint to give to the peer in place of the hub's.
    pub endpoint: SocketAddr,
    _threads: Threads,
}

impl Proxy {
    /// Forwards everything to `hub` and back. Calls `tamper` with each datagram and a function that
    /// sends another one in the same direction; drops the datagram if it returns `false`.
    pub fn start<T>(namespace: &Namespace, hub: SocketAddr, tamper: impl Fn() -> T) -> Proxy
    where
        T: FnMut(&[u8], &dyn Fn(&[u8])) -> bool + Send + 'static,
    {
        let near = Arc::new(namespace.udp_socket("127.0.0.1:0"));
        let far = Arc::new(namespace.udp_socket(unspecified(hub)));
        for socket in [&near, &far] {
            socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
        }
        let endpoint = near.local_addr().expect("it is bound");
        // The peer's port is unknown before its first datagram.
        let peer = Arc::new(Mutex::new(None));
        let mut threads = Threads::default();
        for outward in [true, false] {
            let (from, to) = if outward { (&near, &far) } else { (&far, &near) };
            let (from, to) = (from.clone(), to.clone());
            let (peer, mut tamper, mut buffer) = (peer.clone(), tamper(), vec![0; 65_536]);
            threads.repeat(move || {
                let Ok((length, source)) = from.recv_from(&mut buffer) else { return };
                let mut known = peer.lock().expect("no thread panics");
                if outward {
                    *known = Some(source);
                }
                let target = if outward { Some(hub) } else { *known };
                drop(known);
                let Some(target) = target else { return };
                forward(&to, target, &buffer[..length], &mut tamper);
            });
        }
        Proxy { endpoint, _threads: threads }
    }
}

/// A slow path for handshakes, as a proxy: other datagrams are not delayed. Two threads, stopped
/// when dropped.
pub struct SlowPath {
    /// The endpoint to give to the peer in place of the hub's.
    pub endpoint: SocketAddr,
    _threads: Threads,
}

impl SlowPath {
    /// Forwards everything to `hub` and back, handshake messages with this round trip.
    #[expect(clippy::disallowed_methods, reason = "the delay of a network, not protocol time")]
    pub fn start(namespace: &Namespace, hub: SocketAddr, round_trip: Duration) -> SlowPath {
        let near = Arc::new(namespace.udp_socket("127.0.0.1:0"));
        let far = Arc::new(namespace.udp_socket(unspecified(hub)));
        for socket in [&near, &far] {
            socket.set_read_timeout(Some(Duration::from_millis(5))).expect("not zero");
        }
        let endpoint = near.local_addr().expect("it is bound");
        let peer = Arc::new(Mutex::new(None));
        let mut threads = Threads::default();
        for outward in [true, false] {
            let (from, to) = if outward { (&near, &far) } else { (&far, &near) };
            let (from, to, peer) = (from.clone(), to.clone(), peer.clone());
            let (mut buffer, mut delayed) = (vec![0; 65_536], VecDeque::new());
            threads.repeat(move || {
                let received = from.recv_from(&mut buffer);
                let mut known = peer.lock().expect("no thread panics");
                if let (true, Ok((_, source))) = (outward, &received) {
                    *known = Some(*source);
                }
                let target = if outward { Some(hub) } else { *known };
                drop(known);
                let Some(target) = target else { return };
                if let Ok((length, _)) = received {
                    let is_data = buffer[0] == 4;
                    let delay = if is_data { Duration::ZERO } else { round_trip / 2 };
                    delayed.push_back((Instant::now() + delay, buffer[..length].to_vec()));
                    // Data overtakes handshakes: its time has come.
                    delayed.make_contiguous().sort_by_key(|(at, _)| *at);
                }
                let is_due = |(at, _): &(Instant, Vec<u8>)| *at <= Instant::now();
                while delayed.front().is_some_and(is_due) {
                    let Some((_, datagram)) = delayed.pop_front() else { break };
                    // A full buffer drops datagrams, as any network does.
                    let _ = to.send_to(&datagram, target);
                }
            });
        }
        SlowPath { endpoint, _threads: threads }
    }
}

fn forward<T>(socket: &UdpSocket, target: SocketAddr, datagram: &[u8], tamper: &mut T)
where
    T: FnMut(&[u8], &dyn Fn(&[u8])) -> bool,
{
    let send = |datagram: &[u8]| {
        // A full buffer drops datagrams, as any network does.
        let _ = socket.send_to(datagram, target);
    };
    if tamper(datagram, &send) {
        send(datagram);
    }
}
