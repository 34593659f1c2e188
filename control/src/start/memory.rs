//! The memory that this process may use.

use std::fs;
use std::path::Path;

use nix::sys::sysinfo::sysinfo;

/// The machine's memory, or the limit of this process's control group or of one above it if that
/// is less (bytes).
pub(super) fn limit() -> u64 {
    let machine = sysinfo().map_or(u64::MAX, |info| info.ram_total());
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    group_limit(&groups, Path::new("/sys/fs/cgroup")).unwrap_or(u64::MAX).min(machine)
}

/// The least limit of the groups named by the lines of `/proc/self/cgroup`, below `mounted`.
///
/// A container often sees its own group as the root, while its path is that outside: so each prefix
/// of the path is tried, down to the root.
fn group_limit(groups: &str, mounted: &Path) -> Option<u64> {
    let limits = groups.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        // See cgroups(7): version 2 has no names of controllers, and shares the mount point with
        // version 1 as "unified".
        let (folders, file): (&[&str], _) = match controllers {
            "" => (&["", "unified"], "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (&["memory"], "memory.limit_in_bytes")
            }
            _ => (&[], ""),
        };
        let prefixes = Path::new(path.trim_start_matches('/')).ancestors();
        prefixes.flat_map(move |prefix| {
            folders.iter().map(move |folder| mounted.join(folder).join(prefix).join(file))
        })
    });
    // No limit is "max", or a number beyond all memory.
    limits.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;

    #[test]
    fn the_least_limit_of_all_groups_above_counts() {
        let root = env::temp_dir().join(format!("wg-bounce-memory-{}", std::process::id()));
        let write = |file: &str, text: &str| {
            let file = root.join(file);
            fs::create_dir_all(file.parent().expect("below the root")).expect("writable");
            fs::write(file, text).expect("writable");
        };
        write("memory/a/memory.limit_in_bytes", "1000\n");
        write("memory/a/b/memory.limit_in_bytes", "9223372036854771712\n");
        write("system.slice/memory.max", "2000\n");
        write("system.slice/wg.service/memory.max", "max\n");
        write("unified/c/memory.max", "3000\n");
        let limit = |groups: &str| group_limit(groups, &root);

        assert_eq!(limit("4:memory:/a/b\n3:cpuset:/"), Some(1000));
        assert_eq!(limit("7:cpu,memory:/a"), Some(1000), "mounted together");
        assert_eq!(limit("4:memory:/other"), None);
        assert_eq!(limit("0::/system.slice/wg.service"), Some(2000));
        assert_eq!(limit("0::/c\n4:memory:/"), Some(3000));
        write("memory.max", "500\n");
        assert_eq!(limit("0::/of/the/host"), Some(500), "a container's own root");
        assert_eq!(limit(""), None);
        fs::remove_dir_all(&root).expect("ours");
    }
}
