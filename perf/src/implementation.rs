//! What there is to measure, as data.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use crate::interrupt::Interrupt;
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
    /// Arguments before the interface's name. It must stay in the foreground.
    arguments: &'static [&'static str],
    /// Its whole environment but for the PATH.
    environment: &'static [(&'static str, &'static str)],
}

/// `wg-bounce` in the foreground, quiet, with the arguments that follow.
macro_rules! wg_bounce {
    ($name:literal $(, $argument:literal)*) => {
        Implementation {
            name: $name,
            family: "wg-bounce",
            program: "wg-bounce",
            place: Place::Beside,
            arguments: &["--foreground", "--log-level", "error" $(, $argument)*],
            environment: &[],
        }
    };
}

/// Every implementation that is known. Ours without `--relay` chooses that by itself.
pub const IMPLEMENTATIONS: &[Implementation] = &[
    wg_bounce!("wg-bounce-uring", "--io", "uring"),
    wg_bounce!("wg-bounce-mmsg", "--io", "mmsg"),
    wg_bounce!("wg-bounce-direct-uring", "--io", "uring", "--relay", "direct"),
    wg_bounce!("wg-bounce-direct-mmsg", "--io", "mmsg", "--relay", "direct"),
    wg_bounce!("wg-bounce-kernel-uring", "--io", "uring", "--relay", "kernel"),
    wg_bounce!("wg-bounce-kernel-mmsg", "--io", "mmsg", "--relay", "kernel"),
    Implementation {
        name: "wireguard-go",
        family: "wireguard-go",
        program: "wireguard-go",
        place: Place::Path,
        arguments: &["-f"],
        environment: &[("LOG_LEVEL", "error")],
    },
    Implementation {
        name: "boringtun",
        family: "boringtun",
        program: "boringtun-cli",
        place: Place::Peers,
        arguments: &["--disable-drop-privileges", "--foreground"],
        environment: &[("WG_LOG_LEVEL", "error")],
    },
    Implementation {
        name: "gotatun",
        family: "gotatun",
        program: "gotatun",
        place: Place::Peers,
        arguments: &["--disable-drop-privileges", "--foreground"],
        environment: &[("WG_LOG_LEVEL", "error")],
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
        let path = self.find()?;
        let implementation = self.implementation;
        let version = version(&path, interrupt);
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
    /// The program, by its absolute path.
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
}

/// The first line of what the program says when asked for its version.
fn version(path: &Path, interrupt: &Interrupt) -> String {
    let program = path.to_string_lossy();
    let mut command = tied(&program);
    command.arg("--version");
    let said = Process::run(command, &program, "", STEP_LIMIT, interrupt).unwrap_or_default();
    said.lines().next().unwrap_or_default().trim().to_owned()
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
        assert!("wireguard-go@".parse::<Choice>().unwrap_err().contains("path"));
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
            arguments: &[],
            environment: &[],
        };
        let choice =
            Choice { implementation: Box::leak(Box::new(sh)), path: None, arguments: Vec::new() };
        assert!(choice.find().expect("every system has one").is_absolute());
    }
}
