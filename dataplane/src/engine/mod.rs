//! The workers as control sees them: start, commands, publication, sockets, counters.

mod options;
mod sockets;
mod start;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use crossbeam_channel::{self as channel, bounded};
use nix::sys::eventfd::EventFd;
use wg_bounce_aead::Aead;
use wg_bounce_sys::tun::Tun;
use wg_bounce_sys::{Endpoint, Sockets, clock};

use crate::channels::{Channels, Neighbour, ring};
pub use crate::channels::{Events, Failure};
use crate::counters::Counters;
use crate::limits::WORKERS_MAX;
use crate::messages::Command;
use crate::offload::CoalescerOptions;
use crate::peer::Peer;
pub use crate::sizes::Sizes;
use crate::snapshot::Snapshot;
use crate::source_check::{SourceCheck, Uplinks};
use crate::worker::{Gauge, Shared};
pub use options::{IoChoice, Options, StartError};
use sockets::WorkerSockets;
pub use sockets::{BoundSockets, CookieSender, SentFrom};
use start::{Lanes, WorkerPlan};

/// The running workers.
pub struct Engine {
    shared: Arc<Shared>,
    workers: Vec<Handle>,
    /// Workers (one bit each) for which a command was queued since their bells were last rung.
    must_ring: u64,
    /// Snapshots that a worker may still hold.
    retired: Vec<Arc<Snapshot>>,
    sockets: WorkerSockets,
    /// For handshake messages.
    sources: SourceCheck,
    description: String,
}

struct Handle {
    commands: channel::Sender<Command>,
    bell: Arc<EventFd>,
    gauge: Arc<Gauge>,
    thread: JoinHandle<()>,
}

impl Engine {
    /// Starts one worker per queue of `tun`. `wake` is signalled whenever something is queued in
    /// the [`Events`] or a worker has passed an epoch.
    ///
    /// # Errors
    /// See [`StartError`]; the workers that had started are stopped.
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
        let is_absent = tun.is_absent();
        let queues = tun.into_queues();
        assert!((1..=WORKERS_MAX).contains(&queues.len()), "checked by the options");
        let (mut channels, events) = Channels::new(wake);
        let shared = Arc::new(Shared {
            snapshot: ArcSwap::from_pointee(Snapshot::default()),
            uplinks: Arc::new(Uplinks::default()),
            must_stop: AtomicBool::new(false),
        });
        let lanes: Vec<Lanes> = (0..queues.len())
            .map(|_| Lanes::new(options.sizes.hand_offs))
            .collect::<io::Result<_>>()
            .map_err(StartError::Resources)?;
        let neighbours: Vec<Neighbour> = lanes.iter().map(|lane| lane.neighbour.clone()).collect();
        channels.neighbours = neighbours;
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        let mut engine = Engine {
            shared: Arc::clone(&shared),
            workers: Vec::with_capacity(queues.len()),
            must_ring: 0,
            retired: Vec::new(),
            sockets: WorkerSockets::new(options.gro, options.sizes.socket_buffer),
            sources: SourceCheck::open(Arc::clone(&shared.uplinks)),
            description: String::new(),
        };
        let workers = queues.len();
        let mut backends = Vec::new();
        for (number, (queue, lanes)) in queues.into_iter().zip(lanes).enumerate() {
            let plan = WorkerPlan {
                number,
                workers,
                queue,
                options: options.clone(),
                aead,
                coalescer,
                core: cores.get(number % cores.len().max(1)).copied().filter(|_| options.pin),
                shared: Arc::clone(&shared),
                gauge: Arc::default(),
                channels: channels.clone(),
                bell: lanes.neighbour.bell,
                commands: lanes.command_lane,
                hand_offs: lanes.hand_off_lane,
            };
            match engine.start_worker(plan, lanes.commands) {
                Ok(name) => backends.push(name),
                Err(error) => {
                    engine.stop();
                    return Err(error);
                }
            }
        }
        let of_tun = (!is_absent).then_some(coalescer);
        engine.description = describe(options, aead, &backends, of_tun);
        Ok((engine, events))
    }

    fn start_worker(
        &mut self,
        plan: WorkerPlan,
        commands: channel::Sender<Command>,
    ) -> Result<&'static str, StartError> {
        let (report, reported) = bounded(1);
        let (bell, gauge) = (Arc::clone(&plan.bell), Arc::clone(&plan.gauge));
        let thread = std::thread::Builder::new()
            .name(format!("worker-{}", plan.number))
            .spawn(move || plan.run(report))
            .map_err(StartError::Resources)?;
        self.workers.push(Handle { commands, bell, gauge, thread });
        reported.recv().expect("a worker reports before anything else")
    }

    /// Queues a command for a worker, which reads it before the next packet; one that waits does so
    /// when [`Engine::ring_bells`] wakes it. Blocks while the worker's lane is full: control waits
    /// for a worker, never the other way round.
    pub fn command(&mut self, worker: usize, command: Command) {
        self.must_ring |= 1 << worker;
        let handle = &self.workers[worker];
        if let Err(full) = handle.commands.try_send(command) {
            ring(&handle.bell);
            // An error means that the worker has ended; control gets its `Failure`.
            let _ = handle.commands.send(full.into_inner());
        }
    }

    /// Wakes the workers for which a command was queued: once for many of them, since each wake-up
    /// is a system call here and costs the worker a turn.
    pub fn ring_bells(&mut self) {
        let must_ring = std::mem::take(&mut self.must_ring);
        for (number, worker) in self.workers.iter().enumerate() {
            if must_ring & 1 << number != 0 {
                ring(&worker.bell);
            }
        }
    }

    /// Publishes a configuration to all workers; returns its epoch. The old snapshot is kept here
    /// until no worker holds it, so that no worker has to free a large table.
    pub fn publish(&mut self, mut snapshot: Snapshot) -> u64 {
        snapshot.epoch = self.shared.snapshot.load().epoch + 1;
        let epoch = snapshot.epoch;
        self.retired.push(self.shared.snapshot.swap(Arc::new(snapshot)));
        for worker in &self.workers {
            ring(&worker.bell);
        }
        epoch
    }

    /// The epoch that all workers have passed. No older snapshot is in use; those are freed here.
    pub fn epoch_reached(&mut self) -> u64 {
        self.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
        let epochs = self.workers.iter().map(|worker| worker.gauge.epoch.load(Ordering::Acquire));
        epochs.min().unwrap_or(0)
    }

    /// Binds a new socket group to `port` (zero: the kernel chooses one). It is closed when
    /// dropped; [`Engine::switch`] takes it into use.
    ///
    /// # Errors
    /// EADDRINUSE: the port is taken. EACCES: a port below 1024 without CAP_NET_BIND_SERVICE.
    /// EPERM: a mark without CAP_NET_ADMIN.
    pub fn bind(&self, port: u16, fwmark: u32) -> io::Result<BoundSockets> {
        self.sockets.bind(self.workers.len(), port, fwmark)
    }

    /// Switches all workers to these sockets.
    pub fn switch(&mut self, bound: BoundSockets) {
        self.shared.uplinks.set_sockets(bound.port, bound.fwmark);
        let of_workers = self.sockets.switch(bound);
        for (number, sockets) in of_workers.into_iter().enumerate() {
            self.command(number, Command::Sockets(sockets));
        }
    }

    /// Closes all sockets. The port is free when the workers have reached the epoch that is
    /// published next.
    pub fn close_sockets(&mut self) {
        self.sockets.close();
        for number in 0..self.workers.len() {
            self.command(number, Command::Sockets(Sockets::default()));
        }
    }

    /// Sets SO_MARK on all sockets.
    ///
    /// # Errors
    /// EPERM: CAP_NET_ADMIN is missing.
    pub fn set_fwmark(&self, mark: u32) -> io::Result<()> {
        self.sockets.set_fwmark(mark)?;
        self.shared.uplinks.set_mark(mark);
        Ok(())
    }

    /// Tells the workers that routes, links, addresses or rules around the UDP sockets may have
    /// changed: they check source addresses again before the next sends.
    pub fn note_route_change(&self) {
        self.shared.uplinks.note_change();
    }

    /// A sender of cookie replies for other threads. They leave from the sockets of now.
    pub fn cookie_sender(&self) -> CookieSender {
        self.sockets.cookie_sender()
    }

    /// Sends a handshake message: from the source address of `to` if that is still ours and fits
    /// the way to `peer`, else from the kernel's choice.
    ///
    /// # Errors
    /// Those of sendmsg(2): no route, refused by the firewall, no such address family. ENETDOWN: no
    /// sockets are open.
    pub fn send_handshake(
        &mut self,
        peer: &Peer,
        to: &Endpoint,
        message: &[u8],
    ) -> io::Result<SentFrom> {
        let mut to = *to;
        if let Some(path) = peer.path().clone()
            && path.endpoint == to
        {
            self.sources.check(&path, clock::boot_time());
            to = path.destination();
        }
        self.sockets.send_handshake(&to, message)
    }

    /// The counters of each worker.
    pub fn counters(&self) -> impl Iterator<Item = &Counters> {
        self.workers.iter().map(|worker| &worker.gauge.counters)
    }

    /// The rung of each fallback ladder that is in use, for the log.
    pub fn describe(&self) -> &str {
        &self.description
    }

    /// Stops the workers and waits for them.
    pub fn stop(self) {
        self.shared.must_stop.store(true, Ordering::Release);
        for worker in self.workers {
            ring(&worker.bell);
            drop(worker.commands);
            // A worker that panicked has printed its own message.
            let _ = worker.thread.join();
        }
    }
}

fn describe(
    options: &Options,
    aead: Aead,
    backends: &[&str],
    coalescer: Option<CoalescerOptions>,
) -> String {
    let on_off = |on: bool| if on { "on" } else { "off" };
    let tun = match coalescer {
        Some(CoalescerOptions { tcp, udp }) => {
            format!("TUN super-packets: TCP {}, UDP {}", on_off(tcp), on_off(udp))
        }
        None => "no TUN".to_owned(),
    };
    format!(
        "{} ({} workers), GSO {}, GRO {}, {tun}; AEAD: {aead}",
        backends.first().copied().unwrap_or("no backend"),
        backends.len(),
        on_off(options.gso),
        on_off(options.gro),
    )
}
