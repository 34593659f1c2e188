//! The commands `wg-bounce COMMAND …`: everything but the daemon itself.

mod answer;
mod check;
mod client;
mod events;
mod explain;
mod file;
mod keys;
#[cfg(feature = "manual")]
mod manual;
mod peers;
mod show;
mod strip;
#[cfg(feature = "tui")]
mod top;
mod up;

use std::io::{self, Write as _};
use std::process::ExitCode;

use answer::{Answer, Failure};
use clap::Subcommand;

use crate::config_file::quote::printable;

pub(crate) use up::PARENT;

// A doc comment would replace the text of `wg-bounce --help`.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Add a peer to a configuration file and to the running interface, and print the client's
    /// configuration
    AddPeer(peers::AddArguments),
    /// Check a configuration file: every error, and settings that are probably mistakes
    Check(check::Arguments),
    /// Print completions for a shell, for example: source <(wg-bounce completions bash)
    #[cfg(feature = "manual")]
    Completions(manual::CompletionsArguments),
    /// Take down an interface that wg-bounce up runs; return once it is down
    Down(up::RequestArguments),
    /// Print what happens, line by line, until it is stopped: peers connect, rekey, roam and go,
    /// handshakes are refused, the relay mode changes
    Events(events::Arguments),
    /// Say whether packets between two peers are relayed directly, and which rules of the firewall
    /// they meet, in both directions
    Explain(explain::Arguments),
    /// Print a new private key
    Genkey,
    /// Print a new preshared key
    Genpsk,
    /// Write the manual pages into a directory
    #[cfg(feature = "manual")]
    Man(manual::ManArguments),
    /// Print the public key of the private key on standard input
    Pubkey,
    /// Apply the configuration file of an interface that wg-bounce up runs as it is now, without
    /// touching what is unchanged
    Reload(up::RequestArguments),
    /// Remove a peer from a configuration file and from the running interface
    RemovePeer(peers::RemoveArguments),
    /// Write the running configuration of an interface that wg-bounce up runs to its file, and keep
    /// its names and comments
    Save(up::RequestArguments),
    /// Show the state of a running interface, its relay and its peers, with names and rates
    Show(show::Arguments),
    /// Print a configuration file without what only wg-quick and wg-bounce understand, for wg
    /// setconf
    Strip(strip::Arguments),
    /// Show a running interface and its peers on the whole terminal, with rates
    #[cfg(feature = "tui")]
    Top(top::Arguments),
    /// Bring up an interface from its configuration file, with addresses, routes, DNS and hooks, as
    /// wg-quick up does, and run in the foreground until it is taken down
    Up(up::UpArguments),
}

impl Command {
    /// Runs the command. Exit codes: 0 if it did what was asked for, 1 if not, 2 for wrong usage.
    /// `program` is the definition of all commands and options.
    #[cfg_attr(not(feature = "manual"), expect(unused_variables))]
    pub(crate) fn run(&self, program: clap::Command) -> ExitCode {
        let (name, result) = match self {
            Command::AddPeer(arguments) => ("add-peer", peers::add(arguments)),
            Command::Check(arguments) => ("check", check::run(arguments)),
            #[cfg(feature = "manual")]
            Command::Completions(arguments) => {
                ("completions", manual::completions(program, arguments).map(Answer::from))
            }
            Command::Down(arguments) => ("down", up::down(arguments).map(Answer::from)),
            Command::Events(arguments) => ("events", events::run(arguments).map(Answer::from)),
            Command::Explain(arguments) => ("explain", explain::run(arguments).map(Answer::from)),
            Command::Genkey => ("genkey", keys::private().map(Answer::from)),
            Command::Genpsk => ("genpsk", keys::preshared().map(Answer::from)),
            #[cfg(feature = "manual")]
            Command::Man(arguments) => ("man", manual::man(program, arguments).map(Answer::from)),
            Command::Pubkey => ("pubkey", keys::public().map(Answer::from)),
            Command::Reload(arguments) => ("reload", up::reload(arguments).map(Answer::from)),
            Command::RemovePeer(arguments) => {
                ("remove-peer", peers::remove(arguments).map(Answer::from))
            }
            Command::Save(arguments) => ("save", up::save(arguments).map(Answer::from)),
            Command::Show(arguments) => ("show", show::run(arguments)),
            Command::Strip(arguments) => ("strip", strip::run(arguments).map(Answer::from)),
            #[cfg(feature = "tui")]
            Command::Top(arguments) => ("top", top::run(arguments).map(Answer::from)),
            Command::Up(arguments) => ("up", up::run(arguments).map(Answer::from)),
        };
        match result {
            Ok(Answer { text, code }) => {
                let mut output = io::stdout();
                let written = output.write_all(text.as_bytes()).and_then(|()| output.flush());
                match written {
                    // The reader has seen enough. But a new key must not get lost.
                    Err(error)
                        if error.kind() != io::ErrorKind::BrokenPipe || name == "add-peer" =>
                    {
                        eprintln!("wg-bounce {name}: cannot write the output: {error}");
                        ExitCode::FAILURE
                    }
                    _ => ExitCode::from(code),
                }
            }
            Err(Failure { code, reason }) => {
                eprintln!("wg-bounce {name}: {}", printable(&reason));
                ExitCode::from(code)
            }
        }
    }
}
