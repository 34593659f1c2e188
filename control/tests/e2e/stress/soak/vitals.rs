//! Memory, descriptors, threads and namespaces of each daemon. From its second round of events on,
//! a process has at most the descriptors, threads and namespaces that its like had in the first
//! one, and its memory stays within [`GROWTH_KIB_MAX`] of the most that one of these had then.
//! (Chance decides which of the members an event strikes.)

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::events::Event;
use super::world::World;
use crate::harness::{Daemon, seconds, within};

/// Checks of a process until it is warm: one round.
const WARM_UP: u32 = Event::ALL.len() as u32;
/// Growth of a warm process at most (KiB): allocators keep what they had for a burst.
const GROWTH_KIB_MAX: u64 = 4096;

/// The numbers of one process.
#[derive(Clone, Copy, Default)]
struct Numbers {
    resident_kib: u64,
    descriptors: usize,
    threads: usize,
    namespaces: usize,
}

/// The life of one process.
#[derive(Clone, Copy, Default)]
struct Process {
    checks: u32,
    first: Numbers,
    /// The most of each number in the warm-up.
    warm: Numbers,
    last: Numbers,
}

/// The numbers of all processes, by id.
#[derive(Default)]
pub struct Vitals {
    processes: BTreeMap<u32, (String, Process)>,
    /// The most of each number in the warm-up of any member.
    warm_members: Numbers,
    /// The same of the hub, before and after crashes.
    warm_hub: Numbers,
}

impl Numbers {
    fn of(daemon: &Daemon) -> Numbers {
        let directory = format!("/proc/{}", daemon.pid());
        let links = |folder: &str| -> Vec<String> {
            let entries = fs::read_dir(Path::new(&directory).join(folder)).expect("it runs");
            let paths = entries.flatten().map(|entry| fs::read_link(entry.path()));
            // A descriptor may be closed meanwhile.
            paths.flatten().map(|path| path.to_string_lossy().into_owned()).collect()
        };
        let descriptors = links("fd");
        let threads: Vec<_> =
            fs::read_dir(format!("{directory}/task")).expect("it runs").flatten().collect();
        let spaces = threads.iter().map(|one| fs::read_link(one.path().join("ns/net")));
        let spaces = spaces.flatten().map(|path| path.to_string_lossy().into_owned());
        let held = descriptors.iter().filter(|path| path.starts_with("net:[")).cloned();
        Numbers {
            resident_kib: daemon.resident_kib(),
            descriptors: descriptors.len(),
            threads: threads.len(),
            namespaces: spaces.chain(held).collect::<BTreeSet<_>>().len(),
        }
    }

    fn most(self, other: Numbers) -> Numbers {
        Numbers {
            resident_kib: self.resident_kib.max(other.resident_kib),
            descriptors: self.descriptors.max(other.descriptors),
            threads: self.threads.max(other.threads),
            namespaces: self.namespaces.max(other.namespaces),
        }
    }

    /// Whether a process that had at most `warm` in its warm-up does not leak.
    fn are_flat(self, warm: Numbers) -> bool {
        self.resident_kib <= warm.resident_kib + GROWTH_KIB_MAX
            && self.descriptors <= warm.descriptors
            && self.threads <= warm.threads
            && self.namespaces <= warm.namespaces
    }

    fn text(self) -> String {
        let Numbers { resident_kib, descriptors, threads, namespaces } = self;
        format!(
            "{resident_kib} KiB, {descriptors} descriptors, {threads} threads, {namespaces} netns"
        )
    }
}

impl Vitals {
    /// Checks all daemons. A client that has just left may still have its thread: panics if a
    /// number stays too high for ten seconds.
    pub fn check(&mut self, world: &World) -> String {
        let members = world.members.iter().map(|member| &member.daemon);
        let mut of_members = Numbers::default();
        for daemon in members {
            let warm = self.warm_members;
            of_members = of_members.most(self.check_one(daemon, warm));
        }
        let of_hub = self.check_one(&world.hub, self.warm_hub);
        for (name, process) in self.processes.values() {
            let is_hub = *name == world.hub.interface;
            let warm = if is_hub { &mut self.warm_hub } else { &mut self.warm_members };
            *warm = warm.most(process.warm);
        }
        format!("hub {}; members at most {}", of_hub.text(), of_members.text())
    }

    fn check_one(&mut self, daemon: &Daemon, warm: Numbers) -> Numbers {
        let entry = self.processes.entry(daemon.pid());
        let (_, process) = entry.or_insert_with(|| (daemon.interface.clone(), Process::default()));
        process.checks += 1;
        let mut last = Numbers::default();
        let is_warm = process.checks > WARM_UP;
        let is_flat = within(seconds(10), || {
            last = Numbers::of(daemon);
            !is_warm || last.are_flat(warm)
        });
        let (warm, name) = (warm.text(), &daemon.interface);
        assert!(is_flat, "{name} leaks: {}; in the warm-up at most {warm}", last.text());
        if process.checks == 1 {
            process.first = last;
        }
        if !is_warm {
            process.warm = process.warm.most(last);
        }
        process.last = last;
        last
    }

    /// The growth of each process in the whole run.
    pub fn summary(&self) -> String {
        let mut text = String::from("memory at first, at most in the warm-up, and at last (KiB):");
        for (name, Process { checks, first, warm, last }) in self.processes.values() {
            let [first, warm, last] = [first, warm, last].map(|numbers| numbers.resident_kib);
            write!(text, " {name} {first}, {warm}, {last} ({checks} checks);")
                .expect("a string grows");
        }
        text
    }
}
