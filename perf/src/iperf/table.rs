//! The table: a line for each implementation, the missing and the failed too.

use crate::statistics::Spread;

/// What one measurement contributes.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Payload that arrived (Gbit/s).
    pub gigabits: f64,
    /// TCP segments sent again.
    pub retransmits: f64,
    /// CPU seconds of the measured daemons per gigabyte.
    pub daemon_seconds: f64,
    /// CPU seconds of the whole machine per gigabyte.
    pub machine_seconds: f64,
}

/// One implementation.
pub struct Row {
    /// As the operator called it.
    pub label: String,
    /// Rows of one family are not compared with each other.
    pub family: &'static str,
    /// By round; none where it failed. Empty if it is missing.
    pub rounds: Vec<Option<Figures>>,
    /// Why it is missing, or why it last failed.
    pub trouble: Option<String>,
}

impl Row {
    fn spread(&self, of: impl Fn(&Figures) -> f64) -> Option<Spread> {
        Spread::of(self.rounds.iter().flatten().map(of))
    }

    fn median(&self) -> Option<f64> {
        self.spread(|figures| figures.gigabits).map(|spread| spread.median)
    }

    /// How much faster it was than `other`, round by round: both saw the same machine.
    fn ratio_to(&self, other: &Row) -> Option<Spread> {
        let pairs = self.rounds.iter().zip(&other.rounds);
        Spread::of(pairs.filter_map(|pair| match pair {
            (Some(own), Some(others)) => Some(own.gigabits / others.gigabits),
            _ => None,
        }))
    }

    /// The row of another family with the highest median.
    fn best_other<'a>(&self, rows: &'a [Row]) -> Option<&'a Row> {
        let others = rows.iter().filter(|row| row.family != self.family);
        let with_median = others.filter_map(|row| Some((row.median()?, row)));
        with_median.max_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, row)| row)
    }

    fn cells(&self, rows: &[Row]) -> Option<[String; COLUMNS]> {
        let gigabits = self.spread(|figures| figures.gigabits)?;
        let retransmits = self.spread(|figures| figures.retransmits)?;
        let daemon = self.spread(|figures| figures.daemon_seconds)?;
        let machine = self.spread(|figures| figures.machine_seconds)?;
        let ratio = self.best_other(rows).and_then(|other| {
            let ratio = self.ratio_to(other)?;
            let Spread { median, min, max } = ratio;
            Some(format!("{median:.2} ({min:.2}–{max:.2}) × {}", other.label))
        });
        Some([
            self.label.clone(),
            format!("{:.2}", gigabits.median),
            format!("{:.2}–{:.2}", gigabits.min, gigabits.max),
            format!("{:.0}", retransmits.median),
            format!("{:.2}", daemon.median),
            format!("{:.2}", machine.median),
            ratio.unwrap_or_else(|| "–".to_owned()),
        ])
    }
}

const COLUMNS: usize = 7;

const TITLES: [&str; COLUMNS] = [
    "implementation",
    "Gbit/s",
    "min–max",
    "retransmits",
    "CPU s/GB",
    "machine s/GB",
    "to the best other",
];

/// The whole table, its lines ended.
pub fn render(rows: &[Row]) -> String {
    let cells: Vec<_> = rows.iter().map(|row| row.cells(rows)).collect();
    let mut widths = TITLES.map(width);
    for row in cells.iter().flatten() {
        for (column, cell) in widths.iter_mut().zip(row) {
            *column = width(cell).max(*column);
        }
    }
    let labels = rows.iter().map(|row| width(&row.label));
    widths[0] = labels.max().unwrap_or(0).max(widths[0]);
    let mut text = line(&TITLES.map(str::to_owned), &widths);
    for (row, cells) in rows.iter().zip(cells) {
        if let Some(cells) = cells {
            text += &line(&cells, &widths);
        }
        if let Some(trouble) = &row.trouble {
            let failed = row.rounds.iter().filter(|round| round.is_none()).count();
            let times = if failed > 0 {
                format!("failed in {failed} of {} rounds: ", row.rounds.len())
            } else {
                String::new()
            };
            text += &format!("{}  {times}{trouble}\n", left(&row.label, widths[0]));
        }
    }
    text
}

/// The first and the last cell begin where their column does, figures end where theirs does.
fn line(cells: &[String; COLUMNS], widths: &[usize; COLUMNS]) -> String {
    let mut text = left(&cells[0], widths[0]);
    for (cell, column) in cells.iter().zip(widths).take(COLUMNS - 1).skip(1) {
        let fill = column - width(cell);
        text += &format!("  {}{cell}", " ".repeat(fill));
    }
    format!("{text}  {}\n", cells[COLUMNS - 1])
}

fn left(cell: &str, column: usize) -> String {
    format!("{cell}{}", " ".repeat(column - width(cell)))
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(label: &str, family: &'static str, gigabits: &[Option<f64>]) -> Row {
        let figures = |gigabits| Figures {
            gigabits,
            retransmits: 7.0,
            daemon_seconds: 2.5,
            machine_seconds: 4.0,
        };
        let rounds = gigabits.iter().map(|value| value.map(figures)).collect();
        Row { label: label.to_owned(), family, rounds, trouble: None }
    }

    fn lines(rows: &[Row]) -> Vec<String> {
        render(rows).lines().skip(1).map(str::to_owned).collect()
    }

    #[test]
    fn the_best_of_another_family_is_the_measure() {
        let rows = [
            row("ours-a", "ours", &[Some(6.0), Some(3.0), Some(4.0)]),
            row("ours-b", "ours", &[Some(9.0), Some(9.0), Some(9.0)]),
            row("slow", "slow", &[Some(1.0), Some(1.0), Some(1.0)]),
            row("quick", "quick", &[Some(2.0), Some(1.5), Some(4.0)]),
        ];
        let lines = lines(&rows);
        // Round by round 3, 2 and 1: not the ratio of the medians only.
        assert!(lines[0].ends_with("  2.00 (1.00–3.00) × quick"), "{}", lines[0]);
        assert!(lines[2].ends_with(" × ours-b"), "{}", lines[2]);
        let figures = "ours-a            4.00  3.00–6.00            7      2.50          4.00  ";
        assert!(lines[0].starts_with(figures), "{}", lines[0]);
    }

    #[test]
    fn alone_there_is_no_ratio() {
        assert!(lines(&[row("alone", "alone", &[Some(1.0)])])[0].ends_with("  –"));
    }

    #[test]
    fn rounds_in_which_either_failed_are_not_compared() {
        let rows = [
            row("one", "one", &[Some(2.0), None, Some(4.0)]),
            row("two", "two", &[Some(1.0), Some(1.0), None]),
        ];
        assert!(lines(&rows)[0].ends_with("2.00 (2.00–2.00) × two"));
    }

    #[test]
    fn the_missing_and_the_failed_have_a_line() {
        let mut failed = row("failed", "failed", &[Some(1.0), None]);
        failed.trouble = Some("it ended by itself".to_owned());
        let mut missing = row("a-missing-implementation", "missing", &[]);
        missing.trouble = Some("not there".to_owned());
        let lines = lines(&[failed, missing]);
        assert_eq!(lines.len(), 3);
        assert!(lines[0].contains("1.00"));
        assert!(lines[1].ends_with("failed in 1 of 2 rounds: it ended by itself"));
        assert_eq!(lines[2], "a-missing-implementation  not there");
    }
}
