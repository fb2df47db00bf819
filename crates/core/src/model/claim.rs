//! What a claim is, as voters keep it, disks remember it and frames carry it. What follows from claims: [`crate::claims`].

use alloc::{collections::BTreeMap, format, sync::Arc, vec::Vec};

use sha2::{Digest as _, Sha256};

use super::{identity::MemberIndex, time::Duration};

/// Which group, for all members alike, whatever their configuration says: a hash of its name. A voter needs to know no
/// more of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u64);

impl GroupId {
    /// Of the group of that name: the first eight bytes of the name's SHA-256, the most significant first.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self(Sha256::digest(name.as_bytes())[..8].iter().fold(0, |id, &byte| id << 8 | u64::from(byte)))
    }
}

/// Totally ordered, and never used twice. The ballot under which a group was claimed is the *epoch* of that ownership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    /// Grows.
    pub round: u64,
    /// Who uses it: nobody else can make this ballot.
    pub node: MemberIndex,
}

impl Ballot {
    /// Below every ballot that is used.
    pub const ZERO: Self = Self { round: 0, node: MemberIndex(0) };
}

/// One ownership of a group, as voters keep it. Its owner is the node of the ballot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The epoch.
    pub ballot: Ballot,
    /// The owner's generation: which of its lives.
    pub generation: u64,
    /// 0 as proposed; 1 once the owner has said that a majority accepted it; one more with each write that struck
    /// entries of `unproved`.
    pub version: u32,
    /// Whether an accept of it must be on disk before it is answered: the group's guard is `watchdog` or `fence`.
    pub durable: bool,
    /// The earlier owners that may still run something of the group, in order, one for each life of a node.
    pub unproved: Vec<Earlier>,
}

impl Claim {
    /// Who owns.
    #[must_use]
    pub const fn owner(&self) -> MemberIndex {
        self.ballot.node
    }

    /// Whether its owner has said that a majority accepted it.
    #[must_use]
    pub const fn is_confirmed(&self) -> bool {
        self.version > 0
    }
}

/// An earlier owner that is not yet proved to have stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Earlier {
    /// Which node.
    pub node: MemberIndex,
    /// In which of its lives.
    pub generation: u64,
    /// The highest ballot under which it may run the group.
    pub ballot: Ballot,
}

/// What a voter tells of a group when it promises.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Report {
    /// The claim it accepted last.
    pub accepted: Option<Claim>,
    /// That claim was released.
    pub released: bool,
}

/// The content of the file, as the hands write and read it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Durable {
    /// Above every round that this member promised or proposed.
    pub ceiling: u64,
    /// No lease that it granted was longer.
    pub longest_lease: Duration,
    /// The voter set it belongs to.
    pub set: u32,
    /// The claims that must be remembered, those of guards `watchdog` and `fence`.
    pub claims: BTreeMap<GroupId, Report>,
}

/// Which ownership of a group, as text for agents and scripts: the round and the number of the node, `17.2`. It only
/// grows, compared by numbers, so that storage can refuse what an earlier owner still sends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(Arc<str>);

impl Epoch {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Ballot> for Epoch {
    fn from(Ballot { round, node }: Ballot) -> Self {
        Self(format!("{round}.{}", node.0).into())
    }
}
