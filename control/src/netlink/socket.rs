//! Netlink sockets. Each belongs to the network namespace of the thread that opens it.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnknownCmsg, recvmsg, send};
use wg_bounce_sys::netlink;

use super::message::{Message, Protocol, Reply, Request, frames};
use super::numbers::{NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END};
use super::parse::malformed;
use crate::limits::{NETLINK_ATTEMPTS_MAX, NETLINK_DATAGRAM_MAX, NETLINK_EVENTS_MAX};

/// A socket that never blocks.
pub struct NetlinkSocket {
    socket: OwnedFd,
    sequence: u32,
    /// The namespace of the events, by its id in ours; none: ours.
    namespace: Option<i32>,
}

/// The result of reading events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventsRead {
    /// Every waiting event was read, up to a bound.
    All,
    /// Some were lost, or cannot be parsed: the state must be read again.
    Lost,
}

impl NetlinkSocket {
    /// Opens a socket that receives the events of these multicast groups (RTNLGRP_*, NFNLGRP_*).
    ///
    /// # Errors
    /// `Unsupported`: this kernel lacks the protocol. EPERM: a group needs CAP_NET_ADMIN.
    pub fn open(protocol: Protocol, groups: &[u32]) -> io::Result<NetlinkSocket> {
        // Group n is bit n - 1.
        let mask = groups.iter().map(|group| 1 << (group - 1)).sum();
        Ok(NetlinkSocket { socket: netlink::open(protocol, mask)?, sequence: 0, namespace: None })
    }

    /// Receives the events of another namespace instead, without keeping it alive. `id` is its id
    /// in ours.
    ///
    /// # Errors
    /// EPERM: no CAP_NET_BROADCAST.
    pub fn follow(&mut self, id: i32) -> io::Result<()> {
        netlink::listen_to_all_namespaces(&self.socket)?;
        self.namespace = Some(id);
        Ok(())
    }

    /// Sends `request` and reads the reply; events that arrive before it are discarded. The kernel
    /// replies before `send` returns, or as fast as the reply is read, so this never waits.
    ///
    /// # Errors
    /// The refusal; `InvalidData` for a reply that cannot be parsed; ENOBUFS if it was lost.
    pub fn request(&mut self, request: &Request) -> io::Result<Reply> {
        let mut messages = Vec::new();
        let mut reply = self.exchange(request, &mut |some| {
            messages.append(some);
            Ok(())
        })?;
        reply.messages = messages;
        Ok(reply)
    }

    /// As [`NetlinkSocket::request`], but passes each message to `each` as it arrives.
    ///
    /// # Errors
    /// Those of `each` too.
    pub fn request_each(
        &mut self,
        request: &Request,
        each: &mut dyn FnMut(&Message) -> io::Result<()>,
    ) -> io::Result<()> {
        self.exchange(request, &mut |some| some.drain(..).try_for_each(|one| each(&one)))?;
        Ok(())
    }

    /// Sends `requests`, each of which asks for an acknowledgement, in one datagram between those
    /// that begin and end a transaction of nftables. All of them take effect, or none.
    ///
    /// # Errors
    /// The first refusal.
    pub fn transact(&mut self, requests: &[Request]) -> io::Result<()> {
        let ends = [NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END].map(Request::end_of_batch);
        let [begin, end] = &ends;
        let mut bytes = Vec::new();
        for request in [begin].into_iter().chain(requests).chain([end]) {
            self.sequence = self.sequence.wrapping_add(1);
            let message = request.bytes(self.sequence);
            bytes.extend_from_slice(&message);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
        let mut buffer = vec![0; NETLINK_DATAGRAM_MAX];
        // A refusal of the whole answers its first message.
        let first = self.sequence.wrapping_sub(requests.len() as u32 + 1);
        let mut left = requests.len();
        while left > 0 {
            for frame in frames(self.receive(&mut buffer)?.0)? {
                if frame.result_of(first..=self.sequence)?.is_some() {
                    left = left.saturating_sub(1);
                }
            }
        }
        Ok(())
    }

    /// Passes the messages of each datagram of the reply to `take`.
    fn exchange(
        &mut self,
        request: &Request,
        take: &mut dyn FnMut(&mut Vec<Message>) -> io::Result<()>,
    ) -> io::Result<Reply> {
        // A socket that has received anything has large datagrams already.
        if request.is_dump() && self.sequence == 0 {
            self.expect_large_messages()?;
        }
        self.sequence = self.sequence.wrapping_add(1);
        send(self.socket.as_raw_fd(), &request.bytes(self.sequence), MsgFlags::empty())?;
        let mut buffer = vec![0; NETLINK_DATAGRAM_MAX];
        let mut reply = Reply::to(request, self.sequence);
        while !reply.is_complete {
            reply.add(self.receive(&mut buffer)?.0)?;
            take(&mut reply.messages)?;
        }
        Ok(reply)
    }

    /// Passes each waiting event to `each`. Never blocks.
    ///
    /// # Errors
    /// Those of recv(2) but ENOBUFS, which means lost events.
    pub fn read_events(&self, mut each: impl FnMut(&Message)) -> io::Result<EventsRead> {
        let mut buffer = vec![0; NETLINK_DATAGRAM_MAX];
        let mut result = EventsRead::All;
        for _ in 0..NETLINK_EVENTS_MAX {
            let datagram = match self.receive(&mut buffer) {
                Ok((datagram, namespace)) if namespace == self.namespace => datagram,
                Ok(_) => continue,
                Err(error) => match (error.kind(), error.raw_os_error().map(Errno::from_raw)) {
                    (io::ErrorKind::WouldBlock, _) => break,
                    // The kernel says so once, and drops events until all others are read.
                    (io::ErrorKind::InvalidData, _) | (_, Some(Errno::ENOBUFS)) => {
                        result = EventsRead::Lost;
                        continue;
                    }
                    _ => return Err(error),
                },
            };
            let Ok(frames) = frames(datagram) else {
                result = EventsRead::Lost;
                continue;
            };
            for frame in frames {
                each(&frame.message);
            }
        }
        Ok(result)
    }

    /// Makes the kernel reply in datagrams of up to 32 KiB from the first one on. The size follows
    /// the largest buffer that a message was received with, so one is received (`netlink_dump`,
    /// net/netlink/af_netlink.c). The first datagram of a socket has less than 4 KiB otherwise, and
    /// a dump of nftables whose first object is larger ends there, as if there were none.
    fn expect_large_messages(&mut self) -> io::Result<()> {
        match self.request(&Request::nothing()) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            result => result.map(drop),
        }
    }

    /// Receives one whole datagram, and the id of the namespace that it is about, if not ours.
    fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<(&'a [u8], Option<i32>)> {
        let mut control = cmsg_space!(i32);
        let (length, namespace) = loop {
            let mut pieces = [IoSliceMut::new(buffer)];
            // With MSG_TRUNC the kernel reports the full length of the datagram.
            let flags = MsgFlags::MSG_TRUNC;
            let socket = self.socket.as_raw_fd();
            match recvmsg::<()>(socket, &mut pieces, Some(&mut control), flags) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(message) => break (message.bytes, message.cmsgs()?.find_map(namespace_id)),
            }
        };
        Ok((buffer.get(..length).ok_or_else(malformed)?, namespace))
    }
}

fn namespace_id(message: ControlMessageOwned) -> Option<i32> {
    match message {
        ControlMessageOwned::Unknown(UnknownCmsg { cmsg_header, data_bytes })
            if cmsg_header.cmsg_type == libc::NETLINK_LISTEN_ALL_NSID =>
        {
            Some(i32::from_ne_bytes(data_bytes.try_into().ok()?))
        }
        _ => None,
    }
}

impl AsFd for NetlinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl From<NetlinkSocket> for OwnedFd {
    fn from(socket: NetlinkSocket) -> OwnedFd {
        socket.socket
    }
}

/// The messages that answer `request`, in one consistent state: a dump during which the table
/// changed is repeated. Each attempt has a socket of its own, so that nothing of an abandoned reply
/// is taken for a later one.
///
/// # Errors
/// As for [`NetlinkSocket::request`]; `Interrupted` if the table keeps changing.
pub fn request(protocol: Protocol, request: &Request) -> io::Result<Vec<Message>> {
    for _ in 0..NETLINK_ATTEMPTS_MAX {
        let reply = NetlinkSocket::open(protocol, &[])?.request(request)?;
        if !reply.is_inconsistent {
            return Ok(reply.messages);
        }
    }
    Err(io::ErrorKind::Interrupted.into())
}
