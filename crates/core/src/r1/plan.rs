//! The checked configuration of an R1 cluster: the content of its three files. [`crate::config`] builds it; the
//! director (timing, groups) and the control plane and heart (links, agents) use it.

use alloc::{string::String, vec::Vec};
use core::net::IpAddr;

use crate::model::{
    identity::{NodeIndex, ResourceId},
    logging::Logging,
    resource::Resource,
    time::Duration,
};

/// Most ping nodes and ping groups.
pub const PINGS_MAX: usize = 64;

/// The whole checked configuration of one R1 cluster, as seen from one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct R1Plan {
    /// `cluster`; informative. Default `linux-ha`.
    pub cluster: String,
    /// The one or two configured nodes, in the order of `ha.cf`, lower case.
    pub nodes: Vec<String>,
    pub me: NodeIndex,
    /// When a node is late, silent, or dead.
    pub timing: R1Timing,
    /// Whether groups return to their preferred node.
    pub auto_failback: AutoFailback,
    /// The links, one per link name, in the order of `ha.cf`.
    pub links: Vec<R1Link>,
    /// The ping nodes and groups.
    pub pings: Vec<PingNode>,
    /// The groups, in the order of `haresources`.
    pub groups: Vec<R1Group>,
    /// How frames are written.
    pub framing: FramingPlan,
    /// Where this node's generation comes from.
    pub generation: GenerationSource,
    /// Log files, facility, verbosity.
    pub logging: Logging,
    /// `realtime` and `rtprio`: whether the heart asks for SCHED_FIFO, and at which priority.
    pub realtime: Option<u8>,
    /// Limits of the agents' operations.
    pub limits: R1Limits,
    /// `stonith`, `stonith_host`: the device that must reset a silent peer before its groups are taken over.
    pub fencing: Option<Fencing>,
    /// Whether this node yields to a peer that reaches more ping nodes: `respawn` of a program named `ipfail`. Never
    /// with [`AutoFailback::Legacy`], as in heartbeat.
    pub ipfail: bool,
    /// `respawn`, `failfast`: programs that run while this node takes part, in the order of `ha.cf`; without `ipfail`.
    pub clients: Vec<Client>,
    /// `watchdog`: the device that resets this machine when the daemon hangs.
    pub watchdog: Option<String>,
}

impl R1Plan {
    /// The other node, if the cluster has two.
    #[must_use]
    pub fn peer(&self) -> Option<NodeIndex> {
        (0..self.nodes.len()).map(NodeIndex).find(|&n| n != self.me)
    }

    /// The resource with this id.
    ///
    /// # Panics
    /// When the id was not made from this plan.
    #[must_use]
    pub fn resource(&self, id: ResourceId) -> &Resource {
        &self.groups[id.group.0].resources[id.member]
    }
}

/// The times of `ha.cf`, checked against each other (wire reference, section 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct R1Timing {
    /// Interval between two beats.
    pub keepalive: Duration,
    /// Silence after which a node is late: a warning, nothing more.
    pub warntime: Duration,
    /// Silence after which a node counts as dead; sent to the peer, which applies it to us.
    pub deadtime: Duration,
    /// As `deadtime`, before the links came up for the first time.
    pub initdead: Duration,
    /// As `deadtime`, for ping nodes.
    pub deadping: Duration,
}

/// `auto_failback`: what happens when the preferred node of a group returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoFailback {
    /// The group goes back to its preferred node.
    On,
    Off,
    /// heartbeat's default. Between nodes of Locum it has the effect of `On`.
    Legacy,
}

/// One path between the nodes: all media that share a link name (heartbeat names a link by its interface or device).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct R1Link {
    /// Interface or device, as in `ha.cf`.
    pub name: String,
    /// The media that carry it; never empty. A frame is sent over all of them.
    pub media: Vec<R1Medium>,
}

impl R1Link {
    /// Whether frames on this link have the classic framing (serial lines) instead of the netstring one (UDP).
    #[must_use]
    pub fn is_serial(&self) -> bool {
        matches!(self.media.first(), Some(R1Medium::Serial { .. }))
    }
}

/// One medium line of `ha.cf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum R1Medium {
    /// `bcast IF`: UDP broadcast on an interface.
    Broadcast { interface: String, port: u16 },
    /// `mcast IF GROUP PORT TTL LOOP`, `mcast6` alike
    Multicast {
        interface: String,
        group: IpAddr,
        port: u16,
        /// Hop limit, 0 to 4.
        ttl: u8,
        /// Whether our own frames come back to this node.
        loopback: bool,
    },
    /// `ucast IF PEERADDR`, `ucast6` alike
    Unicast {
        interface: String,
        /// Destination of frames. May be our own address (the same file on both nodes).
        peer: IpAddr,
        port: u16,
    },
    /// `serial DEV`: a null-modem line.
    Serial {
        /// Path of the device.
        device: String,
        baud: u32,
    },
}

/// A pseudo node that answers to ICMP echo. Its loss informs the administrator; it never causes a takeover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PingNode {
    /// The address of a `ping` node, the name of a `ping_group`.
    pub name: String,
    /// Alive if any of these answers.
    pub members: Vec<IpAddr>,
    /// Whether it is a `ping_group` (the frames say so).
    pub is_group: bool,
}

/// How frames are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FramingPlan {
    /// `msgfmt classic` (the default): UDP frames carry one more authenticator inside.
    pub inner_auth: bool,
    /// The `ttl` field: hopfudge plus the number of configured nodes, ping nodes counted.
    pub ttl: u32,
    /// Longest delay before a missing frame is asked for, and the time between repeats.
    pub rexmit_delay_max: Duration,
}

/// `hbgenmethod`: the source of the generation number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GenerationSource {
    /// Counted up in a file.
    File,
    /// Seconds of the wall clock.
    Time,
}

/// How long an agent's operation may take before it is killed. Not in `ha.cf`; heartbeat has no limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct R1Limits {
    pub start: Duration,
    pub stop: Duration,
    /// Limit of a status operation.
    pub status: Duration,
}

impl Default for R1Limits {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(300),
            stop: Duration::from_secs(300),
            status: Duration::from_secs(30),
        }
    }
}

/// A device that resets a node (behaviour reference, section 7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fencing {
    /// The type: a plug-in of cluster-glue, or the name of a fence agent (`fence_…`).
    pub device: String,
    /// The settings of the device.
    pub parameters: FencingParameters,
}

/// The settings of a fencing device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FencingParameters {
    /// `stonith TYPE FILE`: the settings are in this file.
    File(String),
    /// `stonith_host HOST TYPE PARAMETERS`: as written, blank separated.
    Line(String),
}

/// A program that runs while this node takes part (behaviour reference, sections 2 and 10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The user it runs as.
    pub user: String,
    /// The program and its arguments; never empty.
    pub command: Vec<String>,
    /// `failfast`: its abnormal end reboots the machine. Otherwise it is started again.
    pub failfast: bool,
}

/// Resources that move together: one line of `haresources`. Started left to right, stopped right to left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct R1Group {
    /// The preferred node: the line's first word.
    pub node: NodeIndex,
    /// The group's name: the line's first resource as written (heartbeat's key).
    pub key: String,
    /// Never empty; started in this order.
    pub resources: Vec<Resource>,
}
