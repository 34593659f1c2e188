//! Errors of the kernel, put below the backends of a real engine (feature `faults` of the crate
//! `wg-bounce-sys`): whatever a call returns, every packet arrives or is counted as dropped, no
//! worker hangs or spins, and all buffers come back. A failure prints the seed that replays it:
//! `WG_BOUNCE_FAULTS_SEED=N`.
#![cfg(not(loom))] // loom replaces what an engine needs

mod each;
mod lasting;
mod random;
mod ring;
#[path = "../engine/support.rs"]
mod support;
mod traffic;
