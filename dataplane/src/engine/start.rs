//! The start of one worker: its lanes, its thread, and the ladder of I/O backends.

use std::io;
use std::sync::Arc;

use crossbeam_channel::{self as channel, Receiver, bounded};
use nix::sys::eventfd::{EfdFlags, EventFd};
use wg_bounce_aead::Aead;
use wg_bounce_sys::mmsg::Mmsg;
use wg_bounce_sys::tun::Queue;
use wg_bounce_sys::uring::{Prepared, Uring};
use wg_bounce_sys::{Backend, scheduler};

use super::options::{IoChoice, Options, StartError};
use crate::channels::{Channels, Failure, HandOff, Neighbour};
use crate::limits::COMMANDS_MAX;
use crate::messages::Command;
use crate::offload::CoalescerOptions;
use crate::receive::ReceivePath;
use crate::rx_queue::RxQueue;
use crate::send::Sender;
use crate::source_check::SourceCheck;
use crate::transmit::TransmitPath;
use crate::worker::{Gauge, Shared, Worker};

/// Both ends of the lanes to one worker.
pub(super) struct Lanes {
    pub commands: channel::Sender<Command>,
    pub command_lane: Receiver<Command>,
    pub neighbour: Neighbour,
    pub hand_off_lane: Receiver<HandOff>,
}

impl Lanes {
    pub(super) fn new(hand_offs: usize) -> io::Result<Lanes> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let bell = Arc::new(EventFd::from_value_and_flags(0, flags)?);
        let (commands, command_lane) = bounded(COMMANDS_MAX);
        let (lane, hand_off_lane) = bounded(hand_offs);
        Ok(Lanes { commands, command_lane, neighbour: Neighbour { lane, bell }, hand_off_lane })
    }
}

/// Everything that a worker's thread builds its worker from.
pub(super) struct WorkerPlan {
    pub number: usize,
    pub workers: usize,
    pub queue: Queue,
    pub options: Options,
    pub aead: Aead,
    pub coalescer: CoalescerOptions,
    pub core: Option<core_affinity::CoreId>,
    pub shared: Arc<Shared>,
    pub gauge: Arc<Gauge>,
    pub channels: Channels,
    pub bell: Arc<EventFd>,
    pub commands: Receiver<Command>,
    pub hand_offs: Receiver<HandOff>,
}

impl WorkerPlan {
    /// Runs the worker on this thread, after a report of the backend in use or of the error.
    pub(super) fn run(self, report: channel::Sender<Result<&'static str, StartError>>) {
        if let Some(core) = self.core
            && !core_affinity::set_for_current(core)
        {
            log::warn!("worker {}: cannot pin to CPU {}", self.number, core.id);
        }
        if let Err(error) = scheduler::request_short_slice() {
            log::debug!("worker {}: cannot shorten the time slice: {error}", self.number);
        }
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), self.number);
        let sizes = self.options.sizes;
        let opened = open_backend(&self.options, self.queue, self.bell).and_then(|(io, name)| {
            let receive = ReceivePath::new(self.aead, self.coalescer, seed, &sizes);
            Ok((io, name, receive.map_err(StartError::Resources)?))
        });
        let (io, name, receive) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                report.send(Err(error)).expect("the engine waits for the report");
                return;
            }
        };
        let sources = SourceCheck::open(Arc::clone(&self.shared.uplinks));
        let _report = PanicReport { number: self.number, channels: self.channels.clone() };
        let worker = Worker {
            number: self.number,
            io,
            shared: self.shared,
            gauge: self.gauge,
            commands: self.commands,
            hand_offs: self.hand_offs,
            channels: self.channels,
            receive,
            sender: Sender::new(self.number, self.workers, self.aead, self.options.gso, sizes),
            rx_queue: RxQueue::new(sizes.hand_offs),
            sources,
            transmit: TransmitPath::default(),
        };
        report.send(Ok(name)).expect("the engine waits for the report");
        worker.run();
    }
}

/// Tells control when the worker panics: a process without one of its workers must not go on. Only
/// where a panic unwinds, as in tests; release builds abort.
struct PanicReport {
    number: usize,
    channels: Channels,
}

impl Drop for PanicReport {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.channels.fail(Failure::Fatal(format!("worker {}: panicked", self.number)));
        }
    }
}

/// Opens io_uring, or epoll with recvmmsg where the kernel refuses that. Returns the backend and
/// its name.
fn open_backend(
    options: &Options,
    queue: Queue,
    bell: Arc<EventFd>,
) -> Result<(Backend, &'static str), StartError> {
    if options.io != IoChoice::Mmsg {
        match Prepared::new(&queue, options.sizes.buffers) {
            Ok(prepared) => {
                let uring = Uring::new(prepared, queue, bell);
                return Ok((Backend::Uring(Box::new(uring)), "io_uring"));
            }
            Err(error) if options.io == IoChoice::Uring => {
                return Err(StartError::UringRefused(error));
            }
            Err(error) => {
                log::warn!("io_uring unavailable ({error}); falling back to epoll + recvmmsg");
            }
        }
    }
    let mmsg = Mmsg::new(queue, bell, options.sizes.buffers).map_err(StartError::Resources)?;
    Ok((Backend::Mmsg(Box::new(mmsg)), "epoll with recvmmsg"))
}
