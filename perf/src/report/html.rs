//! Elements of the page, and the colours of the rows.

use plotters::style::RGBColor;

use crate::columns::{Better, digits};
use crate::implementation::colour;
use crate::record::Run;
use crate::statistics::Spread;

/// The colour of a run's row.
pub fn colour_of(run: &Run, index: usize) -> RGBColor {
    let family = run.rows[index].family.as_str();
    let place = run.rows[..index].iter().filter(|row| row.family == family).count();
    let [red, green, blue] = colour(family, place);
    RGBColor(red, green, blue)
}

/// Text as HTML.
pub fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;")
}

/// A table; its titles and cells are HTML.
pub fn table(titles: &[String], lines: &[Vec<String>]) -> String {
    let row = |cells: &[String], tag: &str| {
        let cells = cells.iter().map(|cell| format!("<{tag}>{cell}</{tag}>"));
        format!("<tr>{}</tr>\n", cells.collect::<String>())
    };
    let body: String = lines.iter().map(|line| row(line, "td")).collect();
    format!("<table><thead>{}</thead><tbody>\n{body}</tbody></table>\n", row(titles, "th"))
}

/// A section of the page, whose `inside` is HTML.
pub fn section(title: &str, lead: &str, inside: &str) -> String {
    let (title, lead) = (escape(title), escape(lead));
    format!("<section>\n<h2>{title}</h2>\n<p class=\"lead\">{lead}</p>\n{inside}</section>\n")
}

/// A bar that ends at the median, with a thin line from the smallest to the largest figure, in
/// parts of the `longest` one.
pub fn bar(spread: Spread, longest: f64, colour: RGBColor) -> String {
    let RGBColor(red, green, blue) = colour;
    let at = |figure: f64| 100.0 * figure.max(0.0) / longest;
    format!(
        "<svg class=\"bar\" viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\">\
         <rect width=\"{:.1}\" height=\"10\" fill=\"#{red:02x}{green:02x}{blue:02x}\"/>\
         <path d=\"M{:.1} 5H{:.1}\" stroke=\"#22262b\"/></svg>",
        at(spread.median),
        at(spread.min),
        at(spread.max)
    )
}

/// A cell: the median, bold if it is the best, and the range, in front of a bar if its column has
/// bars.
pub fn cell(
    spread: Option<Spread>,
    better: Option<Better>,
    all: &[Spread],
    colour: RGBColor,
) -> String {
    let Some(spread) = spread else { return "–".to_owned() };
    let mut text = digits(spread.median);
    if let Some(better) = better {
        let medians = all.iter().map(|it| it.median);
        let best = medians.max_by(|one, other| better.compare(*one, *other));
        if best == Some(spread.median) {
            text = format!("<b>{text}</b>");
        }
    }
    if spread.min != spread.max {
        text += &format!(" <small>({}–{})</small>", digits(spread.min), digits(spread.max));
    }
    let longest = all.iter().map(|it| it.max).fold(0.0, f64::max);
    if better.is_some() && longest > 0.0 {
        text = bar(spread, longest, colour) + &text;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        assert_eq!(escape("a < b & \"c\" > d"), "a &lt; b &amp; &quot;c&quot; &gt; d");
    }

    #[test]
    fn the_best_is_bold_and_bars_are_to_scale() {
        let spread = |median| Spread { median, min: 1.0, max: 10.0 };
        let all = [spread(8.5), spread(2.5)];
        let better = Some(Better::Lower);
        let cells = all.map(|it| cell(Some(it), better, &all, RGBColor(0, 0, 0)));
        assert!(cells[0].ends_with("</svg>8.50 <small>(1–10)</small>"), "{}", cells[0]);
        assert!(cells[1].ends_with("</svg><b>2.50</b> <small>(1–10)</small>"), "{}", cells[1]);
        assert!(cells[0].contains("width=\"85.0\"") && cells[0].contains("M10.0 5H100.0"));
        assert_eq!(cell(None, better, &all, RGBColor(0, 0, 0)), "–");
    }
}
