//! A man in the middle that forwards datagrams between a peer and the hub, and may inject others.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::lab::Namespace;

/// Receive timeout, after which a thread checks whether to stop.
const PATIENCE: Duration = Duration::from_millis(100);

/// Two threads in the peer's namespace, one per direction; stopped when dropped.
pub struct Proxy {
    /// The endpoint to give to the peer in place of the hub's.
    pub endpoint: SocketAddr,
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Proxy {
    /// Forwards everything to `hub` and back. Calls `tamper` with each datagram and a function that
    /// sends another one in the same direction; drops the datagram if it returns `false`.
    pub fn start<T>(namespace: &Namespace, hub: SocketAddr, tamper: impl Fn() -> T) -> Proxy
    where
        T: FnMut(&[u8], &dyn Fn(&[u8])) -> bool + Send + 'static,
    {
        let near = Arc::new(namespace.udp_socket("127.0.0.1:0"));
        let far =
            Arc::new(namespace.udp_socket(if hub.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }));
        for socket in [&near, &far] {
            socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
        }
        let endpoint = near.local_addr().expect("it is bound");
        let ends = Arc::new(AtomicBool::new(false));
        // The peer's port is unknown before its first datagram.
        let peer = Arc::new(std::sync::Mutex::new(None));
        let mut threads = Vec::new();
        for outward in [true, false] {
            let (from, to) = if outward { (&near, &far) } else { (&far, &near) };
            let (from, to) = (from.clone(), to.clone());
            let (ends, peer, mut tamper) = (ends.clone(), peer.clone(), tamper());
            threads.push(std::thread::spawn(move || {
                let mut buffer = vec![0; 65_536];
                while !ends.load(Ordering::Relaxed) {
                    let Ok((length, source)) = from.recv_from(&mut buffer) else { continue };
                    let mut known = peer.lock().expect("no thread panics");
                    if outward {
                        *known = Some(source);
                    }
                    let target = if outward { Some(hub) } else { *known };
                    drop(known);
                    let Some(target) = target else { continue };
                    forward(&to, target, &buffer[..length], &mut tamper);
                }
            }));
        }
        Proxy { endpoint, ends, threads }
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

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
