//! The state file: where the peers with a session can be reached. A daemon that is started again
//! soon, after a crash or an upgrade, shakes hands with them at once; else a roaming peer would
//! have to notice first that its session is gone.
//!
//! The file is replaced as a whole, by a thread of its own, so that a slow disk delays nothing.

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufWriter, Read as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use base64ct::{Base64, Encoding as _};
use crossbeam_channel::{Receiver, Sender, bounded};
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use wg_bounce_sys::clock::Millis;

use crate::device::Reachable;
use crate::limits::{STATE_AGE_MAX, STATE_CLOCK_STEP_MAX, STATE_FILE_LEN_MAX};

/// The version of the format.
const VERSION: u32 = 1;

/// The content of the file, in JSON.
#[derive(Serialize, Deserialize)]
struct State {
    version: u32,
    peers: Vec<Peer>,
}

#[derive(Serialize, Deserialize)]
struct Peer {
    /// In base64.
    public_key: String,
    endpoint: SocketAddr,
    /// The time at which it last had a session: seconds since the Unix epoch.
    time: f64,
}

/// The state file of one interface.
#[derive(Clone, Debug)]
pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// The file of interface `name` in `directory`, which is created if it is missing.
    ///
    /// # Errors
    /// The directory cannot be created.
    pub fn new(directory: &Path, name: &str) -> io::Result<StateFile> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        Ok(StateFile { path: directory.join(format!("{name}.json")) })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The peers in the file, if it exists, that had a session less than [`STATE_AGE_MAX`] before
    /// the wall clock's time `now`.
    ///
    /// # Errors
    /// It cannot be read, is not a state file, or belongs to another user.
    pub fn read(&self, now: Duration) -> io::Result<Vec<Reachable>> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = match File::options().read(true).custom_flags(flags).open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.uid() != geteuid().as_raw() {
            return Err(io::Error::other("it is not a file of this user"));
        }
        let mut text = Vec::new();
        file.take(STATE_FILE_LEN_MAX).read_to_end(&mut text)?;
        let state: State = serde_json::from_slice(&text)?;
        if state.version != VERSION {
            return Err(io::Error::other(format!("version {} is unknown", state.version)));
        }
        let peers = state.peers.iter().map(|peer| peer.read(now));
        Ok(peers.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    /// Replaces the file by one with these peers.
    fn write(&self, now: Duration, peers: &[Reachable]) -> io::Result<()> {
        let peers = peers.iter().map(|peer| Peer {
            public_key: Base64::encode_string(&peer.public_key),
            endpoint: peer.endpoint,
            time: now.saturating_sub(Duration::from_millis(peer.age.0)).as_secs_f64(),
        });
        let state = State { version: VERSION, peers: peers.collect() };
        // Another daemon of this name, in another namespace, has a file of its own until then.
        let temporary = self.path.with_extension(format!("{}.new", std::process::id()));
        let result =
            write_file(&temporary, &state).and_then(|()| fs::rename(&temporary, &self.path));
        if result.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        result
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

impl Peer {
    /// The peer, unless it has had no session for too long, or has one from the future.
    ///
    /// # Errors
    /// The key or the time is none.
    fn read(&self, now: Duration) -> io::Result<Option<Reachable>> {
        let mut public_key = [0; 32];
        Base64::decode(&self.public_key, &mut public_key)
            .ok()
            .filter(|key| key.len() == 32)
            .ok_or_else(|| io::Error::other("a public key is not 32 bytes in base64"))?;
        let time = Duration::try_from_secs_f64(self.time).map_err(io::Error::other)?;
        if time > now + STATE_CLOCK_STEP_MAX {
            return Ok(None);
        }
        let age = Millis(now.saturating_sub(time).as_millis().try_into().unwrap_or(u64::MAX));
        let peer = Reachable { public_key, endpoint: self.endpoint, age };
        Ok((age <= STATE_AGE_MAX).then_some(peer))
    }
}

/// Writes a new file, to the disk.
fn write_file(path: &Path, state: &State) -> io::Result<()> {
    // One of a daemon that had the same process id and was killed.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    let mut file = BufWriter::new(file);
    serde_json::to_writer(&mut file, state)?;
    file.into_inner()?.sync_all()
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
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    const NOW: Duration = Duration::from_secs(1_700_000_000);

    fn reachable(number: u8, endpoint: &str, age: u64) -> Reachable {
        let endpoint = endpoint.parse().expect("an address");
        Reachable { public_key: [number; 32], endpoint, age: Millis::from_secs(age) }
    }

    fn peers() -> Vec<Reachable> {
        vec![reachable(7, "192.0.2.7:51820", 0), reachable(8, "[2001:db8::8]:1", 100)]
    }

    fn file() -> (tempfile::TempDir, StateFile) {
        let directory = tempfile::tempdir().expect("a directory");
        let file = StateFile::new(&directory.path().join("a/b"), "wg0").expect("it is created");
        (directory, file)
    }

    #[test]
    fn what_was_written_is_read_for_three_minutes() {
        let (_directory, file) = file();
        assert_eq!(file.read(NOW).expect("a missing file is fine"), []);
        file.write(NOW, &peers()).expect("writable");
        file.write(NOW, &peers()).expect("a second time");
        let read = |age: i64| {
            let now = Duration::from_secs(NOW.as_secs().saturating_add_signed(age));
            let peers = file.read(now).expect("readable");
            peers.iter().map(|peer| (peer.public_key[0], peer.age.0 / 1000)).collect::<Vec<_>>()
        };
        assert_eq!(read(0), [(7, 0), (8, 100)]);
        assert_eq!(read(80), [(7, 80), (8, 180)]);
        assert_eq!(read(81), [(7, 81)], "each peer has an age of its own");
        assert_eq!(read(181), [], "the peers have other sessions by now");
        assert_eq!(read(-60), [(7, 0), (8, 40)], "the clock was adjusted");
        assert_eq!(read(-61), [(8, 39)], "the clock was set back");
        let metadata = fs::metadata(&file.path).expect("it exists");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        let directory = file.path.parent().expect("a directory");
        assert_eq!(fs::read_dir(directory).expect("readable").count(), 1);
        let metadata = fs::metadata(directory).expect("it exists");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn other_content_is_an_error() {
        let (_directory, file) = file();
        let bad = [
            "",
            "{}",
            r#"{"version":2,"peers":[]}"#,
            r#"{"version":1,"peers":[{"public_key":"AA==","endpoint":"[::1]:1","time":1}]}"#,
            r#"{"version":1,"peers":[{"public_key":"","endpoint":"nowhere","time":1}]}"#,
        ];
        for text in bad {
            fs::write(&file.path, text).expect("writable");
            assert!(file.read(NOW).is_err(), "{text}");
        }
    }

    #[test]
    fn other_files_are_not_read() {
        let (_directory, file) = file();
        fs::create_dir(&file.path).expect("a directory in its place");
        assert!(file.read(NOW).is_err());
        fs::remove_dir(&file.path).expect("it is empty");
        symlink("/etc/hostname", &file.path).expect("a link in its place");
        assert!(file.read(NOW).is_err());
        file.write(NOW, &peers()).expect("the link is replaced");
        assert_eq!(file.read(NOW).expect("readable"), peers());
    }

    #[test]
    fn the_last_state_is_written_before_the_end() {
        let (_directory, file) = file();
        let writer = file.clone().start_writer().expect("a thread");
        for _ in 0..100 {
            writer.write(NOW, Vec::new());
        }
        writer.finish(Some((NOW, peers())));
        assert_eq!(file.read(NOW).expect("readable"), peers());
    }
}
