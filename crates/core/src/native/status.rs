//! What a person may see of a native cluster, as one value: taken from the director at a moment, printed by `locum
//! status`, written as JSON by the control socket.

use alloc::{borrow::Cow, string::String, vec::Vec};
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    group::Phase,
    liveness::Liveness,
    model::status::{Frames, Waiting},
};

/// The cluster as one member sees it. Times are seconds: before the moment of the question, or after it where a field
/// says `left`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// `cluster` of `locum.toml`.
    pub cluster: String,
    /// `native`
    pub dialect: Cow<'static, str>,
    /// This member.
    pub member: String,
    /// What it is.
    pub kind: Kind,
    /// This daemon's generation.
    pub generation: u64,
    /// Seconds since the daemon's start.
    pub uptime: f64,
    /// The lease, in seconds: all times follow from it.
    pub pace: f64,
    /// The digest of what the file means, 16 digits, as beats carry it.
    pub config: String,
    /// This member and all others: nodes, then witnesses.
    pub members: Vec<Member>,
    /// The links in the order of their names, then one to each witness.
    pub links: Vec<Link>,
    /// The groups, by name.
    pub groups: Vec<Group>,
    /// Who grants claims.
    pub votes: Votes,
    /// What a person did to this member as a whole, or to all: standby, maintenance.
    pub pins: Vec<Pin>,
    /// What is wrong, in words; empty when all is well.
    pub troubles: Vec<String>,
    /// Things to know that are nobody's fault today.
    pub hints: Vec<String>,
    /// Frames by what became of them.
    pub frames: Frames,
    /// Clusters other than ours that were heard on our links, with the frames of each.
    pub foreign: Vec<(String, u64)>,
}

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It may run groups.
    Node,
    /// It runs nothing.
    Witness,
}

/// A member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// This is ourselves: what follows about hearing means nothing.
    pub is_me: bool,
    /// What is known of it.
    pub liveness: Liveness,
    /// Seconds since it was last heard; absent if never.
    pub heard: Option<f64>,
    /// It hears us, too: it has echoed a beat of ours that is younger than a lease; where neither of us votes, it says so
    /// of a link. Absent where that cannot be told: it is silent; or neither votes, and its file is not ours.
    pub hears_us: Option<bool>,
    /// Its generation.
    pub generation: Option<u64>,
    /// Nothing shall run there: a person said so, or it leaves.
    pub standby: bool,
    /// Each link between it and us.
    pub links: Vec<Path>,
    /// The number of the key that signs its frames, in our key file.
    pub key: Option<u8>,
    /// The protocols that it speaks, lowest and highest.
    pub protocols: Option<(u32, u32)>,
    /// Why nothing that it says counts.
    pub refused: Option<String>,
    /// Its file means something else than ours.
    pub differs: bool,
    /// In what, as far as it has told.
    pub differences: Vec<Difference>,
    /// Groups that could not be run there.
    pub unable: Vec<String>,
    /// Groups whose service would reach nobody from there.
    pub cut: Vec<String>,
}

/// A setting in which two files differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The setting.
    pub name: String,
    /// What our file says; absent when it does not have the setting.
    pub ours: Option<String>,
    /// What the other says.
    pub theirs: Option<String>,
}

/// A link between a member and us.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Path {
    /// Its name; to and from a witness `witness NAME`.
    pub link: String,
    /// Which ways it carries frames.
    pub way: Way,
    /// Seconds since it last brought something new; absent if never.
    pub heard: Option<f64>,
}

/// Which ways a link carries frames between a member and us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// Not tested: the member is not heard at all, or its file is not ours.
    #[default]
    Untested,
    /// Both.
    Both,
    /// We hear the member, it does not hear us.
    OnlyHere,
    /// It hears us, we do not hear it.
    OnlyThere,
    /// Neither, while the member is heard over another link.
    Neither,
}

impl Way {
    /// What is wrong with it, in words.
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

/// A link, as far as this machine can tell alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Why it cannot carry frames; absent when it can.
    pub down: Option<String>,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its resources as written.
    pub resources: Vec<String>,
    /// `none`, `lease`
    pub guard: Cow<'static, str>,
    /// The nodes that may run it, in the order in which they are asked to.
    pub candidates: Vec<String>,
    /// Who owns it; absent when nobody is known to.
    pub owner: Option<String>,
    /// Why nobody does; absent where somebody does, and on a witness, which is not told.
    #[serde(default)]
    pub unowned: Option<Unowned>,
    /// Another node's file gives something of it to another group: no node claims it. Absent where none does.
    #[serde(default)]
    pub disputed: Option<Disputed>,
    /// The owner's claim as it stands now, `ROUND.NODE`.
    pub ballot: Option<String>,
    /// The ballot under which it was gained, as agents see it; of our own groups only.
    pub epoch: Option<String>,
    /// It is to be handed over, and waits.
    #[serde(default)]
    pub waiting: Option<Waiting>,
    /// What happens to it on this node.
    pub phase: Phase,
    /// Seconds left of our lease, or of the one that our vote has granted to another.
    pub lease_left: Option<f64>,
    /// Seconds for which its gate here still stands open; absent when it is shut.
    pub gate_left: Option<f64>,
    /// What keeps it from moving, or from coming here.
    pub pins: Vec<Pin>,
    /// Earlier owners that are not proved to have stopped; of our own groups only.
    pub unproved: Vec<Earlier>,
    /// Why it could not be started here.
    pub failure: Option<String>,
    /// It could not be run here and is not tried again yet, or cannot be stopped.
    pub unable: bool,
    /// How often somebody took an address of it away.
    pub taken_away: u64,
    /// Restarts in place within the time that counts.
    pub restarts: usize,
}

/// Why nobody owns a group, as this node sees it: of several reasons the one that has to go first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "kebab-case")]
pub enum Unowned {
    /// `locum maintenance`
    Maintenance,
    /// `locum freeze`, of this group or of one that stays together with it.
    Frozen {
        /// Which.
        group: String,
    },
    /// No majority of the voters has heard a beat of ours that is younger than a lease.
    NoMajority,
    /// This node does not know what its earlier lives proposed, or cannot write it down.
    NoMemory,
    /// The links are not tested yet.
    Links,
    /// What other nodes' boards say is not known yet.
    Boards,
    /// What other nodes' files say is not known yet.
    Files,
    /// Another node's file gives something of it, or of what stays together with it, to another group.
    Disputed(Disputed),
    /// It belongs to whoever owns the first of those that stay together with it.
    Follows {
        /// That one.
        group: String,
    },
    /// It comes after a group that nobody owns.
    After {
        /// That one.
        group: String,
    },
    /// None of its candidates may have it now.
    NoCandidate {
        /// All of them.
        nodes: Vec<Hindered>,
    },
    /// The best candidate is another node: its turn comes first.
    Turn {
        /// That one.
        node: String,
    },
    /// This node is the best, and what still runs of it here has to stop first.
    Stopping,
    /// The same, and it cannot be stopped.
    Stuck,
    /// This node is the best, and asks the voters.
    Claiming,
    /// This node is the best, and claims it in a moment: for the first time, or again after the voters have refused it.
    Soon,
}

/// In words.
impl fmt::Display for Unowned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Maintenance => f.write_str("maintenance: nothing is claimed"),
            Self::Frozen { group } => write!(f, "{group} is frozen"),
            Self::NoMajority => f.write_str("no majority of the voters hears this node"),
            Self::NoMemory => f.write_str("this node's ledger is not there yet, or cannot be written"),
            Self::Links => f.write_str("the links of this node are not tested yet"),
            Self::Boards => f.write_str("what other nodes know of pins and failures is not known here yet"),
            Self::Files => f.write_str("in what the files of other nodes differ is not known here yet"),
            Self::Disputed(disputed) => disputed.fmt(f),
            Self::Follows { group } => {
                write!(f, "it is for whoever owns {group}, with which it stays together")
            }
            Self::After { group } => write!(f, "it comes after {group}, which has no owner"),
            Self::NoCandidate { nodes } => {
                f.write_str("no node may have it now: ")?;
                for (index, node) in nodes.iter().enumerate() {
                    write!(f, "{}{node}", if index == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Self::Turn { node } => write!(f, "it is the turn of {node}"),
            Self::Stopping => f.write_str("what runs of it here is being stopped"),
            Self::Stuck => f.write_str("what runs of it here cannot be stopped"),
            Self::Claiming => f.write_str("this node asks the voters for it"),
            Self::Soon => f.write_str("this node claims it in a moment"),
        }
    }
}

/// A living node may run something of a group under another group's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disputed {
    /// That node.
    pub node: String,
    /// The resource.
    pub resource: String,
    /// The group that has it in that node's file.
    pub group: String,
}

/// In words, with the cure.
impl fmt::Display for Disputed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, resource, group } = self;
        write!(
            f,
            "{node}'s file has {resource} in group {group}; make the files equal, then restart locum where it was wrong"
        )
    }
}

/// A candidate that may not have a group now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hindered {
    /// Its name.
    pub node: String,
    /// Why not.
    pub by: Hindrance,
}

/// In words.
impl fmt::Display for Hindered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = &self.node;
        match &self.by {
            Hindrance::Silent => write!(f, "{node} is silent"),
            Hindrance::Standby => write!(f, "{node} is on standby or leaves"),
            Hindrance::Unable { group } => {
                write!(f, "{node} could not run {group} (`locum online` there lets it try again)")
            }
            Hindrance::Apart { group } => write!(f, "{node} has {group}, which must not meet it"),
            Hindrance::Elsewhere => write!(f, "{node} is not where other groups let it be"),
        }
    }
}

/// Why a node may not have a group now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hindrance {
    /// It is not heard.
    Silent,
    /// A person wants nothing to run there, or it leaves.
    Standby,
    /// It could not run the group, or one that stays together with it, and is not asked again yet.
    Unable {
        /// Which.
        group: String,
    },
    /// It has a group that must not meet this one.
    Apart {
        /// That one.
        group: String,
    },
    /// Those that stay together with it are elsewhere or may not run there, or another group is to be there that must not
    /// meet it.
    Elsewhere,
}

/// Something that keeps groups from moving.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pin {
    /// What.
    pub kind: PinKind,
    /// Seconds since it holds; absent of what the file says.
    pub age: Option<f64>,
    /// Which user asked for it, by number on the machine where it was asked for; absent of what nobody asked for.
    pub user: Option<u32>,
    /// At which member it was asked for.
    pub by: Option<String>,
    /// In words.
    pub text: String,
}

/// The kinds of pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PinKind {
    /// `locum freeze`: nothing is done to the group, by any node.
    Frozen,
    /// Failures have moved it too often: none does for a while.
    HeldDown,
    /// `locum maintenance`: nothing is done to any group, by any node.
    Maintenance,
    /// `locum standby`: this node takes nothing.
    Standby,
    /// It is not on the node that it prefers, and the file says that it stays.
    Preference,
}

/// An earlier owner that may still run something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earlier {
    /// Which node.
    pub node: String,
    /// In which of its lives.
    pub generation: u64,
    /// The highest ballot under which it may run the group.
    pub ballot: String,
}

/// The voters, and our own vote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Votes {
    /// The number of the set of voters.
    pub set: u32,
    /// The voters.
    pub voters: Vec<Voter>,
    /// How many make a majority.
    pub majority: usize,
    /// A majority has heard beats of ours that are younger than a lease.
    pub heard: bool,
    /// What our own vote is worth.
    pub own: OwnVote,
    /// Of two voters: for so many seconds our own vote has been a majority, because the other does not vote.
    pub alone: Option<f64>,
    /// Above every round that we promised or proposed, as it stands on disk.
    pub ceiling: u64,
}

/// A voter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voter {
    /// Its name.
    pub name: String,
    /// It answers: it has echoed a beat of ours that is younger than a lease.
    pub answers: bool,
}

/// What our own vote is worth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "standing", rename_all = "lowercase")]
pub enum OwnVote {
    /// We are no voter.
    None,
    /// There is no ledger's file: first we copy from a majority of the others.
    Blank,
    /// Our last life may have granted leases; so many seconds are left of the longest.
    Mute {
        /// Seconds.
        left: f64,
    },
    /// We vote.
    Votes,
    /// The ledger could not be written: for the rest of this life we do not vote.
    Broken,
}
