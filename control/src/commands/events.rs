//! `wg-bounce events`: what happens to peers and to the relay, line by line.

use std::io::{self, BufRead as _, Write as _};
use std::time::Duration;

use super::answer::Failure;
use super::show;
use crate::config_file::quote::printable;
use crate::logging;
use crate::status::client;
use crate::status::events::{About, Change, Event};

/// Arguments of the command.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Interface
    #[arg(value_name = "NAME")]
    interface: String,

    /// Print JSON, one line for each event
    #[arg(long)]
    json: bool,
}

/// Prints events until the reader of standard output leaves, or the daemon ends.
pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let Arguments { interface, json } = arguments;
    let failed = |error| show::failure(interface, &error);
    let mut output = io::stdout();
    for line in client::events(interface).map_err(failed)?.lines() {
        let line = line.map_err(failed)?;
        let line = match json {
            true => line,
            false => serde_json::from_str(&line).map_or(line, |event| text(&event)),
        };
        match writeln!(output, "{line}").and_then(|()| output.flush()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(0),
            Err(error) => return Err(format!("cannot write the output: {error}").into()),
        }
    }
    Err(format!("{interface}: the daemon has ended, or this client was too slow").into())
}

/// For example "2026-11-27T18:00:01.123Z connected alice AAEC…Hh8= 192.0.2.2:51820".
fn text(event: &Event) -> String {
    let (name, about, reason) = match &event.change {
        Change::Connected(about) => ("connected", about.into(), None),
        Change::Rekeyed(about) => ("rekeyed", about.into(), None),
        Change::Roamed(about) => ("roamed", about.into(), None),
        Change::Gone(about) => ("gone", about.into(), None),
        Change::Refused { about, reason } => ("refused", about.into(), Some(reason.clone())),
        Change::Relay { summary } => ("relay", None, Some(summary.clone())),
        Change::Missed { count } => {
            ("missed", None, Some(format!("{count} events: this client was too slow")))
        }
    };
    let time = Duration::try_from_secs_f64(event.time).unwrap_or_default();
    let mut text = format!("{} {name}", logging::timestamp(time));
    if let Some(About { public_key, name, endpoint }) = about {
        let name = name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
        let endpoint = endpoint.map(|endpoint| format!(" {endpoint}")).unwrap_or_default();
        text += &format!("{name} {public_key}{endpoint}");
    }
    if let Some(reason) = reason {
        text += &format!(": {reason}");
    }
    printable(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_lines() {
        let about = r#""public_key":"AAEC","name":"alice","endpoint":"192.0.2.2:51820""#;
        for (json, expected) in [
            (
                format!(r#"{{"time":1.5,"event":"roamed",{about}}}"#),
                "1970-01-01T00:00:01.500Z roamed alice AAEC 192.0.2.2:51820",
            ),
            (
                format!(r#"{{"time":1.5,"event":"refused",{about},"reason":"its clock"}}"#),
                "1970-01-01T00:00:01.500Z refused alice AAEC 192.0.2.2:51820: its clock",
            ),
            (
                r#"{"time":0,"event":"gone","public_key":"AAEC"}"#.to_owned(),
                "1970-01-01T00:00:00.000Z gone AAEC",
            ),
            (
                r#"{"time":0,"event":"relay","summary":"direct"}"#.to_owned(),
                "1970-01-01T00:00:00.000Z relay: direct",
            ),
        ] {
            let event: Event = serde_json::from_str(&json).expect("JSON");
            assert_eq!(text(&event), expected);
        }
    }
}
