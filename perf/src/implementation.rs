//! What there is to measure, as data.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::process::{Process, STEP_LIMIT, tied};

/// Where a program lies unless a path is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the folder of this program: where cargo puts both.
    Beside,
    /// Where `scripts/peers` puts it: `peers/bin` in the folder above this program's.
    Peers,
    /// On the PATH.
    Path,
    /// In the kernel: there is no program.
    Kernel,
}

/// One way to run a WireGuard daemon.
#[derive(Debug, PartialEq, Eq)]
pub struct Implementation {
    /// What `--implementations` calls it.
    name: &'static str,
    /// Implementations of the same family are ways to run one program, and not each other's rivals.
    family: &'static str,
    program: &'static str,
    place: Place,
    /// What it needs of the processor, as `/proc/cpuinfo` calls it.
    cpu_flag: Option<&'static str>,
    /// Arguments before the interface's name. It must stay in the foreground.
    arguments: &'static [&'static str],
    /// Its whole environment but for the PATH.
    environment: &'static [(&'static str, &'static str)],
    /// What is in the lines of its log that say how it runs: the I/O and the AEAD in use, who
    /// forwards.
    tells: &'static [&'static str],
}

/// `wg-bounce` in the foreground, with the arguments that follow. It logs a handful of lines, none
/// for a peer or a packet.
macro_rules! wg_bounce {
    ($name:literal $(, $argument:literal)*) => {
        wg_bounce!($name $(, $argument)*; needs None)
    };
    ($name:literal $(, $argument:literal)*; needs $cpu_flag:expr) => {
        Implementation {
            name: $name,
            family: "wg-bounce",
            program: "wg-bounce",
            place: Place::Beside,
            cpu_flag: $cpu_flag,
            arguments: &["--foreground", "--log-level", "info" $(, $argument)*],
            environment: &[],
            tells: &[") interface ", ") relay: "],
        }
    };
}

/// What the kernel's own WireGuard is called.
const KERNEL: &str = "kernel";

/// Every implementation that is known. Ours without `--relay` or `--aead` chooses by itself.
pub const IMPLEMENTATIONS: &[Implementation] = &[
    wg_bounce!("wg-bounce-uring", "--io", "uring"),
    wg_bounce!("wg-bounce-mmsg", "--io", "mmsg"),
    wg_bounce!("wg-bounce-direct-uring", "--io", "uring", "--relay", "direct"),
    wg_bounce!("wg-bounce-direct-mmsg", "--io", "mmsg", "--relay", "direct"),
    wg_bounce!("wg-bounce-kernel-uring", "--io", "uring", "--relay", "kernel"),
    wg_bounce!("wg-bounce-kernel-mmsg", "--io", "mmsg", "--relay", "kernel"),
    wg_bounce!("wg-bounce-ring-uring", "--io", "uring", "--aead", "ring"),
    wg_bounce!("wg-bounce-ring-mmsg", "--io", "mmsg", "--aead", "ring"),
    wg_bounce!(
        "wg-bounce-avx2-uring", "--io", "uring", "--aead", "avx2";
        needs Some("avx2")
    ),
    wg_bounce!(
        "wg-bounce-avx2-mmsg", "--io", "mmsg", "--aead", "avx2";
        needs Some("avx2")
    ),
    wg_bounce!(
        "wg-bounce-avx512-uring", "--io", "uring", "--aead", "avx512";
        needs Some("avx512_vbmi2")
    ),
    wg_bounce!(
        "wg-bounce-avx512-mmsg", "--io", "mmsg", "--aead", "avx512";
        needs Some("avx512_vbmi2")
    ),
    Implementation {
        name: KERNEL,
        family: KERNEL,
        program: "",
        place: Place::Kernel,
        cpu_flag: None,
        arguments: &[],
        environment: &[],
        tells: &[],
    },
    Implementation {
        name: "wireguard-go",
        family: "wireguard-go",
        program: "wireguard-go",
        place: Place::Path,
        cpu_flag: None,
        arguments: &["-f"],
        environment: &[("LOG_LEVEL", "error")],
        tells: &[],
    },
    Implementation {
        name: "boringtun",
        family: "boringtun",
        program: "boringtun-cli",
        place: Place::Peers,
        cpu_flag: None,
        arguments: &["--disable-drop-privileges", "--foreground"],
        environment: &[("WG_LOG_LEVEL", "error")],
        tells: &[],
    },
    Implementation {
        name: "gotatun",
        family: "gotatun",
        program: "gotatun",
        place: Place::Peers,
        cpu_flag: None,
        arguments: &["--disable-drop-privileges", "--foreground"],
        environment: &[("WG_LOG_LEVEL", "error")],
        tells: &[],
    },
];

impl Implementation {
    fn named(name: &str) -> Option<&'static Implementation> {
        IMPLEMENTATIONS.iter().find(|implementation| implementation.name == name)
    }
}

/// What the operator wants measured: `NAME`, or `NAME@PATH` for a program that lies elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    implementation: &'static Implementation,
    path: Option<PathBuf>,
    /// Beside those that every run of it has.
    arguments: Vec<String>,
}

impl Choice {
    /// Implementations by their names, which must be known, each where it usually lies.
    pub fn named(names: &[&str]) -> Vec<Choice> {
        names.iter().map(|name| name.parse().expect("a name that is known")).collect()
    }

    /// With more arguments if it is of this family.
    pub fn with_arguments(mut self, family: &str, arguments: &[&str]) -> Choice {
        if self.family() == family {
            self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        }
        self
    }

    /// Implementations of one family are ways to run the same program.
    pub fn family(&self) -> &'static str {
        self.implementation.family
    }

    /// The program, or, in words, why it is not there.
    pub fn locate(&self, interrupt: &Interrupt) -> Result<Program, String> {
        let implementation = self.implementation;
        if let Some(flag) = implementation.cpu_flag.filter(|flag| !Machine::here().has(flag)) {
            return Err(format!("not there: this processor has no {flag}"));
        }
        let (path, version) = if implementation.place == Place::Kernel {
            (PathBuf::new(), kernel_version(interrupt)?)
        } else {
            let path = self.find()?;
            let version = version(&path, interrupt);
            (path, version)
        };
        let arguments = self.arguments.clone();
        Ok(Program { label: self.to_string(), implementation, arguments, path, version })
    }

    fn find(&self) -> Result<PathBuf, String> {
        let program = self.implementation.program;
        let folder = std::env::current_exe()
            .ok()
            .and_then(|path| path.parent().map(Path::to_path_buf))
            .unwrap_or_default();
        let (candidates, remedy) = match (&self.path, self.implementation.place) {
            (Some(path), _) => (vec![path.clone()], "given on the command line"),
            (None, Place::Beside) => {
                (vec![folder.join(program)], "cargo build --release -p wg-bounce-control")
            }
            (None, Place::Peers) => (
                folder
                    .parent()
                    .map(|above| above.join("peers/bin").join(program))
                    .into_iter()
                    .collect(),
                "scripts/peers installs it",
            ),
            (None, Place::Kernel) => (Vec::new(), "part of the kernel"),
            (None, Place::Path) => {
                let path = std::env::var_os("PATH").unwrap_or_default();
                let all = std::env::split_paths(&path).map(|folder| folder.join(program));
                (all.collect(), "scripts/setup installs it")
            }
        };
        let place = match candidates.as_slice() {
            [only] => only.display().to_string(),
            _ => format!("{program} on the PATH"),
        };
        let mut found = candidates.into_iter().filter_map(|path| fs::canonicalize(path).ok());
        found
            .find(|path| is_executable(path))
            .ok_or_else(|| format!("not there: no program {place} ({remedy})"))
    }
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Choice, String> {
        let (name, path) = match text.split_once('@') {
            Some((name, path)) => (name, Some(PathBuf::from(path))),
            None => (text, None),
        };
        let implementation = Implementation::named(name).ok_or_else(|| {
            let names: Vec<_> = IMPLEMENTATIONS.iter().map(|known| known.name).collect();
            format!("not one of {}, each with @PATH if it lies elsewhere", names.join(", "))
        })?;
        if path.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
            return Err("no path after the @".to_owned());
        }
        if path.is_some() && implementation.place == Place::Kernel {
            return Err(format!("{KERNEL} is no program: it has no @PATH"));
        }
        Ok(Choice { implementation, path, arguments: Vec::new() })
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.implementation.name)?;
        match &self.path {
            Some(path) => write!(formatter, "@{}", path.display()),
            None => Ok(()),
        }
    }
}

/// An implementation that is there.
#[derive(Clone, Debug)]
pub struct Program {
    /// As the operator wrote it.
    pub label: String,
    /// How to run it.
    pub implementation: &'static Implementation,
    /// Arguments beside those of the implementation.
    arguments: Vec<String>,
    /// The program, by its absolute path; empty if it is the kernel.
    pub path: PathBuf,
    /// What it says of itself; empty if nothing.
    pub version: String,
}

impl Program {
    /// Completes a command that runs the program, so that it makes the interface `name`.
    pub fn complete(&self, command: &mut Command, name: &str) {
        let Implementation { arguments, environment, .. } = self.implementation;
        command.args(*arguments).args(&self.arguments).arg(name).envs(environment.iter().copied());
    }

    /// Whether it is no program, but the kernel itself.
    pub fn is_kernel(&self) -> bool {
        self.implementation.place == Place::Kernel
    }

    /// What a log line says of how it runs: the I/O and the AEAD in use, who forwards.
    pub fn told<'a>(&self, line: &'a str) -> Option<&'a str> {
        self.implementation.tells.iter().find_map(|sign| {
            // The rest of the line, with the sign but for the parenthesis that ends the prefix.
            line.find(sign).map(|at| line[at..].trim_start_matches([')', ' ']))
        })
    }
}

/// The first line of what the program says when asked for its version.
fn version(path: &Path, interrupt: &Interrupt) -> String {
    let program = path.to_string_lossy();
    let mut command = tied(&program);
    command.arg("--version");
    let said = Process::run(command, &program, "", STEP_LIMIT, interrupt).unwrap_or_default();
    said.lines().next().unwrap_or_default().trim().to_owned()
}

/// The kernel's release, if it can make a WireGuard interface; otherwise why not, in words.
fn kernel_version(interrupt: &Interrupt) -> Result<String, String> {
    let mut command = tied("unshare");
    command.args(["--net", "ip", "link", "add", "name", "wg0", "type", "wireguard"]);
    Process::run(command, "making an interface of type wireguard", "", STEP_LIMIT, interrupt)
        .map_err(|why| format!("not there: this kernel has no WireGuard ({why})"))?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Ok(format!("Linux {}", release.trim()))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        for (index, one) in IMPLEMENTATIONS.iter().enumerate() {
            assert!(IMPLEMENTATIONS[index + 1..].iter().all(|other| other.name != one.name));
        }
    }

    #[test]
    fn a_choice_is_a_name_and_may_have_a_path() {
        for text in ["wireguard-go", "wg-bounce-mmsg@/opt/old/wg-bounce"] {
            let choice: Choice = text.parse().expect("well-formed");
            assert_eq!(choice.to_string(), text);
        }
        assert!("wireguard".parse::<Choice>().unwrap_err().contains("wireguard-go"));
        assert!("kernel@/boot".parse::<Choice>().unwrap_err().contains("no program"));
        assert!("wireguard-go@".parse::<Choice>().unwrap_err().contains("path"));
    }

    #[test]
    fn ours_tells_how_it_runs() {
        let program = Program {
            label: String::new(),
            implementation: Implementation::named("wg-bounce-uring").expect("it is known"),
            arguments: Vec::new(),
            path: PathBuf::new(),
            version: String::new(),
        };
        let line = "2026-11-25T02:54:08.680Z INFO: (wg0) interface wg0, io_uring (2 workers)";
        assert_eq!(program.told(line), Some("interface wg0, io_uring (2 workers)"));
        let line = "2026-11-25T02:54:08.683Z INFO: (wg0) relay: IPv4 by the kernel";
        assert_eq!(program.told(line), Some("relay: IPv4 by the kernel"));
        assert_eq!(program.told("INFO: (wg0) ended: SIGTERM"), None);
    }

    #[test]
    fn what_is_missing_says_so() {
        let choice: Choice = "boringtun@/nonexistent/boringtun-cli".parse().expect("well-formed");
        let why = choice.find().unwrap_err();
        assert!(why.contains("/nonexistent/boringtun-cli"), "{why}");
        // A folder, and a file that is no program.
        for path in ["/usr", "/etc/passwd"] {
            let choice: Choice = format!("boringtun@{path}").parse().expect("well-formed");
            assert!(choice.find().is_err(), "{path}");
        }
    }

    #[test]
    fn what_lies_on_the_path_is_found() {
        let sh = Implementation {
            name: "sh",
            family: "sh",
            program: "sh",
            place: Place::Path,
            cpu_flag: None,
            arguments: &[],
            environment: &[],
            tells: &[],
        };
        let choice =
            Choice { implementation: Box::leak(Box::new(sh)), path: None, arguments: Vec::new() };
        assert!(choice.find().expect("every system has one").is_absolute());
    }
}
