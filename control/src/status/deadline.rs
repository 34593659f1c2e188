//! A connection with one time limit for everything.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use wg_bounce_sys::clock;

/// A connection.
pub trait Stream: Read + Write + Send {
    /// Limits each later call.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    fn set_timeout(&self, timeout: Duration) -> io::Result<()>;

    /// Ends our side of it.
    ///
    /// # Errors
    /// Those of shutdown(2).
    fn finish(&self) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout))?;
        self.set_write_timeout(Some(timeout))
    }

    fn finish(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Stream for UnixStream {
    fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout))?;
        self.set_write_timeout(Some(timeout))
    }

    fn finish(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// A connection that fails with `TimedOut` once its time is over, however slow the other side is.
pub struct Deadline {
    stream: Box<dyn Stream>,
    end: Duration,
}

impl Deadline {
    /// Gives the connection this time.
    pub fn new(stream: Box<dyn Stream>, time: Duration) -> Deadline {
        Deadline { stream, end: clock::uptime() + time }
    }

    /// Ends our side of it.
    ///
    /// # Errors
    /// Those of shutdown(2).
    pub fn finish(&self) -> io::Result<()> {
        self.stream.finish()
    }

    fn limit(&self) -> io::Result<()> {
        let left = self.end.saturating_sub(clock::uptime());
        match left.is_zero() {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => self.stream.set_timeout(left),
        }
    }
}

impl Read for Deadline {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.limit()?;
        self.stream.read(buffer)
    }
}

impl Write for Deadline {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.limit()?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
