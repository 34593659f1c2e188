//! Messages to the service manager (sd_notify(3)): ready, stopping, status.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Start-up is complete.
pub const READY: &str = "READY=1";
/// The daemon is shutting down.
pub const STOPPING: &str = "STOPPING=1";

/// The configuration is being applied again, since this time on the monotonic clock.
pub fn reloading(time: Duration) -> String {
    format!("RELOADING=1\nMONOTONIC_USEC={}", time.as_micros())
}

/// One line for `systemctl status`.
pub fn status(text: &str) -> String {
    format!("STATUS={text}")
}

/// Sends `state` to the service manager, if there is one (`NOTIFY_SOCKET`). If that reads nothing,
/// only [`READY`] waits for it.
pub fn notify(state: &str) {
    let Some(address) = env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty()) else {
        return;
    };
    match send(&address, state) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            log::debug!("the service manager reads nothing: {state} is lost");
        }
        Err(error) => log::warn!("cannot notify the service manager ({state}): {error}"),
        Ok(()) => {}
    }
}

/// A leading `@` means an abstract address.
fn send(address: &OsStr, state: &str) -> io::Result<()> {
    let address = match address.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(address)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(state != READY)?;
    socket.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abstract_addresses_are_reached() {
        let name = format!("wg-bounce-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("valid");
        let manager = UnixDatagram::bind_addr(&address).expect("free");
        send(OsStr::new(&format!("@{name}")), READY).expect("a listener");
        let mut buffer = [0; 32];
        let length = manager.recv(&mut buffer).expect("sent");
        assert_eq!(&buffer[..length], READY.as_bytes());
    }

    #[test]
    fn a_missing_listener_is_an_error() {
        assert!(send(OsStr::new("/nonexistent/notify"), READY).is_err());
    }
}
