//! What the director wants done. The driver performs these in order and returns what came of them as events.

use crate::model::{claim::Epoch, identity::MemberIndex, order::Answer};
use alloc::{string::String, sync::Arc, vec::Vec};
use core::{fmt, net::SocketAddr};

use super::{
    claim::{Ballot, Durable},
    event::Ticket,
    holding::Holding,
    identity::{GroupIndex, Heard, LinkIndex, NodeIndex, PingIndex, ResourceId},
    note::Note,
    order::OrderId,
    time::{Duration, Instant},
};

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write a frame to every medium of a link. Shared: the same bytes usually go to several links.
    Send {
        /// The link.
        link: LinkIndex,
        /// A whole frame, in the framing of that link.
        bytes: Arc<[u8]>,
    },
    /// Send a frame from a link's own socket to this address: where a member was last heard whose address no file tells.
    SendTo {
        /// The link.
        link: LinkIndex,
        /// Where to.
        to: SocketAddr,
        /// A whole frame, in the framing of that link.
        bytes: Arc<[u8]>,
    },
    /// Send an ICMP echo with this payload to every member of a ping node.
    Ping {
        /// The ping node.
        ping: PingIndex,
        /// A whole frame.
        bytes: Arc<[u8]>,
    },
    /// Let an agent work. Answered by [`crate::model::event::Event::Done`] with the same ticket, always, exactly once.
    Run {
        /// For the answer.
        ticket: Ticket,
        /// What.
        resource: ResourceId,
        /// Which way.
        operation: Operation,
        /// After this long the agent and all its children are killed and the outcome is `TimedOut`.
        limit: Duration,
        /// The ownership under which the group runs, for the agent; R1 has none.
        epoch: Option<Epoch>,
    },
    /// Nobody wants what this operation, asked for by [`Self::Run`], would bring about: kill it with all its children. It is
    /// answered as any other that took too long, unless it has ended meanwhile.
    Abandon(Ticket),
    /// Tell the segment again where the address is; only for resources with an address that are ours. Not answered.
    Announce(ResourceId),
    /// The answer to a person's order.
    Reply {
        /// As given with the order.
        order: OrderId,
        /// What came of it.
        answer: Answer,
    },
    /// Keep on disk the newest that was heard of a node, so that recordings replayed after our own restart cannot keep
    /// a dead peer alive. Need not be waited for, but should be done before the daemon ends.
    Remember {
        /// Of whom.
        member: MemberIndex,
        /// What.
        heard: Heard,
    },
    /// The group's addresses may answer for so long, and not longer; `None` shuts its gate at once. Not answered.
    Gate {
        /// Whose.
        group: GroupIndex,
        /// Under which lease.
        lease: Option<GateLease>,
    },
    /// What ends our ownership of the group, wherever it is announced: its gate is shut by an announced claim that carries
    /// one of these, and by no other. Comes before anything leaves that may let a rival make a new one. Not answered.
    Proofs {
        /// Whose gate.
        group: GroupIndex,
        /// All of them, the most important first; at most [`CLAIM_PROOFS_MAX`].
        proofs: Vec<ClaimProof>,
    },
    /// Announce in one packet over every link that a majority has accepted our claim to the group, for the gate of a node
    /// whose ownership that ends (`docs/wire.md`, 12.9). Not answered.
    AnnounceClaim {
        /// Of what.
        group: GroupIndex,
        /// What is announced.
        announcement: ClaimAnnouncement,
    },
    /// Write this to the ledger's file and sync it; answered by [`crate::model::event::Event::Written`], always, once, in order.
    /// One at a time.
    Write(Durable),
    /// Reset a node with the device of [`crate::r1::plan::Plan::fencing`], so that it surely holds nothing any more. Answered
    /// by [`crate::model::event::Event::Fenced`] with the same ticket, always, exactly once, and in a bounded time.
    Fence {
        /// For the answer.
        ticket: Ticket,
        /// Which.
        node: NodeIndex,
    },
    /// A message that this node does not handle itself, or one of its own: if a person's script of that name lies in
    /// `rc.d`, it is run. Not answered.
    EventScript {
        /// The message's type, which is the script's name: printable, without blanks and slashes.
        kind: String,
        /// What the script sees as `HA_` and the name: names of letters, digits and `_`; values without control
        /// characters.
        fields: Vec<(String, String)>,
        /// The ownership of the group that it is about, if it is about one and the dialect has epochs.
        epoch: Option<Epoch>,
    },
    /// Something worth a line in the log.
    Note(Note),
    /// Everything is said: the daemon may end.
    Exit {
        /// Nothing is left running that should have been stopped.
        clean: bool,
        /// Do not end but begin a new life, with a new generation, after this long (what a real peer expects after a
        /// healed partition).
        restart: Option<Duration>,
        /// What runs and goes on running: the next life is to be told ([`crate::r1::director::Identity::keeps`]).
        keeps: Option<Holding>,
    },
}

/// A gate expects so many proofs at once: of six ballots by two keys each.
pub const CLAIM_PROOFS_MAX: usize = 12;

/// What only a member with the cluster's key can make: an ownership of a group, of one node under one ballot, has ended. It
/// is a secret until it has.
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
    /// Its length.
    pub const BYTES: usize = 56;
}

impl fmt::Debug for ClaimAnnouncement {
    /// It carries a proof, which is a secret until it is sent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClaimAnnouncement")
    }
}

/// What a gate is told of the lease under which it stands open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateLease {
    /// Its end, by the core's clock.
    pub until: Instant,
    /// When the beat or proposal was sent on which it rests: a gate that a rival has shut is opened only by what was sent
    /// after that.
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
    /// Ask whatever is left of its processes to terminate, and wait until they have: `Ok` when nothing is left.
    Terminate,
    /// Kill whatever is left of its processes: `Ok` when nothing is left.
    Kill,
}

impl Operation {
    /// As agents are asked and the log says it.
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
