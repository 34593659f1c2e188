//! `wg-bounce strip`: the part of a configuration file that wg(8) understands.

use super::answer::Failure;
use super::file::ConfigFile;
use crate::config_file::strip::strip;

/// Arguments of the command.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Configuration file, or the name of an interface: /etc/wireguard/NAME.conf
    #[arg(value_name = "FILE|NAME")]
    file: String,
}

pub(super) fn run(arguments: &Arguments) -> Result<String, Failure> {
    Ok(strip(&ConfigFile::read(&arguments.file)?.text))
}
