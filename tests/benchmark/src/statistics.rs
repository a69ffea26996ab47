//! What is told of several rounds.

use serde::Serialize;

/// The median of a number over the rounds, and how far they are from each other.
#[derive(Clone, Copy, Debug, Serialize, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let (below, above) = (sorted.get((sorted.len() - 1) / 2)?, sorted.get(sorted.len() / 2)?);
        Some(Self {
            median: f64::midpoint(*below, *above),
            min,
            max,
        })
    }
}

/// `a / b`; `None` where that says nothing.
pub(crate) fn ratio(a: f64, b: f64) -> Option<f64> {
    (b > 0.0 && a.is_finite() && b.is_finite()).then(|| a / b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        for (values, expected) in [
            (&[3.0][..], (3.0, 3.0, 3.0)),
            (&[3.0, 1.0], (2.0, 1.0, 3.0)),
            (&[9.0, 1.0, 2.0], (2.0, 1.0, 9.0)),
            (&[4.0, 1.0, 2.0, 100.0], (3.0, 1.0, 100.0)),
        ] {
            let spread = Spread::of(values.iter().copied()).unwrap();
            assert_eq!((spread.median, spread.min, spread.max), expected, "{values:?}");
        }
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn ratios() {
        assert_eq!(ratio(3.0, 2.0), Some(1.5));
        assert_eq!(ratio(3.0, 0.0), None);
        assert_eq!(ratio(f64::NAN, 1.0), None);
    }
}
