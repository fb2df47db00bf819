//! The checked configuration of a native cluster, with no question left to ask.
//!
//! Nodes, witnesses, links and groups stand in the order of their names, whatever their order in the file: files that
//! mean the same make equal plans, and an index means the same on every node.

use alloc::{string::String, vec::Vec};
use core::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use super::timing::Timing;
use crate::model::{
    identity::{self, GroupIndex, LinkIndex, MemberId, MemberIndex, NodeIndex, ResourceId},
    logging::Logging,
    resource,
    time::Duration,
};

/// Fewest nodes.
pub const NODES_MIN: usize = 2;
/// Most nodes.
pub const NODES_MAX: usize = 32;
/// Most voters.
pub const VOTERS_MAX: usize = 7;
/// Most witnesses: as many as could vote.
pub const WITNESSES_MAX: usize = VOTERS_MAX;
/// Most links.
pub const LINKS_MAX: usize = identity::LINKS_MAX;
/// Most groups.
pub const GROUPS_MAX: usize = 4096;
/// Most resources of one group.
pub const RESOURCES_MAX: usize = 64;
/// Longest name of a cluster, witness, link, group or spread, in bytes: all become parts of file names and frames.
pub const NAME_BYTES_MAX: usize = 32;
/// Longest name of a node, in bytes: what `uname -n` can say (uname(2): `__NEW_UTS_LEN`).
pub const NODE_NAME_BYTES_MAX: usize = 64;
/// The UDP port of the native dialect when the file names none; not heartbeat's, so that both can run on one machine.
pub const PORT: u16 = 6940;

/// Which witness: an index into [`Plan::witnesses`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WitnessIndex(pub usize);

/// Who speaks the protocol. The members that vote are its active voters; passive ones (a disk block) would be a kind of
/// their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// A machine that may run groups.
    Node(NodeIndex),
    /// A machine that runs nothing.
    Witness(WitnessIndex),
}

/// The whole checked configuration of one native cluster, as seen from one of its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The cluster's name: frames of other names are a foreign cluster's.
    pub cluster: String,
    /// Who reads this.
    pub me: Member,
    /// All times, derived from `pace`.
    pub timing: Timing,
    /// 2 to 32, by name.
    pub nodes: Vec<Node>,
    /// By name.
    pub witnesses: Vec<Witness>,
    /// Who grants claims: at most 7, all different; nodes first.
    pub voters: Vec<Member>,
    /// By name; never empty.
    pub links: Vec<Link>,
    /// By name.
    pub groups: Vec<Group>,
    /// Each once, in the order of kinds, then groups.
    pub relations: Vec<Relation>,
    /// What concerns this machine alone and is not compared between nodes.
    pub local: Local,
}

impl Plan {
    /// The name of a member.
    ///
    /// # Panics
    /// When the index was not made from this plan.
    #[must_use]
    pub fn name(&self, member: Member) -> &str {
        match member {
            Member::Node(NodeIndex(node)) => &self.nodes[node].name,
            Member::Witness(WitnessIndex(witness)) => &self.witnesses[witness].name,
        }
    }

    /// Its place among all members.
    ///
    /// # Panics
    /// When the index was not made from this plan.
    #[must_use]
    pub fn index(&self, member: Member) -> MemberIndex {
        match member {
            Member::Node(node) => node.into(),
            Member::Witness(WitnessIndex(witness)) => MemberIndex::at(self.nodes.len() + witness),
        }
    }

    /// The node that a member is; `None` of a witness and of one that the plan does not have.
    #[must_use]
    pub fn node(&self, member: MemberIndex) -> Option<NodeIndex> {
        member.node(self.nodes.len())
    }

    /// The member of that name.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<Member> {
        let node = self.nodes.iter().position(|node| node.name == name);
        let witness = || self.witnesses.iter().position(|witness| witness.name == name);
        node.map(|node| Member::Node(NodeIndex(node)))
            .or_else(|| witness().map(|witness| Member::Witness(WitnessIndex(witness))))
    }

    /// The group of that name.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<GroupIndex> {
        self.groups.binary_search_by(|group| group.name.as_str().cmp(name)).ok().map(GroupIndex)
    }

    /// The link of that name.
    #[must_use]
    pub fn link(&self, name: &str) -> Option<LinkIndex> {
        self.links.iter().position(|link| link.name == name).map(LinkIndex)
    }

    /// The resource behind an id.
    ///
    /// # Panics
    /// When the id was not made from this plan.
    #[must_use]
    pub fn resource(&self, id: ResourceId) -> &Resource {
        &self.groups[id.group.0].resources[id.member]
    }

    /// How many voters are more than half of them.
    #[must_use]
    pub fn majority(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    /// Which voter set it is: the same for the same voters, in files that differ in all else. A digest of their names.
    #[must_use]
    pub fn voter_set(&self) -> u32 {
        self.voters.iter().fold(0, |set, &voter| set ^ MemberId::of(self.name(voter)).0)
    }

    /// The time within which a group runs again after its owner's death; see [`Group::takeover_bound`].
    ///
    /// # Panics
    /// When the index was not made from this plan.
    #[must_use]
    pub fn takeover_bound(&self, group: GroupIndex, timing: &Timing) -> Duration {
        let is_of_family = self.relations.iter().any(|relation| relation.is_family_of(group));
        self.groups[group.0].takeover_bound(timing, is_of_family)
    }

    /// Whether one voter may fall silent without that the others' majority ends: two cannot outvote each other.
    #[must_use]
    pub fn has_third_voter(&self) -> bool {
        self.voters.len() > 2
    }

    /// Whether a node may count its own vote alone when it is the only one left: of two voters, where no group is promised
    /// to be answered by one node only.
    #[must_use]
    pub fn may_count_alone(&self) -> bool {
        self.voters.len() == 2 && self.groups.iter().all(|group| group.guard == Guard::None)
    }
}

/// A machine that may run groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// As `uname -n`, lower case.
    pub name: String,
}

/// A machine that votes and runs nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// Its name in this cluster.
    pub name: String,
    /// Where it is asked.
    pub address: SocketAddr,
    /// The key that only this cluster and this witness have; without it the cluster's own.
    pub key: Option<Secret>,
}

/// 32 bytes that must not be shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret(pub [u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// One path between the nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name; the same on all nodes.
    pub name: String,
    /// What carries it.
    pub medium: Medium,
    /// For each node where it is connected, of the kind that fits the medium; `None` for a node without this link. At
    /// least two are connected, and exactly two of a serial line.
    pub ends: Vec<Option<End>>,
}

/// What carries a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// UDP to each node's address.
    Unicast {
        /// Of both sides.
        port: u16,
    },
    /// UDP to the broadcast address of each node's interface.
    Broadcast {
        /// Of both sides.
        port: u16,
    },
    /// UDP to a multicast group, over each node's interface.
    Multicast {
        /// The group.
        group: IpAddr,
        /// Of both sides.
        port: u16,
        /// Hop limit, 1 to 255.
        ttl: u8,
    },
    /// A null-modem line between two nodes.
    Serial {
        /// Bits a second.
        baud: u32,
    },
}

/// Where a node is connected to a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Of a unicast link: the node's own address, and the interface that carries it where the file says so
    /// (`10.0.0.1%eth1`).
    Address {
        /// Where the others send.
        ip: IpAddr,
        /// Which interface carries it; else the one that has the address.
        interface: Option<String>,
    },
    /// Of a broadcast or multicast link: the node's interface.
    Interface(String),
    /// Of a serial line: the device's path.
    Device(String),
}

/// Resources that move together: started left to right, stopped right to left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// At least one.
    pub resources: Vec<Resource>,
    /// The nodes that it would rather be on, best first; perhaps none. The beginning of `candidates`.
    pub prefer: Vec<NodeIndex>,
    /// The nodes that may run it, in the order in which they are asked to; at least one.
    pub candidates: Vec<NodeIndex>,
    /// What happens when a node that it prefers returns.
    pub failback: Failback,
    /// How sure a takeover must be.
    pub guard: Guard,
    /// What happens when a resource fails and its node lives.
    pub restarts: Restarts,
    /// When a group has moved too often.
    pub hold_down: HoldDown,
    /// The person's own words for a group whose guard does not protect its data.
    pub i_know: Option<String>,
}

impl Group {
    /// The time within which it runs again after its owner's death, if a majority of the voters lives and the first
    /// living candidate starts it: the claim, that of the rest if it stays together with others, then one start after
    /// another.
    #[must_use]
    pub fn takeover_bound(&self, timing: &Timing, is_of_family: bool) -> Duration {
        let family = if is_of_family { timing.family_round() } else { Duration::ZERO };
        let starts = self.resources.iter().map(|resource| resource.limits.start);
        starts.fold(timing.claim_bound(self.candidates.len()) + family, Duration::saturating_add)
    }
}

/// One thing to start, stop and monitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// What runs it: the same agents as in `haresources`.
    pub runs: resource::Resource,
    /// How long its operations may take.
    pub limits: Limits,
    /// Between two monitors; `None` is never.
    pub monitor_every: Option<Duration>,
}

/// How long an agent's operation may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of a start, which then has failed.
    pub start: Duration,
    /// Of a stop; then its processes are told to terminate.
    pub stop: Duration,
    /// Of what was told to terminate; then it is killed.
    pub terminate: Duration,
    /// Of a monitor, which then has failed.
    pub monitor: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(60),
            stop: Duration::from_secs(60),
            terminate: Duration::from_secs(10),
            monitor: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// The longest that stopping can take, from the agent's stop to the kill.
    #[must_use]
    pub fn stop_ladder(&self) -> Duration {
        self.stop.saturating_add(self.terminate)
    }
}

/// What happens when a node that a group prefers returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failback {
    /// The group stays where it is.
    Stay,
    /// `status` offers the return; a person asks for it.
    WhenAsked,
    /// The group returns when the node has been alive for so long.
    After(Duration),
}

/// How sure a takeover must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guard {
    /// The old owner has been silent for the lease.
    None,
    /// The new owner holds the claim.
    Lease,
    /// And the old owner's watchdog has had its time. Refused by the check so far.
    Watchdog,
    /// And the old owner has been fenced. Refused by the check so far.
    Fence,
}

impl Guard {
    /// All of them, the weakest first.
    pub const ALL: [Self; 4] = [Self::None, Self::Lease, Self::Watchdog, Self::Fence];

    /// The word in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lease => "lease",
            Self::Watchdog => "watchdog",
            Self::Fence => "fence",
        }
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A resource that fails is started again in place so many times within the time; the next failure moves the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restarts {
    /// 0 moves at the first failure.
    pub in_place: u32,
    /// Older failures are forgotten.
    pub within: Duration,
}

impl Default for Restarts {
    fn default() -> Self {
        Self { in_place: 1, within: Duration::from_secs(600) }
    }
}

/// A group that failures have moved so many times within the time stays where it is, until it has rested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldDown {
    /// At least 1.
    pub moves: u32,
    /// Older moves are forgotten.
    pub within: Duration,
    /// How long the group then stays.
    pub rest: Duration,
}

impl Default for HoldDown {
    fn default() -> Self {
        Self { moves: 3, within: Duration::from_secs(3600), rest: Duration::from_secs(600) }
    }
}

/// What groups are to each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Relation {
    /// Always on one node; two or more, in order. A group is in one of these at most.
    Together(Vec<GroupIndex>),
    /// Never on one node; the smaller index first.
    Apart(GroupIndex, GroupIndex),
    /// Starts only where and while `first` runs somewhere in the cluster.
    After {
        /// Which waits.
        group: GroupIndex,
        /// For which.
        first: GroupIndex,
    },
    /// On as many nodes as there are, as evenly as can be; a wish, not a condition.
    Spread {
        /// The word that its groups share.
        name: String,
        /// One or more, in order.
        groups: Vec<GroupIndex>,
    },
}

impl Relation {
    /// The family that it makes, in order; none if it is about something else.
    #[must_use]
    pub fn family(&self) -> Option<&[GroupIndex]> {
        match self {
            Self::Together(groups) => Some(groups),
            _ => None,
        }
    }

    /// Whether it says that this group stays together with others.
    #[must_use]
    pub fn is_family_of(&self, group: GroupIndex) -> bool {
        self.family().is_some_and(|family| family.contains(&group))
    }
}

/// What concerns one machine alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// The cluster's key file; relative to the configuration directory.
    pub key_file: String,
    /// The heart's SCHED_FIFO priority; `None` without real-time rights.
    pub realtime: Option<u8>,
    /// Log files and facility.
    pub logging: Logging,
    /// The device that resets this machine when the daemon hangs.
    pub watchdog: Option<String>,
}

/// The key file's name when the file names none.
pub const KEY_FILE: &str = "locum.key";
