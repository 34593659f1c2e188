//! Whole conversations with servers that say whom they see.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use super::lab::Namespace;
use super::threads::Threads;

/// TCP ports of [`serve`].
pub const TCP_PORTS: [u16; 2] = [7, 80];
/// UDP ports of [`serve`].
pub const UDP_PORTS: [u16; 2] = [7, 53];

/// Servers at every port that say whom they see.
pub fn serve(threads: &mut Threads, namespace: &Namespace, address: &str) {
    for port in TCP_PORTS {
        let listener = namespace.enter(|| TcpListener::bind((address, port)).expect("free"));
        listener.set_nonblocking(true).expect("a listener");
        threads.repeat(move || match listener.accept() {
            // A client that is gone does not matter.
            Ok((mut stream, from)) => drop(stream.write_all(from.ip().to_string().as_bytes())),
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        });
    }
    for port in UDP_PORTS {
        let place = SocketAddr::new(address.parse().expect("an address"), port);
        let socket = namespace.udp_socket(&place.to_string());
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("not zero");
        threads.repeat(move || {
            if let Ok((_, from)) = socket.recv_from(&mut [0; 8]) {
                let _ = socket.send_to(from.ip().to_string().as_bytes(), from);
            }
        });
    }
}

/// Asks the server at a TCP port, and returns its answer; empty if none comes.
pub fn by_tcp(to: SocketAddr, patience: Duration) -> String {
    let mut text = String::new();
    if let Ok(mut stream) = TcpStream::connect_timeout(&to, patience) {
        let _ = stream.set_read_timeout(Some(patience));
        let _ = stream.read_to_string(&mut text);
    }
    text
}

/// As [`by_tcp`] at a UDP port; "refused" if an ICMP error says so.
pub fn by_udp(to: SocketAddr, patience: Duration) -> String {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).expect("a port is free");
    let _ = socket.set_read_timeout(Some(patience));
    let mut text = [0; 64];
    let _ = socket.connect(to).and_then(|()| socket.send(b"whom?"));
    match socket.recv(&mut text) {
        Ok(length) => String::from_utf8_lossy(&text[..length]).into_owned(),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => "refused".to_owned(),
        Err(_) => String::new(),
    }
}
