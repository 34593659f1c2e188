//! The books: what came in went out, was dropped for a reason, or waits. Once all is quiet they are
//! balanced exactly:
//!
//! 1. per worker, of every daemon ([`imbalance`]);
//! 2. handshake messages of all workers against what control made of them;
//! 3. frames of the TUN against the kernel's counters of the interface;
//! 4. datagrams against what the kernel's UDP has delivered in the hub's namespace;
//! 5. the sums over the hub's peers against those over its workers: per counter and reason, the
//!    difference is what removed peers have taken with them, and stays while none is removed;
//! 6. after a calm interval in which the kernel dropped nothing: what each member has sent against
//!    what the hub has received from it, and the other way round.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;
use wg_bounce_dataplane::counters::{DropReason, imbalance};

use super::events::Event;
use super::world::World;
use crate::harness::{Daemon, Program, counters_sum, seconds, within};

/// The reasons that are counted for a worker only, mostly because the peer is not known.
const WITHOUT_PEER: [DropReason; 11] = [
    DropReason::Malformed,
    DropReason::BadMac1,
    DropReason::NoPrivateKey,
    DropReason::HandshakeQueueFull,
    DropReason::UnknownIndex,
    DropReason::InterfaceDown,
    DropReason::HandOffFull,
    DropReason::TunRefused,
    DropReason::BadFrame,
    DropReason::NoPeer,
    DropReason::LinkLocalChatter,
];

/// The reasons for which an authentic message is dropped before it counts as received.
const NOT_RECEIVED: [DropReason; 3] =
    [DropReason::ExpiredSession, DropReason::NotAuthentic, DropReason::Replayed];

/// The results of handshake messages, besides the reasons for dropping them.
const HANDLED: [&str; 4] =
    ["responses_sent", "cookie_replies_sent", "sessions_initiated", "cookies_received"];

type Counters = BTreeMap<String, u64>;

/// The counters of one daemon.
#[derive(Clone, Default)]
struct Sheet {
    workers: Vec<Counters>,
    handshakes: Counters,
    peers: BTreeMap<String, Counters>,
}

/// The counters of all daemons at one moment.
#[derive(Clone, Default)]
struct Sheets {
    hub: Sheet,
    members: Vec<Sheet>,
    /// Datagrams and frames that the kernel dropped on the way.
    dropped_by_kernel: u64,
}

/// The books of one run.
#[derive(Default)]
pub struct Books {
    last: Sheets,
    /// By counter: the sum over the hub's workers less that over its peers.
    taken_away: BTreeMap<String, i64>,
    /// The process that these counters are of.
    pid: u32,
    received: u64,
    dropped: u64,
    calm: u32,
}

impl Sheet {
    fn of(daemon: &Daemon) -> Sheet {
        let program = Program::under_test();
        let line = format!("{} show {} --json", program.display(), daemon.interface);
        let report: Value =
            serde_json::from_str(&daemon.namespace.run(&line)).expect("a report in JSON");
        let all = |list: &Value| -> Vec<Value> { list.as_array().expect("a list").clone() };
        let key = |peer: &Value| peer["public_key"].as_str().expect("a key").to_owned();
        Sheet {
            workers: all(&report["workers"]).iter().map(counters).collect(),
            handshakes: counters(&report["handshakes"]),
            peers: all(&report["peers"])
                .iter()
                .map(|peer| (key(peer), counters(&peer["counters"])))
                .collect(),
        }
    }

    /// The sum of a counter over all workers.
    fn sum(&self, name: &str) -> u64 {
        self.workers.iter().map(|worker| value(worker, name)).sum()
    }

    /// The sum over all peers.
    fn sum_of_peers(&self, name: &str) -> u64 {
        self.peers.values().map(|peer| value(peer, name)).sum()
    }

    fn dropped(&self) -> u64 {
        DropReason::ALL.iter().map(|reason| self.sum(reason.name())).sum()
    }
}

fn counters(object: &Value) -> Counters {
    let object = object.as_object().expect("counters by name");
    let number = |value: &Value| value.as_u64().expect("a number");
    object.iter().map(|(name, value)| (name.clone(), number(value))).collect()
}

fn value(counters: &Counters, name: &str) -> u64 {
    counters.get(name).copied().unwrap_or(0)
}

impl Sheets {
    fn of(world: &World) -> Sheets {
        let daemons = world.members.iter().map(|member| &member.daemon);
        let mut dropped_by_kernel = 0;
        for daemon in daemons.clone().chain([&world.hub]) {
            let errors = ["UdpRcvbufErrors", "Udp6RcvbufErrors", "UdpMemErrors", "Udp6MemErrors"];
            dropped_by_kernel += counters_sum(&daemon.namespace, &errors);
            let links = daemon.namespace.run("ip -s -j link show type veth");
            let links: Value = serde_json::from_str(&links).expect("links in JSON");
            for link in links.as_array().expect("a list") {
                let stats = &link["stats64"];
                dropped_by_kernel +=
                    number(&stats["rx"]["dropped"]) + number(&stats["tx"]["dropped"]);
            }
        }
        let members = daemons.map(Sheet::of).collect();
        Sheets { hub: Sheet::of(&world.hub), members, dropped_by_kernel }
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

impl Books {
    /// The books of a world in which all is quiet.
    pub fn new(world: &World) -> Books {
        Books { last: Sheets::of(world), ..Books::default() }
    }

    /// Balances the books. Panics with everything that is wrong if they are not balanced within
    /// half a minute, in which the last keepalives and handshakes pass.
    pub fn close(&mut self, world: &mut World, event: Event) -> String {
        if self.pid != world.hub.pid() {
            (self.pid, self.last.hub) = (world.hub.pid(), Sheet::default());
            self.taken_away.clear();
        }
        let mut sheets = Sheets::default();
        let mut problems = String::new();
        let is_balanced = within(seconds(30), || {
            sheets = Sheets::of(world);
            problems = self.problems(&sheets, world, event);
            problems.is_empty()
        });
        assert!(is_balanced, "after {event:?}, the books are not balanced:\n{problems}");
        self.taken_away = differences(&sheets.hub);
        world.has_removed = false;
        let since = |of: fn(&Sheet) -> u64| of(&sheets.hub) - of(&self.last.hub);
        let received = since(|hub| hub.sum("received_datagrams"));
        let read = since(|hub| hub.sum("tun_packets_read"));
        let dropped = since(Sheet::dropped);
        self.received += received + read;
        self.dropped += dropped;
        let mut text = format!("hub {received} datagrams, {read} packets of the TUN in, ");
        write!(text, "{} relayed, ", since(|hub| hub.sum("relayed"))).expect("a string grows");
        write!(text, "{dropped} dropped").expect("a string grows");
        let mut separator = ':';
        for reason in DropReason::ALL {
            let count = sheets.hub.sum(reason.name()) - self.last.hub.sum(reason.name());
            if count > 0 {
                let name = reason.name().trim_start_matches("drop_");
                write!(text, "{separator} {name} {count}").expect("a string grows");
                separator = ',';
            }
        }
        let handshakes = sheets.hub.sum("handshake_messages");
        let lost = sheets.dropped_by_kernel - self.last.dropped_by_kernel;
        write!(text, "; {handshakes} handshake messages; {lost} lost in the kernel; balanced")
            .expect("a string grows");
        self.last = sheets;
        text
    }

    /// The sums over the whole run, as text.
    pub fn summary(&self) -> String {
        let Books { received, dropped, calm, .. } = self;
        format!(
            "{received} datagrams and packets into the hub, {dropped} dropped, all accounted for; \
             {calm} calm intervals without a loss"
        )
    }

    /// Everything that is not balanced, one line each.
    fn problems(&mut self, sheets: &Sheets, world: &World, event: Event) -> String {
        let mut problems = String::new();
        let mut expect = |what: &str, is: i64, range: std::ops::RangeInclusive<i64>| {
            if !range.contains(&is) {
                writeln!(problems, "{what}: {is} instead of {range:?}").expect("a string grows");
            }
        };
        let daemons = world.members.iter().map(|member| &member.daemon);
        for (daemon, sheet) in
            daemons.clone().zip(&sheets.members).chain([(&world.hub, &sheets.hub)])
        {
            let name = &daemon.interface;
            for (number, worker) in sheet.workers.iter().enumerate() {
                let all = worker.iter().map(|(name, value)| (name.as_str(), *value));
                let what = format!("{name}: worker {number}: in less out ({worker:?})");
                expect(&what, imbalance(all), 0..=0);
            }
            let results = HANDLED.iter().map(|name| value(&sheet.handshakes, name));
            let drops = sheet.handshakes.iter().filter(|(name, _)| name.starts_with("drop_"));
            let handled: u64 = results.chain(drops.map(|(_, count)| *count)).sum();
            let messages = sheet.sum("handshake_messages");
            let what = format!("{name}: handshake messages ({:?})", sheet.handshakes);
            expect(&what, messages.cast_signed() - handled.cast_signed(), 0..=0);
            let (written, read) = frames(daemon);
            let sent = sheet.sum("tun_frames_read").cast_signed();
            expect(&format!("{name}: frames read"), sent - read.cast_signed(), 0..=0);
            let received = sheet.sum("tun_frames_written").cast_signed();
            expect(&format!("{name}: frames written"), received - written.cast_signed(), 0..=0);
        }
        // What one worker hands to another is received twice.
        let trains = sheets.hub.sum("received_trains") - sheets.hub.sum("handed_off");
        let kernel = world.received();
        expect("hub: UDP receives", trains.cast_signed() - kernel.cast_signed(), 0..=0);
        let later = |name: &str| (sheets.hub.sum(name) - self.last.hub.sum(name)).cast_signed();
        for (name, difference) in differences(&sheets.hub) {
            let before = self.taken_away.get(&name).copied().unwrap_or(0);
            let end = match name.as_str() {
                _ if world.has_removed => i64::MAX,
                // Both reasons also drop packets on their way out.
                "received_datagrams" => {
                    before
                        + later(DropReason::ExpiredSession.name())
                        + later(DropReason::InterfaceDown.name())
                }
                _ => before,
            };
            expect(&format!("hub: {name} of workers less of peers"), difference, before..=end);
        }
        let lost_by_kernel = sheets.dropped_by_kernel - self.last.dropped_by_kernel;
        if event == Event::Calm && lost_by_kernel == 0 {
            for (index, member) in world.members.iter().enumerate() {
                let key = member.daemon.key.public();
                let [at_hub, at_hub_before] = [&sheets.hub, &self.last.hub]
                    .map(|sheet| sheet.peers.get(&key).cloned().unwrap_or_default());
                let [own, own_before] = [&sheets.members[index], &self.last.members[index]];
                let later = |now: u64, before: u64| now.cast_signed() - before.cast_signed();
                let at_hub = |name: &str| later(value(&at_hub, name), value(&at_hub_before, name));
                let own = |name: &str| later(own.sum_of_peers(name), own_before.sum_of_peers(name));
                let lost = |sent: i64, receiver: &dyn Fn(&str) -> i64| {
                    let dropped = NOT_RECEIVED.map(|reason| receiver(reason.name()));
                    sent - receiver("received_datagrams") - dropped.iter().sum::<i64>()
                };
                let to_hub = lost(own("sent_datagrams"), &at_hub);
                let from_hub = lost(at_hub("sent_datagrams"), &own);
                expect(&format!("{key}: lost on the way to the hub"), to_hub, 0..=0);
                expect(&format!("{key}: lost on the way from the hub"), from_hub, 0..=0);
            }
            self.calm += u32::from(problems.is_empty());
        }
        problems
    }
}

/// The counters that both workers and peers have: the sum over workers less that over peers.
fn differences(hub: &Sheet) -> BTreeMap<String, i64> {
    let mut of_workers: BTreeMap<_, _> = ["sent_trains", "sent_datagrams", "relayed"]
        .into_iter()
        .chain(DropReason::ALL.iter().filter(|one| !WITHOUT_PEER.contains(one)).map(|r| r.name()))
        .map(|name| (name.to_owned(), hub.sum(name)))
        .collect();
    // Authentic messages: all but what went elsewhere or was dropped before that was known.
    let not_data = ["handed_off", "handshake_messages", "drop_not_authentic", "drop_replayed"];
    let rejected = WITHOUT_PEER[..5].iter().chain([&DropReason::HandOffFull]).map(|r| r.name());
    let others: u64 = not_data.into_iter().chain(rejected).map(|name| hub.sum(name)).sum();
    of_workers.insert("received_datagrams".to_owned(), hub.sum("received_datagrams") - others);
    let difference =
        |name: &str, sum: u64| sum.cast_signed() - hub.sum_of_peers(name).cast_signed();
    of_workers.into_iter().map(|(name, sum)| (name.clone(), difference(&name, sum))).collect()
}

/// The frames that the kernel has got from the daemon, and those that it has sent to it.
fn frames(daemon: &Daemon) -> (u64, u64) {
    let text = daemon.namespace.run(&format!("ip -s -j link show {}", daemon.interface));
    let links: Value = serde_json::from_str(&text).expect("links in JSON");
    let stats = &links[0]["stats64"];
    (number(&stats["rx"]["packets"]), number(&stats["tx"]["packets"]))
}
