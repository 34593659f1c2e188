//! The workers as control sees them: start, commands, publication, sockets, counters.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use crossbeam_channel::{self as channel, Receiver, bounded};
use nix::sys::eventfd::{EfdFlags, EventFd};
use wg_bounce_aead::Aead;
use wg_bounce_sys::Endpoint;
use wg_bounce_sys::mmsg::Mmsg;
use wg_bounce_sys::socket::{
    self, GroupOptions, SteeringRule, may_be_source, send_one, send_over_limit,
};
use wg_bounce_sys::tun::{Queue, Tun};
use wg_bounce_sys::uring::{Prepared, Uring};
use wg_bounce_sys::{Backend, Errno, Sockets};

use crate::channels::{
    ANSWERS_MAX, Channels, HAND_OFFS_MAX, HandOff, INITIATIONS_MAX, NOTICES_MAX, Neighbour, ring,
};
use crate::counters::Counters;
use crate::limits::{RECEIVE_SEGMENTS_MAX, WORKERS_MAX};
use crate::loop_guard::LoopGuard;
use crate::messages::Command;
use crate::offload::CoalescerOptions;
use crate::receive::ReceivePath;
use crate::rx_queue::RxQueue;
use crate::send::Sender;
use crate::snapshot::Snapshot;
use crate::transmit::TransmitPath;
use crate::wire;
use crate::worker::{Gauge, Shared, Worker};

pub use crate::channels::{Events, Failure};

/// Commands that may wait for a worker; control waits for room beyond that.
const COMMANDS_MAX: usize = 1 << 16;
/// Messages that carry a receiver index of ours, whose low byte names a worker.
const STEERING: [SteeringRule; 3] = [
    SteeringRule { message_type: wire::DATA, worker_at: 4 },
    SteeringRule { message_type: wire::COOKIE_REPLY, worker_at: 4 },
    SteeringRule { message_type: wire::RESPONSE, worker_at: 8 },
];
/// DSCP of handshake messages: AF41, as the kernel module marks them (`HANDSHAKE_DSCP`).
const HANDSHAKE_TRAFFIC_CLASS: u8 = 0x88;

/// Which backend to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoChoice {
    /// io_uring where the kernel allows it, the other one elsewhere.
    Auto,
    /// io_uring or nothing.
    Uring,
    /// epoll and recvmmsg.
    Mmsg,
}

/// What an operator may choose.
#[derive(Clone, Debug)]
pub struct Options {
    /// Workers, each with a TUN queue; 1 to [`WORKERS_MAX`].
    pub workers: usize,
    /// Pin each worker to a core.
    pub pin: bool,
    /// The backend.
    pub io: IoChoice,
    /// What encrypts and decrypts.
    pub aead: wg_bounce_aead::Choice,
    /// Send trains.
    pub gso: bool,
    /// Receive trains.
    pub gro: bool,
    /// Exchange super-packets with the TUN.
    pub tun_offload: bool,
    /// Receive buffers per worker, 64 KiB each.
    pub buffers: u16,
    /// Bytes that each UDP socket may hold in either direction.
    pub socket_buffer: usize,
}

/// Why the workers could not start.
#[derive(Debug)]
pub enum StartError {
    /// The processor cannot what was demanded.
    AeadUnavailable(wg_bounce_aead::Unavailable),
    /// io_uring was demanded and is refused.
    UringRefused(io::Error),
    /// Memory, descriptors or threads are short.
    Resources(io::Error),
}

/// The running workers.
pub struct Engine {
    shared: Arc<Shared>,
    workers: Vec<Handle>,
    /// Snapshots that a worker may still hold.
    retired: Vec<Arc<Snapshot>>,
    sockets: Vec<Sockets>,
    gro: bool,
    socket_buffer: usize,
    description: String,
}

struct Handle {
    commands: channel::Sender<Command>,
    bell: Arc<EventFd>,
    gauge: Arc<Gauge>,
    thread: JoinHandle<()>,
}

impl Engine {
    /// Starts one worker per queue of `tun`. `wake` is written whenever something was put into
    /// the [`Events`] or a worker passed an epoch.
    pub fn start(
        options: &Options,
        tun: Tun,
        wake: Arc<EventFd>,
    ) -> Result<(Engine, Events), StartError> {
        let coalescer = CoalescerOptions {
            tcp: options.tun_offload && tun.has_tcp_offload(),
            udp: options.tun_offload && tun.has_udp_offload(),
        };
        let aead = Aead::new(options.aead).map_err(StartError::AeadUnavailable)?;
        let queues = tun.into_queues();
        assert!((1..=WORKERS_MAX).contains(&queues.len()), "checked by the options");
        let (lanes, events) = lanes(wake);
        let shared = Arc::new(Shared {
            snapshot: ArcSwap::from_pointee(Snapshot::default()),
            recent: LoopGuard::default(),
            must_stop: AtomicBool::new(false),
        });
        let mut doors = Vec::with_capacity(queues.len());
        for _ in &queues {
            doors.push(Door::new().map_err(StartError::Resources)?);
        }
        let neighbours: Vec<Neighbour> = doors.iter().map(|door| door.neighbour.clone()).collect();
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        let mut engine = Engine {
            shared,
            workers: Vec::with_capacity(queues.len()),
            retired: Vec::new(),
            sockets: Vec::new(),
            gro: options.gro,
            socket_buffer: options.socket_buffer,
            description: String::new(),
        };
        let mut backends = Vec::new();
        for (number, (queue, door)) in queues.into_iter().zip(doors).enumerate() {
            let core = cores.get(number % cores.len().max(1)).copied().filter(|_| options.pin);
            let plan = Plan {
                number,
                workers: neighbours.len(),
                queue,
                options: options.clone(),
                aead,
                coalescer,
                core,
                shared: Arc::clone(&engine.shared),
                post: Channels { neighbours: neighbours.clone(), ..lanes.clone() },
            };
            match engine.start_worker(plan, door) {
                Ok(name) => backends.push(name),
                Err(error) => {
                    engine.stop();
                    return Err(error);
                }
            }
        }
        engine.description = describe(options, aead, &backends, coalescer);
        Ok((engine, events))
    }

    fn start_worker(&mut self, plan: Plan, door: Door) -> Result<&'static str, StartError> {
        let Door { commands, command_lane, neighbour, hand_off_lane } = door;
        let bell = neighbour.bell;
        let gauge = Arc::new(Gauge::default());
        let (report, reported) = bounded(1);
        let (bell_of_worker, gauge_of_worker) = (Arc::clone(&bell), Arc::clone(&gauge));
        let number = plan.number;
        let thread = std::thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || {
                plan.run(bell_of_worker, gauge_of_worker, command_lane, hand_off_lane, report);
            })
            .map_err(StartError::Resources)?;
        self.workers.push(Handle { commands, bell, gauge, thread });
        reported.recv().expect("a worker reports before anything else")
    }

    /// Queues a command for a worker and rings its doorbell.
    pub fn command(&self, worker: usize, command: Command) {
        let handle = &self.workers[worker];
        // The lane is full only if the worker is far behind: control waits for it, never the
        // other way round. An error means that the worker has ended and control will hear so.
        if let Err(full) = handle.commands.try_send(command) {
            ring(&handle.bell);
            let _ = handle.commands.send(full.into_inner());
        }
        ring(&handle.bell);
    }

    /// Publishes what packets are judged by; returns its epoch. The old snapshot stays here until
    /// no worker holds it: taking a large table apart is not a worker's business.
    pub fn publish(&mut self, mut snapshot: Snapshot) -> u64 {
        snapshot.epoch = self.shared.snapshot.load().epoch + 1;
        let epoch = snapshot.epoch;
        self.retired.push(self.shared.snapshot.swap(Arc::new(snapshot)));
        for worker in &self.workers {
            ring(&worker.bell);
        }
        epoch
    }

    /// The epoch that all workers have passed: nothing older is in use, and what was is freed.
    pub fn epoch_reached(&mut self) -> u64 {
        self.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
        let epochs = self.workers.iter().map(|worker| worker.gauge.epoch.load(Ordering::Acquire));
        epochs.min().unwrap_or(0)
    }

    /// Binds a new socket group, gives it to the workers, and returns its port (chosen by the
    /// kernel if `port` is zero). On an error the old group stays in use.
    ///
    /// # Errors
    /// EADDRINUSE: somebody holds the port. EACCES: a port below 1024 without the capability.
    pub fn bind(&mut self, port: u16, fwmark: u32) -> io::Result<u16> {
        let members = self.workers.len();
        let options = GroupOptions {
            members,
            steering: &STEERING,
            fwmark,
            gro: self.gro,
            buffer: self.socket_buffer,
        };
        let bound = socket::bind_groups(port, &options)?;
        let mut sockets = Vec::with_capacity(self.workers.len());
        let mut v4 = bound.v4.into_iter().flatten();
        let mut v6 = bound.v6.into_iter().flatten();
        for _ in &self.workers {
            sockets.push(Sockets { v4: v4.next(), v6: v6.next() });
        }
        let copies = sockets.iter().map(copy_of).collect::<io::Result<Vec<Sockets>>>()?;
        self.sockets = sockets;
        for (number, Sockets { v4, v6 }) in copies.into_iter().enumerate() {
            self.command(number, Command::Sockets { v4, v6 });
        }
        Ok(bound.port)
    }

    /// Sets the mark of all sockets.
    pub fn set_fwmark(&self, mark: u32) -> io::Result<()> {
        socket::set_mark(self.sockets.iter().flat_map(|s| s.v4.iter().chain(&s.v6)), mark)
    }

    /// Sends a handshake message: from the source address of `to` if that is still ours, else
    /// from any; the second value tells that it was not.
    ///
    /// # Errors
    /// What the network says: no route, the firewall, no such family.
    pub fn send_handshake(&self, to: &Endpoint, message: &[u8]) -> io::Result<SentFrom> {
        let socket = self.sockets.first().and_then(|sockets| sockets.of(to));
        let socket = socket.ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))?;
        self.shared.recent.note(&to.remote);
        let anywhere = Endpoint { source: None, ..*to };
        match self.send_message(socket, to, message) {
            Ok(()) => Ok(SentFrom::Source),
            Err(errno) if may_be_source(errno) && to.source.is_some() => {
                self.send_message(socket, &anywhere, message).map(|()| SentFrom::Anywhere)
            }
            Err(errno) => Err(errno),
        }
        .map_err(io::Error::from_raw_os_error)
    }

    /// Also where data has filled the socket: without handshakes it would be of no use.
    fn send_message(&self, socket: &OwnedFd, to: &Endpoint, message: &[u8]) -> Result<(), Errno> {
        let payload = [IoSlice::new(message)];
        match send_one(socket.as_raw_fd(), to, HANDSHAKE_TRAFFIC_CLASS, 0, &payload) {
            Err(libc::EAGAIN) => {
                let buffer = self.socket_buffer;
                send_over_limit(socket, buffer, to, HANDSHAKE_TRAFFIC_CLASS, 0, &payload)
            }
            result => result,
        }
    }

    /// How many workers there are.
    pub fn workers_len(&self) -> usize {
        self.workers.len()
    }

    /// The counters of each worker.
    pub fn counters(&self) -> impl Iterator<Item = &Counters> {
        self.workers.iter().map(|worker| &worker.gauge.counters)
    }

    /// Which rung of each ladder is in use, for the log.
    pub fn describe(&self) -> &str {
        &self.description
    }

    /// Ends the workers and waits for them.
    pub fn stop(self) {
        self.shared.must_stop.store(true, Ordering::Release);
        for worker in self.workers {
            ring(&worker.bell);
            drop(worker.commands);
            // A worker that panicked has said so on its own.
            let _ = worker.thread.join();
        }
    }
}

/// Which of our addresses a message left from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SentFrom {
    /// The endpoint's source address, or any if it names none.
    Source,
    /// Any: the endpoint's source address is not ours any more, and is to be forgotten.
    Anywhere,
}

/// Both ends of what leads to one worker.
struct Door {
    commands: channel::Sender<Command>,
    command_lane: Receiver<Command>,
    neighbour: Neighbour,
    hand_off_lane: Receiver<HandOff>,
}

impl Door {
    fn new() -> io::Result<Door> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let bell = Arc::new(EventFd::from_value_and_flags(0, flags)?);
        let (commands, command_lane) = bounded(COMMANDS_MAX);
        let (lane, hand_off_lane) = bounded(HAND_OFFS_MAX);
        Ok(Door { commands, command_lane, neighbour: Neighbour { lane, bell }, hand_off_lane })
    }
}

/// What a worker's thread makes its worker from.
struct Plan {
    number: usize,
    workers: usize,
    queue: Queue,
    options: Options,
    aead: Aead,
    coalescer: CoalescerOptions,
    core: Option<core_affinity::CoreId>,
    shared: Arc<Shared>,
    post: Channels,
}

impl Plan {
    fn run(
        self,
        bell: Arc<EventFd>,
        gauge: Arc<Gauge>,
        commands: Receiver<Command>,
        hand_offs: Receiver<HandOff>,
        report: channel::Sender<Result<&'static str, StartError>>,
    ) {
        if let Some(core) = self.core
            && !core_affinity::set_for_current(core)
        {
            log::warn!("worker {} could not be pinned to core {}", self.number, core.id);
        }
        let (io, name) = match open_backend(&self.options, self.queue, bell) {
            Ok(opened) => opened,
            Err(error) => {
                report.send(Err(error)).expect("the engine waits for the report");
                return;
            }
        };
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), self.number);
        let messages = usize::from(self.options.buffers) * RECEIVE_SEGMENTS_MAX;
        let worker = Worker {
            number: self.number,
            io,
            shared: self.shared,
            gauge,
            commands,
            hand_offs,
            post: self.post,
            inbound: ReceivePath::new(self.aead, self.coalescer, seed, messages),
            outbound: TransmitPath::default(),
            dispatch: Sender::new(
                self.number,
                self.workers,
                self.aead,
                self.options.gso,
                self.options.socket_buffer,
            ),
            intake: RxQueue::default(),
        };
        report.send(Ok(name)).expect("the engine waits for the report");
        worker.run();
    }
}

/// The ladder: io_uring, then epoll with recvmmsg. Tries, and says why it came to what.
fn open_backend(
    options: &Options,
    queue: Queue,
    bell: Arc<EventFd>,
) -> Result<(Backend, &'static str), StartError> {
    if options.io != IoChoice::Mmsg {
        match Prepared::new(&queue, options.buffers) {
            Ok(prepared) => {
                return Ok((
                    Backend::Uring(Box::new(Uring::new(prepared, queue, bell))),
                    "io_uring",
                ));
            }
            Err(error) if options.io == IoChoice::Uring => {
                return Err(StartError::UringRefused(error));
            }
            Err(error) => log::warn!("io_uring is refused ({error}): using epoll and recvmmsg"),
        }
    }
    let mmsg = Mmsg::new(queue, bell, options.buffers).map_err(StartError::Resources)?;
    Ok((Backend::Mmsg(Box::new(mmsg)), "epoll with recvmmsg"))
}

fn lanes(wake: Arc<EventFd>) -> (Channels, Events) {
    let (initiations, initiations_lane) = bounded(INITIATIONS_MAX);
    let (answers, answers_lane) = bounded(ANSWERS_MAX);
    let (peers, peers_lane) = bounded(NOTICES_MAX);
    let (failures, failures_lane) = bounded(WORKERS_MAX);
    let post = Channels {
        initiations,
        answers,
        peers,
        failures,
        wake,
        neighbours: Vec::new(),
        unsent: Vec::new(),
        must_wake: false,
        must_ring: 0,
    };
    let events = Events {
        initiations: initiations_lane,
        answers: answers_lane,
        peers: peers_lane,
        failures: failures_lane,
    };
    (post, events)
}

fn describe(
    options: &Options,
    aead: Aead,
    backends: &[&str],
    coalescer: CoalescerOptions,
) -> String {
    let on_off = |on: bool| if on { "on" } else { "off" };
    format!(
        "{} ({} workers), GSO {}, GRO {}, TUN super-packets: TCP {}, UDP {}; AEAD: {aead}",
        backends.first().copied().unwrap_or("no backend"),
        backends.len(),
        on_off(options.gso),
        on_off(options.gro),
        on_off(coalescer.tcp),
        on_off(coalescer.udp),
    )
}

fn copy_of(sockets: &Sockets) -> io::Result<Sockets> {
    let copy = |socket: &Option<OwnedFd>| socket.as_ref().map(OwnedFd::try_clone).transpose();
    Ok(Sockets { v4: copy(&sockets.v4)?, v6: copy(&sockets.v6)? })
}
