//! Claims: which node may run a group, in the native dialect. Each group is a register that voters keep. A node owns the
//! group if it has a *claim* that a majority of them accepted and whose *lease* has not ended. Nobody needs a
//! synchronized clock, and a renewal costs no packet and no write. The published base is PaxosLease (Trencseni, Gazso,
//! Reinhardt, 2012); `docs/claims.md` says what is added to it, and why.
//!
//! ```text
//!             prepare                promise (what it accepted)         propose               accept
//!  claimant ───────────► voters ────────────────────────────► claimant ─────────► voters ─────────────► claimant: owns
//!           beat (digest of its claims) ───────────► voters ── echo in their own beats ───────────────► longer lease
//! ```
//!
//! * [`Voter`] promises, accepts and grants; it never decides which node should own a group.
//! * [`Claimant`] is one node's side of its own claims: it asks, counts, renews, releases.
//! * [`Ledger`] holds what must survive a restart: rounds that were used, leases that may run, claims that fencing needs.
//! * [`ClaimMember`] composes the three for one member of the cluster: messages in, messages out. The daemon, the simulator
//!   and the model checker run it.
//!
//! Time is each member's own monotonic clock. A voter counts a lease from the moment when it *received* the request that
//! it grants. The owner counts it from the moment when it *sent* that, less a margin for clocks that drift ([`Lease`]).

use alloc::{collections::BTreeMap, vec::Vec};

use crate::model::{
    claim::{Ballot, EarlierOwner, GroupId},
    identity::MemberIndex,
    time::{Duration, Instant},
};

mod claimant;
mod invariants;
mod ledger;
mod member;
mod message;
mod rules;
mod single_vote;
mod touched;
mod union;
mod voter;

pub use claimant::{ClaimEvent, Claimant, HeldClaim};
pub use ledger::{CEILING_STEP, Ledger};
pub use member::{ClaimMember, ClaimNotice, ClaimSettings};
pub use message::{
    BeatEcho, ClaimBeat, ClaimMessage, ClaimRefusal, Envelope, Receivers, VoterCopy, VoterMemory,
};
pub use single_vote::SingleVoteTiming;
pub use touched::TouchedGroups;
pub use union::union;
pub use voter::{GROUPS_MAX, Voter, VoterAnswer, VoterStanding};

/// Proves that an earlier owner runs nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proof {
    /// It released this ballot after it had stopped.
    Released(Ballot),
    /// It was fenced; the fence was begun against this generation.
    Fenced {
        node: MemberIndex,
        /// Its generation when the fence began.
        generation: u64,
    },
    /// It answered that it runs nothing and will start nothing below this ballot, which is that of the asker.
    Answered { node: MemberIndex, ballot: Ballot },
    /// Its node's own watchdog has stopped everything that ran under a ballot up to this one.
    Waited(Ballot),
    /// Its daemon has started with this generation, and has swept what earlier ones left.
    Swept { node: MemberIndex, generation: u64 },
}

impl Proof {
    /// Whether it accounts for this entry. A proof that is older than the entry proves nothing.
    #[must_use]
    pub fn covers(&self, entry: &EarlierOwner) -> bool {
        match *self {
            Self::Released(ballot) => rules::release_proves(ballot, entry),
            Self::Fenced { node, generation } => rules::fence_proves(node, generation, entry),
            Self::Answered { node, ballot } => node == entry.node && ballot > entry.ballot,
            Self::Waited(ballot) => ballot >= entry.ballot,
            Self::Swept { node, generation } => node == entry.node && generation > entry.generation,
        }
    }
}

/// How long ownership is granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The length as voters count it.
    pub length: Duration,
    /// How much less the owner counts: more than two clocks drift apart within a lease.
    pub margin: Duration,
}

impl Lease {
    /// The length as the owner counts it.
    #[must_use]
    pub fn owner(&self) -> Duration {
        rules::owner_lease(self.length, self.margin)
    }

    /// When the beat or proposal was sent on which a lease rests, if its owner counts that lease until `until`.
    #[must_use]
    pub fn sent(&self, until: Instant) -> Instant {
        let owner = u64::try_from(self.owner().as_nanos()).unwrap_or(u64::MAX);
        Instant::from_nanos(until.as_nanos().saturating_sub(owner))
    }
}

/// The voters of a cluster. Other voters make a set of another number; votes of another set do not count.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Voters {
    /// Identifies the set: a digest of its voters.
    pub number: u32,
    /// At most [`VOTERS_MAX`], in order, each once.
    pub members: Vec<MemberIndex>,
}

/// The most voters of a cluster.
pub const VOTERS_MAX: usize = 7;

impl Voters {
    /// How many of them are more than half.
    #[must_use]
    pub const fn majority(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// Whether a majority is among these members, each named once.
    fn has_majority<'a>(&self, of: impl IntoIterator<Item = &'a MemberIndex>) -> bool {
        of.into_iter().filter(|member| self.contains(**member)).count() >= self.majority()
    }

    /// Whether this member is a voter.
    #[must_use]
    pub fn contains(&self, member: MemberIndex) -> bool {
        self.members.contains(&member)
    }
}

/// The digest of a list of claims, for beats: members whose lists have the same digest have the same list. Versions are
/// left out of it, because clearing an earlier owner must not disturb a renewal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClaimsDigest(pub u64);

impl ClaimsDigest {
    /// The digest of this list, in any order. Frames are authenticated, so chance is the only adversary.
    #[must_use]
    pub fn of(list: impl IntoIterator<Item = (GroupId, Ballot)>) -> Self {
        let mut digest = Self::default();
        list.into_iter().for_each(|(group, ballot)| digest.add(group, ballot));
        digest
    }

    /// Adds a claim to the list.
    const fn add(&mut self, group: GroupId, ballot: Ballot) {
        self.0 = self.0.wrapping_add(Self::of_one(group, ballot));
    }

    /// Removes a claim from the list.
    const fn remove(&mut self, group: GroupId, ballot: Ballot) {
        self.0 = self.0.wrapping_sub(Self::of_one(group, ballot));
    }

    const fn of_one(group: GroupId, ballot: Ballot) -> u64 {
        mix(mix(mix(group.0) ^ ballot.round) ^ ballot.node.0 as u64)
    }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood, 2014): every bit of the input moves every bit of the output.
const fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

type ByGroup<T> = BTreeMap<GroupId, T>;
