//! One worker: a core's sockets, TUN queue, sessions and buffers, and the turn that drives them.
//!
//! 1. Wait once, for anything; not at all while something is left to do.
//! 2. Read the clock, the snapshot and the commands. They are never older than the wait that has
//!    just returned, so that a worker knows a session before that session's first message.
//! 3. Resume peers whose socket has room again ([`crate::send`]).
//! 4. Queue what arrived, and take a slice of it in fair order ([`crate::rx_queue`]).
//! 5. Receive path: trains to the TUN and to other peers ([`crate::receive`]).
//! 6. Transmit path: TUN frames to peers ([`crate::transmit`]).
//! 7. Seal and send what both have for peers ([`crate::send`]).
//! 8. Release the buffers, and wake control if it has something to see.

#[cfg(all(test, not(loom)))]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use wg_bounce_sys::{Backend, Ready, clock};

use crate::channels::{Channels, Failure, HandOff};
use crate::counters::{Counters, DropReason};
use crate::messages::Command;
use crate::receive::ReceivePath;
use crate::rx_queue::RxQueue;
use crate::send::Sender;
use crate::snapshot::Snapshot;
use crate::source_check::{SourceCheck, Uplinks};
use crate::sync::Receiver;
use crate::transmit::TransmitPath;
use crate::turn::Turn;

/// The state that the engine and all workers share.
pub struct Shared {
    pub snapshot: ArcSwap<Snapshot>,
    pub uplinks: Arc<Uplinks>,
    pub must_stop: AtomicBool,
}

/// The state of one worker that the engine reads.
#[derive(Default)]
pub struct Gauge {
    /// The epoch of the snapshot in use.
    pub epoch: AtomicU64,
    pub counters: Counters,
}

/// One worker; [`Worker::run`] is its thread.
pub struct Worker {
    pub number: usize,
    pub io: Backend,
    pub shared: Arc<Shared>,
    pub gauge: Arc<Gauge>,
    pub commands: Receiver<Command>,
    pub hand_offs: Receiver<HandOff>,
    pub channels: Channels,
    pub receive: ReceivePath,
    pub transmit: TransmitPath,
    pub sender: Sender,
    pub rx_queue: RxQueue,
    pub sources: SourceCheck,
}

impl Worker {
    /// Runs turns until it is told to stop or cannot continue.
    pub fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut snapshots = Cache::new(&shared.snapshot);
        let mut ready = Ready::default();
        while !shared.must_stop.load(Ordering::Acquire) {
            if let Err(error) = self.turn(&mut snapshots, &mut ready) {
                let failure = match error.raw_os_error() {
                    Some(libc::EBADFD) => Failure::InterfaceGone,
                    _ => Failure::Fatal(format!("worker {}: {error}", self.number)),
                };
                self.channels.fail(failure);
                return;
            }
        }
    }

    fn turn(
        &mut self,
        snapshots: &mut Cache<&ArcSwap<Snapshot>, Arc<Snapshot>>,
        ready: &mut Ready,
    ) -> io::Result<()> {
        let is_idle = self.rx_queue.is_empty(self.sender.must_pause())
            && self.hand_offs.is_empty()
            && !self.channels.must_retry();
        self.io.wait(ready, is_idle)?;
        let snapshot = snapshots.load();
        let mut turn = Turn {
            worker: self.number,
            now: clock::boot_time(),
            snapshot,
            trains: &mut [],
            io: &mut self.io,
            counters: &self.gauge.counters,
            channels: &mut self.channels,
            sources: &mut self.sources,
        };
        while let Ok(command) = self.commands.try_recv() {
            apply(command, &mut self.receive, &mut self.sender, &mut turn)?;
        }
        if self.gauge.epoch.load(Ordering::Relaxed) != snapshot.epoch {
            self.gauge.epoch.store(snapshot.epoch, Ordering::Release);
            turn.channels.wake_control();
        }
        count_lost(ready, turn.counters);
        let has_room = std::mem::take(&mut ready.has_room);
        if has_room.v4 || has_room.v6 {
            self.sender.resume(has_room, clock::uptime(), &mut turn)?;
        }
        let must_pause = self.sender.must_pause();
        self.rx_queue.collect(ready, &self.hand_offs, &self.receive, must_pause);
        turn.trains = &mut self.rx_queue.trains;

        self.receive.run(&self.rx_queue.first_kinds, &mut self.sender, &mut turn)?;
        let frames = &self.rx_queue.frames;
        self.transmit.run(frames, &mut self.receive, &mut self.sender, &mut turn)?;
        self.sender.flush(&mut turn)?;
        self.sender.arm(turn.io);
        if self.sender.is_full() {
            self.sender.note_full(turn.io, clock::uptime());
        }
        self.receive.end_turn();
        self.gauge.counters.waiting_packets.set(self.sender.waiting_packets());

        for train in self.rx_queue.trains.drain(..) {
            self.io.release_train(train.buffer);
        }
        for frame in self.rx_queue.frames.drain(..) {
            self.io.release_frame(frame.slot);
        }
        self.channels.ring_bells();
        Ok(())
    }
}

/// Counts what arrived but cannot be handled, each as one datagram or packet.
fn count_lost(ready: &mut Ready, counters: &Counters) {
    let lost = [
        (DropReason::Malformed, std::mem::take(&mut ready.unreadable)),
        (DropReason::InterfaceDown, std::mem::take(&mut ready.stale)),
    ];
    for (reason, count) in lost.into_iter().filter(|&(_, count)| count != 0) {
        counters.received_trains.add(count);
        counters.received_datagrams.add(count);
        counters.dropped(reason, count);
    }
    let unreadable = std::mem::take(&mut ready.unreadable_frames);
    if unreadable != 0 {
        counters.tun_frames_read.add(unreadable);
        counters.tun_packets_read.add(unreadable);
        counters.dropped(DropReason::BadFrame, unreadable);
    }
}

fn apply(
    command: Command,
    receive: &mut ReceivePath,
    sender: &mut Sender,
    turn: &mut Turn<'_>,
) -> io::Result<()> {
    match command {
        Command::Expect { index } => receive.indexes.expect(index),
        Command::Install(session) => receive.indexes.install(session),
        Command::Forget { index } => receive.indexes.remove(index),
        Command::SendStaged { peer } => sender.send_staged(&peer, turn)?,
        Command::Discard { peer } => sender.discard(&peer, turn),
        Command::Keepalive { peer } => sender.send_keepalive(&peer, turn)?,
        Command::Sockets(sockets) => {
            turn.io.set_sockets(sockets)?;
            sender.sockets_changed(turn)?;
        }
        Command::AskRoutes(socket) => receive.router.set_socket(socket),
    }
    Ok(())
}
