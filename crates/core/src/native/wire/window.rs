//! Which frames of a member were heard before: over another link, or as a replay.

use crate::model::identity::LastHeard;

/// How far below the newest number frames are still taken, each number once. Older ones count as heard.
pub const WINDOW: u64 = 64;

/// Whether a frame is new, by its generation and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowVerdict {
    /// The first frame of a generation that was not heard before.
    Begins,
    /// The first frame with this number.
    New,
    /// Heard before, or so old that it may have been.
    Again,
    /// Of a generation before the newest known, or sent before our own restart.
    Replayed,
}

/// The newest frame heard of a member, and which of the numbers right before it were heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    newest: Option<LastHeard>,
    /// Bit n: the number `newest - n` was heard.
    seen: u64,
    /// The newest number of this generation that was heard before our own restart.
    before: u64,
}

impl Window {
    /// A window after a start. `remembered`: the newest frame that was heard before it.
    #[must_use]
    pub fn new(remembered: Option<LastHeard>) -> Self {
        let before = remembered.map_or(0, |heard| heard.number);
        Self { newest: remembered, seen: u64::MAX, before }
    }

    /// The newest frame heard, for the driver to save.
    #[must_use]
    pub const fn heard(&self) -> Option<LastHeard> {
        self.newest
    }

    /// Judges a frame and remembers it. Only authentic frames may come here.
    pub fn take(&mut self, generation: u64, number: u64) -> WindowVerdict {
        let Some(newest) = self.newest.filter(|newest| newest.generation >= generation) else {
            *self = Self { newest: Some(LastHeard { generation, number }), seen: 1, before: 0 };
            return WindowVerdict::Begins;
        };
        if newest.generation > generation || number <= self.before {
            return WindowVerdict::Replayed;
        }
        if number > newest.number {
            let step = u32::try_from(number - newest.number).unwrap_or(u32::MAX);
            self.seen = self.seen.checked_shl(step).unwrap_or(0) | 1;
            self.newest = Some(LastHeard { generation, number });
            return WindowVerdict::New;
        }
        let age = newest.number - number;
        if age >= WINDOW || self.seen >> age & 1 == 1 {
            return WindowVerdict::Again;
        }
        self.seen |= 1 << age;
        WindowVerdict::New
    }
}

#[cfg(test)]
mod tests {
    use alloc::{collections::BTreeSet, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    fn takes(window: &mut Window, frames: &[(u64, u64)]) -> Vec<WindowVerdict> {
        frames.iter().map(|&(generation, number)| window.take(generation, number)).collect()
    }

    #[test]
    fn each_number_is_taken_once_in_any_order() {
        use WindowVerdict::{Again, Begins, New, Replayed};
        let mut window = Window::default();
        let frames =
            [(7, 5), (7, 5), (7, 3), (7, 3), (7, 70), (7, 6), (7, 7), (6, 99), (8, 1), (7, 71), (8, 1)];
        let verdicts = [Begins, Again, New, Again, New, Again, New, Replayed, Begins, Replayed, Again];
        assert_eq!(takes(&mut window, &frames), verdicts);
        assert_eq!(window.heard(), Some(LastHeard { generation: 8, number: 1 }));
    }

    #[test]
    fn what_was_said_before_our_restart_is_a_replay_after_it() {
        let mut window = Window::new(Some(LastHeard { generation: 7, number: 100 }));
        assert_eq!(takes(&mut window, &[(7, 100), (7, 99), (7, 40), (6, 200)]), [WindowVerdict::Replayed; 4]);
        assert_eq!(takes(&mut window, &[(7, 103), (7, 102), (7, 101)]), [WindowVerdict::New; 3]);
        assert_eq!(
            takes(&mut window, &[(7, 100), (7, 101)]),
            [WindowVerdict::Replayed, WindowVerdict::Again]
        );
    }

    proptest! {
        #[test]
        fn no_frame_is_taken_twice(frames in proptest::collection::vec((0_u64..3, 0_u64..200), 0..300), restart in 0_usize..300) {
            let mut window = Window::default();
            let mut taken = BTreeSet::new();
            for (index, (generation, number)) in frames.into_iter().enumerate() {
                if index == restart {
                    window = Window::new(window.heard());
                }
                let known = window.heard();
                match window.take(generation, number) {
                    WindowVerdict::Begins => {
                        prop_assert!(known.is_none_or(|known| known.generation < generation));
                        prop_assert!(taken.insert((generation, number)));
                    }
                    WindowVerdict::New => {
                        prop_assert_eq!(known.map(|known| known.generation), Some(generation));
                        prop_assert!(taken.insert((generation, number)));
                    }
                    WindowVerdict::Again | WindowVerdict::Replayed => {}
                }
            }
        }
    }
}
