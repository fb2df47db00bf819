//! Identifiers: nodes, links, groups and resources by their index in a plan, members by the digest of their names.

use core::fmt;

use sha2::{Digest as _, Sha256};

/// The most links (distinct link names) in a cluster.
pub const LINKS_MAX: usize = 16;

/// A configured node: an index into the nodes of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(pub usize);

/// A link: an index into the links of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkIndex(pub usize);

/// A ping node: an index into the ping nodes of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PingIndex(pub usize);

/// A group: an index into the groups of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupIndex(pub usize);

/// A member of a native cluster: nodes in the order of the configuration, then witnesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberIndex(pub u8);

impl MemberIndex {
    /// Higher than every member: a promise to it is a promise to no member.
    pub const NOBODY: Self = Self(u8::MAX);

    /// The member at this index of a list of all members; [`Self::NOBODY`] if the index is too high.
    #[must_use]
    pub fn at(index: usize) -> Self {
        u8::try_from(index).map_or(Self::NOBODY, Self)
    }

    /// Its index in a list of all members.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Its index as a node, in a cluster with this number of nodes; `None` for a witness and for [`Self::NOBODY`].
    #[must_use]
    pub fn node(self, nodes: usize) -> Option<NodeIndex> {
        (self.index() < nodes).then(|| NodeIndex(self.index()))
    }
}

/// Nodes are the first members.
impl From<NodeIndex> for MemberIndex {
    fn from(node: NodeIndex) -> Self {
        Self::at(node.0)
    }
}

/// A resource: its group and its index in that group's line, both counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceId {
    pub group: GroupIndex,
    /// The index among the resources of its group.
    pub member: usize,
}

/// A member as frames name it: the first four bytes of the SHA-256 of its name, the most significant first; written as
/// eight hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u32);

impl MemberId {
    /// The id of the member of that name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self(Sha256::digest(name.as_bytes())[..4].iter().fold(0, |id, &byte| id << 8 | u32::from(byte)))
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// The newest frame heard from a node: its highest generation, and the highest number in that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LastHeard {
    /// Counts the starts of its daemon.
    pub generation: u64,
    /// Counts the frames of that generation; 0 if no number is known.
    pub number: u64,
}
