//! What members say to each other, as values. The bytes are in `docs/wire.md`.

use alloc::vec::Vec;

use super::Digest;
use crate::model::{
    claim::{Ballot, Claim, GroupId, Report},
    identity::MemberIndex,
    time::Duration,
};

/// What members say to each other. Lists, because one frame carries many groups.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// The periodic word of a member, to all.
    Beat(Beat),
    /// May I propose under these ballots?
    Prepare(Vec<(GroupId, Ballot)>),
    /// Yes; and this is what I accepted before.
    Promise(Vec<(GroupId, Ballot, Report)>),
    /// No.
    Refuse(Vec<Refusal>),
    /// These claims, for a lease of this length.
    Propose(Duration, Vec<(GroupId, Claim)>),
    /// Accepted, in this version.
    Accept(Vec<(GroupId, Ballot, u32)>),
    /// Stopped, and given back; who should claim next.
    Release(Vec<(GroupId, Claim, Option<MemberIndex>)>),
    /// I live in a new generation and have swept what the earlier ones left.
    Swept,
    /// Your list is not what I know: tell it.
    AskList,
    /// My list.
    List(Vec<(GroupId, Claim)>),
    /// Do you still run, or may you still start, anything of these groups below my ballots?
    Ask(Vec<(GroupId, Ballot)>),
    /// Nothing runs, and nothing will be started below these ballots.
    Clear(Vec<(GroupId, Ballot)>),
    /// I have no file: tell all that you remember.
    AskCopy,
    /// All that I remember.
    Copy(Copied),
}

/// Why a prepare or a proposal was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// Of which group.
    pub group: GroupId,
    /// The ballot that was refused.
    pub ballot: Ballot,
    /// This much is promised.
    pub promised: Ballot,
    /// Another owner's grant runs for so long yet; zero if it is for the promise alone.
    pub wait: Duration,
}

/// The claims' part of a beat. Its size does not depend on the number of groups.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Beat {
    /// Counts the sender's beats of this life.
    pub sequence: u64,
    /// Of the list of its claims.
    pub digest: Digest,
    /// The lease that its claims want.
    pub lease: Duration,
    /// Whether it knows what its earlier lives promised.
    pub word: Word,
    /// What it heard of the others: of all if it votes, else of voters.
    pub echoes: Vec<(MemberIndex, Echo)>,
}

/// Whether a voter's word is worth something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Word {
    /// It has no file.
    Blank,
    /// Nor has any other voter: it has heard each of them say so. The cluster is new.
    AllBlank,
    /// It has one, or is no voter.
    Good,
}

/// What is echoed of a member's newest beat.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Echo {
    /// The life that sent it.
    pub generation: u64,
    /// Which beat.
    pub sequence: u64,
    /// Every claim in its list is granted for another lease, from its receipt.
    pub granted: bool,
    /// These are not, for the sake of these ballots.
    pub disputed: Vec<(GroupId, Ballot)>,
}

/// All that a voter remembers, for one without a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Copied {
    /// Above every round that it promised or proposed.
    pub ceiling: u64,
    /// The longest lease that it granted.
    pub longest_lease: Duration,
    /// By group: what is promised and accepted.
    pub groups: Vec<(GroupId, Ballot, Report)>,
}

/// To whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum To {
    /// All other members.
    All,
    /// One of them.
    One(MemberIndex),
}

/// A message on its way out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Envelope {
    /// To whom.
    pub to: To,
    /// What.
    pub message: Message,
}

impl Envelope {
    /// The same, with messages of one kind that follow each other to the same members said as one: a frame has room for
    /// many groups.
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

impl Message {
    /// Takes in the list of another message of the same kind, or gives that back.
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
