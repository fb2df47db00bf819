//! How frames name members and groups: by digests of their names, so that a frame means the same to nodes whose
//! configurations differ for a while.

use alloc::{collections::BTreeMap, string::String, vec::Vec};

use crate::{
    model::{
        claim::GroupId,
        identity::{MemberId, MemberIndex},
    },
    native::plan::NativePlan,
};

/// Two names that frames cannot tell apart, or one name that is there twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Twins(pub String, pub String);

/// Checks that frames can tell these members apart.
///
/// # Errors
/// The first two names that they cannot.
pub fn check_members<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<(), Twins> {
    check(names, MemberId::of)
}

/// Checks that frames can tell these groups apart.
///
/// # Errors
/// The first two names that they cannot.
pub fn check_groups<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<(), Twins> {
    check(names, GroupId::of)
}

fn check<'a, Id: Ord>(names: impl IntoIterator<Item = &'a str>, id: fn(&str) -> Id) -> Result<(), Twins> {
    let mut seen = BTreeMap::new();
    for name in names {
        if let Some(twin) = seen.insert(id(name), name) {
            return Err(Twins(twin.into(), name.into()));
        }
    }
    Ok(())
}

/// All members of the cluster by name, id and index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberTable {
    names: Vec<String>,
    /// The number of nodes; they come first.
    nodes: usize,
    ids: BTreeMap<MemberId, MemberIndex>,
}

impl MemberTable {
    /// The members with these names, in this order, all of them nodes. If two names have one id, it belongs to the
    /// first; the check of the configuration refuses such names ([`check_members`]). Names beyond the count of
    /// [`MemberIndex`] are dropped.
    #[must_use]
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let names: Vec<String> = names.into_iter().take(usize::from(MemberIndex::NOBODY.0)).collect();
        let mut ids = BTreeMap::new();
        for (index, name) in (0..).zip(&names) {
            ids.entry(MemberId::of(name)).or_insert(MemberIndex(index));
        }
        Self { nodes: names.len(), names, ids }
    }

    /// The members of a plan: its nodes, then its witnesses.
    #[must_use]
    pub fn of(plan: &NativePlan) -> Self {
        let nodes = plan.nodes.iter().map(|node| node.name.clone());
        let all = Self::new(nodes.chain(plan.witnesses.iter().map(|witness| witness.name.clone())));
        Self { nodes: plan.nodes.len(), ..all }
    }

    /// Whether a member is a node.
    #[must_use]
    pub fn is_node(&self, member: MemberIndex) -> bool {
        member.index() < self.nodes
    }

    /// A member's name; `None` if it is not among them.
    #[must_use]
    pub fn name(&self, member: MemberIndex) -> Option<&str> {
        self.names.get(member.index()).map(String::as_str)
    }

    /// The id by which frames name a member; `None` if it is not among them.
    #[must_use]
    pub fn id(&self, member: MemberIndex) -> Option<MemberId> {
        self.name(member).map(MemberId::of)
    }

    /// The member with that name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<MemberIndex> {
        let index = self.by_id(MemberId::of(name))?;
        (self.name(index) == Some(name)).then_some(index)
    }

    /// The member with that id.
    #[must_use]
    pub fn by_id(&self, id: MemberId) -> Option<MemberIndex> {
        self.ids.get(&id).copied()
    }
}

#[cfg(test)]
mod tests {
    use alloc::{format, string::ToString};

    use super::*;

    #[test]
    fn ids_are_what_sha256sum_says() {
        // printf node1 | sha256sum; printf web | sha256sum
        assert_eq!(MemberId::of("node1").to_string(), "ca12f31b");
        assert_eq!(format!("{:016x}", GroupId::of("web").0), "4b5e57f6eb2f42b9");
    }

    #[test]
    fn members_are_found_by_name_and_id() {
        let members = MemberTable::new(["a", "b", "witness"].map(String::from));
        for (index, name) in (0..).zip(["a", "b", "witness"]) {
            assert_eq!(members.named(name), Some(MemberIndex(index)));
            assert_eq!(members.by_id(MemberId::of(name)), Some(MemberIndex(index)));
        }
        assert_eq!(members.named("c"), None);
        assert_eq!(members.name(MemberIndex::NOBODY), None);
    }

    #[test]
    fn names_with_one_digest_are_told() {
        assert_eq!(check_members(["a", "b"]), Ok(()));
        assert_eq!(check_groups(["web", "db", "web"]), Err(Twins("web".into(), "web".into())));
        // printf node13192 | sha256sum | cut -c1-8; node26341 gives the same
        let twins = check_members(["a", "node13192", "node26341"]);
        assert_eq!(twins, Err(Twins("node13192".into(), "node26341".into())));
    }
}
