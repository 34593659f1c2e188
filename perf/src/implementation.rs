//! The WireGuard implementations that can be measured, as data in `implementations.json`, and how
//! to find their programs.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::machine;
use crate::process::{Process, STEP_LIMIT, tied};
use crate::record::OURS;

/// Location of a program unless a path is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Place {
    /// In this program's folder: cargo puts both there.
    Sibling,
    /// In `peers/bin` in the folder above: `scripts/peers` puts it there.
    Peers,
    /// On the PATH.
    Path,
    /// In the kernel: there is no program.
    Kernel,
}

/// A WireGuard implementation. Rows of one daemon are not compared with each other.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Daemon {
    name: String,
    program: String,
    place: Place,
    /// Arguments before the interface's name. It must stay in the foreground.
    #[serde(default)]
    arguments: Vec<String>,
    /// Its environment except for the PATH.
    #[serde(default)]
    environment: BTreeMap<String, String>,
    /// Colours of its rows in plots (RGB, hexadecimal), which remain distinct with colour
    /// blindness: Okabe and Ito's palette, and shades of blue for wg-bounce.
    colours: Vec<String>,
}

/// A word of `wg-bounce-WORD-WORD…`: the option and value it stands for, and the CPU flag it needs.
/// Relay modes, no interface, AEADs and I/O backends: at most one word of each; wg-bounce chooses
/// the others.
#[derive(Deserialize)]
struct Way {
    word: String,
    option: String,
    value: String,
    cpu_flag: Option<String>,
}

/// The contents of `implementations.json`.
#[derive(Deserialize)]
struct Known {
    daemons: Vec<Daemon>,
    ways: Vec<Way>,
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    serde_json::from_str(include_str!("implementations.json")).expect("tests read it")
});

/// The colour of row `place` of a family; an unknown family has those of wg-bounce.
pub fn colour(family: &str, place: usize) -> [u8; 3] {
    let daemon = KNOWN.daemons.iter().find(|daemon| daemon.name == family);
    let colours = &daemon.unwrap_or(&KNOWN.daemons[0]).colours;
    let number = u32::from_str_radix(&colours[place % colours.len()], 16).expect("a test reads it");
    let [_, rgb @ ..] = number.to_be_bytes();
    rgb
}

/// An implementation as given on the command line: `NAME`, or `NAME@PATH` for another program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    name: String,
    daemon: &'static Daemon,
    cpu_flag: Option<&'static str>,
    path: Option<PathBuf>,
    /// Arguments in addition to the daemon's.
    arguments: Vec<String>,
}

impl Choice {
    /// Adds arguments if it is wg-bounce.
    pub fn with_arguments<'a>(mut self, arguments: impl Iterator<Item = &'a str>) -> Choice {
        if self.family() == OURS {
            self.arguments.extend(arguments.map(str::to_owned));
        }
        self
    }

    /// The daemon's name: choices of one family are ways to run it.
    pub fn family(&self) -> &'static str {
        &self.daemon.name
    }

    /// The program, or a text that says why it cannot be run here.
    pub fn locate(&self) -> Result<Program, String> {
        if let Some(flag) = self.cpu_flag.filter(|flag| !machine::has(flag)) {
            return Err(format!("not there: this CPU does not support {flag}"));
        }
        let (path, version) = if self.daemon.place == Place::Kernel {
            (PathBuf::new(), kernel_version()?)
        } else {
            let path = self.find()?;
            let version = version(&path.to_string_lossy());
            (path, version)
        };
        Ok(Program { choice: self.clone(), path, version })
    }

    fn find(&self) -> Result<PathBuf, String> {
        let program = Path::new(&self.daemon.program);
        let harness = std::env::current_exe().unwrap_or_default();
        let (candidate, remedy) = match (&self.path, self.daemon.place) {
            (Some(path), _) => (path.clone(), "given on the command line"),
            (None, Place::Sibling) => {
                let remedy = "build it: cargo build --release -p wg-bounce-control";
                (harness.with_file_name(program), remedy)
            }
            (None, Place::Peers) => {
                let folder = harness.ancestors().nth(2).unwrap_or(&harness);
                (folder.join("peers/bin").join(program), "scripts/peers installs it")
            }
            (None, Place::Path | Place::Kernel) => {
                (program.into(), "not on the PATH: scripts/setup installs it")
            }
        };
        let found = which::which(&candidate).ok().and_then(|path| fs::canonicalize(path).ok());
        let name = candidate.display();
        found.ok_or_else(|| format!("not there: no program {name} ({remedy})"))
    }
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Choice, String> {
        let (name, path) = match text.split_once('@') {
            Some((name, path)) => (name, Some(PathBuf::from(path))),
            None => (text, None),
        };
        let unknown = || {
            let names: Vec<_> = KNOWN.daemons.iter().map(|daemon| daemon.name.as_str()).collect();
            let words: Vec<_> = KNOWN.ways.iter().map(|way| way.word.as_str()).collect();
            let (names, words) = (names.join(", "), words.join("|"));
            format!("expected {names}, or wg-bounce-WORD… with {words}; each may have @PATH")
        };
        let (daemon, words) = match name.strip_prefix("wg-bounce-") {
            Some(words) => (OURS, Some(words)),
            None => (name, None),
        };
        let daemon = KNOWN.daemons.iter().find(|it| it.name == daemon).ok_or_else(unknown)?;
        let (mut arguments, mut cpu_flag) = (Vec::new(), None);
        for word in words.into_iter().flat_map(|words| words.split('-')) {
            let way = KNOWN.ways.iter().find(|it| it.word == word).ok_or_else(unknown)?;
            if arguments.contains(&way.option) {
                return Err(format!("{name} sets {} twice", way.option));
            }
            arguments.extend([way.option.clone(), way.value.clone()]);
            cpu_flag = cpu_flag.or(way.cpu_flag.as_deref());
        }
        if path.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
            return Err("no path after the @".to_owned());
        }
        if path.is_some() && daemon.place == Place::Kernel {
            return Err("the kernel is not a program: it takes no @PATH".to_owned());
        }
        Ok(Choice { name: name.to_owned(), daemon, cpu_flag, path, arguments })
    }
}

impl Display for Choice {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)?;
        self.path.as_ref().map_or(Ok(()), |path| write!(formatter, "@{}", path.display()))
    }
}

/// An implementation that can be run here.
#[derive(Clone, Debug)]
pub struct Program {
    /// The implementation as given on the command line.
    pub choice: Choice,
    /// Absolute path of the program; empty if it is the kernel.
    pub path: PathBuf,
    /// First line of its --version; may be empty.
    pub version: String,
}

impl Program {
    /// Completes a command that runs the program, so that it creates the interface `name`.
    pub fn complete(&self, command: &mut Command, name: &str) {
        let Daemon { arguments, environment, .. } = self.choice.daemon;
        command.args(arguments).args(&self.choice.arguments).arg(name);
        command.envs(environment);
    }

    /// Whether the kernel itself is measured.
    pub fn is_kernel(&self) -> bool {
        self.choice.daemon.place == Place::Kernel
    }

    /// The part of a log line of wg-bounce that says how it runs: I/O, AEAD, relay mode.
    pub fn told<'a>(&self, line: &'a str) -> Option<&'a str> {
        let (_, event) = line.split_once(") ").filter(|_| self.choice.family() == OURS)?;
        let is_told = event.starts_with("relay: ") || event.contains("AEAD: ");
        is_told.then_some(event)
    }
}

/// First line of a program's --version.
fn version(program: &str) -> String {
    let mut command = tied(program);
    command.arg("--version");
    let said = Process::run(command, program, STEP_LIMIT).unwrap_or_default();
    said.lines().next().unwrap_or_default().trim().to_owned()
}

/// The kernel's release, or a text that says why it cannot create a WireGuard interface.
fn kernel_version() -> Result<String, String> {
    let mut command = tied("unshare");
    command.args(["--net", "ip", "link", "add", "name", "wg0", "type", "wireguard"]);
    Process::run(command, "adding an interface of type wireguard", STEP_LIMIT)
        .map_err(|why| format!("not there: this kernel has no WireGuard ({why})"))?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Ok(format!("Linux {}", release.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_a_name_with_or_without_a_path() {
        for text in [
            "wireguard-go",
            "wg-bounce-mmsg@/opt/old/wg-bounce",
            "wg-bounce-direct-avx2-uring",
            "wg-bounce",
            "kernel",
        ] {
            let choice: Choice = text.parse().expect("well-formed");
            assert_eq!(choice.to_string(), text);
        }
        for (text, why) in [
            ("wireguard", "wireguard-go"),
            ("wg-bounce-fast", "avx512"),
            ("wg-bounce-ring-avx2-uring", "--aead twice"),
            ("boringtun-uring", "wireguard-go"),
            ("kernel@/boot", "not a program"),
            ("wireguard-go@", "path"),
        ] {
            assert!(text.parse::<Choice>().unwrap_err().contains(why), "{text}");
        }
    }

    #[test]
    fn the_words_of_a_name_are_options() {
        let choice: Choice = "wg-bounce-kernel-avx512-mmsg".parse().expect("well-formed");
        let words = ["--relay", "kernel", "--aead", "avx512", "--io", "mmsg"];
        assert_eq!(
            (choice.arguments.as_slice(), choice.family()),
            (&words.map(String::from)[..], OURS)
        );
        assert_eq!(choice.cpu_flag, Some("avx512_vbmi2"));
    }

    #[test]
    fn ours_tells_how_it_runs() {
        let told = |name: &str, line| {
            let choice = name.parse().expect("well-formed");
            Program { choice, path: PathBuf::new(), version: String::new() }.told(line)
        };
        let line = "2026-11-25T02:54:08.680Z INFO: (wg0) interface wg0, io_uring; AEAD: ring";
        assert_eq!(told("wg-bounce-uring", line), Some("interface wg0, io_uring; AEAD: ring"));
        assert_eq!(told("gotatun", line), None);
        let line = "2026-11-25T02:54:08.683Z INFO: (wg0) relay: IPv4 by the kernel";
        assert_eq!(told("wg-bounce", line), Some("relay: IPv4 by the kernel"));
        assert_eq!(told("wg-bounce", "INFO: (wg0) ended: SIGTERM"), None);
    }

    #[test]
    fn every_row_has_a_colour() {
        for daemon in &KNOWN.daemons {
            let all: Vec<_> =
                (0..daemon.colours.len()).map(|it| colour(&daemon.name, it)).collect();
            assert_ne!(all, [[0, 0, 0]], "{}", daemon.name);
        }
        assert_eq!(colour("unknown", 4), colour(OURS, 0));
    }

    #[test]
    fn a_missing_program_is_explained() {
        // Not there, a folder, and a file that is not executable.
        for path in ["/nonexistent/boringtun-cli", "/usr", "/etc/passwd"] {
            let choice: Choice = format!("boringtun@{path}").parse().expect("well-formed");
            let why = choice.find().unwrap_err();
            assert!(why.contains(path), "{why}");
        }
    }

    #[test]
    fn a_program_on_the_path_is_found() {
        let choice: Choice = "wireguard-go".parse().expect("well-formed");
        let shell = Daemon { program: "sh".to_owned(), ..choice.daemon.clone() };
        let choice = Choice { daemon: Box::leak(Box::new(shell)), ..choice };
        assert!(choice.find().expect("every system has one").is_absolute());
    }
}
