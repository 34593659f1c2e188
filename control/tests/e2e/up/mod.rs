//! `wg-bounce up`, `down`, `reload` and `save`.

mod alone;
mod differential;
mod events;
mod families;
pub mod hub;
mod life;
mod names;
mod reload;
mod show;
#[cfg(feature = "tui")]
mod top;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::harness::{Backend, Background, Lab, Namespace, Outcome, Program, eventually, seconds};

/// An interface with its file, in a namespace.
pub struct Tunnel<'a> {
    lab: &'a Lab,
    /// The namespace.
    pub namespace: Namespace,
    /// The name of the interface.
    pub interface: String,
    pub file: PathBuf,
    backend: Backend,
    /// Programs that are found before those of the system.
    pub programs: PathBuf,
}

impl<'a> Tunnel<'a> {
    pub fn new(lab: &'a Lab, namespace: &Namespace, role: &str, backend: Backend) -> Tunnel<'a> {
        let interface = lab.interface(role);
        let directory = lab.file(role);
        let programs = directory.join("bin");
        fs::create_dir_all(&programs).expect("the lab's directory is writable");
        let file = directory.join(format!("{interface}.conf"));
        Tunnel { lab, namespace: namespace.clone(), interface, file, backend, programs }
    }

    /// Writes the file, as its owner alone may read it.
    pub fn write(&self, text: &str) {
        fs::write(&self.file, text).expect("the lab's directory is writable");
        fs::set_permissions(&self.file, Permissions::from_mode(0o600)).expect("our own file");
    }

    fn line(&self, command: &str) -> String {
        let (program, path) = (Program::under_test(), std::env::var("PATH").expect("set"));
        format!(
            "env PATH={}:{path} WG_QUICK_USERSPACE_IMPLEMENTATION={} WG_BOUNCE_IO={} \
             WG_BOUNCE_WORKERS=2 {command} {}",
            self.programs.display(),
            program.display(),
            self.backend.name(),
            self.file.display(),
        )
    }

    /// Runs `wg-bounce VERB FILE`.
    pub fn attempt(&self, verb: &str) -> Outcome {
        let line = format!("{} {verb}", Program::under_test().display());
        self.namespace.attempt(&self.line(&line))
    }

    pub fn run(&self, verb: &str) -> String {
        self.attempt(verb).expect_ok()
    }

    /// Starts `wg-bounce up FILE`, with variables of the environment.
    pub fn start(&self, environment: &str) -> Background {
        let line = format!("{environment} {} up", Program::under_test().display());
        self.namespace.spawn(self.lab, &self.line(&line))
    }

    /// As [`Tunnel::start`], by other programs.
    pub fn start_under(&self, wrapper: &[&str], environment: &str) -> Background {
        let line = format!("{environment} {} up", Program::under_test().display());
        let mut command = self.namespace.command(wrapper[0]);
        command.args(&wrapper[1..]).args(self.line(&line).split_whitespace());
        Background::spawn(command, "up", self.lab.file("up"))
    }

    /// As [`Tunnel::start`], and waits until the interface is up.
    pub fn up(&self) -> Background {
        let mut process = self.start("");
        wait_until_up(&mut process, seconds(10));
        process
    }

    /// As [`Tunnel::up`], with this file in the place of one of the system's.
    pub fn up_with(&self, file: &Path, place: &str, environment: &str) -> Background {
        let script = format!("mount --bind {} {place} && exec \"$@\"", file.display());
        let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"];
        let mut process = self.start_under(&wrapper, environment);
        wait_until_up(&mut process, seconds(10));
        process
    }

    pub fn wg_quick(&self, verb: &str) {
        self.namespace.run(&self.line(&format!("wg-quick {verb}")));
    }

    pub fn has_interface(&self) -> bool {
        self.namespace.attempt(&format!("ip link show {}", self.interface)).is_ok()
    }

    /// Everything that wg-quick(8) sets up but its firewall.
    pub fn state(&self) -> Vec<String> {
        let run = |line: &str| self.namespace.run(&line.replace("IF", &self.interface));
        let mut state = Vec::new();
        for line in ["ip -4 rule", "ip -6 rule"] {
            state.extend(run(line).lines().map(str::to_owned));
        }
        for line in ["ip -4 route show table all", "ip -6 route show table all"] {
            let mut routes: Vec<_> = run(line).lines().map(|one| one.trim().to_owned()).collect();
            routes.sort();
            state.extend(routes);
        }
        state.push(run("sysctl net.ipv4.conf.all.src_valid_mark"));
        if !self.has_interface() {
            return state;
        }
        let link = run("ip -o link show IF");
        state.push(link.split_whitespace().skip(1).take(4).collect::<Vec<_>>().join(" "));
        for line in run("ip -o address show IF").lines() {
            state.push(line.split_whitespace().skip(2).take(4).collect::<Vec<_>>().join(" "));
        }
        // The order of peers and of their prefixes has no meaning.
        let section = |text: &str| {
            let lines = text.trim().lines().map(|line| match line.split_once("IPs = ") {
                Some((name, list)) => {
                    let mut prefixes: Vec<_> = list.split(", ").collect();
                    prefixes.sort_unstable();
                    format!("{name}IPs = {}", prefixes.join(", "))
                }
                None => line.to_owned(),
            });
            lines.collect::<Vec<_>>().join("\n")
        };
        let mut sections: Vec<_> = run("wg showconf IF").split("\n\n").map(section).collect();
        sections[1..].sort();
        state.extend(sections);
        state
    }
}

/// Waits until the interface of `wg-bounce up` is up.
#[track_caller]
pub fn wait_until_up(process: &mut Background, limit: Duration) {
    eventually(limit, "it is up", || {
        assert!(!process.has_ended(), "it ended: {}", process.output());
        process.output().contains(" is up, from ")
    });
}

/// Compares two states; a failure shows what only one of them has.
#[track_caller]
pub fn assert_same(state: &[String], expected: &[String], what: &str) {
    let only = |these: &[String], those: &[String]| -> Vec<String> {
        these.iter().filter(|line| !those.contains(line)).cloned().collect()
    };
    let (more, fewer) = (only(state, expected), only(expected, state));
    assert!(state == expected, "{what}: too much {more:#?}, too little {fewer:#?}");
}

/// A host with an uplink, whose routes have several MTUs.
pub fn host_with_uplink(lab: &Lab) -> Namespace {
    let (host, router) = (lab.namespace("host"), lab.namespace("router"));
    lab.link((&host, "out0"), (&router, "host"), 1500);
    for line in [
        "ip address add 192.0.2.2/24 dev out0",
        "ip address add 2001:db8::2/64 dev out0",
        "ip route add default via 192.0.2.1 mtu 1400",
        "ip -6 route add default via 2001:db8::1",
        "ip route add 198.51.100.0/24 via 192.0.2.1 mtu 1480",
    ] {
        host.run(line);
    }
    host
}
