//! The checked configuration of a native cluster: complete and valid.
//!
//! Nodes, witnesses, links and groups stand in the order of their names, whatever their order in the file. Files with
//! the same settings make equal plans, and an index means the same on every node.

use alloc::{string::String, vec::Vec};
use core::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use super::timing::NativeTiming;
use crate::model::{
    identity::{self, GroupIndex, LinkIndex, MemberId, MemberIndex, NodeIndex, ResourceId},
    logging::Logging,
    resource,
    time::Duration,
};

/// Fewest nodes of a cluster.
pub const NODES_MIN: usize = 2;
/// Most nodes of a cluster.
pub const NODES_MAX: usize = 32;
/// Most voters of a cluster.
pub const VOTERS_MAX: usize = 7;
/// Most witnesses: as many as could vote.
pub const WITNESSES_MAX: usize = VOTERS_MAX;
/// Most links between nodes.
pub const LINKS_MAX: usize = identity::LINKS_MAX;
/// Most groups of a cluster.
pub const GROUPS_MAX: usize = 4096;
/// Most resources of one group.
pub const RESOURCES_MAX: usize = 64;
/// Longest name of a cluster, witness, link, group or spread, in bytes: all become parts of file names and frames.
pub const NAME_BYTES_MAX: usize = 32;
/// Longest name of a node, in bytes: what `uname -n` can say (uname(2): `__NEW_UTS_LEN`).
pub const NODE_NAME_BYTES_MAX: usize = 64;
/// The UDP port of the native dialect when the file names none. It is not heartbeat's, so that both can run on one
/// machine.
pub const PORT: u16 = 6940;

/// The index of a witness in [`NativePlan::witnesses`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WitnessIndex(pub usize);

/// A member: a machine that speaks the protocol. All voters are members. A passive voter, such as a disk block, would
/// need a kind of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NativeMember {
    /// A machine that may run groups.
    Node(NodeIndex),
    /// A machine that runs nothing.
    Witness(WitnessIndex),
}

/// The whole checked configuration of one native cluster, as seen from one of its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NativePlan {
    /// The cluster's name: frames of other names are a foreign cluster's.
    pub cluster: String,
    /// The member that reads this plan.
    pub me: NativeMember,
    /// All times, derived from `pace`.
    pub timing: NativeTiming,
    /// 2 to 32, by name.
    pub nodes: Vec<PlanNode>,
    pub witnesses: Vec<Witness>,
    /// The members that grant claims: at most 7, all different; nodes first.
    pub voters: Vec<NativeMember>,
    /// By name; never empty.
    pub links: Vec<NativeLink>,
    pub groups: Vec<NativeGroup>,
    /// Each once, in the order of kinds, then groups.
    pub relations: Vec<Relation>,
    /// The settings of this machine alone, which nodes do not compare.
    pub local: Local,
}

impl NativePlan {
    /// The name of a member.
    ///
    /// # Panics
    /// If the index was not made from this plan.
    #[must_use]
    pub fn name(&self, member: NativeMember) -> &str {
        match member {
            NativeMember::Node(NodeIndex(node)) => &self.nodes[node].name,
            NativeMember::Witness(WitnessIndex(witness)) => &self.witnesses[witness].name,
        }
    }

    /// A member's index among all members: nodes first, then witnesses.
    ///
    /// # Panics
    /// If the index was not made from this plan.
    #[must_use]
    pub fn index(&self, member: NativeMember) -> MemberIndex {
        match member {
            NativeMember::Node(node) => node.into(),
            NativeMember::Witness(WitnessIndex(witness)) => MemberIndex::at(self.nodes.len() + witness),
        }
    }

    /// The node that a member is; `None` for a witness and for a member that the plan does not have.
    #[must_use]
    pub fn node(&self, member: MemberIndex) -> Option<NodeIndex> {
        member.node(self.nodes.len())
    }

    /// The member with that name.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<NativeMember> {
        let node = self.nodes.iter().position(|node| node.name == name);
        let witness = || self.witnesses.iter().position(|witness| witness.name == name);
        node.map(|node| NativeMember::Node(NodeIndex(node)))
            .or_else(|| witness().map(|witness| NativeMember::Witness(WitnessIndex(witness))))
    }

    /// The group with that name.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<GroupIndex> {
        self.groups.binary_search_by(|group| group.name.as_str().cmp(name)).ok().map(GroupIndex)
    }

    /// The link with that name.
    #[must_use]
    pub fn link(&self, name: &str) -> Option<LinkIndex> {
        self.links.iter().position(|link| link.name == name).map(LinkIndex)
    }

    /// The resource behind an id.
    ///
    /// # Panics
    /// If the id was not made from this plan.
    #[must_use]
    pub fn resource(&self, id: ResourceId) -> &NativeResource {
        &self.groups[id.group.0].resources[id.member]
    }

    /// The number of voters that is a majority: more than half.
    #[must_use]
    pub fn majority(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    /// The number of the voter set: a digest of the voters' names. Files with the same voters have the same number,
    /// whatever else they say.
    #[must_use]
    pub fn voter_set(&self) -> u32 {
        self.voters.iter().fold(0, |set, &voter| set ^ MemberId::of(self.name(voter)).0)
    }

    /// The time within which a group runs again after its owner's death; see [`NativeGroup::takeover_bound`].
    ///
    /// # Panics
    /// If the index was not made from this plan.
    #[must_use]
    pub fn takeover_bound(&self, group: GroupIndex, timing: &NativeTiming) -> Duration {
        let is_of_family = self.relations.iter().any(|relation| relation.is_family_of(group));
        self.groups[group.0].takeover_bound(timing, is_of_family)
    }

    /// Whether the others still have a majority if one voter falls silent. With two voters they do not.
    #[must_use]
    pub fn has_third_voter(&self) -> bool {
        self.voters.len() > 2
    }

    /// Whether single-vote mode is possible: a node takes its own vote for a majority when it is the only voter left.
    /// It needs exactly two voters, and no group with a guard, since both nodes may then answer for a group.
    #[must_use]
    pub fn may_use_single_vote(&self) -> bool {
        self.voters.len() == 2 && self.groups.iter().all(|group| group.guard == Guard::None)
    }
}

/// A machine that may run groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanNode {
    /// As `uname -n`, lower case.
    pub name: String,
}

/// A machine that votes and runs nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// The witness's name in this cluster.
    pub name: String,
    /// The address at which members ask the witness.
    pub address: SocketAddr,
    /// The key that only this cluster and this witness have; `None`: the cluster's key.
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
pub struct NativeLink {
    /// Its name; the same on all nodes.
    pub name: String,
    pub medium: NativeMedium,
    /// For each node where it is connected, of the kind that fits the medium; `None` for a node without this link. At
    /// least two nodes are connected, and exactly two on a serial line.
    pub ends: Vec<Option<LinkEnd>>,
}

/// The medium of a link: a kind of UDP or a serial line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NativeMedium {
    /// UDP to each node's address.
    Unicast { port: u16 },
    /// UDP to the broadcast address of each node's interface.
    Broadcast { port: u16 },
    /// UDP to a multicast group, over each node's interface.
    Multicast {
        /// The address of the multicast group.
        group: IpAddr,
        port: u16,
        /// Hop limit, 1 to 255.
        ttl: u8,
    },
    /// A null-modem line between two nodes.
    Serial { baud: u32 },
}

/// Where a node is connected to a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEnd {
    /// On a unicast link: the node's own address, and its interface if the file names one (`10.0.0.1%eth1`).
    Address {
        /// The address that the others send to.
        ip: IpAddr,
        /// The interface that carries it; `None`: the one that has the address.
        interface: Option<String>,
    },
    /// On a broadcast or multicast link: the node's interface.
    Interface(String),
    /// On a serial line: the path of the device.
    Device(String),
}

/// Resources that move together: started left to right, stopped right to left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NativeGroup {
    pub name: String,
    /// At least one, in the order of their starts.
    pub resources: Vec<NativeResource>,
    /// The preferred nodes, best first; may be empty. They are the beginning of `candidates`.
    pub prefer: Vec<NodeIndex>,
    /// The nodes that may run it, in the order in which they are asked to; at least one.
    pub candidates: Vec<NodeIndex>,
    /// What happens when a preferred node returns.
    pub failback: Failback,
    /// How sure a takeover must be.
    pub guard: Guard,
    /// What happens when a resource fails while its node lives.
    pub restarts: NativeRestarts,
    /// When failures have moved the group too often.
    pub hold_down: HoldDown,
    /// The reason that a person gave for a group whose guard does not protect its data (`i-know`).
    pub i_know: Option<String>,
}

impl NativeGroup {
    /// The time within which the group runs again after its owner's death, if a majority of the voters lives and the
    /// first living candidate starts it. It is the sum of the claim, the claims of the rest of its family if it has
    /// one, and one start after another.
    #[must_use]
    pub fn takeover_bound(&self, timing: &NativeTiming, is_of_family: bool) -> Duration {
        let family = if is_of_family { timing.family_round() } else { Duration::ZERO };
        let starts = self.resources.iter().map(|resource| resource.limits.start);
        starts.fold(timing.claim_bound(self.candidates.len()) + family, Duration::saturating_add)
    }
}

/// A resource of a group: one thing to start, stop and monitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NativeResource {
    /// The agent that runs it, as in `haresources`.
    pub runs: resource::Resource,
    /// How long its operations may take.
    pub limits: NativeLimits,
    /// The time between two monitors; `None`: never.
    pub monitor_every: Option<Duration>,
}

/// How long an agent's operation may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NativeLimits {
    /// The limit of a start; then it has failed.
    pub start: Duration,
    /// The limit of a stop; then its processes are told to terminate.
    pub stop: Duration,
    /// The limit of the termination; then the processes are killed.
    pub terminate: Duration,
    /// The limit of a monitor; then it has failed.
    pub monitor: Duration,
}

impl Default for NativeLimits {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(60),
            stop: Duration::from_secs(60),
            terminate: Duration::from_secs(10),
            monitor: Duration::from_secs(30),
        }
    }
}

impl NativeLimits {
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
    /// `status` offers the return; a person must ask for it.
    WhenAsked,
    /// The group returns when the node has been alive for this long.
    After(Duration),
}

/// How sure a takeover must be that the old owner does not answer any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guard {
    /// The old owner has been silent for a lease.
    None,
    /// The new owner holds the claim.
    Lease,
    /// As [`Self::Lease`], and the old owner's watchdog has had its time. Refused by the check so far.
    Watchdog,
    /// As [`Self::Lease`], and the old owner has been fenced. Refused by the check so far.
    Fence,
}

impl Guard {
    /// All guards, the weakest first.
    pub const ALL: [Self; 4] = [Self::None, Self::Lease, Self::Watchdog, Self::Fence];

    /// The guard's keyword in the file.
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

/// How often a failed resource is started again in place within a time; the next failure moves the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NativeRestarts {
    /// 0: the first failure moves the group.
    pub in_place: u32,
    /// Older failures are forgotten.
    pub within: Duration,
}

impl Default for NativeRestarts {
    fn default() -> Self {
        Self { in_place: 1, within: Duration::from_secs(600) }
    }
}

/// When failures have moved a group so often within a time that it is held: it stays where it is for the time `rest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldDown {
    /// The number of moves that begins the hold; at least 1.
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

/// A rule about where groups run relative to each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Relation {
    /// Always on one node: a family of two or more, in order. A group is in one family at most.
    Together(Vec<GroupIndex>),
    /// Never on one node; the smaller index first.
    Apart(GroupIndex, GroupIndex),
    /// `group` starts only where and while `first` runs somewhere in the cluster.
    After { group: GroupIndex, first: GroupIndex },
    /// Spread over the nodes as evenly as possible; a wish, not a condition.
    Spread {
        /// The name that its groups share.
        name: String,
        /// One or more, in order.
        groups: Vec<GroupIndex>,
    },
}

impl Relation {
    /// The family that the rule makes, in order; `None` for another kind of rule.
    #[must_use]
    pub fn family(&self) -> Option<&[GroupIndex]> {
        match self {
            Self::Together(groups) => Some(groups),
            _ => None,
        }
    }

    /// Whether the rule makes a family that this group belongs to.
    #[must_use]
    pub fn is_family_of(&self, group: GroupIndex) -> bool {
        self.family().is_some_and(|family| family.contains(&group))
    }
}

/// The settings that concern one machine only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// The cluster's key file, relative to the configuration directory.
    pub key_file: String,
    /// The heart's SCHED_FIFO priority; `None` without real-time rights.
    pub realtime: Option<u8>,
    pub logging: Logging,
    /// The device that resets this machine if the daemon hangs.
    pub watchdog: Option<String>,
}

/// The key file's name when the file names none.
pub const KEY_FILE: &str = "locum.key";
