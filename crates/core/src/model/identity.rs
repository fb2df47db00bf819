//! Who and what: nodes, links, groups and resources by their places in a plan, members by the digest of their names.

use core::fmt;

use sha2::{Digest as _, Sha256};

/// Most links (distinct link names) one cluster may have.
pub const LINKS_MAX: usize = 16;

/// Which of the configured nodes: an index into the nodes of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(pub usize);

/// Which link: an index into the links of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkIndex(pub usize);

/// Which ping node: an index into the ping nodes of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PingIndex(pub usize);

/// Which group: an index into the groups of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupIndex(pub usize);

/// Which member of a native cluster: nodes in the order of the configuration, then witnesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberIndex(pub u8);

impl MemberIndex {
    /// Above every member: a promise to it is a promise to nobody.
    pub const NOBODY: Self = Self(u8::MAX);

    /// The member at this place of a list of all members. [`Self::NOBODY`] beyond the last that there may be.
    #[must_use]
    pub fn at(place: usize) -> Self {
        u8::try_from(place).map_or(Self::NOBODY, Self)
    }

    /// Its place in a list of all members.
    #[must_use]
    pub const fn place(self) -> usize {
        self.0 as usize
    }

    /// The node that it is in a cluster of so many nodes; `None` of a witness, and of nobody.
    #[must_use]
    pub fn node(self, nodes: usize) -> Option<NodeIndex> {
        (self.place() < nodes).then(|| NodeIndex(self.place()))
    }
}

/// Nodes are the first members.
impl From<NodeIndex> for MemberIndex {
    fn from(node: NodeIndex) -> Self {
        Self::at(node.0)
    }
}

/// Which resource: its group and its place in that group's line, both counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceId {
    /// The group.
    pub group: GroupIndex,
    /// The place among the resources of its group.
    pub member: usize,
}

/// A member, in frames: the first four bytes of the SHA-256 of its name, the most significant first; written as eight
/// hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u32);

impl MemberId {
    /// Of the member of that name.
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

/// The newest that was heard of a node: of its highest generation the highest number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Heard {
    /// Counts its starts.
    pub generation: u64,
    /// Counts its frames since; 0 is none that is known.
    pub number: u64,
}
