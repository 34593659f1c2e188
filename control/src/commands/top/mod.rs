//! `wg-bounce top`: a hub and its peers on the whole terminal, with rates.

mod model;
mod view;

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use wg_bounce_sys::clock;

use super::answer::Failure;
use super::show;
use model::{Key, Model};

/// Interval of reports.
const INTERVAL: Duration = Duration::from_secs(1);

/// Arguments of the command.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Interface
    #[arg(value_name = "NAME")]
    interface: String,
}

/// Shows the hub until it is told to end.
pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    if !io::stdout().is_terminal() {
        let reason = "top needs a terminal; wg-bounce show prints the same once".to_owned();
        return Err(Failure { code: 2, reason });
    }
    let model = Model::new(show::report(&arguments.interface)?);
    let mut terminal = ratatui::try_init().map_err(|error| format!("the terminal: {error}"))?;
    let result = follow(&mut terminal, model, &arguments.interface);
    ratatui::restore();
    result.map(|()| 0).map_err(|error| format!("the terminal: {error}").into())
}

fn follow(terminal: &mut DefaultTerminal, mut model: Model, interface: &str) -> io::Result<()> {
    let mut next = clock::uptime() + INTERVAL;
    loop {
        terminal.draw(|frame| view::draw(frame, &model, clock::wall_time().as_secs()))?;
        if event::poll(next.saturating_sub(clock::uptime()))?
            && let Some(key) = key(&event::read()?)
            && !model.handle(key)
        {
            return Ok(());
        }
        if clock::uptime() >= next {
            next = clock::uptime() + INTERVAL;
            match show::report(interface) {
                Ok(report) => model.update(report),
                Err(Failure { reason, .. }) => model.failure = Some(reason),
            }
        }
    }
}

fn key(event: &Event) -> Option<Key> {
    let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) = event else {
        return None;
    };
    match code {
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Escape),
        KeyCode::Char(letter) => Some(Key::Character(*letter)),
        KeyCode::Enter => Some(Key::Enter),
        KeyCode::Esc => Some(Key::Escape),
        KeyCode::Backspace => Some(Key::Backspace),
        KeyCode::Down => Some(Key::Move(1)),
        KeyCode::Up => Some(Key::Move(-1)),
        KeyCode::PageDown => Some(Key::Move(20)),
        KeyCode::PageUp => Some(Key::Move(-20)),
        _ => None,
    }
}
