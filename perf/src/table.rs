//! The table: a line for each implementation, the missing and the failed too.

use crate::statistics::Spread;

/// One implementation, and its measurements.
pub struct Row<'a, M> {
    /// As the operator called it.
    pub label: String,
    /// Rows of one family are not compared with each other.
    pub family: &'static str,
    /// By round; none where it failed. Empty if it is missing.
    pub rounds: Vec<Option<&'a M>>,
    /// Why it is missing, or why it last failed.
    pub trouble: Option<String>,
}

/// What a column says of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// The median of the rounds, with so many decimals.
    Median(usize),
    /// The smallest and the largest of the rounds, with so many decimals.
    Range(usize),
    /// How many times that of the best row of another family, the best being the highest.
    TimesHighest,
    /// The same, the best being the lowest.
    TimesLowest,
}

/// One column, after the implementation's name.
pub struct Column<M> {
    /// Its title.
    pub title: &'static str,
    /// The figure.
    pub figure: fn(&M) -> f64,
    /// What it says of the figure.
    pub says: Says,
}

impl<'a, M> Row<'a, M> {
    /// The same row, of a part of each measurement.
    pub fn map<P>(&self, part: impl Fn(&'a M) -> &'a P) -> Row<'a, P> {
        Row {
            label: self.label.clone(),
            family: self.family,
            rounds: self.rounds.iter().map(|round| round.map(&part)).collect(),
            trouble: self.trouble.clone(),
        }
    }
}

impl<M> Row<'_, M> {
    fn spread(&self, figure: fn(&M) -> f64) -> Option<Spread> {
        let figures = self.rounds.iter().flatten().map(|measurement| figure(measurement));
        // Not a number: there is none, as the kernel has no CPU time of its own.
        Spread::of(figures.filter(|figure| !figure.is_nan()))
    }

    /// This row's figure by that of `other`, round by round: both saw the same machine.
    fn ratio_to(&self, other: &Row<'_, M>, figure: fn(&M) -> f64) -> Option<Spread> {
        let pairs = self.rounds.iter().zip(&other.rounds);
        Spread::of(pairs.filter_map(|pair| match pair {
            (Some(own), Some(others)) => {
                Some(figure(own) / figure(others)).filter(|ratio| !ratio.is_nan())
            }
            _ => None,
        }))
    }

    /// The row of another family with the best median.
    fn best_other<'a>(
        &self,
        rows: &'a [Row<'a, M>],
        figure: fn(&M) -> f64,
        is_highest_best: bool,
    ) -> Option<&'a Row<'a, M>> {
        let others = rows.iter().filter(|row| row.family != self.family);
        let with_median = others.filter_map(|row| Some((row.spread(figure)?.median, row)));
        with_median
            .max_by(
                |(one, _), (other, _)| {
                    if is_highest_best { one.total_cmp(other) } else { other.total_cmp(one) }
                },
            )
            .map(|(_, row)| row)
    }

    fn times(&self, rows: &[Row<'_, M>], figure: fn(&M) -> f64, is_highest: bool) -> String {
        let ratio = self.best_other(rows, figure, is_highest).and_then(|other| {
            let Spread { median, min, max } = self.ratio_to(other, figure)?;
            Some(format!("{median:.2} ({min:.2}–{max:.2}) × {}", other.label))
        });
        ratio.unwrap_or_else(|| "–".to_owned())
    }

    /// None if nothing was measured.
    fn cells(&self, rows: &[Row<'_, M>], columns: &[Column<M>]) -> Option<Vec<String>> {
        self.rounds.iter().flatten().next()?;
        let mut cells = vec![self.label.clone()];
        for Column { figure, says, .. } in columns {
            let Some(Spread { median, min, max }) = self.spread(*figure) else {
                cells.push("–".to_owned());
                continue;
            };
            cells.push(match *says {
                Says::Median(decimals) => format!("{median:.decimals$}"),
                Says::Range(decimals) => format!("{min:.decimals$}–{max:.decimals$}"),
                Says::TimesHighest => self.times(rows, *figure, true),
                Says::TimesLowest => self.times(rows, *figure, false),
            });
        }
        Some(cells)
    }
}

/// The whole table, its lines ended.
pub fn render<M>(rows: &[Row<'_, M>], columns: &[Column<M>]) -> String {
    let cells: Vec<_> = rows.iter().map(|row| row.cells(rows, columns)).collect();
    let titles = std::iter::once("implementation").chain(columns.iter().map(|it| it.title));
    let titles: Vec<String> = titles.map(str::to_owned).collect();
    let mut widths: Vec<usize> = titles.iter().map(|title| width(title)).collect();
    for row in cells.iter().flatten() {
        for (column, cell) in widths.iter_mut().zip(row) {
            *column = width(cell).max(*column);
        }
    }
    let labels = rows.iter().map(|row| width(&row.label));
    widths[0] = labels.max().unwrap_or(0).max(widths[0]);
    let mut text = line(&titles, &widths);
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
fn line(cells: &[String], widths: &[usize]) -> String {
    let mut text = left(&cells[0], widths[0]);
    let last = cells.len() - 1;
    for (cell, column) in cells.iter().zip(widths).take(last).skip(1) {
        let fill = column - width(cell);
        text += &format!("  {}{cell}", " ".repeat(fill));
    }
    format!("{text}  {}\n", cells[last])
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

    /// Of each measurement: what counts, and something beside.
    type Figures = (f64, f64);

    const COLUMNS: [Column<Figures>; 5] = [
        Column { title: "Gbit/s", figure: |it| it.0, says: Says::Median(2) },
        Column { title: "min–max", figure: |it| it.0, says: Says::Range(2) },
        Column { title: "retransmits", figure: |it| it.1, says: Says::Median(0) },
        Column { title: "by cost", figure: |it| it.1, says: Says::TimesLowest },
        Column { title: "to the best other", figure: |it| it.0, says: Says::TimesHighest },
    ];

    struct Rounds(&'static str, &'static str, Vec<Option<Figures>>);

    fn rounds(label: &'static str, family: &'static str, gigabits: &[Option<f64>]) -> Rounds {
        let rounds = gigabits.iter().map(|value| value.map(|value| (value, 7.0)));
        Rounds(label, family, rounds.collect())
    }

    fn row(rounds: &Rounds) -> Row<'_, Figures> {
        let Rounds(label, family, figures) = rounds;
        let rounds = figures.iter().map(Option::as_ref).collect();
        Row { label: (*label).to_owned(), family, rounds, trouble: None }
    }

    fn lines(rows: &[Row<'_, Figures>]) -> Vec<String> {
        render(rows, &COLUMNS).lines().skip(1).map(str::to_owned).collect()
    }

    #[test]
    fn the_best_of_another_family_is_the_measure() {
        let rounds = [
            rounds("ours-a", "ours", &[Some(6.0), Some(3.0), Some(4.0)]),
            rounds("ours-b", "ours", &[Some(9.0), Some(9.0), Some(9.0)]),
            rounds("slow", "slow", &[Some(1.0), Some(1.0), Some(1.0)]),
            rounds("quick", "quick", &[Some(2.0), Some(1.5), Some(4.0)]),
        ];
        let lines = lines(&rounds.iter().map(row).collect::<Vec<_>>());
        // Round by round 3, 2 and 1: not the ratio of the medians only.
        assert!(lines[0].ends_with("  2.00 (1.00–3.00) × quick"), "{}", lines[0]);
        assert!(lines[2].ends_with(" × ours-b"), "{}", lines[2]);
        let figures = "ours-a            4.00  3.00–6.00            7  1.00 (1.00–1.00) × quick  ";
        assert!(lines[0].starts_with(figures), "{}", lines[0]);
    }

    #[test]
    fn alone_there_is_no_ratio() {
        let alone = rounds("alone", "alone", &[Some(1.0)]);
        assert!(lines(&[row(&alone)])[0].ends_with("  –"));
    }

    #[test]
    fn rounds_in_which_either_failed_are_not_compared() {
        let rounds = [
            rounds("one", "one", &[Some(2.0), None, Some(4.0)]),
            rounds("two", "two", &[Some(1.0), Some(1.0), None]),
        ];
        let rows: Vec<_> = rounds.iter().map(row).collect();
        assert!(lines(&rows)[0].ends_with("2.00 (2.00–2.00) × two"));
    }

    #[test]
    fn the_missing_and_the_failed_have_a_line() {
        let measured = rounds("failed", "failed", &[Some(1.0), None]);
        let mut failed = row(&measured);
        failed.trouble = Some("it ended by itself".to_owned());
        let unmeasured = rounds("a-missing-implementation", "missing", &[]);
        let mut missing = row(&unmeasured);
        missing.trouble = Some("not there".to_owned());
        let lines = lines(&[failed, missing]);
        assert_eq!(lines.len(), 3);
        assert!(lines[0].contains("1.00"));
        assert!(lines[1].ends_with("failed in 1 of 2 rounds: it ended by itself"));
        assert_eq!(lines[2], "a-missing-implementation  not there");
    }

    #[test]
    fn what_has_no_figure_is_no_rival() {
        let rounds = [
            Rounds("ours", "ours", vec![Some((1.0, 50.0))]),
            Rounds("kernel", "kernel", vec![Some((2.0, f64::NAN))]),
            Rounds("dear", "dear", vec![Some((1.0, 100.0))]),
        ];
        let lines = lines(&rounds.iter().map(row).collect::<Vec<_>>());
        assert!(lines[0].contains("  0.50 (0.50–0.50) × dear  "), "{}", lines[0]);
        assert!(lines[1].contains("            –                        –  "), "{}", lines[1]);
    }

    #[test]
    fn where_less_is_better_the_lowest_is_the_measure() {
        let rounds = [
            Rounds("ours", "ours", vec![Some((1.0, 50.0))]),
            Rounds("cheap", "cheap", vec![Some((1.0, 100.0))]),
            Rounds("dear", "dear", vec![Some((1.0, 200.0))]),
        ];
        let lines = lines(&rounds.iter().map(row).collect::<Vec<_>>());
        assert!(lines[0].contains("  0.50 (0.50–0.50) × cheap  "), "{}", lines[0]);
    }
}
