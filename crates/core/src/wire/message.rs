//! The typed message: what a frame says. Parse and emit are exact inverses: unknown fields and the order of all
//! fields are kept, so that a message parsed from a real node's frame is written again byte for byte.

use alloc::{string::String, vec::Vec};

/// Sixteen bytes that name a node for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

/// One message between nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it says.
    pub body: Body,
    /// Addressee; absent means all.
    pub dest: Option<String>,
    /// The addressee's UUID; wins over `dest`.
    pub dest_uuid: Option<Uuid>,
    /// Originator's node name.
    pub src: String,
    /// Originator's UUID.
    pub src_uuid: Option<Uuid>,
    /// Per-sender counter from 1; absent in `NS_*` messages.
    pub seq: Option<u64>,
    /// The sender's generation.
    pub generation: Option<u64>,
    /// The sender's wall clock, seconds since 1970; never zero.
    pub unix_seconds: u64,
    /// First line of the sender's load average file.
    pub load: Option<String>,
    /// Written, never acted on.
    pub ttl: Option<u32>,
    /// The mark by which nodes of Locum know each other: the version of the extension spoken. An extra field that
    /// the real daemon ignores.
    pub locum: Option<u32>,
    /// Fields that we do not know (or that were not in the form we know), and where each field stood.
    pub layout: Layout,
}

/// What a message says, by its type `t`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// `status`: the beat.
    Status(Status),
    /// `NS_st`: what a ping node is made to say.
    PingStatus {
        /// `ping`
        state: NodeState,
        /// `ping` or `ping_group`
        info: String,
    },
    /// `NS_rexmit`: send these again (decimal on the wire).
    Rexmit {
        /// First number wanted.
        first: u64,
        /// Last number wanted.
        last: u64,
    },
    /// `NS_nak_rexmit`: cannot be sent again (hexadecimal on the wire).
    NakRexmit {
        /// The number.
        seq: u64,
        /// Why not.
        reason: String,
    },
    /// `NS_ackmsg`
    Ack {
        /// Everything up to this was received.
        seq: u64,
    },
    /// `reqnodes`
    ReqNodes,
    /// `repnodes`
    RepNodes {
        /// The configured nodes.
        nodes: Vec<String>,
        /// The deleted ones.
        deleted: Vec<String>,
    },
    /// `starting`: I am up; who holds what?
    Starting,
    /// `resource`: what the sender holds.
    Resource(Resource),
    /// `ask_resources`: the three-step standby handshake.
    AskResources {
        /// The set that moves, seen from the node that gives it.
        hold: Holding,
        /// Which step.
        step: AskStep,
    },
    /// `hb_takeover`: the peer asks us to give.
    Takeover {
        /// The set, seen from the sender.
        hold: Holding,
    },
    /// `ip-request`: legacy mode: give me this group.
    IpRequest {
        /// The group's key.
        key: String,
    },
    /// `ip-request-resp`
    IpRequestResponse {
        /// The group's key.
        key: String,
        /// `weown`
        we_own: bool,
        /// `ok=OK`
        ok: bool,
    },
    /// `shutdone`: all resources released, about to leave. Carries `st=dead`.
    ShutDone,
    /// `stonith`: how fencing a node ended.
    Stonith {
        /// The node.
        node: String,
        /// `OK`, `badhost`, `bad`, `n_stnth`, `unneeded`
        result: String,
    },
    /// Any other type; its fields are in the layout.
    Other {
        /// `t`
        kind: String,
    },
}

/// The beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// `st`
    pub state: NodeState,
    /// `dt`: milliseconds of silence after which the sender wants to be declared dead.
    pub dead_ms: Option<u64>,
    /// `protocol`: 1; its absence switches the receiver's flow control off.
    pub protocol: Option<u32>,
}

/// `st`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeState {
    /// Only the very first frame.
    Init,
    /// Links are open.
    Up,
    /// Taking part.
    Active,
    /// In `shutdone`.
    Dead,
    /// A ping node.
    Ping,
}

/// `resource`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// `rsc_hold`, seen from the sender.
    pub hold: Holding,
    /// `rtype=full`: the whole truth; else an increment.
    pub full: bool,
    /// `isstable`
    pub stable: Option<bool>,
    /// `info`
    pub info: Option<String>,
}

/// `rsc_hold`: a set of groups, seen from one node: *local* are those that prefer it, *foreign* those that prefer
/// the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holding {
    /// Nothing.
    None,
    /// The local ones.
    Local,
    /// The foreign ones.
    Foreign,
    /// Both.
    All,
}

/// `info` of `ask_resources`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AskStep {
    /// I want to give this.
    Me,
    /// I can take it.
    Other,
    /// I have given it; or: I have taken it.
    Done,
}

/// Where the fields stood and which of them we do not know. Empty for messages we make ourselves: those are written
/// in the real daemon's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {}
