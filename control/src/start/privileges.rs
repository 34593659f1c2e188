//! Gives up the privileges that the daemon does not need once its interface and socket exist.
//!
//! For the daemon itself only. What it gives up cannot be regained, so a program that must later
//! run other programs with full privileges, such as hooks, has to run them from another process.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::prctl;
use nix::unistd::geteuid;
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// The capabilities that the running daemon uses, where it has them:
/// - CAP_NET_ADMIN: large socket buffers, marks, sysctls of the interface, reading nftables;
/// - CAP_SYS_ADMIN: entering the interface's network namespace, finding BPF programs, io_uring
///   where `kernel.io_uring_disabled` is 1;
/// - CAP_NET_BROADCAST: events of links in other namespaces (NETLINK_LISTEN_ALL_NSID);
/// - CAP_NET_BIND_SERVICE: a later `listen_port` below 1024;
/// - CAP_IPC_LOCK: rings beyond RLIMIT_MEMLOCK.
const USED: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::NET_BROADCAST)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::IPC_LOCK);

/// Drops all other capabilities, empties the bounding, inheritable and ambient sets, and sets
/// `no_new_privs`. The calling thread must be the only one. None of this is required to run:
/// failures are logged.
///
/// `directory` is the socket's: where it belongs to another user, removing the socket at the end
/// takes CAP_DAC_OVERRIDE.
pub(super) fn reduce(directory: &Path) {
    if let Err(errno) = prctl::set_no_new_privs() {
        log::warn!("process: cannot set no_new_privs: {errno}");
    }
    let owner = fs::metadata(directory).map(|metadata| metadata.uid());
    let is_ours = owner.is_ok_and(|owner| owner == geteuid().as_raw());
    let used = if is_ours { USED } else { USED | CapabilitySet::DAC_OVERRIDE };
    match reduce_sets(used) {
        Ok(sets) => {
            let names: Vec<_> = sets.effective.iter_names().map(|(name, _)| name).collect();
            log::debug!("process: capabilities reduced to {}", names.join(", "));
        }
        Err(errno) => log::warn!("process: cannot reduce capabilities: {errno}"),
    }
}

fn reduce_sets(used: CapabilitySet) -> Result<CapabilitySets, Errno> {
    let sets = capabilities(None)?;
    // EINVAL: not a capability of this kernel. EPERM: the bounding set takes CAP_SETPCAP.
    for number in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            Ok(()) => {}
            Err(Errno::INVAL) => break,
            Err(errno) => {
                log::debug!("process: cannot empty the capability bounding set: {errno}");
                break;
            }
        }
    }
    clear_ambient_capability_set()?;
    let kept = CapabilitySets {
        effective: sets.effective & used,
        permitted: sets.permitted & used,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, kept)?;
    Ok(kept)
}

/// Whether the process may create interfaces; true if that cannot be determined.
pub(super) fn has_net_admin() -> bool {
    capabilities(None).map_or(true, |sets| sets.effective.contains(CapabilitySet::NET_ADMIN))
}
