//! A timer queue. When time passes, only the keys that are due are visited, not everything that may become due.

use alloc::collections::{BTreeMap, BTreeSet};
use core::hash::{Hash, Hasher};

use super::time::Instant;

/// Keys that become due, each at one moment at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimerQueue<Key, Moment = Instant> {
    moments: BTreeMap<Key, Moment>,
    order: BTreeSet<(Moment, Key)>,
}

impl<Key: Copy + Ord, Moment: Copy + Ord> TimerQueue<Key, Moment> {
    /// An empty queue: nothing is ever due.
    #[must_use]
    pub const fn new() -> Self {
        Self { moments: BTreeMap::new(), order: BTreeSet::new() }
    }

    /// Makes the key due at that moment and at no other; with `None`, never.
    pub fn set(&mut self, key: Key, at: Option<Moment>) {
        let old = match at {
            Some(at) => self.moments.insert(key, at),
            None => self.moments.remove(&key),
        };
        if old == at {
            return;
        }
        if let Some(old) = old {
            self.order.remove(&(old, key));
        }
        if let Some(at) = at {
            self.order.insert((at, key));
        }
    }

    /// When the first key is due.
    #[must_use]
    pub fn first(&self) -> Option<Moment> {
        self.order.first().map(|(at, _)| *at)
    }

    /// The keys that are due by now, in the order of their moments. A key stays due until it is set anew.
    pub fn due(&self, now: Moment) -> impl Iterator<Item = Key> {
        self.order.iter().take_while(move |(at, _)| *at <= now).map(|(_, key)| *key)
    }

    /// Takes out the first key that is due by now.
    pub fn take_due(&mut self, now: Moment) -> Option<Key> {
        let key = self.due(now).next()?;
        self.set(key, None);
        Some(key)
    }
}

impl<Key: Copy + Ord, Moment: Copy + Ord> Default for TimerQueue<Key, Moment> {
    fn default() -> Self {
        Self::new()
    }
}

/// A queue follows from the fields beside it, which are hashed, too, so it adds nothing to the hash.
impl<Key, Moment> Hash for TimerQueue<Key, Moment> {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn each_key_is_due_at_its_last_moment_only() {
        let at = Instant::from_millis;
        let due = |timers: &TimerQueue<_>, millis| timers.due(at(millis)).collect::<Vec<_>>();
        let mut timers = TimerQueue::new();
        timers.set('a', Some(at(5)));
        timers.set('b', Some(at(3)));
        timers.set('a', Some(at(1)));
        assert_eq!((timers.first(), due(&timers, 2)), (Some(at(1)), alloc::vec!['a']));
        assert_eq!(due(&timers, 3), ['a', 'b']);
        timers.set('a', None);
        assert_eq!((timers.first(), due(&timers, 2)), (Some(at(3)), alloc::vec![]));
    }

    proptest! {
        /// After any changes, the keys that are due are those that a list without an index would give.
        #[test]
        fn what_is_due_comes_once_and_in_order(
            changes in vec((0_usize..8, prop::option::of(0_u64..20)), 0..60),
            now in 0_u64..20,
        ) {
            let mut timers = TimerQueue::new();
            let mut list = [None; 8];
            for (key, at) in changes {
                list[key] = at;
                timers.set(key, at);
            }
            prop_assert_eq!(timers.first(), list.iter().flatten().min().copied());
            let mut wanted: Vec<_> = (0..8).filter_map(|key| Some((list[key]?, key))).collect();
            wanted.retain(|(at, _)| *at <= now);
            wanted.sort_unstable();
            let wanted: Vec<_> = wanted.into_iter().map(|(_, key)| key).collect();
            prop_assert_eq!(timers.due(now).collect::<Vec<_>>(), wanted.clone());
            for key in wanted {
                prop_assert_eq!(timers.take_due(now), Some(key));
            }
            prop_assert_eq!(timers.take_due(now), None);
            prop_assert!(timers.first().is_none_or(|at| at > now));
        }
    }
}
