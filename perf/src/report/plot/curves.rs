//! Curves with their spread, each named at its end.

use std::ops::Range;

use plotters::prelude::{ChartBuilder, Circle, IntoLogRange, PathElement};
use plotters::style::text_anchor::{HPos, VPos};
use plotters::style::{Color, RGBColor};

use super::colour::{FAINT, GRID, INK};
use super::{Area, INTO_A_STRING, bold, style, svg, width_of, write};
use crate::report::figure::digits;
use crate::statistics::Spread;

const HEIGHT: u32 = 320;
const HEAD: i32 = 34;
const FOOT: i32 = 44;
const LEFT: i32 = 70;
const FONT: f64 = 13.0;
/// Between the names of two curves, at least.
const NAME_LINE: i32 = 15;

/// What is plotted.
pub struct Plot {
    /// With the unit of the figures.
    pub title: String,
    /// What the places are.
    pub places: String,
    /// The places, from left to right, all as far apart, each with its name.
    pub names: Vec<String>,
    /// A curve for each implementation.
    pub curves: Vec<Curve>,
    /// Pixels.
    pub width: u32,
}

/// One curve.
pub struct Curve {
    /// The implementation.
    pub label: String,
    /// Its colour.
    pub colour: RGBColor,
    /// Place (between two of them, too) and figure; figures must be above 0 (the scale is
    /// logarithmic).
    pub points: Vec<(f64, Spread)>,
    /// Whether each point has a mark.
    pub has_marks: bool,
}

/// Draws it; none if there is nothing to draw.
pub fn draw(plot: &Plot) -> Option<String> {
    let figures = plot.curves.iter().flat_map(|curve| &curve.points);
    let figures = figures.flat_map(|(_, spread)| [spread.min, spread.max]);
    let range = range_of(figures.filter(|figure| *figure > 0.0))?;
    Some(svg((plot.width, HEIGHT), |area| draw_into(area, plot, range)))
}

/// A range of the logarithmic scale that holds all figures, with some air.
fn range_of(figures: impl Iterator<Item = f64> + Clone) -> Option<Range<f64>> {
    let low = figures.clone().reduce(f64::min)?;
    let high = figures.reduce(f64::max)?;
    Some(low / 1.3..high * 1.3)
}

/// Where the scale has a line: some round parts of each power of ten, the fewer the longer it is.
fn ticks(range: &Range<f64>) -> Vec<f64> {
    let powers = range.start.log10().floor() as i32..=range.end.log10().ceil() as i32;
    let steps: &[f64] = match range.end / range.start {
        ratio if ratio > 1e3 => &[1.0],
        ratio if ratio > 6.0 => &[1.0, 2.0, 5.0],
        _ => &[1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0],
    };
    let all = powers.flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)));
    all.filter(|tick| range.contains(tick)).collect()
}

fn draw_into(area: &Area<'_>, plot: &Plot, range: Range<f64>) {
    let labels = plot.curves.iter().map(|curve| width_of(&curve.label, FONT));
    let right = labels.max().unwrap_or(0) + 26;
    let title = bold(style(FONT, INK, (HPos::Left, VPos::Center)));
    write(area, &plot.title, &title, (8, HEAD / 2));
    let last = plot.names.len().saturating_sub(1) as f64;
    let mut builder = ChartBuilder::on(area);
    builder.margin_top(HEAD).margin_right(right);
    builder.x_label_area_size(FOOT).y_label_area_size(LEFT);
    let chart = builder
        .build_cartesian_2d(-0.15..last + 0.15, range.clone().log_scale())
        .expect(INTO_A_STRING);
    let place = |x: f64, figure: f64| chart.backend_coord(&(x, figure));
    let left = place(-0.15, range.start).0;
    let end = place(last + 0.15, range.start).0;
    let axis = style(FONT - 1.0, FAINT, (HPos::Right, VPos::Center));
    for tick in ticks(&range) {
        let y = place(0.0, tick).1;
        let line = PathElement::new(vec![(left, y), (end, y)], GRID.stroke_width(1));
        area.draw(&line).expect(INTO_A_STRING);
        write(area, &short(tick), &axis, (left - 8, y));
    }
    let bottom = place(0.0, range.start).1;
    let centre = style(FONT - 1.0, FAINT, (HPos::Center, VPos::Center));
    for (number, name) in plot.names.iter().enumerate() {
        write(area, name, &centre, (place(number as f64, range.start).0, bottom + 15));
    }
    let base = PathElement::new(vec![(left, bottom), (end, bottom)], FAINT.stroke_width(1));
    area.draw(&base).expect(INTO_A_STRING);
    write(area, &plot.places, &centre, ((left + end) / 2, bottom + 33));
    let mut ends = Vec::new();
    for curve in &plot.curves {
        let points: Vec<_> = curve.points.iter().map(|(x, it)| place(*x, it.median)).collect();
        let line = PathElement::new(points.clone(), curve.colour.stroke_width(2));
        area.draw(&line).expect(INTO_A_STRING);
        for (x, spread) in curve.points.iter().filter(|_| curve.has_marks) {
            let whisker = vec![place(*x, spread.min), place(*x, spread.max)];
            area.draw(&PathElement::new(whisker, curve.colour.stroke_width(1)))
                .expect(INTO_A_STRING);
            let mark = Circle::new(place(*x, spread.median), 4, curve.colour.filled());
            area.draw(&mark).expect(INTO_A_STRING);
        }
        ends.extend(points.last().map(|point| (*point, curve)));
    }
    name_curves(area, &mut ends, end);
}

/// Names beside the ends of the curves, moved apart where they would overlap.
fn name_curves(area: &Area<'_>, ends: &mut [((i32, i32), &Curve)], x: i32) {
    ends.sort_by_key(|((_, y), _)| *y);
    let wanted: Vec<i32> = ends.iter().map(|((_, y), _)| *y).collect();
    let text = style(FONT, INK, (HPos::Left, VPos::Center));
    for (((from_x, from_y), curve), y) in ends.iter().zip(apart(&wanted, HEIGHT as i32 - FOOT)) {
        let line = vec![(*from_x + 5, *from_y), (x, y), (x + 8, y)];
        area.draw(&PathElement::new(line, curve.colour.mix(0.6).stroke_width(1)))
            .expect(INTO_A_STRING);
        write(area, &curve.label, &text, (x + 12, y));
    }
}

/// The sorted places, moved as little as it takes for each to be a line below the one before, and
/// none below `lowest`.
fn apart(wanted: &[i32], lowest: i32) -> Vec<i32> {
    let mut places = wanted.to_vec();
    for index in 1..places.len() {
        places[index] = places[index].max(places[index - 1] + NAME_LINE);
    }
    let mut below = lowest + NAME_LINE;
    for place in places.iter_mut().rev() {
        *place = (*place).min(below - NAME_LINE);
        below = *place;
    }
    places
}

fn short(tick: f64) -> String {
    if tick < 100.0 { format!("{tick}") } else { digits(tick) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_overlap() {
        assert_eq!(apart(&[10, 50, 90], 100), [10, 50, 90]);
        assert_eq!(apart(&[10, 12, 13], 100), [10, 25, 40]);
        assert_eq!(apart(&[80, 99, 99], 100), [70, 85, 100]);
    }

    #[test]
    fn a_scale_has_a_few_round_ticks() {
        assert_eq!(ticks(&(3.0..60.0)), [5.0, 10.0, 20.0, 50.0]);
        assert_eq!(ticks(&(1.1..2.7)), [1.2, 1.5, 2.0, 2.5]);
        assert_eq!(ticks(&(0.5..2e4)), [1.0, 10.0, 100.0, 1000.0, 10_000.0]);
        assert_eq!([0.05, 10.0, 2000.0].map(short), ["0.05", "10", "2,000"]);
    }

    #[test]
    fn nothing_gives_no_plot() {
        let plot = Plot {
            title: String::new(),
            places: String::new(),
            names: vec!["1".to_owned()],
            curves: Vec::new(),
            width: 500,
        };
        assert!(draw(&plot).is_none());
    }
}
