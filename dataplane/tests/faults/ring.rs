//! A ring without an engine.

use std::io::{ErrorKind, IoSlice};
use std::net::UdpSocket;
use std::sync::Arc;

use nix::sys::eventfd::EventFd;
use wg_bounce_dataplane::engine::IoChoice;
use wg_bounce_sys::faults::{Call, Fault, Injection};
use wg_bounce_sys::tun::Tun;
use wg_bounce_sys::uring::{Prepared, Uring};
use wg_bounce_sys::{Backend, Endpoint, OuterHeader, Outgoing, PerFamily, Ready};

use crate::support::on_both_backends;

/// Buffers for trains.
const BUFFERS: u16 = 8;

fn bind(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind((address, 0)).expect("a socket");
    socket.set_nonblocking(true).expect("an option");
    socket
}

/// A ring of this thread with an IPv4 and an IPv6 socket.
fn ring(v4: &UdpSocket, v6: &UdpSocket) -> Backend {
    let queue = Tun::absent(1).expect("an eventfd").into_queues().remove(0);
    let prepared = Prepared::new(&queue, BUFFERS).expect("io_uring");
    let bell = Arc::new(EventFd::new().expect("an eventfd"));
    let mut ring = Backend::Uring(Box::new(Uring::new(prepared, queue, bell)));
    let socket = |socket: &UdpSocket| Some(socket.try_clone().expect("a descriptor").into());
    ring.set_sockets(PerFamily { v4: socket(v4), v6: socket(v6) }).expect("nothing to cancel");
    ring
}

fn datagram(to: &UdpSocket) -> Outgoing {
    let remote = to.local_addr().expect("it is bound");
    let to = Endpoint { remote, source: None };
    Outgoing { to, header: OuterHeader::default(), segment_size: 0, pieces: 0..1, group: 0 }
}

/// The memory of a send is free after an error: nothing may read it later.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_send_that_could_not_be_submitted_does_not_leave_later() {
    on_both_backends(|io| {
        if io == IoChoice::Mmsg {
            return;
        }
        let (v4, v6, receiver) = (bind("127.0.0.1"), bind("::1"), bind("127.0.0.1"));
        let mut ring = ring(&v4, &v6);
        let (outgoing, pieces) = ([datagram(&receiver)], [IoSlice::new(b"sealed")]);
        ring.send(&outgoing, &pieces, &mut Vec::new()).expect("sent");
        let mut bytes = [0; 16];
        assert_eq!(receiver.recv(&mut bytes).expect("it has arrived"), 6);

        let fault =
            Fault { call: Call::Wait, errnos: vec![libc::EINVAL], per_mille: 1000, count: 1 };
        let _injection = Injection::start(0, &[fault]);
        assert!(ring.send(&outgoing, &pieces, &mut Vec::new()).is_err());
        drop(ring);
        let error = receiver.recv(&mut bytes).expect_err("it must not leave");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    });
}

/// While the datagrams of one socket occupy all buffers, the other socket's receive ends with
/// ENOBUFS again and again, and must not pause.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_socket_without_buffers_receives_as_soon_as_there_are_some() {
    on_both_backends(|io| {
        if io == IoChoice::Mmsg {
            return;
        }
        let (v4, v6) = (bind("127.0.0.1"), bind("::1"));
        let mut ring = ring(&v4, &v6);
        for _ in 0..2 * BUFFERS {
            v4.send_to(b"many", v4.local_addr().expect("bound")).expect("sent");
        }
        let mut ready = Ready::default();
        let mut received = 0;
        while received < 2 * BUFFERS {
            ring.wait(&mut ready, false).expect("no error");
            // One buffer at a time, which the IPv4 socket fills.
            if let Some(train) = ready.trains.pop() {
                received += 1;
                ring.release_train(train.buffer);
            }
        }
        v6.send_to(b"one", v6.local_addr().expect("bound")).expect("sent");
        ring.wait(&mut ready, false).expect("no error");
        assert!(ready.trains.iter().any(|train| train.from.remote.is_ipv6()));
    });
}
