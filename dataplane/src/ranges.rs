//! Sets of numbers as ranges: of addresses of one IP version, of protocols, of ports.

/// A set of numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u128, u128)>);

impl Ranges {
    /// The numbers from the first to the last one of each of these ranges, in any order. One that
    /// ends before it begins has none.
    #[must_use]
    pub fn new(mut ranges: Vec<(u128, u128)>) -> Ranges {
        ranges.retain(|(first, last)| first <= last);
        ranges.sort_unstable();
        // `next` begins within or right behind the range before it.
        ranges.dedup_by(|next, before| {
            let touch = next.0 <= before.1.saturating_add(1);
            if touch {
                before.1 = before.1.max(next.1);
            }
            touch
        });
        Ranges(ranges)
    }

    /// The first and last numbers of its ranges, in order; no two ranges touch.
    #[must_use]
    pub fn as_slice(&self) -> &[(u128, u128)] {
        &self.0
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it has this number.
    #[must_use]
    pub fn contain(&self, number: u128) -> bool {
        let at = self.0.partition_point(|range| range.1 < number);
        self.0.get(at).is_some_and(|range| range.0 <= number)
    }

    /// Whether all of its numbers are in `others` (true), or none (false).
    #[must_use]
    pub fn are_in(&self, others: &Ranges) -> Option<bool> {
        let (inside, outside) = self.split(others);
        match (inside.is_empty(), outside.is_empty()) {
            (true, _) => Some(false),
            (_, true) => Some(true),
            _ => None,
        }
    }

    /// Whether all of its numbers are from `first` to `last` (true), or none (false).
    #[must_use]
    pub fn are_within(&self, first: u128, last: u128) -> Option<bool> {
        let at = self.0.partition_point(|range| range.1 < first);
        if self.0.get(at).is_none_or(|range| range.0 > last) {
            return Some(false);
        }
        let (begin, end) = (self.0[0].0, self.0[self.0.len() - 1].1);
        (first <= begin && end <= last).then_some(true)
    }

    /// The numbers of both.
    #[must_use]
    pub fn and(&self, others: &Ranges) -> Ranges {
        Ranges::new([self.as_slice(), others.as_slice()].concat())
    }

    /// Its numbers that are in `others`, and those that are not.
    #[must_use]
    pub fn split(&self, others: &Ranges) -> (Ranges, Ranges) {
        let (mut inside, mut outside) = (Vec::new(), Vec::new());
        for &(first, last) in &self.0 {
            // The first number of the range that is in neither list yet; none after its last one.
            let mut rest = Some(first);
            let at = others.0.partition_point(|other| other.1 < first);
            for &(begin, end) in others.0[at..].iter().take_while(|other| other.0 <= last) {
                let Some(from) = rest else { break };
                if from < begin {
                    outside.push((from, begin - 1));
                }
                inside.push((from.max(begin), last.min(end)));
                rest = (end < last).then(|| end + 1);
            }
            outside.extend(rest.map(|from| (from, last)));
        }
        (Ranges(inside), Ranges(outside))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_are_joined() {
        assert_eq!(Ranges::new(vec![(8, 9), (0, 3), (4, 5), (2, 4)]).as_slice(), [(0, 5), (8, 9)]);
        assert_eq!(Ranges::new(vec![(4, 3), (1, 1)]).as_slice(), [(1, 1)]);
        let all = Ranges::new(vec![(5, u128::MAX), (0, 4), (7, 7)]);
        assert_eq!(all.as_slice(), [(0, u128::MAX)]);
    }

    #[test]
    fn all_none_or_some_are_within() {
        let ranges = Ranges::new(vec![(2, 3), (10, 19)]);
        for (first, last, expected) in [
            (0, 30, Some(true)),
            (2, 19, Some(true)),
            (2, 18, None),
            (3, 19, None),
            (4, 9, Some(false)),
            (20, 30, Some(false)),
            (0, 1, Some(false)),
        ] {
            assert_eq!(ranges.are_within(first, last), expected, "{first} to {last}");
            let others = Ranges::new(vec![(first, last)]);
            assert_eq!(ranges.are_in(&others), expected, "{first} to {last}");
        }
        let all = Ranges::new(vec![(0, u128::MAX)]);
        assert_eq!(Ranges::default().are_in(&all), Some(false));
        let several = |list: &[(u128, u128)]| ranges.are_in(&Ranges::new(list.to_vec()));
        assert_eq!(several(&[(2, 3), (10, 30)]), Some(true));
        assert_eq!(several(&[(0, 1), (5, 9)]), Some(false));
        assert_eq!(several(&[(0, 2), (10, 19)]), None);
        assert_eq!(several(&[]), Some(false));
    }

    #[test]
    fn every_address_is_inside_or_outside() {
        let lists = [
            vec![],
            vec![(0, u128::MAX)],
            vec![(3, 5), (9, 9), (20, 30)],
            vec![(0, 3), (5, 22)],
            vec![(4, 4), (6, 8), (25, u128::MAX)],
            vec![(21, 22), (24, 24), (30, 31)],
        ];
        for (ranges, others) in lists.iter().flat_map(|one| lists.iter().map(move |b| (one, b))) {
            let (ranges, others) = (Ranges::new(ranges.clone()), Ranges::new(others.clone()));
            let (inside, outside) = ranges.split(&others);
            for address in (0..40).chain(u128::MAX - 2..=u128::MAX) {
                let (is_one, is_other) = (ranges.contain(address), others.contain(address));
                assert_eq!(inside.contain(address), is_one && is_other, "{ranges:?} {others:?}");
                assert_eq!(outside.contain(address), is_one && !is_other, "{ranges:?} {others:?}");
            }
            for part in [inside, outside] {
                assert_eq!(Ranges::new(part.as_slice().to_vec()), part, "in order");
            }
        }
    }
}
