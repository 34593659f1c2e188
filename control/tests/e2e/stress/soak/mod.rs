//! A hub and its peers over hours: mixed traffic, rekeys, roaming, edits, storms and faults. After
//! each interval all is quiet for a moment: all peers are reachable ([`World::settle`]), the books
//! are balanced ([`books`]), and memory, descriptors and threads are flat ([`vitals`]).
//!
//! `WG_BOUNCE_SOAK_SEED` chooses the order of everything that the test decides. The first line of
//! the output has it.

mod books;
mod events;
mod traffic;
mod vitals;
mod world;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wg_bounce_fuzz::Random;

use super::duration;
use crate::harness::{Backend, now, random_bytes, seconds};
use books::Books;
use events::Event;
use traffic::Traffic;
use vitals::Vitals;
use world::World;

/// Intervals of a short run, and the bounds of an interval.
const INTERVALS: u32 = 14;
const INTERVAL_MIN: Duration = Duration::from_secs(3);
const INTERVAL_MAX: Duration = Duration::from_secs(50);

/// The hub is killed in the first round of events, and in every fourth after it.
const ROUNDS_PER_CRASH: usize = 4;

/// Whether the run on one of the backends has failed: the other one ends as well.
static HAS_FAILED: AtomicBool = AtomicBool::new(false);

/// Notes a panic when it is dropped.
struct Watch;

impl Drop for Watch {
    fn drop(&mut self) {
        HAS_FAILED.fetch_or(std::thread::panicking(), Ordering::Relaxed);
    }
}

fn seed() -> u64 {
    let given = std::env::var("WG_BOUNCE_SOAK_SEED").ok();
    given.map_or_else(
        || u64::from(u32::from_le_bytes(random_bytes())),
        |text| text.parse().expect("WG_BOUNCE_SOAK_SEED is a whole number"),
    )
}

/// The events of one round, in an order of their own.
fn round_of_events(round: usize, random: &mut Random) -> Vec<Event> {
    let with_crash = round.is_multiple_of(ROUNDS_PER_CRASH);
    let mut events: Vec<_> =
        Event::ALL.into_iter().filter(|event| with_crash || *event != Event::Crash).collect();
    for last in (1..events.len()).rev() {
        events.swap(last, random.below(last + 1));
    }
    events
}

fn books_are_balanced_and_memory_is_flat(backend: Backend) {
    let _watch = Watch;
    let (start, seed, name) = (now(), seed(), backend.name());
    println!("{name}: WG_BOUNCE_SOAK_SEED={seed}, for {:?}", duration());
    let mut random = Random::new(seed);
    let length = (duration() / INTERVALS).clamp(INTERVAL_MIN, INTERVAL_MAX);
    let mut world = World::new(backend);
    world.settle();
    let (mut books, mut vitals) = (Books::new(&world), Vitals::default());
    let (mut events, mut rounds, mut intervals) = (Vec::new(), 0, 0);
    let goes_on = || start.elapsed() < duration() && !HAS_FAILED.load(Ordering::Relaxed);
    while intervals == 0 || goes_on() {
        if events.is_empty() {
            events = round_of_events(rounds, &mut random);
            rounds += 1;
        }
        let event = events.pop().expect("a round has events");
        let traffic = Traffic::start(&world, &mut random, event != Event::Calm);
        event.run(&mut world, &mut random, now() + length);
        let moved = traffic.stop();
        let quiet = now();
        world.settle();
        let settled = quiet.elapsed();
        let accounts = books.close(&mut world, event);
        let state = vitals.check(&world);
        intervals += 1;
        println!(
            "{name} {:>5} s {event:?}: {moved}; all reachable after {:.1} s; {accounts}; {state}",
            start.elapsed().as_secs(),
            settled.as_secs_f64(),
        );
    }
    println!(
        "{name}: {intervals} intervals in {} s, seed {seed}: {}; {}",
        start.elapsed().as_secs(),
        books.summary(),
        vitals.summary()
    );
    assert!(start.elapsed() < 3 * duration() + seconds(600), "intervals take too long");
}

on_both_backends!(books_are_balanced_and_memory_is_flat);
