//! A client of the control socket that can stall, pipeline requests and send garbage, unlike `wg`.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// The path of an interface's control socket.
pub fn socket_path(interface: &str) -> PathBuf {
    PathBuf::from(format!("/var/run/wireguard/{interface}.sock"))
}

/// One connection to a control socket.
pub struct Uapi {
    stream: UnixStream,
}

impl Uapi {
    /// Connects to the daemon of `interface`.
    #[track_caller]
    pub fn connect(interface: &str) -> Uapi {
        let stream = UnixStream::connect(socket_path(interface)).expect("the daemon listens");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("not zero");
        Uapi { stream }
    }

    /// Sends raw text.
    #[track_caller]
    pub fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).expect("the daemon reads");
    }

    /// The lines of the next reply, without the empty one that ends it.
    #[track_caller]
    pub fn reply(&mut self) -> Vec<String> {
        let mut text = Vec::new();
        while !text.ends_with(b"\n\n") {
            let mut byte = [0];
            match self.stream.read(&mut byte) {
                Ok(1) => text.push(byte[0]),
                end => {
                    let so_far = String::from_utf8_lossy(&text);
                    panic!("incomplete reply: {end:?} after {so_far:?}")
                }
            }
        }
        let text = String::from_utf8(text).expect("the protocol is text");
        text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    /// Sends one operation, given without its empty line, and returns the reply.
    #[track_caller]
    pub fn ask(&mut self, operation: &str) -> Vec<String> {
        self.send(&format!("{operation}\n\n"));
        self.reply()
    }

    /// Whether the daemon closed the connection without sending another byte.
    pub fn is_closed(&mut self) -> bool {
        // Closing with unread bytes in the buffer resets the connection.
        match self.stream.read(&mut [0]) {
            Ok(length) => length == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}
