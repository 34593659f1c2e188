//! Connections that were relayed directly for a while, and that rules then give to the kernel: it
//! has not seen what was sent meanwhile.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use crate::harness::{Backend, Relay, eventually, seconds};
use crate::relay_auto::{BOTH, connected, direct, said};

const DROPS_INVALID: &str = "FORWARD -m conntrack --ctstate INVALID -j DROP";

/// Sends so many bytes from one end to the other.
fn send(from: &mut TcpStream, to: &mut TcpStream, bytes: usize) {
    to.set_read_timeout(Some(seconds(3))).expect("not zero");
    std::thread::scope(|scope| {
        scope.spawn(|| from.write_all(&vec![7; bytes]));
        to.read_exact(&mut vec![0; bytes]).expect("everything arrives");
    });
}

fn expect_direct(relay: &Relay) {
    eventually(seconds(6), "nothing waits any more", || direct(&said(relay)) == BOTH);
}

/// TCP goes on although the kernel's idea of its window is old.
fn connections_survive_the_return_to_the_kernel(backend: Backend) {
    const MEBIBYTE: usize = 1 << 20;
    let relay = connected(backend, "auto");
    let (hub, alice, bob) = (&relay.hub.namespace, &relay.alice.namespace, &relay.bob.namespace);
    // The kernel goes on tracking connections, whatever other rules there are.
    hub.run("iptables-nft -t nat -A POSTROUTING -o eth0 -j MASQUERADE");
    hub.run(&format!("iptables-nft -A {DROPS_INVALID}"));
    eventually(seconds(1), "the kernel forwards", || said(&relay).contains("may drop"));
    let listener = bob.enter(|| TcpListener::bind("10.77.0.3:80").expect("a free port"));
    let mut client = alice.enter(|| TcpStream::connect("10.77.0.3:80").expect("a connection"));
    let (mut server, _) = listener.accept().expect("a client");
    let mut exchange = |bytes: usize| {
        send(&mut client, &mut server, bytes);
        send(&mut server, &mut client, bytes);
    };
    exchange(MEBIBYTE);
    hub.run(&format!("iptables-nft -D {DROPS_INVALID}"));
    expect_direct(&relay);
    let relayed = relay.hub.counter("relayed");
    exchange(8 * MEBIBYTE);
    assert!(relay.hub.counter("relayed") > relayed + 1000);
    hub.run(&format!("iptables-nft -A {DROPS_INVALID}"));
    eventually(seconds(1), "the kernel forwards", || said(&relay).contains("may drop"));
    exchange(MEBIBYTE);
}

on_both_backends!(connections_survive_the_return_to_the_kernel);
