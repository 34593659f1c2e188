//! The part of a configuration file that wg(8) understands.

use super::lines::{Content, lines};

/// Settings of the `[Interface]` section that are not for wg(8).
const NOT_OF_WG: [&str; 9] =
    ["Address", "DNS", "MTU", "Table", "PreUp", "PostUp", "PreDown", "PostDown", "SaveConfig"];

/// A text without these settings; all other lines as they are, with their comments.
pub fn strip(text: &str) -> String {
    let mut is_interface = false;
    let mut stripped = String::with_capacity(text.len());
    for (line, original) in lines(text).zip(text.split_inclusive('\n')) {
        match line.content {
            Content::Heading(name) => is_interface = name.text.eq_ignore_ascii_case("Interface"),
            Content::Setting(name, _)
                if is_interface
                    && NOT_OF_WG.iter().any(|known| known.eq_ignore_ascii_case(name.text)) =>
            {
                continue;
            }
            _ => {}
        }
        stripped.push_str(original);
    }
    if !stripped.is_empty() && !stripped.ends_with('\n') {
        stripped.push('\n');
    }
    stripped
}
