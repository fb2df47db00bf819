//! The status of an R1 cluster as one value. The director makes it; `locum status` prints it; the control socket writes
//! it as JSON.

use alloc::{borrow::Cow, string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use super::ownership;
use crate::{
    group::GroupPhase,
    liveness::Liveness,
    model::status::{Frames, Waiting},
};

/// The cluster as one node sees it. Times are seconds before the moment of the question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct R1Status {
    /// The cluster name: `cluster` of `ha.cf`.
    pub cluster: String,
    /// Always `r1` for this type.
    pub dialect: Cow<'static, str>,
    /// `none`: a takeover needs silence alone. `fencing`: a device must first have reset the silent node.
    pub guard: Cow<'static, str>,
    pub node: String,
    /// Phase of the ownership rules.
    pub state: ownership::R1State,
    /// The transition in progress, in words.
    pub transition: Option<Cow<'static, str>>,
    /// A planned hand-over that waits, and why.
    #[serde(default)]
    pub waiting: Option<Waiting>,
    /// The sets that this node holds: `none`, `local`, `foreign`, `all`.
    pub holding: Cow<'static, str>,
    /// The generation of this daemon start.
    pub generation: u64,
    /// Seconds since the daemon's start.
    pub uptime: f64,
    /// This node and its peer.
    pub nodes: Vec<R1NodeStatus>,
    /// The links, in the order of `ha.cf`.
    pub links: Vec<R1LinkStatus>,
    pub pings: Vec<R1PingStatus>,
    /// The groups, in the order of `haresources`.
    pub groups: Vec<R1GroupStatus>,
    /// For each living node: the takeover that would follow if it fell silent now.
    pub forecasts: Vec<Forecast>,
    /// Present troubles in words; empty when all is well.
    pub troubles: Vec<String>,
    /// Remarks that need no action today.
    pub hints: Vec<String>,
    /// Frame counters by result.
    pub frames: Frames,
    /// A digest of all states that decisions depend on. Two equal digests mean that nothing happened in between.
    pub digest: String,
}

/// One node in the status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct R1NodeStatus {
    pub name: String,
    /// Its liveness; this node itself is always alive.
    pub liveness: Liveness,
    /// Whether it said goodbye.
    pub left: bool,
    /// Its program: `locum`, `heartbeat`, or absent before it was heard.
    pub program: Option<Cow<'static, str>>,
    /// Seconds since its last beat.
    pub heard: Option<f64>,
    pub generation: Option<u64>,
    /// Seconds of silence after which it counts as dead.
    pub deadtime: f64,
    /// As last set by `hb_setweight`; without effect.
    pub weight: u32,
    /// As last set by `hb_setsite`; without effect.
    pub site: String,
}

/// One link in the status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct R1LinkStatus {
    pub name: String,
    /// Why it cannot carry frames, judged from this machine alone; absent when it can.
    pub down: Option<String>,
    /// Whether the peer is heard over it.
    pub liveness: Liveness,
    /// Seconds since the peer was last heard over it.
    pub heard: Option<f64>,
}

/// One ping node or ping group in the status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct R1PingStatus {
    /// Address or group name.
    pub name: String,
    pub liveness: Liveness,
}

/// One group in the status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct R1GroupStatus {
    /// Its name: the first resource as written.
    pub key: String,
    /// Its resources as written.
    pub resources: Vec<String>,
    /// The node that its line begins with.
    pub preferred: String,
    /// The node that runs it; absent when none is known to.
    pub owner: Option<String>,
    /// Its phase on this node.
    pub phase: GroupPhase,
    /// Seconds since this owner has it.
    pub since: Option<f64>,
    /// Seconds for which it was last without an owner.
    pub last_outage: Option<f64>,
    /// Why it could not be started here.
    pub failure: Option<String>,
    /// How often an address of it was removed from outside.
    pub taken_away: u64,
    /// Whether both nodes claim it.
    pub contested: bool,
}

/// The takeover that would follow if a node fell silent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// The node that would fall silent.
    pub node: String,
    /// The node that would take over; absent if none would.
    pub taker: Option<String>,
    /// The resources that the taker would start, as written.
    pub starts: Vec<String>,
    /// Seconds from its last beat to the takeover.
    pub after: f64,
    /// Why nothing would be started.
    pub reason: Option<String>,
}
