//! Which groups something was changed of since that was asked last: so that what follows from the claims costs what was
//! changed, and not a walk over all groups.

use alloc::collections::BTreeSet;
use core::hash::{Hash, Hasher};

use crate::model::claim::GroupId;

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    /// Something of these may be other than it was: who owns them, what is granted or asked for.
    pub groups: BTreeSet<GroupId>,
    /// Leases of ours may end later than they did, of any group.
    pub extended: bool,
}

impl Touched {
    pub(super) fn add(&mut self, group: GroupId) {
        self.groups.insert(group);
    }

    pub(super) fn take_in(&mut self, mut other: Self) {
        self.groups.append(&mut other.groups);
        self.extended |= other.extended;
    }
}

/// It says what was changed, which is no part of what there is: states that differ in this alone are the same.
impl PartialEq for Touched {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Touched {}

impl Hash for Touched {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}
