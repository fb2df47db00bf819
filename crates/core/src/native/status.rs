//! The status of a native cluster as one value: taken from the director at a moment, printed by `locum status`, written
//! as JSON by the control socket.

use alloc::{borrow::Cow, string::String, vec::Vec};
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    group::GroupPhase,
    liveness::Liveness,
    model::status::{Frames, Waiting},
};

/// The cluster as one member sees it. Times are in seconds: before the moment of the question, or after it if the
/// field's name says `left`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NativeStatus {
    /// The cluster's name, from `cluster` of `locum.toml`.
    pub cluster: String,
    /// Always `native` in this type.
    pub dialect: Cow<'static, str>,
    pub member: String,
    pub kind: MemberKind,
    /// The generation of this daemon start.
    pub generation: u64,
    /// Seconds since the daemon's start.
    pub uptime: f64,
    /// The lease, in seconds. All other times follow from it.
    pub pace: f64,
    /// The settings digest, 16 digits, as beats carry it.
    pub config: String,
    /// This member and all others: nodes, then witnesses.
    pub members: Vec<MemberStatus>,
    /// The links in the order of their names, then one to each witness.
    pub links: Vec<LinkStatus>,
    /// The groups, by name.
    pub groups: Vec<NativeGroupStatus>,
    /// The voters, and the vote of this member.
    pub votes: Votes,
    /// The pins of this member as a whole, or of all: standby, maintenance.
    pub pins: Vec<Pin>,
    /// What is wrong, in words; empty if all is well.
    pub troubles: Vec<String>,
    /// What is worth knowing, in words, although nothing is wrong today.
    pub hints: Vec<String>,
    /// Counts of frames, by their result.
    pub frames: Frames,
    /// Other clusters that were heard on our links, with the number of their frames.
    pub foreign: Vec<(String, u64)>,
}

/// The kind of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberKind {
    Node,
    /// A witness votes, but runs nothing.
    Witness,
}

/// One member of the cluster, as this member sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberStatus {
    pub name: String,
    pub kind: MemberKind,
    /// This is the member that answers; its fields about hearing mean nothing.
    pub is_me: bool,
    /// Whether it is alive, late, silent, dead or returned, as far as this member knows.
    pub liveness: Liveness,
    /// Seconds since it was last heard; absent if never.
    pub heard: Option<f64>,
    /// Whether it hears us: it has echoed a beat of ours that is younger than a lease; if neither of us votes, its
    /// beats say so of a link. Absent if this cannot be known: the member is silent, or neither of us votes and its
    /// file differs from ours.
    pub hears_us: Option<bool>,
    pub generation: Option<u64>,
    /// It should run nothing: a person put it on standby, or it leaves.
    pub standby: bool,
    /// The links between it and us.
    pub links: Vec<PathStatus>,
    /// The number, in our key file, of the key that signs its frames.
    pub key: Option<u8>,
    /// The protocols that it speaks, lowest and highest.
    pub protocols: Option<(u32, u32)>,
    /// Why its messages do not count.
    pub refused: Option<String>,
    /// Its canonical settings differ from ours.
    pub differs: bool,
    /// The settings that differ, as far as it has sent its own.
    pub differences: Vec<FileDifference>,
    /// The groups that could not be run there.
    pub unable: Vec<String>,
    /// The groups that clients could not reach there.
    pub unreachable: Vec<String>,
}

/// A setting that differs between two files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDifference {
    pub name: String,
    /// The value in our file; absent if our file does not have the setting.
    pub ours: Option<String>,
    /// The value in the other file; absent if that one does not have it.
    pub theirs: Option<String>,
}

/// A link between another member and this one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathStatus {
    /// The name of the link; to and from a witness `witness NAME`.
    pub link: String,
    /// The directions in which it carries frames.
    pub way: LinkDirections,
    /// Seconds since it last brought a new frame; absent if never.
    pub heard: Option<f64>,
}

/// The directions in which a link carries frames between a member and us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkDirections {
    /// Not tested: the member is not heard at all, or its file differs from ours.
    #[default]
    Untested,
    Both,
    /// We hear the member, it does not hear us.
    OnlyHere,
    /// The member hears us, we do not hear it.
    OnlyThere,
    /// No frames either way, while the member is heard over another link.
    Neither,
}

impl LinkDirections {
    /// The fault in words; `None` if there is none.
    #[must_use]
    pub const fn trouble(self) -> Option<&'static str> {
        match self {
            Self::Untested | Self::Both => None,
            Self::OnlyHere => Some("one way only: it is heard here and does not hear us"),
            Self::OnlyThere => Some("one way only: it hears us and is not heard here"),
            Self::Neither => Some("nothing goes through"),
        }
    }
}

/// A link, as far as this machine alone can tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    pub name: String,
    /// Why it cannot carry frames; absent if it can.
    pub down: Option<String>,
}

/// A group, as this member sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NativeGroupStatus {
    pub name: String,
    /// Its resources as written.
    pub resources: Vec<String>,
    /// The guard: `none` or `lease`.
    pub guard: Cow<'static, str>,
    /// The nodes that may run it, in the order in which they are asked to.
    pub candidates: Vec<String>,
    /// The owner; absent if none is known.
    pub owner: Option<String>,
    /// Why nobody owns it. Absent if it has an owner, and on a witness, which does not know.
    #[serde(default)]
    pub blocked: Option<BlockedReason>,
    /// Another node's file gives a resource of the group to another group, so no node claims it. Absent otherwise.
    #[serde(default)]
    pub disputed: Option<Disputed>,
    /// The ballot of the owner's claim as it stands now, `ROUND.NODE`.
    pub ballot: Option<String>,
    /// The ballot under which the group was gained, as agents see it; only for our own groups.
    pub epoch: Option<String>,
    /// The group is to be handed over and waits.
    #[serde(default)]
    pub waiting: Option<Waiting>,
    /// The phase of the group on this node.
    pub phase: GroupPhase,
    /// Seconds left of our lease, or of the lease that our vote has granted to another node.
    pub lease_left: Option<f64>,
    /// Seconds for which its gate on this node is still open; absent if it is shut.
    pub gate_left: Option<f64>,
    /// The pins that keep the group from moving, or from coming here.
    pub pins: Vec<Pin>,
    /// Earlier owners that are not proved to have stopped; only for our own groups.
    pub unproved: Vec<EarlierStatus>,
    /// Why it could not be started here.
    pub failure: Option<String>,
    /// It could not be run here and is not tried again yet, or it cannot be stopped.
    pub unable: bool,
    /// How often somebody took one of its addresses away.
    pub taken_away: u64,
    /// Restarts in place within the time that counts.
    pub restarts: usize,
}

/// The blocked reason: why nobody owns a group, as this node sees it. Of several reasons, the one that must end first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "kebab-case")]
pub enum BlockedReason {
    /// Set by `locum maintenance`.
    Maintenance,
    /// Set by `locum freeze` for this group or another one of its family.
    Frozen {
        /// The group that is frozen.
        group: String,
    },
    /// No majority of the voters has heard a beat of ours that is younger than a lease.
    NoMajority,
    /// This node has no ledger with the ballots of its earlier runs yet, or cannot write it.
    NoMemory,
    /// The links are not tested yet.
    Links,
    /// The gossip state of other nodes is not known yet.
    Gossip,
    /// What the files of other nodes say is not known yet.
    Files,
    /// Another node's file gives a resource of the group's family to another group.
    Disputed(Disputed),
    /// It is for the node that owns the first group of its family.
    Follows {
        /// The first group of the family.
        group: String,
    },
    /// It comes after a group that has no owner.
    After {
        /// The group that has to run first.
        group: String,
    },
    /// None of its candidates may have it now.
    NoCandidate {
        /// All candidates, each with the reason.
        nodes: Vec<BlockedCandidate>,
    },
    /// Another node is the best candidate and claims first.
    Turn { node: String },
    /// This node is the best candidate. What still runs of the group here has to stop first.
    Stopping,
    /// This node is the best candidate, but something of the group cannot be stopped here.
    StopFailed,
    /// This node is the best candidate and asks the voters.
    Claiming,
    /// This node is the best candidate and claims in a moment: for the first time, or again after the voters refused.
    Soon,
}

impl fmt::Display for BlockedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Maintenance => f.write_str("maintenance: nothing is claimed"),
            Self::Frozen { group } => write!(f, "{group} is frozen"),
            Self::NoMajority => f.write_str("no majority of the voters hears this node"),
            Self::NoMemory => f.write_str("this node has no ledger yet, or cannot write it"),
            Self::Links => f.write_str("the links of this node are not tested yet"),
            Self::Gossip => f.write_str("the pins and failures that other nodes know are not known here yet"),
            Self::Files => f.write_str("the differences of other nodes' files are not known here yet"),
            Self::Disputed(disputed) => disputed.fmt(f),
            Self::Follows { group } => {
                write!(f, "it stays together with {group}, and is claimed by the owner of that group")
            }
            Self::After { group } => write!(f, "it comes after {group}, which has no owner"),
            Self::NoCandidate { nodes } => {
                f.write_str("no node may have it now: ")?;
                for (index, node) in nodes.iter().enumerate() {
                    write!(f, "{}{node}", if index == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Self::Turn { node } => write!(f, "{node} claims it first"),
            Self::Stopping => f.write_str("resources of it that run here are being stopped first"),
            Self::StopFailed => f.write_str("a resource of it cannot be stopped here"),
            Self::Claiming => f.write_str("this node asks the voters for it"),
            Self::Soon => f.write_str("this node claims it in a moment"),
        }
    }
}

/// Another living node may run a resource of a group under another group's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disputed {
    pub node: String,
    pub resource: String,
    /// The group that has it in that node's file.
    pub group: String,
}

/// Also names the cure.
impl fmt::Display for Disputed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, resource, group } = self;
        write!(
            f,
            "{node}'s locum.toml has {resource} in group {group}; make the files equal, then restart locum on the \
             node with the wrong one"
        )
    }
}

/// A candidate that may not have a group now, with the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockedCandidate {
    pub node: String,
    pub reason: CandidateReason,
}

impl fmt::Display for BlockedCandidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = &self.node;
        match &self.reason {
            CandidateReason::Silent => write!(f, "{node} is silent"),
            CandidateReason::Standby => write!(f, "{node} is on standby or leaves"),
            CandidateReason::Unable { group } => {
                write!(f, "{node} could not run {group} (`locum online` there lets it try again)")
            }
            CandidateReason::Apart { group } => {
                write!(f, "{node} has {group}, which must not be on the same node")
            }
            CandidateReason::Elsewhere => write!(f, "other groups keep it off {node}"),
        }
    }
}

/// Why a node may not have a group now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CandidateReason {
    /// It is not heard.
    Silent,
    /// A person put it on standby, or it leaves.
    Standby,
    /// It could not run the group or another one of its family, and is not tried again yet.
    Unable {
        /// The group that it could not run.
        group: String,
    },
    /// It has a group that must not meet this one.
    Apart { group: String },
    /// The group's family is elsewhere or may not run there, or a group that must not meet it is to be there.
    Elsewhere,
}

/// A pin: what keeps groups from moving, or from coming to a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pin {
    pub kind: PinKind,
    /// Seconds for which it has stood; absent if it comes from the file.
    pub age: Option<f64>,
    /// The uid of the user who asked, on the machine of `by`; absent if nobody asked.
    pub user: Option<u32>,
    /// The member at which the user asked.
    pub by: Option<String>,
    /// A description for people.
    pub text: String,
}

/// The kinds of pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PinKind {
    /// `locum freeze`: no node starts, stops or moves the group.
    Frozen,
    /// Failures have moved the group too often: it is held for a while.
    HeldDown,
    /// `locum maintenance`: no node starts, stops or moves any group.
    Maintenance,
    /// `locum standby`: this node takes no groups.
    Standby,
    /// The group is not on the node that it prefers, and the file says that it stays.
    Preference,
}

/// An earlier owner that may still run something of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierStatus {
    pub node: String,
    /// The generation of its daemon start.
    pub generation: u64,
    /// The highest ballot under which it may run the group.
    pub ballot: String,
}

/// The voters, and the vote of this member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Votes {
    /// The number of the voter set.
    pub set: u32,
    pub voters: Vec<VoterStatus>,
    /// The number of voters that is a majority.
    pub majority: usize,
    /// A majority has heard beats of ours that are younger than a lease.
    pub heard: bool,
    /// The state of this member's own vote.
    pub own: OwnVote,
    /// Single-vote mode of one of two voters: the seconds for which our own vote has been a majority, because the other
    /// voter does not vote.
    pub single_vote: Option<f64>,
    /// A round above every one that this member promised or proposed, as it stands on disk.
    pub ceiling: u64,
}

/// A voter, as this member sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoterStatus {
    pub name: String,
    /// It has echoed a beat of ours that is younger than a lease.
    pub answers: bool,
}

/// The state of this member's own vote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "standing", rename_all = "lowercase")]
pub enum OwnVote {
    /// This member is not a voter.
    None,
    /// The ledger's file is missing: this member first copies it from a majority of the others.
    Blank,
    /// This member abstains: its run before this one may have granted leases that have not ended.
    Mute {
        /// Seconds until the longest of these leases has ended.
        left: f64,
    },
    Votes,
    /// The ledger could not be written: this member does not vote until its daemon is restarted.
    Broken,
}
