//! A claim as voters keep it, disks store it and frames carry it. The rules are in [`crate::claims`].

use alloc::{collections::BTreeMap, format, sync::Arc, vec::Vec};

use sha2::{Digest as _, Sha256};

use super::{identity::MemberIndex, time::Duration};

/// Identifies a group at all members alike, whatever their configuration says: a hash of its name. A voter needs to know
/// nothing else of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u64);

impl GroupId {
    /// The id of the group of that name: the first eight bytes of the name's SHA-256, the most significant first.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self(Sha256::digest(name.as_bytes())[..8].iter().fold(0, |id, &byte| id << 8 | u64::from(byte)))
    }
}

/// The number of an ownership. Ballots are totally ordered, and none is used twice. The ballot under which a group was
/// claimed is the *epoch* of that ownership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    /// Compared first; it only grows.
    pub round: u64,
    /// The node that uses this ballot. No other node can make it.
    pub node: MemberIndex,
}

impl Ballot {
    /// Below every ballot that is used.
    pub const ZERO: Self = Self { round: 0, node: MemberIndex(0) };
}

/// One ownership of a group, as voters keep it. Its owner is the node of the ballot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The ballot under which it was proposed.
    pub ballot: Ballot,
    /// The generation of the owner that made it.
    pub generation: u64,
    /// 0 as proposed; 1 once the owner has confirmed that a majority accepted it; one more with each write that cleared
    /// entries of `unproved`.
    pub version: u32,
    /// Whether a voter must have it on disk before it answers an accept. True if the group's guard is `watchdog` or
    /// `fence`.
    pub durable: bool,
    /// The earlier owners that may still run something of the group, in order, one for each generation of a node.
    pub unproved: Vec<EarlierOwner>,
}

impl Claim {
    /// The node that owns the group: that of the ballot.
    #[must_use]
    pub const fn owner(&self) -> MemberIndex {
        self.ballot.node
    }

    /// Whether its owner has confirmed that a majority accepted it.
    #[must_use]
    pub const fn is_confirmed(&self) -> bool {
        self.version > 0
    }
}

/// An earlier owner that is not yet proved to have stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EarlierOwner {
    pub node: MemberIndex,
    pub generation: u64,
    /// The highest ballot under which it may run the group.
    pub ballot: Ballot,
}

/// What a voter reports of a group when it promises.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct VoterReport {
    /// The claim it accepted last.
    pub accepted: Option<Claim>,
    /// Whether that claim was released.
    pub released: bool,
}

/// The content of the ledger's file, as the control plane writes and reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct DurableState {
    /// Higher than every round that this member promised or proposed.
    pub ceiling: u64,
    /// At least as long as every lease that it granted.
    pub longest_lease: Duration,
    /// The voter set it belongs to.
    pub set: u32,
    /// The claims that must survive a restart: those of guards `watchdog` and `fence`.
    pub claims: BTreeMap<GroupId, VoterReport>,
}

/// Identifies one ownership of a group, as text for agents and scripts: the round and the number of the node, such as
/// `17.2`. Compared as numbers it only grows, so that storage can refuse what an earlier owner still sends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(Arc<str>);

impl Epoch {
    /// The text, `ROUND.NODE` in decimal.
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
