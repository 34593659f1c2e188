//! One worker: a core's sockets, TUN queue, sessions and buffers, and the turn that drives them.
//!
//! 1. Wait once, for anything.
//! 2. Read the clock, the snapshot and the mailbox: what a worker sees is never older than the
//!    wait it returned from, so it knows a session before that session's first message.
//! 3. Go on with what waited for room in a socket.
//! 4. The way in: trains to the TUN and to other peers ([`crate::inbound`]).
//! 5. The way out: frames of the TUN to peers ([`crate::outbound`]).
//! 6. Seal and send what both have for peers ([`crate::dispatch`]).
//! 7. Give the buffers back, and wake control if it has something to see.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use crossbeam_channel::Receiver;

use crate::counters::{Counters, DropReason};
use crate::dispatch::Dispatch;
use crate::inbound::Inbound;
use crate::mailbox::Command;
use crate::outbound::Outbound;
use crate::post::{Failure, HAND_OFFS_MAX, HandOff, Post, ring};
use crate::recent::Recent;
use crate::snapshot::Snapshot;
use crate::sys::memory::Buffer;
use crate::sys::message::PAYLOAD_AT;
use crate::sys::route::RouteSocket;
use crate::sys::{Backend, Ready, Train, clock};
use crate::turn::Turn;

/// What the engine and its workers share.
pub(crate) struct Shared {
    pub snapshot: ArcSwap<Snapshot>,
    pub recent: Recent,
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
    pub post: Post,
    pub inbound: Inbound,
    pub outbound: Outbound,
    pub dispatch: Dispatch,
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
        self.io.wait(ready)?;
        // No more than were there when the doorbell was read: whoever adds one rings again.
        ready.trains.extend(self.hand_offs.try_iter().take(HAND_OFFS_MAX).map(train_of));
        let snapshot = snapshots.load();
        let mut turn = Turn {
            worker: self.number,
            now: clock::boot_time(),
            snapshot,
            trains: &mut ready.trains,
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
        self.inbound.run(&mut self.dispatch, &mut turn)?;
        let must_pause = self.dispatch.must_pause();
        if !must_pause {
            self.outbound.run(&ready.frames, &mut self.dispatch, &mut turn)?;
        }
        self.dispatch.flush(&mut turn)?;
        self.dispatch.watch(&mut self.io)?;

        for train in ready.trains.drain(..) {
            self.io.release_train(train.buffer);
        }
        // Frames that were not looked at keep their buffers, and so the kernel keeps the rest.
        if !must_pause {
            for frame in ready.frames.drain(..) {
                self.io.release_frame(frame.slot);
            }
        }
        self.post.deliver();
        Ok(())
    }
}

fn train_of(datagram: HandOff) -> Train {
    Train {
        length: datagram.buffer.len() - PAYLOAD_AT,
        buffer: Buffer::Heap(datagram.buffer),
        segment: 0,
        from: datagram.from,
        traffic_class: datagram.traffic_class,
    }
}

fn obey(
    command: Command,
    inbound: &mut Inbound,
    dispatch: &mut Dispatch,
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
