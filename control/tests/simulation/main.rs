//! Simulation of several devices on virtual time. A failure prints its seed, and
//! `WG_BOUNCE_SEED=<seed> cargo test -p wg-bounce-control --test simulation seeds` replays it.
//! `WG_BOUNCE_SEEDS=<count>` sets the number of seeds.

mod adversary;
mod clocks;
mod config;
mod node;
mod pair;
mod pending_responses;
mod slow_paths;
mod timers;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use world::World;

/// Default number of seeds.
const SEEDS: u64 = 2000;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn seeds() {
    if let Some(seed) = variable("WG_BOUNCE_SEED") {
        let mut world = World::new(seed);
        world.run();
        println!("seed {seed}: recovered after {:?}", world.recovered_after);
        return;
    }
    let count = variable("WG_BOUNCE_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let slowest = AtomicU64::new(0);
    let failed = AtomicU64::new(u64::MAX);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while failed.load(Ordering::Relaxed) == u64::MAX {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= count {
                        return;
                    }
                    let result = catch_unwind(AssertUnwindSafe(|| {
                        let mut world = World::new(seed);
                        world.run();
                        world.recovered_after.0
                    }));
                    match result {
                        Ok(millis) => slowest.fetch_max(millis << 32 | seed, Ordering::Relaxed),
                        Err(_) => failed.fetch_min(seed, Ordering::Relaxed),
                    };
                }
            });
        }
    });
    let failed = failed.into_inner();
    assert!(failed == u64::MAX, "replay with WG_BOUNCE_SEED={failed}");
    let (millis, seed) = (slowest.load(Ordering::Relaxed) >> 32, slowest.into_inner() as u32);
    println!("{count} seeds; the slowest, {seed}, recovered after {millis} ms");
}
