//! The heart's counters: how late it ran, and what went over each link.

use serde::{Deserialize, Serialize};

use super::{arp_filter::ArpFilterStats, gates::GateStats, rivals::RivalState};

/// The heart's own figures, as `status --json` shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartStats {
    /// Why the heart has no real-time scheduling; absent when it has it, or when `realtime off` is configured.
    pub realtime_refused: Option<String>,
    /// Why its memory is not locked; absent when it is.
    pub lock_refused: Option<String>,
    /// How late the heart was at its deadlines, since its start.
    pub lateness: Lateness,
    /// How late it was at the ticks of the last measurement, so far.
    pub measured: Option<Lateness>,
    /// How often the heart woke up.
    pub turns: u64,
    /// How often it stopped reading for a yield interval, so that a flood does not take a whole processor.
    pub yields: u64,
    /// How much of the last second the heart was at work, in percent.
    #[serde(default)]
    pub busy: u64,
    /// Why the heart may not keep up; absent while it keeps up.
    #[serde(default)]
    pub overload: Option<String>,
    /// Notes for the log that were dropped because they were not taken in time.
    pub notes_dropped: u64,
    /// How many messages wait for the control plane beyond the ring.
    pub waiting: usize,
    /// Announcements of addresses that the kernel refused.
    pub announcements_failed: u64,
    /// Ping questions that the kernel refused.
    pub pings_failed: u64,
    /// The links, in the order of `ha.cf`.
    pub links: Vec<LinkStats>,
    /// The gates, where groups have them.
    #[serde(default)]
    pub gates: GateStats,
    /// Other machines that announce a service address which is here.
    #[serde(default)]
    pub rivals: Vec<RivalState>,
    /// The ARP filter, which keeps other interfaces from answering for service addresses.
    #[serde(default)]
    pub arp_filter: ArpFilterStats,
}

/// The counters of one link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStats {
    pub name: String,
    /// Frames handed to the kernel, counted once for each medium.
    pub frames_out: u64,
    /// The bytes of these frames.
    pub bytes_out: u64,
    /// Frames that were not sent: refused by the kernel, or the link was down.
    pub errors_out: u64,
    /// Beats on a slow serial line that were replaced by a newer one before they were sent.
    pub overtaken: u64,
    /// Frames read, of any kind.
    pub frames_in: u64,
    /// The bytes of these frames.
    pub bytes_in: u64,
    /// How many of them were announcements of claims, which are only for gates and were skipped.
    #[serde(default)]
    pub claims_in: u64,
    /// Reads that the kernel answered with an error.
    pub errors_in: u64,
    /// Frames that the kernel dropped because they came faster than they were read.
    pub dropped_in: u64,
}

/// How late something was, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lateness {
    /// How many times were measured.
    pub count: u64,
    /// Half of the times were not later than this (to an eighth).
    pub p50_us: u64,
    /// 99 of 100 times were not later than this (to an eighth).
    pub p99_us: u64,
    /// The latest of all times.
    pub max_us: u64,
}

/// Steps within a power of two: a result is at most an eighth too high.
const STEPS: u32 = 8;
const STEP_BITS: u32 = STEPS.ilog2();
const BUCKETS: usize = ((64 - STEP_BITS + 1) * STEPS) as usize;

/// Counts nanoseconds in buckets of fixed bounds; never grows.
#[derive(Clone)]
pub(super) struct Histogram {
    buckets: Box<[u32; BUCKETS]>,
    count: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: Box::new([0; BUCKETS]), count: 0, max: 0 }
    }
}

impl Histogram {
    pub(super) fn add(&mut self, nanos: u64) {
        let bucket = &mut self.buckets[bucket(nanos)];
        *bucket = bucket.saturating_add(1);
        self.count += 1;
        self.max = self.max.max(nanos);
    }

    pub(super) fn summary(&self) -> Lateness {
        Lateness {
            count: self.count,
            p50_us: self.quantile(50) / 1000,
            p99_us: self.quantile(99) / 1000,
            max_us: self.max / 1000,
        }
    }

    /// The value that `percent` of all values do not exceed.
    fn quantile(&self, percent: u64) -> u64 {
        let wanted = (self.count * percent).div_ceil(100);
        let mut seen = 0;
        for (index, &count) in self.buckets.iter().enumerate() {
            seen += u64::from(count);
            if seen >= wanted {
                return highest(index).min(self.max);
            }
        }
        self.max
    }
}

fn bucket(nanos: u64) -> usize {
    let Some(power) = nanos.checked_ilog2() else { return 0 };
    if power < STEP_BITS {
        return usize::try_from(nanos).unwrap_or(0);
    }
    let step = (nanos >> (power - STEP_BITS)) % u64::from(STEPS);
    ((power - STEP_BITS + 1) * STEPS) as usize + usize::try_from(step).unwrap_or(0)
}

/// The highest value that falls into a bucket.
fn highest(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let steps = u64::from(STEPS);
    if bucket < steps {
        return bucket;
    }
    let shift = bucket / steps - 1;
    // The last bucket ends at the highest possible number.
    ((u128::from(steps + bucket % steps + 1) << shift) - 1).try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_its_bucket() {
        for value in (0..2000).chain([1 << 20, (1 << 40) + 12_345, u64::MAX - 1, u64::MAX]) {
            let index = bucket(value);
            assert!(highest(index) >= value);
            assert!(index == 0 || highest(index - 1) < value);
            assert!(highest(index) - value <= value / 8, "{value}");
        }
    }

    #[test]
    fn quantiles() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.summary(), Lateness::default());
        for micros in 1..=100 {
            histogram.add(micros * 1000);
        }
        let summary = histogram.summary();
        assert_eq!((summary.count, summary.max_us), (100, 100));
        assert!((50..=57).contains(&summary.p50_us), "{summary:?}");
        assert!((99..=100).contains(&summary.p99_us), "{summary:?}");
    }
}
