//! Statistics of many runs.

use std::time::Duration;

use super::BenchRow;
use crate::pair::sample::Sample;

/// Statistics of one measured time over many runs. All zero without a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub min: Duration,
    /// Half of the runs are not above it. For an even number of runs, the mean of the middle two.
    pub median: Duration,
    /// The smallest value that 95 % of the runs do not exceed; for fewer than 20 runs, the largest value.
    pub p95: Duration,
    pub max: Duration,
}

impl Figures {
    fn of(mut lengths: Vec<Duration>) -> Self {
        lengths.sort_unstable();
        let (Some(&min), Some(&max)) = (lengths.first(), lengths.last()) else { return Self::default() };
        let count = lengths.len();
        let median = (lengths[(count - 1) / 2] + lengths[count / 2]) / 2;
        Self { min, median, p95: lengths[(count * 95).div_ceil(100) - 1], max }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Samples(Vec<Sample>);

impl Samples {
    pub(super) fn add(&mut self, sample: Sample) {
        self.0.push(sample);
    }

    pub(super) fn row(
        &self,
        peer: &'static str,
        scenario: &'static str,
        interval: Duration,
        detection: Duration,
    ) -> BenchRow {
        let figures = |of: fn(&Sample) -> Duration| Figures::of(self.0.iter().map(of).collect());
        BenchRow {
            peer,
            scenario,
            interval,
            detection,
            runs: u32::try_from(self.0.len()).unwrap_or(u32::MAX),
            outage: figures(|sample| sample.outage),
            page_outage: figures(|sample| sample.page_outage),
            two_answer: figures(|sample| sample.two_answer),
            two_hold: figures(|sample| sample.two_hold),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(millis: &[u64]) -> [u128; 4] {
        let Figures { min, median, p95, max } =
            Figures::of(millis.iter().copied().map(Duration::from_millis).collect());
        [min, median, p95, max].map(|length| length.as_millis())
    }

    #[test]
    fn runs_are_summed_up() {
        assert_eq!(figures(&[]), [0; 4]);
        assert_eq!(figures(&[7]), [7; 4]);
        assert_eq!(figures(&[30, 10, 20]), [10, 20, 30, 30]);
        assert_eq!(figures(&[4, 1, 2, 3]), [1, 2, 4, 4], "2.5 is 2 when cut to milliseconds");
        let hundred: Vec<_> = (1..=100).collect();
        assert_eq!(figures(&hundred), [1, 50, 95, 100]);
    }
}
