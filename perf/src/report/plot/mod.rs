//! Plots as SVG, drawn with `plotters`.

pub mod bars;
pub mod colour;
pub mod curves;

use plotters::prelude::{DrawingArea, IntoDrawingArea, IntoFont, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontStyle, RGBColor, TextStyle};

/// plotters divides a font's size by this before it writes it into an SVG.
const FONT_SCALE: f64 = 1.24;

/// About the width of a letter of these fonts, in parts of the font's size.
const LETTER: f64 = 0.56;

/// A drawing area of an SVG, in pixels.
type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// What drawing into a string cannot do: fail.
const INTO_A_STRING: &str = "drawing into a string does not fail";

/// Draws an SVG of this size.
fn svg(size: (u32, u32), draw: impl FnOnce(&Area<'_>)) -> String {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        draw(&area);
        area.present().expect(INTO_A_STRING);
    }
    text
}

/// Text of this size (pixels) and colour, at its anchor.
fn style(size: f64, colour: RGBColor, at: (HPos, VPos)) -> TextStyle<'static> {
    let font = ("sans-serif", size * FONT_SCALE).into_font();
    TextStyle { font, color: colour.to_backend_color(), pos: Pos::new(at.0, at.1) }
}

fn bold(mut style: TextStyle<'static>) -> TextStyle<'static> {
    style.font = style.font.style(FontStyle::Bold);
    style
}

fn write(area: &Area<'_>, text: &str, style: &TextStyle<'_>, at: (i32, i32)) {
    area.draw_text(text, style, at).expect(INTO_A_STRING);
}

/// About how many pixels a text takes in a font of this size.
fn width_of(text: &str, size: f64) -> i32 {
    (text.chars().count() as f64 * size * LETTER) as i32
}
