//! Medians, ranges and percentiles.

use std::time::Duration;

use serde_json::{Value, json};

/// Median and range of a set of figures. Few rounds justify no finer statistics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle figure; the mean of the middle two if their number is even.
    pub median: f64,
    /// The smallest figure.
    pub min: f64,
    /// The largest figure.
    pub max: f64,
}

impl Spread {
    /// The spread of figures in any order; none of no figures.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let (min, max, count) = (*figures.first()?, *figures.last()?, figures.len());
        let median = f64::midpoint(figures[(count - 1) / 2], figures[count / 2]);
        Some(Spread { median, min, max })
    }
}

/// The percentile of a sorted set, by nearest rank; none of no figures.
pub fn percentile<T: Copy>(sorted: &[T], percent: f64) -> Option<T> {
    let rank = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// The distribution of durations in microseconds, for the JSON lines.
pub fn distribution(mut durations: Vec<Duration>) -> Value {
    durations.sort();
    let at = |percent| percentile(&durations, percent).map(|it| it.as_secs_f64() * 1e6);
    json!({ "p50": at(50.0), "p99": at(99.0), "max": at(100.0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_figures() {
        let sorted: Vec<u32> = (1..=200).collect();
        assert_eq!(percentile(&sorted, 50.0), Some(100));
        assert_eq!(percentile(&sorted, 99.0), Some(198));
        assert_eq!(percentile(&sorted, 100.0), Some(200));
        assert_eq!(percentile(&sorted, 0.0), Some(1));
        assert_eq!(percentile(&[7], 99.0), Some(7));
        assert_eq!(percentile::<u32>(&[], 50.0), None);
    }

    #[test]
    fn no_figures_have_no_spread() {
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn an_odd_number_has_a_middle() {
        let spread = Spread { median: 2.0, min: 1.0, max: 9.0 };
        assert_eq!(Spread::of([9.0, 1.0, 2.0]), Some(spread));
        assert_eq!(Spread::of([4.0]), Some(Spread { median: 4.0, min: 4.0, max: 4.0 }));
    }

    #[test]
    fn an_even_number_has_two() {
        let spread = Spread { median: 2.5, min: 1.0, max: 10.0 };
        assert_eq!(Spread::of([10.0, 3.0, 1.0, 2.0]), Some(spread));
    }
}
