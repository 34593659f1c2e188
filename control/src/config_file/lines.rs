//! The lines of a configuration file.

/// A place in a text. Both numbers count from one; columns are characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word<'a> {
    /// Its characters, without white space at both ends: that of ASCII, as other tools know it.
    pub text: &'a str,
    /// The place of the first one.
    pub place: Place,
}

/// A line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its content.
    pub content: Content<'a>,
    /// The text behind `#`, if there is one.
    pub comment: Option<Word<'a>>,
}

/// The content of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// Nothing but white space.
    Empty,
    /// `[NAME]`; the brackets are not in the word.
    Heading(Word<'a>),
    /// `NAME = VALUE`. A value may contain `=`.
    Setting(Word<'a>, Word<'a>),
    /// Anything else.
    Other(Word<'a>),
}

impl<'a> Word<'a> {
    /// Part of a line that begins at this byte, without white space at both ends.
    fn of(line: &'a str, number: usize, start: usize, end: usize) -> Word<'a> {
        let part = &line[start..end];
        let text = part.trim_ascii();
        let first = start + (part.len() - part.trim_ascii_start().len());
        let column = 1 + line[..first].chars().count();
        Word { text, place: Place { line: number, column } }
    }

    /// The parts between separators, without empty ones.
    pub fn split(self, separators: &'a [char]) -> impl Iterator<Item = Word<'a>> {
        let parts = self.text.split(separators);
        parts.filter(|part| !part.trim_ascii().is_empty()).map(move |part| {
            let text = part.trim_ascii();
            let start = text.as_ptr() as usize - self.text.as_ptr() as usize;
            self.part(text, self.text[..start].chars().count())
        })
    }

    /// The words before and behind the first separator.
    pub fn split_once(self, separator: char) -> Option<(Word<'a>, Word<'a>)> {
        let (before, behind) = self.text.split_once(separator)?;
        let start = self.text.len() - behind.trim_ascii_start().len();
        let column = self.text[..start].chars().count();
        Some((self.part(before.trim_ascii_end(), 0), self.part(behind.trim_ascii(), column)))
    }

    fn part(self, text: &'a str, columns: usize) -> Word<'a> {
        let Place { line, column } = self.place;
        Word { text, place: Place { line, column: column + columns } }
    }
}

/// Splits a text into lines. A comment begins with `#`, wherever that is: wg-quick(8) knows no
/// quotes.
pub fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    (1..).zip(text.lines()).map(|(number, line)| {
        let end = line.find('#');
        let comment = end.map(|at| Word::of(line, number, at + 1, line.len()));
        let word = Word::of(line, number, 0, end.unwrap_or(line.len()));
        let heading = word.text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let content = match (heading, word.split_once('=')) {
            _ if word.text.is_empty() => Content::Empty,
            (Some(name), _) => Content::Heading(word.part(name.trim_ascii(), 1)),
            (None, Some((name, value))) => Content::Setting(name, value),
            (None, None) => Content::Other(word),
        };
        Line { content, comment }
    })
}
