//! The groups that have changed since the last call: so the layer above looks only at those, and not at all groups.

use alloc::collections::BTreeSet;
use core::hash::{Hash, Hasher};

use crate::model::claim::GroupId;

/// The groups that have changed since the last call.
#[derive(Clone, Debug, Default)]
pub struct TouchedGroups {
    /// The groups whose owner, grant or request may have changed.
    pub groups: BTreeSet<GroupId>,
    /// Our leases, of any group, may end later than before.
    pub extended: bool,
}

impl TouchedGroups {
    pub(super) fn add(&mut self, group: GroupId) {
        self.groups.insert(group);
    }

    pub(super) fn take_in(&mut self, mut other: Self) {
        self.groups.append(&mut other.groups);
        self.extended |= other.extended;
    }
}

/// Always equal: it tells what has changed and is not part of the state. States that differ only in this are the same.
impl PartialEq for TouchedGroups {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for TouchedGroups {}

impl Hash for TouchedGroups {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}
