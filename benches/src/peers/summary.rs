//! Medians, spreads and ratios: the arithmetic of the report.
//!
//! Before: figures of several runs. After: what tables print. Never: knows a peer or a kind of work.

/// The middle and the ends of some figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// None without a figure; the mean of the two in the middle when their number is even.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().filter(|figure| figure.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        } else {
            sorted[middle]
        };
        Some(Self { median, min, max })
    }
}

/// How many times `other` it is; none without a measure.
pub(crate) fn ratio(figure: f64, other: Option<f64>) -> Option<f64> {
    other.filter(|other| *other > 0.0).map(|other| figure / other)
}

/// The smallest; none without one.
pub(crate) fn best(figures: impl IntoIterator<Item = f64>) -> Option<f64> {
    figures.into_iter().filter(|figure| figure.is_finite()).min_by(f64::total_cmp)
}

/// Three digits that count: 0.42, 4.21, 42.1, 421.
pub(crate) fn short(figure: f64) -> String {
    match figure {
        figure if figure < 9.995 => format!("{figure:.2}"),
        figure if figure < 99.95 => format!("{figure:.1}"),
        figure => format!("{figure:.0}"),
    }
}

/// A median, and its spread when there is one.
pub(crate) fn spread(spread: Option<Spread>) -> String {
    match spread {
        Some(Spread { median, min, max }) if min < max => {
            format!("{} ({}–{})", short(median), short(min), short(max))
        }
        Some(spread) => short(spread.median),
        None => "–".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: medians of odd and even numbers, whatever the order; what is no number counts for nothing.
    #[test]
    fn takes_medians() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::of([f64::NAN, 1.0]), Some(Spread { median: 1.0, min: 1.0, max: 1.0 }));
        assert_eq!(Spread::of([]), None);
    }

    /// Goal: a ratio needs something to be a ratio to. Method: a figure, nothing and zero.
    #[test]
    fn ratios_need_a_measure() {
        assert_eq!(ratio(6.0, Some(4.0)), Some(1.5));
        assert_eq!((ratio(6.0, None), ratio(6.0, Some(0.0))), (None, None));
        assert_eq!((best([3.0, f64::NAN, 2.0]), best([])), (Some(2.0), None));
    }

    /// Goal: digits that count stay, others go; equal ends are not told twice.
    #[test]
    fn prints_three_digits() {
        assert_eq!(
            [0.424, 9.994, 9.996, 42.14, 99.96, 421.4].map(short),
            ["0.42", "9.99", "10.0", "42.1", "100", "421"]
        );
        assert_eq!(spread(Spread::of([2.0, 1.0, 3.0])), "2.00 (1.00–3.00)");
        assert_eq!((spread(Spread::of([2.0])), spread(None)), ("2.00".to_owned(), "–".to_owned()));
    }
}
