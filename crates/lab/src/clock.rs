//! The lab's only clock, which is monotonic.

use std::time::Duration;

use locum_sys::clock::{boot_nanos, monotonic_nanos, unix_nanos};

/// A moment of the lab's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(Duration);

impl Moment {
    /// The present moment of the lab's clock.
    #[must_use]
    pub fn now() -> Self {
        Self(Duration::from_nanos(monotonic_nanos()))
    }

    /// The moment of a kernel's wall-clock stamp, which lies in the recent past. If the wall clock is set in between,
    /// the result is wrong by that step.
    #[must_use]
    pub fn of_stamp(stamp: Duration) -> Self {
        let age = Duration::from_nanos(unix_nanos()).saturating_sub(stamp);
        Self(Self::now().0.saturating_sub(age))
    }

    /// A moment `since_origin` after the clock's origin, for tests.
    #[must_use]
    pub const fn at(since_origin: Duration) -> Self {
        Self(since_origin)
    }

    /// How much later this moment is than `earlier`; zero if it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// How long it is until this moment; zero if it has passed.
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.since(Self::now())
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Self;
    fn add(self, length: Duration) -> Self {
        Self(self.0 + length)
    }
}

impl std::ops::Sub<Duration> for Moment {
    type Output = Self;
    fn sub(self, length: Duration) -> Self {
        Self(self.0.saturating_sub(length))
    }
}

/// The boot time in nanoseconds of a kernel's wall-clock stamp, which lies in the recent past; exact to 50 µs where the
/// machine allows it.
#[must_use]
pub fn boot_of_stamp(stamp: Duration) -> u64 {
    // Each pair has a reading of one clock between two readings of the other; the closest pair counts.
    let pairs = (0..10).map(|_| (boot_nanos(), unix_nanos(), boot_nanos()));
    let mut best = (u64::MAX, 0, 0);
    for (before, wall, after) in pairs {
        if after - before < best.0 {
            best = (after - before, wall, before);
        }
        if best.0 < 50_000 {
            break;
        }
    }
    let (_, wall, boot) = best;
    let stamp = u64::try_from(stamp.as_nanos()).unwrap_or(u64::MAX);
    boot.saturating_sub(wall.saturating_sub(stamp))
}

/// Sleeps until the moment has come.
pub fn wait_until(moment: Moment) {
    while !moment.remaining().is_zero() {
        std::thread::park_timeout(moment.remaining());
    }
}

/// Sleeps for this long.
pub fn pause(length: Duration) {
    wait_until(Moment::now() + length);
}

/// Calls `look` every few milliseconds until it returns something, or `limit` has passed.
pub fn await_some<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Moment::now() + limit;
    loop {
        let found = look();
        if found.is_some() || end.remaining().is_zero() {
            return found;
        }
        pause(Duration::from_millis(5).min(end.remaining()));
    }
}
