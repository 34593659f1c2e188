//! One worker: a core's sockets, TUN queue, sessions and buffers, and the turn that drives them.
//!
//! 1. Wait once, for anything; not at all while something is left to do.
//! 2. Read the clock, the snapshot and the mailbox: what a worker sees is never older than the
//!    wait it returned from, so it knows a session before that session's first message. Queue what
//!    arrived, and take a slice of it in fair order ([`crate::rx_queue`]).
//! 3. Go on with what waited for room in a socket.
//! 4. The way in: trains to the TUN and to other peers ([`crate::receive`]).
//! 5. The way out: frames of the TUN to peers ([`crate::transmit`]).
//! 6. Seal and send what both have for peers ([`crate::send`]).
//! 7. Give the buffers back, and wake control if it has something to see.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use crossbeam_channel::Receiver;
use wg_bounce_sys::route::RouteSocket;
use wg_bounce_sys::{Backend, Ready, clock};

use crate::channels::{Channels, Failure, HandOff, ring};
use crate::counters::{Counters, DropReason};
use crate::loop_guard::LoopGuard;
use crate::messages::Command;
use crate::receive::ReceivePath;
use crate::rx_queue::RxQueue;
use crate::send::Sender;
use crate::snapshot::Snapshot;
use crate::transmit::TransmitPath;
use crate::turn::Turn;

/// What the engine and its workers share.
pub(crate) struct Shared {
    pub snapshot: ArcSwap<Snapshot>,
    pub recent: LoopGuard,
    pub must_stop: AtomicBool,
}

/// What the engine sees of one worker.
#[derive(Default)]
pub(crate) struct Gauge {
    /// The epoch of the snapshot that it works by.
    pub epoch: AtomicU64,
    pub counters: Counters,
}

/// One worker; [`Worker::run`] is its thread.
pub(crate) struct Worker {
    pub number: usize,
    pub io: Backend,
    pub shared: Arc<Shared>,
    pub gauge: Arc<Gauge>,
    pub commands: Receiver<Command>,
    pub hand_offs: Receiver<HandOff>,
    pub post: Channels,
    pub inbound: ReceivePath,
    pub outbound: TransmitPath,
    pub dispatch: Sender,
    pub intake: RxQueue,
}

impl Worker {
    /// Works until it is told to stop or cannot go on.
    pub(crate) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut snapshots = Cache::new(&shared.snapshot);
        let mut ready = Ready::default();
        while !shared.must_stop.load(Ordering::Acquire) {
            if let Err(error) = self.turn(&mut snapshots, &mut ready) {
                let failure = match error.raw_os_error() {
                    Some(libc::EBADFD) => Failure::InterfaceGone,
                    _ => Failure::Fatal(format!("worker {}: {error}", self.number)),
                };
                // Full: another worker has said the same.
                let _ = self.post.failures.try_send(failure);
                ring(&self.post.wake);
                return;
            }
        }
    }

    fn turn(
        &mut self,
        snapshots: &mut Cache<&ArcSwap<Snapshot>, Arc<Snapshot>>,
        ready: &mut Ready,
    ) -> io::Result<()> {
        let is_idle = self.intake.is_empty(self.dispatch.must_pause()) && self.hand_offs.is_empty();
        self.io.wait(ready, is_idle)?;
        let snapshot = snapshots.load();
        let mut turn = Turn {
            worker: self.number,
            now: clock::boot_time(),
            snapshot,
            trains: &mut [],
            io: &mut self.io,
            counters: &self.gauge.counters,
            recent: &self.shared.recent,
            post: &mut self.post,
        };
        while let Ok(command) = self.commands.try_recv() {
            obey(command, &mut self.inbound, &mut self.dispatch, &mut turn)?;
        }
        if self.gauge.epoch.load(Ordering::Relaxed) != snapshot.epoch {
            self.gauge.epoch.store(snapshot.epoch, Ordering::Release);
            turn.post.must_wake = true;
        }
        turn.counters.dropped(DropReason::Malformed, std::mem::take(&mut ready.unreadable));
        if std::mem::take(&mut ready.has_room) {
            self.dispatch.resume(&mut turn)?;
        }
        let must_pause = self.dispatch.must_pause();
        self.intake.collect(ready, &self.hand_offs, &self.inbound, must_pause);
        turn.trains = &mut self.intake.trains;

        self.inbound.run(&mut self.dispatch, &mut turn)?;
        self.outbound.run(&self.intake.frames, &mut self.dispatch, &mut turn)?;
        self.dispatch.flush(&mut turn)?;
        self.dispatch.watch(turn.io)?;

        for train in self.intake.trains.drain(..) {
            self.io.release_train(train.buffer);
        }
        for frame in self.intake.frames.drain(..) {
            self.io.release_frame(frame.slot);
        }
        self.post.deliver();
        Ok(())
    }
}

fn obey(
    command: Command,
    inbound: &mut ReceivePath,
    dispatch: &mut Sender,
    turn: &mut Turn<'_>,
) -> io::Result<()> {
    match command {
        Command::Expect { index } => inbound.sessions.expect(index),
        Command::Install(session) => inbound.sessions.install(session),
        Command::Forget { index } => inbound.sessions.forget(index),
        Command::Flush { peer } => dispatch.send_staged(&peer, turn)?,
        Command::Discard { peer } => dispatch.discard_staged(&peer, turn),
        Command::Keepalive { peer } => dispatch.send_keepalive(&peer, turn)?,
        Command::Sockets { v4, v6 } => turn.io.set_sockets(v4, v6)?,
        Command::AskRoutes { socket, interface } => {
            inbound.router.set_socket(RouteSocket::new(socket, interface));
        }
    }
    Ok(())
}
