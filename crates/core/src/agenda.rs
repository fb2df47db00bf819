//! When what is due: so that time passing costs what has become due, and not a walk over everything that ever may.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::hash::{Hash, Hasher};

use crate::time::Instant;

/// By key, at most one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Agenda<Key> {
    moments: BTreeMap<Key, Instant>,
    order: BTreeSet<(Instant, Key)>,
}

impl<Key: Copy + Ord> Agenda<Key> {
    pub(crate) const fn new() -> Self {
        Self { moments: BTreeMap::new(), order: BTreeSet::new() }
    }

    /// The key is due at that moment and at no other, or never.
    pub(crate) fn set(&mut self, key: Key, at: Option<Instant>) {
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

    /// When the first of them is due.
    pub(crate) fn first(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// What is due by now, in the order of the moments. It stays due until it is set anew.
    pub(crate) fn due(&self, now: Instant) -> Vec<Key> {
        self.order.iter().take_while(|(at, _)| *at <= now).map(|(_, key)| *key).collect()
    }
}

/// An agenda follows from what it stands beside, which is hashed, too: nothing is added to that.
impl<Key> Hash for Agenda<Key> {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_due_at_its_last_moment_only() {
        let at = Instant::from_millis;
        let mut agenda = Agenda::new();
        agenda.set('a', Some(at(5)));
        agenda.set('b', Some(at(3)));
        agenda.set('a', Some(at(1)));
        assert_eq!((agenda.first(), agenda.due(at(2))), (Some(at(1)), alloc::vec!['a']));
        assert_eq!(agenda.due(at(3)), ['a', 'b']);
        agenda.set('a', None);
        assert_eq!((agenda.first(), agenda.due(at(2))), (Some(at(3)), alloc::vec![]));
    }
}
