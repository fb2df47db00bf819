//! Claims: who may run a group, in the native dialect. Each group is a register that voters keep; owning the group is
//! a *claim* that a majority of them accepted and whose *lease* has not ended. Nobody needs a synchronized clock, and a
//! renewal costs no packet and no write. The published base is PaxosLease (Trencseni, Gazso, Reinhardt, 2012); what is
//! added to it, and why, is in `docs/claims.md`.
//!
//! ```text
//!             prepare                promise (what it accepted)         propose               accept
//!  claimant ───────────► voters ────────────────────────────► claimant ─────────► voters ─────────────► claimant: owns
//!           beat (digest of its claims) ───────────► voters ── echo in their own beats ───────────────► longer lease
//! ```
//!
//! * [`Voter`] promises, accepts and grants; it never decides who should own.
//! * [`Claimant`] is one node's side of its own claims: it asks, counts, renews, releases.
//! * [`Ledger`] is what must survive a restart: rounds that were used, leases that may run, claims that fencing needs.
//! * [`Member`] composes the three for one member of the cluster: messages in, messages out. It is what the daemon, the
//!   simulator and the model checker run.
//!
//! Time is each member's own monotonic clock. A voter counts a lease from the moment it *received* what it grants, the
//! owner from the moment it *sent* it, less a margin for clocks that drift ([`Lease`]).

use alloc::{collections::BTreeMap, vec::Vec};

use crate::model::{
    claim::{Ballot, Earlier, GroupId},
    identity::MemberIndex,
    time::{Duration, Instant},
};

mod alone;
mod claimant;
mod invariants;
mod ledger;
mod member;
mod message;
mod rules;
mod touched;
mod union;
mod voter;

pub use alone::Patience;
pub use claimant::{Claimant, Held, News};
pub use ledger::{CEILING_STEP, Ledger};
pub use member::{Member, Notice, Settings};
pub use message::{Beat, Copied, Echo, Envelope, Message, Refusal, To, Word};
pub use touched::Touched;
pub use union::union;
pub use voter::{GROUPS_MAX, Standing, Verdict, Voter};

/// Why an earlier owner surely runs nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proof {
    /// It released this ballot after it had stopped.
    Released(Ballot),
    /// It was fenced; the fence was begun against this generation.
    Fenced {
        /// Who.
        node: MemberIndex,
        /// Its generation when the fence began.
        generation: u64,
    },
    /// It answered that it runs nothing and will start nothing below this ballot, which is its asker's.
    Answered {
        /// Who.
        node: MemberIndex,
        /// The asker's ballot.
        ballot: Ballot,
    },
    /// Whatever ran under a ballot up to this one has been stopped by its node's own watchdog.
    Waited(Ballot),
    /// It lives in this generation now, and has swept what earlier ones left.
    Swept {
        /// Who.
        node: MemberIndex,
        /// Its new life.
        generation: u64,
    },
}

impl Proof {
    /// Whether this entry is accounted for by it. A proof that is older than the entry proves nothing of it.
    #[must_use]
    pub fn covers(&self, entry: &Earlier) -> bool {
        match *self {
            Self::Released(ballot) => rules::release_proves(ballot, entry),
            Self::Fenced { node, generation } => rules::fence_proves(node, generation, entry),
            Self::Answered { node, ballot } => node == entry.node && ballot > entry.ballot,
            Self::Waited(ballot) => ballot >= entry.ballot,
            Self::Swept { node, generation } => node == entry.node && generation > entry.generation,
        }
    }
}

/// For how long ownership is granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// As voters count it.
    pub length: Duration,
    /// By how much less the owner counts it: more than two clocks drift apart within a lease.
    pub margin: Duration,
}

impl Lease {
    /// As the owner counts it.
    #[must_use]
    pub fn owner(&self) -> Duration {
        rules::owner_lease(self.length, self.margin)
    }

    /// When that was sent on which a lease rests that its owner counts until then.
    #[must_use]
    pub fn sent(&self, until: Instant) -> Instant {
        let owner = u64::try_from(self.owner().as_nanos()).unwrap_or(u64::MAX);
        Instant::from_nanos(until.as_nanos().saturating_sub(owner))
    }
}

/// Who votes. Other voters make a set of another number; votes of another set do not count.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Voters {
    /// Which set it is: a digest of its voters, for whoever makes it.
    pub number: u32,
    /// At most [`VOTERS_MAX`], in order, each once.
    pub members: Vec<MemberIndex>,
}

/// Most voters of a cluster.
pub const VOTERS_MAX: usize = 7;

impl Voters {
    /// How many of them are more than half.
    #[must_use]
    pub const fn majority(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// Whether so many of them are among these, each named once.
    fn has_majority<'a>(&self, of: impl IntoIterator<Item = &'a MemberIndex>) -> bool {
        of.into_iter().filter(|member| self.contains(**member)).count() >= self.majority()
    }

    /// Whether this one votes.
    #[must_use]
    pub fn contains(&self, member: MemberIndex) -> bool {
        self.members.contains(&member)
    }
}

/// What a list of claims comes to, for beats: members whose lists have the same digest have the same list. Versions are
/// left out of it: a strike must not disturb a renewal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Digest(pub u64);

impl Digest {
    /// Of this list; the order does not matter. Frames are authenticated, so chance is the only adversary.
    #[must_use]
    pub fn of(list: impl IntoIterator<Item = (GroupId, Ballot)>) -> Self {
        let mut digest = Self::default();
        list.into_iter().for_each(|(group, ballot)| digest.add(group, ballot));
        digest
    }

    /// One more is in the list.
    const fn add(&mut self, group: GroupId, ballot: Ballot) {
        self.0 = self.0.wrapping_add(Self::of_one(group, ballot));
    }

    /// It is in the list no more.
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

/// By group.
type ByGroup<T> = BTreeMap<GroupId, T>;
