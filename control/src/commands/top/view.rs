//! The screen of `wg-bounce top`.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line as TextLine, Text};
use ratatui::widgets::{Cell, Paragraph, Row, Table};

use super::model::{Line, Model, dropped};
use crate::commands::show;
use crate::config_file::quote::printable;

/// Draws the view. `wall` is the time since the Unix epoch (seconds).
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, wall: u64) {
    let header = header(model);
    let header_len = u16::try_from(header.len()).unwrap_or(u16::MAX);
    let parts = [Constraint::Length(header_len), Constraint::Min(2), Constraint::Length(1)];
    let [top, middle, bottom] = Layout::vertical(parts).areas(frame.area());
    let header: Vec<TextLine<'_>> = header.into_iter().map(TextLine::from).collect();
    frame.render_widget(Paragraph::new(Text::from(header)), top);

    let rows = model.lines(wall).into_iter().skip(model.first).map(row);
    let widths = [
        Constraint::Min(12),
        Constraint::Max(24),
        Constraint::Length(22),
        Constraint::Length(13),
        Constraint::Length(13),
        Constraint::Length(30),
        Constraint::Length(8),
    ];
    let titles =
        ["peer", "endpoint", "handshake", "received", "sent", "last 30 seconds", "dropped"];
    let bold = Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED);
    let table = Table::new(rows, widths).header(Row::new(titles).style(bold));
    frame.render_widget(table, middle);

    let keys = match (&model.failure, model.is_typing) {
        (Some(failure), _) => printable(failure),
        (None, true) => format!("filter: {}_   Enter keeps it, Escape drops it", model.filter),
        (None, false) => {
            let order = model.order.name();
            let filter = match model.filter.as_str() {
                "" => String::new(),
                filter => format!(": {}", printable(filter)),
            };
            format!("q quit   s sort ({order})   / filter{filter}   arrows scroll")
        }
    };
    frame.render_widget(
        Paragraph::new(keys).style(Style::new().add_modifier(Modifier::DIM)),
        bottom,
    );
}

/// The lines above the table.
fn header(model: &Model) -> Vec<String> {
    let report = model.report();
    let sums = show::sums(report);
    let state = if report.is_up { "up" } else { "down" };
    let mut lines = vec![
        format!(
            "{}   {state}   UDP port {}   {} peers   relay: {}",
            printable(&report.interface),
            report.listen_port,
            report.peers.len(),
            printable(&report.relay.summary),
        ),
        report.engine.clone(),
    ];
    if let Some((received, sent, seconds)) = model.totals() {
        let rate = |bytes| show::bit_rate(bytes, seconds);
        let share = show::share_of_direct(&sums).map(|share| format!("   relayed: {share}"));
        let share = share.unwrap_or_default();
        lines.push(format!("received {}   sent {}{share}", rate(received), rate(sent)));
    }
    let loads = model.loads();
    if !loads.is_empty() {
        let loads: Vec<String> = loads.iter().map(|load| format!("{load}/s")).collect();
        lines.push(format!("packets of each worker: {}", loads.join("  ")));
    }
    if dropped(&sums) > 0 {
        lines.push(format!("dropped: {}", show::drops(&sums)));
    }
    lines.push(String::new());
    lines
}

fn row(line: Line) -> Row<'static> {
    let Line { title, endpoint, handshake, received, sent, history, dropped } = line;
    let dropped = if dropped == 0 { String::new() } else { dropped.to_string() };
    let cells = [printable(&title), endpoint, handshake, received, sent, history, dropped];
    Row::new(cells.map(Cell::from))
}
