//! Whether the heart keeps up: the share of each second in which it was at work. If that is high for some seconds, the
//! pace is too short for this machine's work. A takeover, which takes a moment, does not count.

/// Above this share of a second, in percent, the heart is overloaded.
const MUCH: u64 = 80;
/// Below this share, in percent, it keeps up again.
const WELL: u64 = 50;
/// How many seconds in a row change the verdict.
const SECONDS: u32 = 5;
/// Shortest time between two looks. They are a second apart, unless the heart is late.
const LOOK_NANOS: u64 = 900_000_000;

/// The share of time in which the heart is at work; see the module's text.
#[derive(Debug, Default)]
pub(super) struct HeartLoad {
    /// How long it has waited since the last look.
    waited: u64,
    looked: u64,
    /// How many seconds in a row contradict the verdict.
    against: u32,
    overloaded: bool,
    /// The share of the last second, in percent.
    share: u64,
}

impl HeartLoad {
    /// Counts a time in which the heart waited.
    pub(super) const fn wait(&mut self, nanos: u64) {
        self.waited = self.waited.saturating_add(nanos);
    }

    /// Ends a second. Returns the new verdict if it has changed.
    pub(super) fn look(&mut self, now: u64) -> Option<bool> {
        let passed = now.saturating_sub(self.looked);
        if self.looked != 0 && passed < LOOK_NANOS {
            return None;
        }
        let is_first = core::mem::replace(&mut self.looked, now) == 0;
        let waited = core::mem::take(&mut self.waited);
        if is_first || passed == 0 {
            return None;
        }
        self.share = 100 - (waited.saturating_mul(100) / passed).min(100);
        let is_against = if self.overloaded { self.share < WELL } else { self.share > MUCH };
        self.against = if is_against { self.against + 1 } else { 0 };
        if self.against < SECONDS {
            return None;
        }
        self.against = 0;
        self.overloaded = !self.overloaded;
        Some(self.overloaded)
    }

    /// Whether the heart does not keep up.
    pub(super) const fn is_overloaded(&self) -> bool {
        self.overloaded
    }

    /// The share of the last second in which it was at work, in percent.
    pub(super) const fn share(&self) -> u64 {
        self.share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdict's changes over these seconds, each given by its share of work.
    fn verdict_changes(busy: &mut HeartLoad, from: &mut u64, shares: &[u64]) -> Vec<bool> {
        let mut news = Vec::new();
        for share in shares {
            *from += 1_000_000_000;
            busy.wait((100 - share) * 10_000_000);
            news.extend(busy.look(*from));
        }
        news
    }

    #[test]
    fn an_overload_lasts_and_is_reported_once() {
        let (mut busy, mut now) = (HeartLoad::default(), 1);
        assert_eq!(busy.look(now), None, "nothing is known yet");
        let none = Vec::<bool>::new();
        assert_eq!(verdict_changes(&mut busy, &mut now, &[5, 100, 100, 100, 100, 40]), none, "a takeover");
        assert_eq!(verdict_changes(&mut busy, &mut now, &[95; 20]), [true]);
        assert!(busy.is_overloaded() && busy.share() == 95);
        assert_eq!(verdict_changes(&mut busy, &mut now, &[30, 30, 60, 30, 70]), none, "not well yet");
        assert_eq!(verdict_changes(&mut busy, &mut now, &[10; 20]), [false]);
        assert!(!busy.is_overloaded());
    }

    #[test]
    fn looks_that_come_too_soon_are_none() {
        let (mut busy, mut now) = (HeartLoad::default(), 1);
        busy.look(now);
        for _ in 0..100 {
            now += 1_000_000;
            assert_eq!(busy.look(now), None);
        }
        busy.wait(850_000_000);
        assert_eq!(busy.look(1_000_000_001), None);
        assert_eq!(busy.share(), 15);
    }
}
