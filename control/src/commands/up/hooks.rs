//! Hooks: the lines PreUp, PostUp, PreDown and PostDown, run as wg-quick(8) runs them.

use std::process::Command;

use crate::config_file::model::{Hook, HookTime};

/// Runs the hooks of this time, in their order, up to the first one that fails.
///
/// # Errors
/// The one that failed, with its line and its exit code.
pub(super) fn run<'a>(
    hooks: impl IntoIterator<Item = &'a Hook>,
    at: HookTime,
    interface: &str,
) -> Result<(), String> {
    hooks.into_iter().filter(|hook| hook.at == at).try_for_each(|hook| run_one(hook, interface))
}

/// Runs the hooks of this time, also those behind one that fails. Failures are logged.
pub(super) fn run_all<'a>(
    hooks: impl IntoIterator<Item = &'a Hook>,
    at: HookTime,
    interface: &str,
) {
    for hook in hooks.into_iter().filter(|hook| hook.at == at) {
        if let Err(error) = run_one(hook, interface) {
            log::warn!("{error}");
        }
    }
}

fn run_one(hook: &Hook, interface: &str) -> Result<(), String> {
    let name = match hook.at {
        HookTime::PreUp => "PreUp",
        HookTime::PostUp => "PostUp",
        HookTime::PreDown => "PreDown",
        HookTime::PostDown => "PostDown",
    };
    let line = hook.place.line;
    let command = hook.command.replace("%i", interface);
    log::info!("{name}: {command}");
    // The options that wg-quick's own shell has.
    let options = ["-e", "-o", "pipefail", "-O", "extglob"];
    let status = Command::new("bash")
        .args(options)
        .args(["-c", &command])
        .env("LC_ALL", "C")
        .status()
        .map_err(|error| format!("{name} in line {line}: cannot run bash: {error}"))?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("{name} in line {line} failed ({status}): {command}")),
    }
}
