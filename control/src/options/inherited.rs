//! Descriptors and settings of the caller, from environment variables of other programs.

use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::ValueEnum;

use crate::logging::LogLevel;

/// Values of the environment variables of wireguard-go and of systemd.
#[derive(Clone, Debug, Default)]
pub struct Inherited {
    /// `WG_TUN_FD`: an open TUN file descriptor to use.
    pub tun_fd: Option<RawFd>,
    /// `WG_UAPI_FD`: a listening socket to use.
    pub uapi_fd: Option<RawFd>,
    /// Descriptors that a service manager passes, from 3 on (`LISTEN_FDS`, sd_listen_fds(3)).
    pub listen_fds: u16,
    /// `WG_PROCESS_FOREGROUND=1`.
    pub foreground: bool,
    /// `STATE_DIRECTORY`, the first of its directories (systemd.exec(5)).
    pub state_dir: Option<PathBuf>,
    /// `LOG_LEVEL`, if it is one of our levels.
    pub log_level: Option<LogLevel>,
}

impl Inherited {
    /// The inherited descriptors that the environment names.
    pub fn descriptors(&self) -> Vec<RawFd> {
        let listening = (3..).take(self.listen_fds.into());
        self.tun_fd.into_iter().chain(self.uapi_fd).chain(listening).collect()
    }

    /// Reads the variables.
    ///
    /// # Errors
    /// A descriptor's number is none.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Inherited, String> {
        let descriptor = |name: &str| match variable(name) {
            None => Ok(None),
            Some(text) => match text.parse::<RawFd>() {
                Ok(fd) if fd > 2 => Ok(Some(fd)),
                _ => {
                    Err(format!("{name}={text} is not the number of an inherited file descriptor"))
                }
            },
        };
        let pid = std::process::id().to_string();
        let is_for_us = variable("LISTEN_PID") == Some(pid);
        let listen_fds = variable("LISTEN_FDS").filter(|_| is_for_us);
        Ok(Inherited {
            tun_fd: descriptor("WG_TUN_FD")?,
            uapi_fd: descriptor("WG_UAPI_FD")?,
            listen_fds: listen_fds.and_then(|count| count.parse().ok()).unwrap_or(0),
            foreground: variable("WG_PROCESS_FOREGROUND").as_deref() == Some("1"),
            state_dir: variable("STATE_DIRECTORY")
                .and_then(|list| list.split(':').next().map(PathBuf::from))
                .filter(|directory| directory.is_absolute()),
            // Many programs read LOG_LEVEL: a level of another program is not an error.
            log_level: variable("LOG_LEVEL").and_then(|word| LogLevel::from_str(&word, true).ok()),
        })
    }
}
