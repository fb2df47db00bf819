//! How members and groups are named in frames: by digests of their names, so that a frame means the same to nodes whose
//! configurations differ for a while.

use alloc::{collections::BTreeMap, string::String, vec::Vec};

use crate::{
    model::{
        claim::GroupId,
        identity::{MemberId, MemberIndex},
    },
    native::plan::Plan,
};

/// Two names that would be one in frames, or one name that is there twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Twins(pub String, pub String);

/// Looks for two names that cannot be told apart as members.
///
/// # Errors
/// The first two.
pub fn check_members<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<(), Twins> {
    check(names, MemberId::of)
}

/// The same for groups.
///
/// # Errors
/// The first two.
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
pub struct Members {
    names: Vec<String>,
    /// So many of them are nodes: the first ones.
    nodes: usize,
    ids: BTreeMap<MemberId, MemberIndex>,
}

impl Members {
    /// The members of these names, in this order. A name whose id is another's is left to the first of them; the check
    /// of the configuration refuses it ([`check_members`]). No more than [`MemberIndex`] can count are taken. All of them
    /// are nodes.
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
    pub fn of(plan: &Plan) -> Self {
        let nodes = plan.nodes.iter().map(|node| node.name.clone());
        let all = Self::new(nodes.chain(plan.witnesses.iter().map(|witness| witness.name.clone())));
        Self { nodes: plan.nodes.len(), ..all }
    }

    /// Whether a member is a node.
    #[must_use]
    pub fn is_node(&self, member: MemberIndex) -> bool {
        member.place() < self.nodes
    }

    /// A member's name; none of a member that is not among them.
    #[must_use]
    pub fn name(&self, member: MemberIndex) -> Option<&str> {
        self.names.get(member.place()).map(String::as_str)
    }

    /// A member's id.
    #[must_use]
    pub fn id(&self, member: MemberIndex) -> Option<MemberId> {
        self.name(member).map(MemberId::of)
    }

    /// The member of that name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<MemberIndex> {
        let index = self.by_id(MemberId::of(name))?;
        (self.name(index) == Some(name)).then_some(index)
    }

    /// The member of that id.
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
        let members = Members::new(["a", "b", "witness"].map(String::from));
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
        // printf node13192 | sha256sum | cut -c1-8; the same of node26341
        let twins = check_members(["a", "node13192", "node26341"]);
        assert_eq!(twins, Err(Twins("node13192".into(), "node26341".into())));
    }
}
