//! Time as a value. The core never reads a clock: the driver says what time it is, and the simulator can say anything.

use core::fmt;
pub use core::time::Duration;

/// A moment on the driver's monotonic clock, in nanoseconds since an arbitrary zero that does not change while the
/// daemon runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The zero of the clock.
    pub const ZERO: Self = Self(0);

    /// The moment `nanos` nanoseconds after the clock's zero.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The moment `millis` milliseconds after the clock's zero.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the clock's zero.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Milliseconds since the clock's zero, rounded down.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// How long ago `earlier` was; zero when it lies in the future.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl core::ops::Add<Duration> for Instant {
    type Output = Self;

    /// Saturates: the far future is as good as any later moment.
    fn add(self, after: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// The clocks at the moment when an event is handed over: the monotonic time that all decisions use, and the wall clock
/// that only goes into the `ts` field of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock, on which all decisions rest.
    pub instant: Instant,
    /// Seconds since 1970 by the wall clock; never used to decide anything.
    pub unix_seconds: u64,
}

/// The units of `locum.toml`, the longest first, in nanoseconds.
pub(crate) const UNITS: [(&str, u128); 6] = [
    ("h", 3_600_000_000_000),
    ("min", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// A time as `locum.toml` writes it: `300ms`, `1s`, `5min`; exact, and the only way to write this time.
pub(crate) struct DurationText(pub(crate) Duration);

impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        if nanos == 0 {
            return f.write_str("0s");
        }
        // The last unit, 1 ns, divides everything.
        let (unit, size) =
            UNITS.into_iter().find(|(_, size)| nanos.is_multiple_of(*size)).unwrap_or(("ns", 1));
        write!(f, "{}{unit}", nanos / size)
    }
}
