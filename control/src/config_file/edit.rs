//! Changes of configuration files that leave all other lines as they are.

use super::lines::{Content, Place, lines};

/// The text with one more section at its end.
pub fn with_section(text: &str, section: &str) -> String {
    let end = match text {
        "" => "",
        text if text.ends_with('\n') => "\n",
        _ => "\n\n",
    };
    let longer = format!("{end}{section}");
    match text.contains("\r\n") {
        true => format!("{text}{}", longer.replace('\n', "\r\n")),
        false => format!("{text}{longer}"),
    }
}

/// The text without the section whose heading is there: without its settings and the comments
/// between them. Comments behind the last setting may belong to the next section, and stay.
pub fn without_section(text: &str, heading: Place) -> String {
    let first = heading.line - 1;
    let mut last = first;
    let content: Vec<_> = lines(text).map(|line| line.content).collect();
    for (at, content) in content.iter().enumerate().skip(first + 1) {
        match content {
            Content::Heading(_) => break,
            Content::Empty => {}
            Content::Setting(..) | Content::Other(_) => last = at,
        }
    }
    let is_blank = |line: Option<&&str>| line.is_none_or(|line| line.trim().is_empty());
    let all: Vec<&str> = text.split_inclusive('\n').collect();
    let mut rest = &all[last + 1..];
    // Of the blank lines before and behind it, one side is enough.
    let mut before = &all[..first];
    while is_blank(rest.first()) && is_blank(before.last()) {
        match (rest.split_first(), before.split_last()) {
            (Some((_, others)), _) => rest = others,
            (None, Some((_, others))) => before = others,
            (None, None) => break,
        }
    }
    [before, rest].concat().concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# hub\n[Interface]\nListenPort = 1\n\n[Peer] # alice\n# of alice\n\
                        PublicKey = a\n\n# below is bob\n\n[Peer]\nPublicKey = b\n\
                        # the end\n";

    fn without(line: usize) -> String {
        without_section(TEXT, Place { line, column: 2 })
    }

    #[test]
    fn a_section_goes_and_the_comments_of_others_stay() {
        let alice = "[Peer] # alice\n# of alice\nPublicKey = a\n\n";
        assert_eq!(without(5), TEXT.replace(alice, ""));
        assert_eq!(without(11), TEXT.replace("[Peer]\nPublicKey = b\n", ""));
        assert_eq!(without_section("[Peer]\nPublicKey = b", Place { line: 1, column: 2 }), "");
        let two = "[Interface]\n\n[Peer]\nPublicKey = b\n\n";
        assert_eq!(without_section(two, Place { line: 3, column: 2 }), "[Interface]\n");
    }

    #[test]
    fn a_section_that_was_added_can_be_removed() {
        for text in [TEXT, "[Interface]", "[Interface]\n", ""] {
            let longer = with_section(text, "[Peer]\nPublicKey = c\n");
            assert!(longer.starts_with(text));
            let line = longer.lines().count() - 1;
            let again = without_section(&longer, Place { line, column: 2 });
            assert_eq!(again.trim_end(), text.trim_end());
        }
    }
}
