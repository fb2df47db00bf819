//! The kernel's clocks, read in nanoseconds.

use rustix::{
    thread::{ClockId as SleepClockId, clock_nanosleep_absolute},
    time::{ClockId, Timespec, clock_gettime},
};

/// Nanoseconds on the monotonic clock. All deadlines but a gate's are on this clock.
///
/// The boot-time clock would not do, because it also counts while the machine is suspended: after a resume every peer
/// would seem to have been silent for hours, although this machine could not hear. The monotonic clock counts only the
/// time in which it could.
#[must_use]
pub fn monotonic_nanos() -> u64 {
    nanos(ClockId::Monotonic)
}

/// Nanoseconds on the boot-time clock, which also counts while the machine is suspended. A gate's deadline is on this
/// clock, because a lease that others granted runs on while this machine sleeps.
#[must_use]
pub fn boot_nanos() -> u64 {
    nanos(ClockId::Boottime)
}

/// Nanoseconds since 1970 on the wall clock; 0 if it is set to before that. For people and for time stamps in frames,
/// never for decisions.
#[must_use]
pub fn unix_nanos() -> u64 {
    nanos(ClockId::Realtime)
}

/// Sleeps until that time of [`monotonic_nanos`]. Only a signal ends the sleep earlier.
pub fn sleep_until(nanos: u64) {
    let request = Timespec {
        tv_sec: i64::try_from(nanos / 1_000_000_000).unwrap_or(i64::MAX),
        tv_nsec: (nanos % 1_000_000_000) as _,
    };
    // An interrupted or refused sleep only is a shorter one.
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
