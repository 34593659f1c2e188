//! The state file: where the peers with a session can be reached. A daemon that is started again
//! soon, after a crash or an upgrade, shakes hands with them at once; else a roaming peer would
//! have to notice first that its session is gone.
//!
//! The file is replaced as a whole, by a thread of its own, so that a slow disk delays nothing.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{self, Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use base64ct::{Base64, Encoding as _};
use crossbeam_channel::{Receiver, Sender, bounded};
use serde::{Deserialize, Serialize};

use crate::device::Reachable;
use crate::limits::{STATE_AGE_MAX, STATE_FILE_LEN_MAX};

/// The version of the format.
const VERSION: u32 = 1;

/// The content of the file, in JSON.
#[derive(Serialize, Deserialize)]
struct State {
    version: u32,
    /// The time at which it was written: seconds since the Unix epoch.
    time: f64,
    peers: Vec<Peer>,
}

#[derive(Serialize, Deserialize)]
struct Peer {
    /// In base64.
    public_key: String,
    endpoint: SocketAddr,
}

/// The state file of one interface.
#[derive(Clone, Debug)]
pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// The file of interface `name` in `directory`, which need not exist yet.
    pub fn new(directory: &Path, name: &str) -> StateFile {
        // A start in the background changes to another directory.
        let directory = path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
        StateFile { path: directory.join(format!("{name}.json")) }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The peers in the file, and the file's age at the wall clock's time `now`. None without a
    /// file, or if it is older than [`STATE_AGE_MAX`] or from the future.
    ///
    /// # Errors
    /// It cannot be read, or is not a state file.
    pub fn read(&self, now: Duration) -> io::Result<Option<(Vec<Reachable>, Duration)>> {
        let mut text = Vec::new();
        match File::open(&self.path) {
            Ok(file) => file.take(STATE_FILE_LEN_MAX).read_to_end(&mut text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let state: State = serde_json::from_slice(&text)?;
        if state.version != VERSION {
            return Err(io::Error::other(format!("version {} is unknown", state.version)));
        }
        let written = Duration::try_from_secs_f64(state.time).map_err(io::Error::other)?;
        let age = now.checked_sub(written).filter(|age| *age <= STATE_AGE_MAX);
        let peers = state.peers.into_iter().map(|peer| {
            let mut key = [0; 32];
            Base64::decode(&peer.public_key, &mut key)
                .ok()
                .filter(|key| key.len() == 32)
                .ok_or_else(|| io::Error::other("a public key is not 32 bytes in base64"))?;
            Ok((key, peer.endpoint))
        });
        let peers = peers.collect::<io::Result<Vec<Reachable>>>()?;
        Ok(age.map(|age| (peers, age)))
    }

    /// Replaces the file by one with these peers.
    fn write(&self, time: Duration, peers: &[Reachable]) -> io::Result<()> {
        let peers = peers.iter().map(|(key, endpoint)| Peer {
            public_key: Base64::encode_string(key),
            endpoint: *endpoint,
        });
        let state = State { version: VERSION, time: time.as_secs_f64(), peers: peers.collect() };
        let temporary = self.path.with_extension("json.new");
        // Whatever a crash has left there is removed with its mode.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
        let mut file = BufWriter::new(file);
        serde_json::to_writer(&mut file, &state)?;
        file.flush()?;
        fs::rename(&temporary, &self.path)
    }

    /// Starts the thread that writes the file.
    ///
    /// # Errors
    /// The system has no thread or no memory left.
    pub fn start_writer(self) -> io::Result<StateWriter> {
        let (lane, states) = bounded(1);
        let thread =
            thread::Builder::new().name("state".to_owned()).spawn(move || self.follow(&states))?;
        Ok(StateWriter { lane, thread })
    }

    fn follow(&self, states: &Receiver<(Duration, Vec<Reachable>)>) {
        let mut has_failed = false;
        for (time, peers) in states {
            let result = self.write(time, &peers);
            if let (Err(error), false) = (&result, has_failed) {
                log::warn!("state file {}: cannot write it: {error}", self.path.display());
            }
            has_failed = result.is_err();
        }
    }
}

/// Writes the file in a thread of its own.
pub struct StateWriter {
    lane: Sender<(Duration, Vec<Reachable>)>,
    thread: JoinHandle<()>,
}

impl StateWriter {
    /// Queues a state, unless one is still waiting to be written.
    pub fn write(&self, time: Duration, peers: Vec<Reachable>) {
        // The next one, a minute later, is as good.
        let _is_queued = self.lane.try_send((time, peers));
    }

    /// Writes the last state, if there is one, and waits until all are written.
    pub fn finish(self, last: Option<(Duration, Vec<Reachable>)>) {
        if let Some(last) = last {
            let _is_queued = self.lane.send(last);
        }
        drop(self.lane);
        // A thread that panicked has printed its own message.
        let _ = self.thread.join();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_700_000_000);

    fn peers() -> Vec<Reachable> {
        vec![
            ([7; 32], "192.0.2.7:51820".parse().expect("an address")),
            ([8; 32], "[2001:db8::8]:1".parse().expect("an address")),
        ]
    }

    #[test]
    fn what_was_written_is_read_for_three_minutes() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = StateFile::new(directory.path(), "wg0");
        assert!(file.read(NOW).expect("a missing file is fine").is_none());
        file.write(NOW, &peers()).expect("writable");
        file.write(NOW, &peers()).expect("a second time");
        let read = |age: i64| {
            let now = Duration::from_secs(NOW.as_secs().saturating_add_signed(age));
            file.read(now).expect("readable").map(|(peers, _)| peers)
        };
        assert_eq!(read(0), Some(peers()));
        assert_eq!(read(180), Some(peers()));
        assert_eq!(read(181), None, "the peers have other sessions by now");
        assert_eq!(read(-1), None, "the clock was set back");
        let metadata = fs::metadata(&file.path).expect("it exists");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).expect("readable").count(), 1);
    }

    #[test]
    fn other_content_is_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = StateFile::new(directory.path(), "wg0");
        let bad = [
            "",
            "{}",
            r#"{"version":2,"time":1,"peers":[]}"#,
            r#"{"version":1,"time":-1,"peers":[]}"#,
            r#"{"version":1,"time":1,"peers":[{"public_key":"AA==","endpoint":"[::1]:1"}]}"#,
            r#"{"version":1,"time":1,"peers":[{"public_key":"","endpoint":"nowhere"}]}"#,
        ];
        for text in bad {
            fs::write(&file.path, text).expect("writable");
            assert!(file.read(NOW).is_err(), "{text}");
        }
    }

    #[test]
    fn the_last_state_is_written_before_the_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = StateFile::new(directory.path(), "wg0");
        let writer = file.clone().start_writer().expect("a thread");
        for _ in 0..100 {
            writer.write(NOW, Vec::new());
        }
        writer.finish(Some((NOW, peers())));
        assert_eq!(file.read(NOW).expect("readable").map(|(peers, _)| peers), Some(peers()));
    }
}
