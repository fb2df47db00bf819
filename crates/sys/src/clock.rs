//! The clocks.

use rustix::{
    thread::{ClockId as SleepClockId, clock_nanosleep_absolute},
    time::{ClockId, Timespec, clock_gettime},
};

/// Nanoseconds on the monotonic clock, on which all deadlines are.
///
/// Not the boot-time clock, which also counts while the machine is suspended: after a resume every peer would have been
/// silent for hours, although it was we who could not hear. The monotonic clock counts only the time in which we could
/// have heard something.
#[must_use]
pub fn monotonic_nanos() -> u64 {
    nanos(ClockId::Monotonic)
}

/// Nanoseconds on the boot-time clock, which counts while the machine is suspended too: what a gate's deadline is on,
/// because a lease that others granted runs on while this machine sleeps.
#[must_use]
pub fn boot_nanos() -> u64 {
    nanos(ClockId::Boottime)
}

/// Nanoseconds since 1970 by the wall clock; 0 when it stands before that. For people and for frames' time stamps,
/// never for decisions.
#[must_use]
pub fn unix_nanos() -> u64 {
    nanos(ClockId::Realtime)
}

/// Waits until that moment of [`monotonic_nanos`], deaf to everything but signals.
pub fn sleep_until(nanos: u64) {
    let request = Timespec {
        tv_sec: i64::try_from(nanos / 1_000_000_000).unwrap_or(i64::MAX),
        tv_nsec: (nanos % 1_000_000_000) as _,
    };
    // An interrupted or refused sleep is a shorter one.
    let _ = clock_nanosleep_absolute(SleepClockId::Monotonic, &request);
}

fn nanos(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forward() {
        let before = monotonic_nanos();
        assert!(before > 0 && monotonic_nanos() >= before);
        let until = monotonic_nanos() + 1_000_000;
        sleep_until(until);
        assert!(monotonic_nanos() >= until);
        assert!(boot_nanos() >= until, "it counts whatever the monotonic clock counts");
        assert!(unix_nanos() > 1_700_000_000_000_000_000);
    }
}
