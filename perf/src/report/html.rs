//! The parts of a page.

use std::fmt::Write;

/// Text as HTML shows it.
pub fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            _ => escaped.push(letter),
        }
    }
    escaped
}

/// A table; its cells are text, the first of each line names it.
pub fn table(titles: &[String], lines: &[Vec<String>]) -> String {
    let mut html = "<table><thead><tr>".to_owned();
    for title in titles {
        let _ = write!(html, "<th>{}</th>", escape(title));
    }
    html += "</tr></thead><tbody>\n";
    for line in lines {
        html += "<tr>";
        for cell in line {
            let _ = write!(html, "<td>{}</td>", escape(cell));
        }
        html += "</tr>\n";
    }
    html + "</tbody></table>\n"
}

/// A plot with what it shows, for who cannot see it.
pub fn figure(svg: &str, what: &str) -> String {
    format!("<figure role=\"img\" aria-label=\"{}\">\n{svg}</figure>\n", escape(what))
}

/// A table that opens when it is wanted.
pub fn details(summary: &str, inside: &str) -> String {
    format!("<details><summary>{}</summary>\n{inside}</details>\n", escape(summary))
}

/// A part of the page.
pub fn section(title: &str, lead: &str, inside: &str) -> String {
    let (title, lead) = (escape(title), escape(lead));
    format!("<section>\n<h2>{title}</h2>\n<p class=\"lead\">{lead}</p>\n{inside}</section>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        assert_eq!(escape("a < b & \"c\" > d"), "a &lt; b &amp; &quot;c&quot; &gt; d");
        let html = table(&["<x>".to_owned()], &[vec!["1 & 2".to_owned()]]);
        assert!(html.contains("<th>&lt;x&gt;</th>") && html.contains("<td>1 &amp; 2</td>"));
    }
}
