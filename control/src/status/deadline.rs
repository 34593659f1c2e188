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

#[cfg(test)]
pub mod fake {
    //! A connection in memory.

    use std::sync::{Arc, Mutex};

    use super::*;

    /// A client that has sent everything, and keeps what it gets.
    pub struct Client {
        chunks: std::vec::IntoIter<Vec<u8>>,
        received: Arc<Mutex<Vec<u8>>>,
    }

    impl Client {
        /// A connection on which these bytes arrive in chunks of at most `chunk` bytes, and the
        /// place of the answer.
        pub fn connect(bytes: &[u8], chunk: usize) -> (Deadline, Arc<Mutex<Vec<u8>>>) {
            let chunks: Vec<_> = bytes.chunks(chunk).map(<[u8]>::to_vec).collect();
            let received = Arc::default();
            let client = Client { chunks: chunks.into_iter(), received: Arc::clone(&received) };
            (Deadline::new(Box::new(client), Duration::from_secs(60)), received)
        }
    }

    impl Read for Client {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let chunk = self.chunks.next().unwrap_or_default();
            buffer[..chunk.len()].copy_from_slice(&chunk);
            Ok(chunk.len())
        }
    }

    impl Write for Client {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.received.lock().expect("not poisoned").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Stream for Client {
        fn set_timeout(&self, _: Duration) -> io::Result<()> {
            Ok(())
        }

        fn finish(&self) -> io::Result<()> {
            Ok(())
        }
    }
}
