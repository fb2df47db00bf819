//! A machine's clock. It starts anywhere, drifts a little, and stands still while the machine does.

use locum_core::model::time::Instant;

const BILLION: u64 = 1_000_000_000;

/// One clock of a machine. True time is the simulation's, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The time that it showed at true time `since`.
    shown: u64,
    since: u64,
    /// How much faster than true time it runs, in billionths.
    drift: i64,
    stands: bool,
}

impl Clock {
    /// A clock that shows `shown` at true time 0.
    #[must_use]
    pub const fn new(shown: u64, drift: i64) -> Self {
        Self { shown, since: 0, drift, stands: false }
    }

    /// The time that the clock shows at a true time.
    #[must_use]
    pub fn at(&self, now: u64) -> Instant {
        if self.stands {
            return Instant::from_nanos(self.shown);
        }
        let passed = now.saturating_sub(self.since);
        // Computed apart from whole seconds, so that nothing overflows.
        let (seconds, rest) = (passed / BILLION, passed % BILLION);
        let more = (seconds * self.drift.unsigned_abs()) + rest * self.drift.unsigned_abs() / BILLION;
        let ahead = self.shown + passed;
        Instant::from_nanos(if self.drift < 0 { ahead - more } else { ahead + more })
    }

    /// The first true time at which the clock shows at least `shows`, if it goes on as it does now.
    #[must_use]
    pub fn when(&self, shows: Instant) -> u64 {
        let Some(left) = shows.as_nanos().checked_sub(self.shown) else { return self.since };
        if self.stands {
            return u64::MAX;
        }
        let rate = BILLION.saturating_add_signed(self.drift);
        let seconds = (left / rate).saturating_mul(BILLION);
        let mut when = self.since.saturating_add(seconds).saturating_add(left % rate * BILLION / rate);
        while self.at(when) < shows {
            when += 1;
        }
        when
    }

    /// Makes the clock stand still, or go on.
    pub fn stand(&mut self, now: u64, stands: bool) {
        self.shown = self.at(now).as_nanos();
        self.since = now;
        self.stands = stands;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_is_the_first_moment_that_shows_it() {
        for drift in [-4_000_000, -1, 0, 1, 4_000_000] {
            let clock = Clock::new(77, drift);
            for shows in [77, 78, 1_000_077, 5_000_000_000] {
                let when = clock.when(Instant::from_nanos(shows));
                assert!(clock.at(when).as_nanos() >= shows);
                assert!(when == 0 || clock.at(when - 1).as_nanos() < shows, "{drift} {shows}");
            }
        }
    }

    #[test]
    fn it_goes_on_where_it_stood() {
        let mut clock = Clock::new(0, 0);
        clock.stand(10, true);
        assert_eq!((clock.at(50).as_nanos(), clock.when(Instant::from_nanos(11))), (10, u64::MAX));
        clock.stand(50, false);
        assert_eq!((clock.at(60).as_nanos(), clock.when(Instant::from_nanos(20))), (20, 60));
    }
}
