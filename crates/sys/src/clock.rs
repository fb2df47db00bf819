//! The clocks.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds on the monotonic clock, on which all deadlines are.
///
/// Not the boot-time clock, which also counts while the machine is suspended: after a resume every peer would have been
/// silent for hours, although it was we who could not hear. The monotonic clock counts only the time in which we could
/// have heard something.
#[must_use]
pub fn monotonic_nanos() -> u64 {
    nanos(ClockId::Monotonic)
}

/// Nanoseconds since 1970 by the wall clock; 0 when it stands before that. For people and for frames' time stamps,
/// never for decisions.
#[must_use]
pub fn unix_nanos() -> u64 {
    nanos(ClockId::Realtime)
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
        assert!(unix_nanos() > 1_700_000_000_000_000_000);
    }
}
