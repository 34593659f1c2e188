//! Bars with their spread: a line for each implementation, a column for each figure.
//!
//! ```text
//!                   throughput, Gbit/s                CPU, s/GB
//!     wg-bounce     ███████████──┼── 2.41 (2.2–2.6)   ███┼─ 1.10 (1.0–1.2)
//!     wireguard-go  █████┼─ 1.20 (1.1–1.3)            ██████┼─ 2.20 (2.1–2.3)
//!     boringtun     not there: …
//! ```

use plotters::prelude::{PathElement, Rectangle};
use plotters::style::text_anchor::{HPos, VPos};
use plotters::style::{Color, RGBColor};

use super::colour::{FAINT, INK};
use super::{Area, INTO_A_STRING, bold, style, svg, width_of, write};
use crate::report::figure::{Better, digits};
use crate::statistics::Spread;

const WIDTH: i32 = 1036;
const LINE: i32 = 26;
const BAR: i32 = 14;
const HEAD: i32 = 30;
const GAP: i32 = 28;
const FONT: f64 = 13.0;
/// The size of a thin font that is as wide as the bold one.
const BOLD: f64 = 15.5;
const LABEL_MAX: usize = 34;
/// Room for a bar's own text, behind the longest spread.
const VALUE: i32 = 170;

/// A column.
pub struct Column {
    /// With its unit.
    pub title: &'static str,
    /// Which end is the good one.
    pub better: Option<Better>,
}

/// A line.
pub struct Line {
    /// The implementation.
    pub label: String,
    /// Its colour.
    pub colour: RGBColor,
    /// A figure for each column, where there is one.
    pub values: Vec<Option<Spread>>,
    /// Why there are none.
    pub trouble: Option<String>,
}

/// Draws them.
pub fn draw(columns: &[Column], lines: &[Line]) -> String {
    let labels = lines.iter().map(|line| width_of(&shortened(&line.label, LABEL_MAX), BOLD));
    let left = labels.max().unwrap_or(0) + 12;
    let count = i32::try_from(columns.len()).expect("a few");
    let column_width = (WIDTH - left - GAP * (count - 1)) / count.max(1);
    let height = HEAD + LINE * i32::try_from(lines.len()).expect("a few") + 4;
    let size = (WIDTH.cast_unsigned(), height.cast_unsigned());
    svg(size, |area| {
        for (number, line) in (0..).zip(lines) {
            let middle = HEAD + LINE * number + LINE / 2;
            let right = style(FONT, INK, (HPos::Right, VPos::Center));
            write(area, &shortened(&line.label, LABEL_MAX), &right, (left - 12, middle));
            if let Some(trouble) = &line.trouble {
                let faint = style(FONT, FAINT, (HPos::Left, VPos::Center));
                write(area, &shortened(trouble, 110), &faint, (left, middle));
            }
        }
        for (number, column) in (0..).zip(columns) {
            let x = left + (column_width + GAP) * number;
            draw_column(area, column, number as usize, lines, (x, column_width));
        }
    })
}

fn draw_column(
    area: &Area<'_>,
    column: &Column,
    number: usize,
    lines: &[Line],
    (x, width): (i32, i32),
) {
    let hint = match column.better {
        Some(Better::Higher) => "more is better",
        Some(Better::Lower) => "less is better",
        None => "",
    };
    let title = bold(style(FONT, INK, (HPos::Left, VPos::Center)));
    write(area, column.title, &title, (x, HEAD / 2));
    let faint = style(FONT - 1.0, FAINT, (HPos::Left, VPos::Center));
    write(area, hint, &faint, (x + width_of(column.title, BOLD) + 8, HEAD / 2));
    let spreads = || lines.iter().filter_map(|line| line.values.get(number).copied().flatten());
    let longest = spreads().map(|spread| spread.max).fold(0.0, f64::max);
    let medians = || spreads().map(|spread| spread.median);
    let best = match column.better {
        Some(Better::Higher) => medians().reduce(f64::max),
        Some(Better::Lower) => medians().reduce(f64::min),
        None => None,
    };
    let scale = f64::from(width - VALUE) / if longest > 0.0 { longest } else { 1.0 };
    let at = |figure: f64| x + (figure * scale).round() as i32;
    for (line_number, line) in (0..).zip(lines) {
        let Some(spread) = line.values.get(number).copied().flatten() else { continue };
        let middle = HEAD + LINE * line_number + LINE / 2;
        let (top, bottom) = (middle - BAR / 2, middle + BAR / 2);
        let end = at(spread.median).max(x + 1);
        let bar = Rectangle::new([(x, top), (end, bottom)], line.colour.filled());
        area.draw(&bar).expect(INTO_A_STRING);
        let is_spread = spread.min != spread.max;
        for whisker in
            whiskers(at(spread.min), at(spread.max), middle).into_iter().filter(|_| is_spread)
        {
            area.draw(&PathElement::new(whisker, INK.stroke_width(1))).expect(INTO_A_STRING);
        }
        let text = style(FONT, INK, (HPos::Left, VPos::Center));
        let is_best = best == Some(spread.median);
        let value = digits(spread.median);
        let start = at(spread.max).max(end) + 7;
        let text = if is_best { bold(text) } else { text };
        write(area, &value, &text, (start, middle));
        if !is_spread {
            continue;
        }
        let range = format!("({}–{})", digits(spread.min), digits(spread.max));
        write(area, &range, &faint, (start + width_of(&value, BOLD) + 8, middle));
    }
}

/// From the smallest to the largest, with a tick at each end.
fn whiskers(min: i32, max: i32, middle: i32) -> [Vec<(i32, i32)>; 3] {
    let tick = |x: i32| vec![(x, middle - 4), (x, middle + 4)];
    [vec![(min, middle), (max, middle)], tick(min), tick(max)]
}

/// At most so many letters: the end is cut, of a label with a path the middle.
fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    if let Some((name, path)) = text.split_once('@') {
        let file = path.rsplit('/').next().unwrap_or(path);
        let short = format!("{name}@…/{file}");
        if short.chars().count() <= most {
            return short;
        }
    }
    let kept: String = text.chars().take(most - 1).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_label_keeps_its_name() {
        let label = "wg-bounce-uring@/somewhere/deep/below/wg-bounce";
        assert_eq!(shortened(label, LABEL_MAX), "wg-bounce-uring@…/wg-bounce");
        assert_eq!(shortened("abcdef", 4), "abc…");
        assert_eq!(shortened("abcd", 4), "abcd");
    }

    #[test]
    fn the_best_is_bold_and_the_missing_has_its_reason() {
        let line = |label: &str, median| Line {
            label: label.to_owned(),
            colour: INK,
            values: vec![Some(Spread { median, min: 1.0, max: 9.0 })],
            trouble: None,
        };
        let missing = Line {
            label: "gone".to_owned(),
            colour: INK,
            values: vec![None],
            trouble: Some("not there".to_owned()),
        };
        let columns = [Column { title: "cost", better: Some(Better::Lower) }];
        let text = draw(&columns, &[line("dear", 8.5), line("cheap", 2.5), missing]);
        let of = |value: &str| {
            let lines = text.split("<text").find(|it| it.contains(&format!("\n{value}\n")));
            lines.unwrap_or_else(|| panic!("{value} in {text}")).to_owned()
        };
        assert!(of("2.50").contains("bold") && !of("8.50").contains("bold"));
        assert!(text.contains("not there"));
    }
}
