//! Hooks: the lines PreUp, PostUp, PreDown and PostDown, run as wg-quick(8) runs them.

use std::process::Command;

use wg_bounce_sys::inherit;

use super::signals::Signals;
use crate::config_file::model::{Hook, HookTime};
use crate::config_file::quote::hide_keys;

/// The environment variable that a hook has, with the interface: commands refuse to ask the process
/// that waits for them.
pub(super) const HOOK: &str = "WG_BOUNCE_HOOK";

/// Runs the hooks of this time, in their order, up to the first one that fails.
///
/// # Errors
/// The one that failed, with its line and its exit code.
pub(super) fn run(
    hooks: &[Hook],
    at: HookTime,
    interface: &str,
    signals: &mut Signals,
) -> Result<(), String> {
    let mut hooks = hooks.iter().filter(|hook| hook.at == at);
    hooks.try_for_each(|hook| run_one(hook, interface, signals))
}

/// Runs the hooks of this time, also those behind one that fails. Failures are logged.
pub(super) fn run_all(hooks: &[Hook], at: HookTime, interface: &str, signals: &mut Signals) {
    for hook in hooks.iter().filter(|hook| hook.at == at) {
        if let Err(error) = run_one(hook, interface, signals) {
            log::warn!("{error}");
        }
    }
}

/// The hooks of one file that another one does not have, wherever they stand.
pub(super) fn without(these: &[Hook], those: &[Hook]) -> Vec<Hook> {
    let is_same = |one: &Hook, other: &Hook| (one.at, &one.command) == (other.at, &other.command);
    let is_new = |hook: &&Hook| !those.iter().any(|other| is_same(hook, other));
    these.iter().filter(is_new).cloned().collect()
}

fn run_one(hook: &Hook, interface: &str, signals: &mut Signals) -> Result<(), String> {
    let name = match hook.at {
        HookTime::PreUp => "PreUp",
        HookTime::PostUp => "PostUp",
        HookTime::PreDown => "PreDown",
        HookTime::PostDown => "PostDown",
    };
    let line = hook.place.line;
    let command = hook.command.replace("%i", interface);
    log::info!("{name}: {}", hide_keys(&command));
    // The options that wg-quick's own shell has.
    let options = ["-e", "-o", "pipefail", "-O", "extglob"];
    let mut bash = Command::new("bash");
    bash.args(options).args(["-c", &command]).env("LC_ALL", "C").env(HOOK, interface);
    let child = inherit::unblock_signals(&mut bash).spawn();
    let status = child.and_then(|mut child| signals.wait(&mut child));
    let status =
        status.map_err(|error| format!("{name} in line {line}: cannot run bash: {error}"))?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("{name} in line {line} failed ({status}): {}", hide_keys(&command))),
    }
}
