//! The UDP sockets of all workers: bound as one group, handed to the workers as duplicates, and
//! used here for handshake messages.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use wg_bounce_sys::socket::{
    self, GroupOptions, SteeringRule, may_be_source, send_one, send_over_limit,
};
use wg_bounce_sys::{Endpoint, Errno, OuterHeader, Sockets};

use crate::limits::IN_FLIGHT_INITIAL;
use crate::wire;

/// The messages that carry a receiver index of ours, whose low byte names a worker (§5.4).
const STEERING: [SteeringRule; 3] = [
    SteeringRule { message_type: wire::DATA, worker_at: 4 },
    SteeringRule { message_type: wire::COOKIE_REPLY, worker_at: 4 },
    SteeringRule { message_type: wire::RESPONSE, worker_at: 8 },
];
/// Traffic class of handshake messages: DSCP AF41, as the kernel module marks them
/// (`HANDSHAKE_DSCP`, drivers/net/wireguard/messages.h).
const HANDSHAKE_HEADER: OuterHeader = OuterHeader { traffic_class: 0x88, hop_limit: 0 };

/// The source address that a handshake message left from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SentFrom {
    /// The endpoint's source address, or the kernel's choice if the endpoint names none.
    Source,
    /// The kernel's choice, because the endpoint's source address has vanished: forget it.
    Anywhere,
}

/// A socket group that is not in use yet.
pub struct BoundSockets {
    /// Its port.
    pub port: u16,
    /// Their SO_MARK; zero is none.
    pub fwmark: u32,
    workers: Vec<Sockets>,
    duplicates: Vec<Sockets>,
    /// Those of the [`CookieSender`].
    of_cookies: Sockets,
}

/// Sends cookie replies from any thread, apart from all other messages: the thread may be preempted
/// while it sends, and closing the sockets waits for it.
#[derive(Clone, Default)]
pub struct CookieSender(Arc<Mutex<Sockets>>);

impl CookieSender {
    /// Sends a cookie reply, if possible from the source address of `to`; not where data has filled
    /// the socket, since any host can cause such replies.
    ///
    /// # Errors
    /// Those of sendmsg(2): no route, refused by the firewall, no room. EAFNOSUPPORT: no sockets of
    /// this address family are open.
    pub fn send(&self, to: &Endpoint, message: &[u8]) -> io::Result<()> {
        let sockets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        send_from(&sockets, to, message, false).map(|_| ())
    }

    fn switch(&self, sockets: Sockets) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = sockets;
    }
}

/// The sockets of one listen port; none while they are closed.
pub(super) struct WorkerSockets {
    workers: Vec<Sockets>,
    cookies: CookieSender,
    gro: bool,
    buffer: usize,
}

impl WorkerSockets {
    /// No sockets yet; later ones receive trains if `gro`, and have buffers of `buffer` bytes.
    pub(super) fn new(gro: bool, buffer: usize) -> WorkerSockets {
        WorkerSockets { workers: Vec::new(), cookies: CookieSender::default(), gro, buffer }
    }

    /// Binds sockets for `workers` workers to `port`; if it is zero, the kernel chooses one.
    pub(super) fn bind(&self, workers: usize, port: u16, fwmark: u32) -> io::Result<BoundSockets> {
        let options = GroupOptions {
            length_min: wire::DATA_OVERHEAD, // of a keepalive
            members: workers,
            steering: &STEERING,
            fwmark,
            gro: self.gro,
            buffer: self.buffer,
            in_flight: IN_FLIGHT_INITIAL.min(self.buffer),
        };
        let bound = socket::bind_groups(port, &options)?;
        let mut groups = bound.groups.map(|group| group.into_iter().flatten());
        let workers: Vec<Sockets> =
            (0..workers).map(|_| Sockets { v4: groups.v4.next(), v6: groups.v6.next() }).collect();
        let duplicates = workers.iter().map(duplicate).collect::<io::Result<_>>()?;
        let of_cookies = duplicate(&workers[0])?;
        Ok(BoundSockets { port: bound.port, fwmark, workers, duplicates, of_cookies })
    }

    /// Uses these sockets from now on. Returns a duplicate of them for each worker.
    pub(super) fn switch(&mut self, bound: BoundSockets) -> Vec<Sockets> {
        self.workers = bound.workers;
        self.cookies.switch(bound.of_cookies);
        bound.duplicates
    }

    /// Closes the sockets here.
    pub(super) fn close(&mut self) {
        self.workers.clear();
        self.cookies.switch(Sockets::default());
    }

    /// A sender of cookie replies, which uses the same sockets.
    pub(super) fn cookie_sender(&self) -> CookieSender {
        self.cookies.clone()
    }

    /// Sets SO_MARK on all sockets.
    pub(super) fn set_fwmark(&self, mark: u32) -> io::Result<()> {
        socket::set_mark(self.workers.iter().flat_map(|s| s.v4.iter().chain(&s.v6)), mark)
    }

    /// Sends a handshake message to a peer, if possible from the source address of `to`.
    pub(super) fn send_handshake(&self, to: &Endpoint, message: &[u8]) -> io::Result<SentFrom> {
        let Some(sockets) = self.workers.first() else {
            return Err(io::Error::from_raw_os_error(libc::ENETDOWN));
        };
        send_from(sockets, to, message, true)
    }
}

/// Sends a handshake message, if possible from the source address of `to`. If it `may_exceed` the
/// bound, it leaves also where data has filled the socket.
fn send_from(
    sockets: &Sockets,
    to: &Endpoint,
    message: &[u8],
    may_exceed: bool,
) -> io::Result<SentFrom> {
    let socket = sockets.of(to.family()).as_ref();
    let socket = socket.ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))?;
    let any_source = Endpoint { source: None, ..*to };
    let send = |to| send_message(socket, to, message, may_exceed);
    match send(to) {
        Ok(()) => Ok(SentFrom::Source),
        Err(errno) if may_be_source(errno) && to.source.is_some() => {
            send(&any_source).map(|()| SentFrom::Anywhere)
        }
        Err(errno) => Err(errno),
    }
    .map_err(io::Error::from_raw_os_error)
}

/// Sends one message; if it `may_exceed` the bound, also where data has filled the socket: data is
/// of no use without handshakes.
fn send_message(
    socket: &OwnedFd,
    to: &Endpoint,
    message: &[u8],
    may_exceed: bool,
) -> Result<(), Errno> {
    let payload = [IoSlice::new(message)];
    match send_one(socket.as_raw_fd(), to, HANDSHAKE_HEADER, 0, &payload) {
        Err(libc::EAGAIN) if may_exceed => send_over_limit(socket, to, HANDSHAKE_HEADER, &payload),
        result => result,
    }
}

fn duplicate(sockets: &Sockets) -> io::Result<Sockets> {
    let copy = |socket: &Option<OwnedFd>| socket.as_ref().map(OwnedFd::try_clone).transpose();
    Ok(Sockets { v4: copy(&sockets.v4)?, v6: copy(&sockets.v6)? })
}
