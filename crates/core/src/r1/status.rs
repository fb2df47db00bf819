//! What a person may see of the cluster, as one value: taken from the director at a moment, printed by `locum
//! status`, written as JSON by the control socket.

use alloc::{borrow::Cow, string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use super::ownership;
use crate::{
    group::Phase,
    liveness::Liveness,
    model::status::{Frames, Waiting},
};

/// The cluster as one node sees it. Times are seconds before the moment of the question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// `cluster` of `ha.cf`.
    pub cluster: String,
    /// `r1`
    pub dialect: Cow<'static, str>,
    /// `none`: a takeover happens on silence alone; `fencing`: not before a device has reset the silent node.
    pub guard: Cow<'static, str>,
    /// This node.
    pub node: String,
    /// Where the dialect is.
    pub state: ownership::State,
    /// What moves right now, in words.
    pub transition: Option<Cow<'static, str>>,
    /// A planned hand-over that waits.
    #[serde(default)]
    pub waiting: Option<Waiting>,
    /// What this node holds: `none`, `local`, `foreign`, `all`.
    pub holding: Cow<'static, str>,
    /// This daemon's generation.
    pub generation: u64,
    /// Seconds since the daemon's start.
    pub uptime: f64,
    /// This node and its peer.
    pub nodes: Vec<Node>,
    /// The links, in the order of `ha.cf`.
    pub links: Vec<Link>,
    /// Ping nodes.
    pub pings: Vec<Ping>,
    /// The groups, in the order of `haresources`.
    pub groups: Vec<Group>,
    /// What would happen if a living node fell silent now, one per living node.
    pub forecasts: Vec<Forecast>,
    /// What is wrong, in words; empty when all is well.
    pub troubles: Vec<String>,
    /// Things to know that are nobody's fault today.
    pub hints: Vec<String>,
    /// Frames by what became of them.
    pub frames: Frames,
    /// A digest of all that decisions depend on; two equal digests mean that nothing happened in between.
    pub digest: String,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// What is known of it; the node itself is always alive.
    pub liveness: Liveness,
    /// Whether it said goodbye.
    pub left: bool,
    /// What it is: `locum`, `heartbeat`, or unknown before it was heard.
    pub program: Option<Cow<'static, str>>,
    /// Seconds since its last beat.
    pub heard: Option<f64>,
    /// Its generation.
    pub generation: Option<u64>,
    /// How long its silence must last, in seconds.
    pub deadtime: f64,
    /// As last said by `hb_setweight`; nothing depends on it.
    pub weight: u32,
    /// As last said by `hb_setsite`; nothing depends on it.
    pub site: String,
}

/// A link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Interface or device.
    pub name: String,
    /// Why it cannot carry frames, judged from this machine alone; absent when it can.
    pub down: Option<String>,
    /// Whether the peer is heard over it.
    pub liveness: Liveness,
    /// Seconds since the peer was last heard over it.
    pub heard: Option<f64>,
}

/// A ping node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ping {
    /// Address or group name.
    pub name: String,
    /// Whether it answers.
    pub liveness: Liveness,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Its key.
    pub key: String,
    /// Its resources as written.
    pub resources: Vec<String>,
    /// The node that its line begins with.
    pub preferred: String,
    /// Who runs it; absent when nobody is known to.
    pub owner: Option<String>,
    /// What happens to it on this node.
    pub phase: Phase,
    /// Seconds since it has this owner.
    pub since: Option<f64>,
    /// Seconds that it was last without an owner.
    pub last_outage: Option<f64>,
    /// Why it could not be started here.
    pub failure: Option<String>,
    /// How often somebody took an address of it away.
    pub taken_away: u64,
    /// Both nodes claim it.
    pub contested: bool,
}

/// What would happen if a node fell silent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// The node.
    pub node: String,
    /// Who would take over; absent when nobody would.
    pub taker: Option<String>,
    /// What the taker would start.
    pub starts: Vec<String>,
    /// Seconds from its last beat to the takeover.
    pub after: f64,
    /// Why nothing would be started.
    pub reason: Option<String>,
}
