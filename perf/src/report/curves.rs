//! Curves as SVG, on a logarithmic scale, with a legend.

use std::error::Error;

use plotters::chart::{ChartBuilder, SeriesLabelPosition};
use plotters::prelude::{Circle, IntoDrawingArea, IntoLogRange, PathElement, SVGBackend};
use plotters::style::{Color, RGBColor, WHITE};

use super::html::escape;
use crate::columns::digits;
use crate::statistics::Spread;

const HEIGHT: u32 = 340;
const GRID: RGBColor = RGBColor(0xe3, 0xe6, 0xea);
const FONT: (&str, u32) = ("sans-serif", 14);

/// Width of the legend, to the right of the curves (pixels).
const LEGEND: f64 = 210.0;

/// A plot with a curve for each implementation.
pub struct Plot {
    /// With the unit of the figures.
    pub title: String,
    /// Meaning of the places.
    pub places: String,
    /// Names of the places, from left to right, at equal distances.
    pub names: Vec<String>,
    /// The curves.
    pub curves: Vec<Curve>,
    /// Pixels.
    pub width: u32,
    /// Whether each point has a mark and its range.
    pub has_marks: bool,
}

/// One curve.
pub struct Curve {
    /// The implementation.
    pub label: String,
    /// Its colour.
    pub colour: RGBColor,
    /// Place (possibly between two) and figure, which must be positive.
    pub points: Vec<(f64, Spread)>,
}

impl Plot {
    /// The plot as an HTML figure; none if it has no points.
    pub fn draw(&self) -> Option<String> {
        let spreads = self.curves.iter().flat_map(|curve| &curve.points).map(|(_, it)| it);
        let low = spreads.clone().map(|it| it.min).filter(|it| *it > 0.0).reduce(f64::min)?;
        let high = spreads.map(|it| it.max).reduce(f64::max)?;
        let mut svg = String::new();
        self.draw_into(&mut svg, low / 1.3, high * 1.3)
            .expect("drawing into a string does not fail");
        let title = escape(&self.title);
        Some(format!("<figure role=\"img\" aria-label=\"{title}\">\n{svg}</figure>\n"))
    }

    fn draw_into(&self, svg: &mut String, low: f64, high: f64) -> Result<(), Box<dyn Error>> {
        let area = SVGBackend::with_string(svg, (self.width, HEIGHT)).into_drawing_area();
        let last = self.names.len().saturating_sub(1) as f64;
        let right = (last + 0.3) * LEGEND / (f64::from(self.width) - LEGEND);
        let mut chart = ChartBuilder::on(&area)
            .caption(&self.title, ("sans-serif", 16))
            .margin(8)
            .x_label_area_size(44)
            .y_label_area_size(60)
            .build_cartesian_2d(-0.15..last + 0.15 + right, (low..high).log_scale())?;
        let name = |place: &f64| {
            let is_place = (place - place.round()).abs() < 1e-6;
            let name = is_place.then(|| self.names.get(place.round() as usize));
            name.flatten().cloned().unwrap_or_default()
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .max_light_lines(0)
            .bold_line_style(GRID)
            .label_style(FONT)
            .x_labels(3 * self.names.len())
            .x_label_formatter(&name)
            .y_label_formatter(&|figure| digits(*figure))
            .x_desc(&self.places)
            .draw()?;
        for curve in &self.curves {
            let colour = curve.colour;
            let points: Vec<_> = curve.points.iter().map(|(at, it)| (*at, it.median)).collect();
            chart
                .draw_series([PathElement::new(points.clone(), colour.stroke_width(2))])?
                .label(&curve.label)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
            if self.has_marks {
                let ranges = curve.points.iter().map(|(at, it)| [(*at, it.min), (*at, it.max)]);
                let ranges = ranges.map(|ends| PathElement::new(ends, colour));
                chart.draw_series(ranges)?;
                let marks = points.into_iter().map(|at| Circle::new(at, 4, colour.filled()));
                chart.draw_series(marks)?;
            }
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .label_font(FONT)
            .background_style(WHITE.mix(0.8))
            .border_style(GRID)
            .draw()?;
        area.present().map_err(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(curves: Vec<Curve>) -> Plot {
        let names = ["1", "10", "100"].map(str::to_owned).to_vec();
        let (title, places) = ("cost".to_owned(), "peers".to_owned());
        Plot { title, places, names, curves, width: 500, has_marks: true }
    }

    #[test]
    fn without_points_there_is_no_plot() {
        assert!(plot(Vec::new()).draw().is_none());
    }

    #[test]
    fn places_and_curves_are_named() {
        let spread = |median| Spread { median, min: 1.0, max: 9.0 };
        let points = vec![(0.0, spread(2.0)), (1.0, spread(3.0)), (2.0, spread(4.0))];
        let curve = Curve { label: "quick".to_owned(), colour: GRID, points };
        let svg = plot(vec![curve]).draw().expect("three points");
        for text in ["cost", "peers", "quick", "1", "10", "100"] {
            assert!(svg.contains(&format!("\n{text}\n")), "{text}: {svg}");
        }
    }
}
