//! `wg-bounce man` and `wg-bounce completions`: manual pages and completions of shells, from the
//! same definitions as `--help`.

use std::fs;
use std::path::PathBuf;

use clap_complete::Shell;
use clap_mangen::Man;

use super::answer::Failure;

/// Section of the manual: commands of system administration.
const SECTION: &str = "8";

/// Arguments of `man`.
#[derive(clap::Args)]
pub(crate) struct ManArguments {
    /// Existing directory for the pages
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
}

/// Arguments of `completions`.
#[derive(clap::Args)]
pub(crate) struct CompletionsArguments {
    /// Shell
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

/// Writes wg-bounce.8 and a page for each command.
pub(super) fn man(command: clap::Command, arguments: &ManArguments) -> Result<String, Failure> {
    let write = |command: clap::Command, name: &str| {
        let path = arguments.directory.join(format!("{name}.{SECTION}"));
        let failed = |error| format!("{}: {error}", path.display());
        let mut page = Vec::new();
        Man::new(command)
            .title(name.to_owned())
            .section(SECTION)
            .source(concat!("wg-bounce ", env!("CARGO_PKG_VERSION")))
            .render(&mut page)
            .map_err(failed)?;
        fs::write(&path, page).map_err(failed)
    };
    let mut command = command;
    command.build();
    for one in command.get_subcommands().filter(|one| one.get_name() != "help") {
        write(one.clone(), &format!("wg-bounce-{}", one.get_name()))?;
    }
    write(command, "wg-bounce")?;
    Ok(String::new())
}

/// The completions for a shell.
pub(super) fn completions(
    mut command: clap::Command,
    arguments: &CompletionsArguments,
) -> Result<String, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "wg-bounce", &mut text);
    String::from_utf8(text).map_err(|error| error.to_string().into())
}
