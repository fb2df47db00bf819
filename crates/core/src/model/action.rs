//! The actions that a director asks for. The driver performs them in order and returns their results as events.

use crate::model::{claim::Epoch, identity::MemberIndex, order::Answer};
use alloc::{string::String, sync::Arc, vec::Vec};
use core::{fmt, net::SocketAddr};

use super::{
    claim::{Ballot, DurableState},
    event::Ticket,
    holding::Holding,
    identity::{GroupIndex, LastHeard, LinkIndex, NodeIndex, PingIndex, ResourceId},
    note::Note,
    order::OrderId,
    time::{Duration, Instant},
};

/// One action for the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write a frame to every medium of a link. The bytes are shared because the same frame usually goes to several
    /// links.
    Send {
        link: LinkIndex,
        /// A whole frame, in the framing of that link.
        bytes: Arc<[u8]>,
    },
    /// Send a frame from a link's own socket to this address. It is for a member whose address no file tells, and goes to
    /// where that member was last heard.
    SendTo {
        link: LinkIndex,
        to: SocketAddr,
        /// A whole frame, in the framing of that link.
        bytes: Arc<[u8]>,
    },
    /// Send an ICMP echo with this payload to every member of a ping node.
    Ping {
        ping: PingIndex,
        /// The payload: a whole frame.
        bytes: Arc<[u8]>,
    },
    /// Run one operation of an agent. Always answered, exactly once, by [`crate::model::event::Event::Done`] with the
    /// same ticket.
    Run {
        ticket: Ticket,
        resource: ResourceId,
        operation: Operation,
        /// The time limit. Then the driver kills the agent and all its children, and the outcome is `TimedOut`.
        limit: Duration,
        /// The epoch under which the group runs, for the agent; `None` in R1.
        epoch: Option<Epoch>,
    },
    /// The result of this operation, asked for by [`Self::Run`], is not wanted any more: kill it with all its children.
    /// Unless it has ended meanwhile, it is answered like one that exceeded its limit.
    Abandon(Ticket),
    /// Announce a service address again on its network segment. Only for resources of ours with an address. Not answered.
    Announce(ResourceId),
    /// The answer to a person's order.
    Reply {
        /// As given with the order.
        order: OrderId,
        answer: Answer,
    },
    /// Keep on disk the newest frame heard from a node, so that recordings replayed after our own restart cannot keep a
    /// dead peer alive. The director does not wait for it, but the driver should do it before the daemon ends.
    Remember { member: MemberIndex, heard: LastHeard },
    /// Open the group's gate until this lease ends; `None` shuts it at once. While the gate is shut, the group's
    /// addresses answer nobody. Not answered.
    Gate { group: GroupIndex, lease: Option<GateLease> },
    /// Tell the gate the proofs that end our ownership of the group. An announced claim shuts the gate only if it carries
    /// one of them. This action comes before any message that lets a rival make a new claim. Not answered.
    Proofs {
        group: GroupIndex,
        /// All of them, the most important first; at most [`CLAIM_PROOFS_MAX`].
        proofs: Vec<ClaimProof>,
    },
    /// Announce in one packet over every link that a majority has accepted our claim to the group. It is meant for the
    /// gate of the node whose ownership that ends (`docs/wire.md`, 12.9). Not answered.
    AnnounceClaim { group: GroupIndex, announcement: ClaimAnnouncement },
    /// Write this to the ledger's file and sync it. Always answered, once and in order, by
    /// [`crate::model::event::Event::Written`]. Only one write is under way at a time.
    Write(DurableState),
    /// Reset a node with the device of [`crate::r1::plan::R1Plan::fencing`], so that it surely holds nothing any more.
    /// Always answered, exactly once and in a bounded time, by [`crate::model::event::Event::Fenced`] with the same
    /// ticket.
    Fence { ticket: Ticket, node: NodeIndex },
    /// Run the event script of this name in `rc.d`, if there is one. It is for a message that this node does not handle
    /// itself, or for one of its own. Not answered.
    EventScript {
        /// The message's type, which is the script's name: printable, without blanks and slashes.
        kind: String,
        /// The script gets each as an environment variable `HA_` and the name. Names have letters, digits and `_`; values
        /// have no control characters.
        fields: Vec<(String, String)>,
        /// The epoch of the group that the message is about. `None` if it is about no group, or if the dialect has no
        /// epochs.
        epoch: Option<Epoch>,
    },
    /// Write a line to the log.
    Note(Note),
    /// The director has finished: the daemon may end.
    Exit {
        /// Whether everything that should have been stopped is stopped.
        clean: bool,
        /// Do not end, but start again with a new generation after this time. A real peer expects that after a healed
        /// partition.
        restart: Option<Duration>,
        /// The groups that keep running. The next run of the daemon is told of them
        /// ([`crate::r1::director::R1Identity::keeps`]).
        keeps: Option<Holding>,
    },
}

/// How many proofs a gate expects at once: those of six ballots, by two keys each.
pub const CLAIM_PROOFS_MAX: usize = 12;

/// Proves that one ownership of a group has ended: that of one node under one ballot. Only a member with the cluster's
/// key can make it. It is a secret until the ownership has ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClaimProof(pub [u8; 16]);

impl fmt::Debug for ClaimProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClaimProof")
    }
}

/// The payload of a datagram that announces that our claim ends another node's ownership
/// ([`crate::native::wire::announcement`]).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ClaimAnnouncement(pub [u8; Self::BYTES]);

impl ClaimAnnouncement {
    /// Bytes of the datagram's payload.
    pub const BYTES: usize = 56;
}

impl fmt::Debug for ClaimAnnouncement {
    /// It carries a proof, which is a secret until it is sent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClaimAnnouncement")
    }
}

/// The lease under which a gate is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateLease {
    /// When the lease ends, by the core's clock.
    pub until: Instant,
    /// When the beat or proposal on which the lease rests was sent. A gate that a rival has shut opens again only for one
    /// that was sent after that.
    pub sent: Instant,
    /// The claim's ballot; [`Ballot::ZERO`] where there are no claims.
    pub ballot: Ballot,
}

/// What an agent is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Make it run here.
    Start,
    /// Make it stop here.
    Stop,
    /// Tell whether it runs here.
    Status,
    /// Ask its remaining processes to terminate, and wait until they have: `Ok` when none is left.
    Terminate,
    /// Kill its remaining processes: `Ok` when none is left.
    Kill,
}

impl Operation {
    /// The name of the operation, as agents and the log get it.
    #[must_use]
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Status => "status",
            Self::Terminate => "terminate",
            Self::Kill => "kill",
        }
    }
}
