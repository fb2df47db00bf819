//! What is to be done for each of many addresses, by time: what is due is found without a look at the others.

use std::collections::{BTreeMap, BTreeSet};

use locum_core::plan::ResourceId;

/// One moment for each address, in nanoseconds of the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    by_time: BTreeSet<(u64, ResourceId)>,
    times: BTreeMap<ResourceId, u64>,
}

impl Agenda {
    /// Its moment is this one, whatever it was before.
    pub(super) fn set(&mut self, id: ResourceId, at: u64) {
        self.remove(id);
        self.by_time.insert((at, id));
        self.times.insert(id, at);
    }

    pub(super) fn remove(&mut self, id: ResourceId) {
        if let Some(at) = self.times.remove(&id) {
            self.by_time.remove(&(at, id));
        }
    }

    /// The earliest moment of all.
    pub(super) fn first(&self) -> Option<u64> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Whose turn it is: the earliest of those whose moment has come. It stays.
    pub(super) fn due(&self, now: u64) -> Option<ResourceId> {
        self.by_time.first().filter(|(at, _)| *at <= now).map(|(_, id)| *id)
    }

    /// As [`Self::due`], and it has no moment any more.
    pub(super) fn take_due(&mut self, now: u64) -> Option<ResourceId> {
        let id = self.due(now)?;
        self.remove(id);
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use locum_core::plan::GroupIndex;
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn id(group: usize) -> ResourceId {
        ResourceId { group: GroupIndex(group), member: 0 }
    }

    proptest! {
        /// Whatever was set and removed before, what is due is what a list without an index would give.
        #[test]
        fn what_is_due_comes_once_and_in_order(
            changes in vec((0_usize..8, prop::option::of(0_u64..20)), 0..60),
            now in 0_u64..20,
        ) {
            let mut agenda = Agenda::default();
            let mut list = [None; 8];
            for (group, at) in changes {
                list[group] = at;
                match at {
                    Some(at) => agenda.set(id(group), at),
                    None => agenda.remove(id(group)),
                }
            }
            prop_assert_eq!(agenda.first(), list.iter().flatten().min().copied());
            let mut wanted: Vec<_> = (0..8).filter_map(|group| Some((list[group]?, group))).collect();
            wanted.retain(|(at, _)| *at <= now);
            wanted.sort_unstable();
            for (_, group) in wanted {
                prop_assert_eq!(agenda.due(now), Some(id(group)));
                prop_assert_eq!(agenda.take_due(now), Some(id(group)));
            }
            prop_assert_eq!(agenda.take_due(now), None);
            prop_assert!(agenda.first().is_none_or(|at| at > now));
        }
    }
}
