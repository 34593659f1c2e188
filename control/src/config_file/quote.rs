//! Texts of files in messages.

/// Characters in a row from which on a text may be part of a key.
const PART_OF_KEY: usize = 16;

/// A text for messages, or what stands for it: what may be part of a key is not shown, since it may
/// have got to the wrong place.
pub fn hide_keys(text: &str) -> &str {
    let is_of_key = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    let is_part = |word: &str| {
        word.len() >= PART_OF_KEY
            && word.contains(|c: char| c.is_ascii_uppercase())
            && word.contains(|c: char| c.is_ascii_lowercase())
    };
    if text.split(|c| !is_of_key(c)).any(is_part) { "(hidden)" } else { text }
}

/// As [`hide_keys`], in quotes.
pub fn quote(text: &str) -> String {
    match hide_keys(text) {
        shown if shown == text => format!("\"{text}\""),
        hidden => hidden.to_owned(),
    }
}

/// The text with escapes for what a terminal would obey, or not show: a file may come from anybody.
pub fn printable(text: &str) -> String {
    let is_hidden = |c: char| match c {
        '\n' => false,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => true,
        '\u{a0}' | '\u{ad}' | '\u{feff}' => true,
        c => c.is_control(),
    };
    let escape = |c: char| match is_hidden(c) {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().map(escape).collect()
}
