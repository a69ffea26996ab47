//! What is told of several rounds.

use serde::Serialize;

/// The median of a number over the rounds, and how far they are from each other.
#[derive(Clone, Copy, Debug, Default, Serialize, PartialEq)]
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

/// Of some numbers, those that so many are not above.
#[derive(Clone, Copy, Debug, Default, Serialize, PartialEq)]
pub(crate) struct Quantiles {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Quantiles {
    /// All 0 of nothing.
    pub(crate) fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let quantile = |hundredths: usize| {
            let place = (sorted.len() * hundredths).div_ceil(100).max(1) - 1;
            sorted.get(place).copied().unwrap_or_default()
        };
        Self {
            p50: quantile(50),
            p90: quantile(90),
            p99: quantile(99),
            max: quantile(100),
        }
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
    fn quantiles() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        let expected = Quantiles {
            p50: 100.0,
            p90: 180.0,
            p99: 198.0,
            max: 200.0,
        };
        assert_eq!(Quantiles::of(&values), expected);
        assert_eq!(Quantiles::of(&[]), Quantiles::default());
    }

    #[test]
    fn ratios() {
        assert_eq!(ratio(3.0, 2.0), Some(1.5));
        assert_eq!(ratio(3.0, 0.0), None);
        assert_eq!(ratio(f64::NAN, 1.0), None);
    }
}
