//! The messages of members to each other, as values. The bytes are in `docs/wire.md`.

use alloc::vec::Vec;

use super::ClaimsDigest;
use crate::model::{
    claim::{Ballot, Claim, GroupId, VoterReport},
    identity::MemberIndex,
    time::Duration,
};

/// A message of a member to others. It has lists, because one frame carries many groups.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ClaimMessage {
    /// The periodic message of a member, to all others.
    Beat(ClaimBeat),
    /// May I propose under these ballots?
    Prepare(Vec<(GroupId, Ballot)>),
    /// Yes; and this is what I accepted before.
    Promise(Vec<(GroupId, Ballot, VoterReport)>),
    /// No to these prepares or proposals.
    Refuse(Vec<ClaimRefusal>),
    /// These claims, for a lease of this length.
    Propose(Duration, Vec<(GroupId, Claim)>),
    /// Accepted, in this version.
    Accept(Vec<(GroupId, Ballot, u32)>),
    /// Stopped, and given back; with the node that should claim next.
    Release(Vec<(GroupId, Claim, Option<MemberIndex>)>),
    /// I have started with a new generation, and have swept what the earlier ones left.
    Swept,
    /// Your list is not the one I know: send it.
    AskList,
    /// This is my whole list.
    List(Vec<(GroupId, Claim)>),
    /// Do you still run, or may you still start, anything of these groups below my ballots?
    Ask(Vec<(GroupId, Ballot)>),
    /// Nothing runs, and nothing will be started below these ballots.
    Clear(Vec<(GroupId, Ballot)>),
    /// I have no file: send all that you remember.
    AskCopy,
    /// All that I remember.
    Copy(VoterCopy),
}

/// Why a prepare or a proposal was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClaimRefusal {
    pub group: GroupId,
    /// The ballot that was refused.
    pub ballot: Ballot,
    /// The ballot that is promised.
    pub promised: Ballot,
    /// How long another owner's grant still runs; zero if only the promise stands against it.
    pub wait: Duration,
}

/// The claims' part of a beat. Its size does not depend on the number of groups.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClaimBeat {
    /// Counts the sender's beats since its daemon started.
    pub sequence: u64,
    /// The digest of the list of its claims.
    pub digest: ClaimsDigest,
    /// The lease that its claims want.
    pub lease: Duration,
    /// Whether it knows what it promised before its daemon started.
    pub memory: VoterMemory,
    /// What it heard of the others: of all if it votes, else of voters only.
    pub echoes: Vec<(MemberIndex, BeatEcho)>,
}

/// Whether a voter remembers what it has promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VoterMemory {
    /// It has no file.
    Blank,
    /// It has no file, and has heard every other voter say so, too. The cluster is new.
    AllBlank,
    /// It has a file, or is not a voter.
    Good,
}

/// The echo of a member's newest beat.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BeatEcho {
    /// The generation that sent the beat.
    pub generation: u64,
    /// The number of the beat.
    pub sequence: u64,
    /// Whether every claim in its list is granted for another lease, from its receipt.
    pub granted: bool,
    /// The groups that are not granted, each with the ballot that stands against it.
    pub disputed: Vec<(GroupId, Ballot)>,
}

/// All that a voter remembers, for a voter without a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct VoterCopy {
    /// Above every round that it promised or proposed.
    pub ceiling: u64,
    /// The longest lease that it granted.
    pub longest_lease: Duration,
    /// By group: what is promised and accepted.
    pub groups: Vec<(GroupId, Ballot, VoterReport)>,
}

/// The receivers of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Receivers {
    /// All members but the sender.
    All,
    One(MemberIndex),
}

/// A message on its way out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Envelope {
    pub to: Receivers,
    pub message: ClaimMessage,
}

impl Envelope {
    /// Joins messages of one kind that follow each other to the same members: a frame has room for many groups.
    #[must_use]
    pub fn joined(envelopes: Vec<Self>) -> Vec<Self> {
        let mut joined: Vec<Self> = Vec::with_capacity(envelopes.len());
        for envelope in envelopes {
            let last = joined.last_mut().filter(|last| last.to == envelope.to);
            let rest = match last {
                Some(last) => last.message.join(envelope.message),
                None => Some(envelope.message),
            };
            joined.extend(rest.map(|message| Self { to: envelope.to, message }));
        }
        joined
    }
}

impl ClaimMessage {
    /// Takes in the list of another message of the same kind. A message of another kind is given back.
    fn join(&mut self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Prepare(list), Self::Prepare(more)) => list.extend(more),
            (Self::Promise(list), Self::Promise(more)) => list.extend(more),
            (Self::Refuse(list), Self::Refuse(more)) => list.extend(more),
            (Self::Accept(list), Self::Accept(more)) => list.extend(more),
            (Self::Release(list), Self::Release(more)) => list.extend(more),
            (Self::Propose(lease, list), Self::Propose(same, more)) if *lease == same => list.extend(more),
            (_, other) => return Some(other),
        }
        None
    }
}
