//! The events that a director gets. Everything that happens outside the core arrives as one of these.

use crate::model::order::{Order, OrderId};
use alloc::string::String;
use core::{fmt, net::SocketAddr};

use super::{
    identity::{LinkIndex, PingIndex, ResourceId},
    keys::Keys,
};

/// One thing that happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// The time returned by [`crate::r1::director::R1Director::deadline`] has been reached.
    Tick,
    /// Bytes came in on a link. Not yet authenticated, of any length and content.
    Frame {
        /// The link on which they came.
        link: LinkIndex,
        /// The sender, as far as the medium tells it.
        from: Source,
        /// One datagram, or one frame cut out of a serial stream.
        bytes: &'a [u8],
    },
    /// The payload of an ICMP echo reply that a ping node sent back to us.
    Echo {
        /// The ping node asked.
        ping: PingIndex,
        bytes: &'a [u8],
    },
    /// A link can or cannot carry frames now, as far as this machine can tell (interface gone, carrier, tty error).
    Link {
        link: LinkIndex,
        /// Usable, or why not.
        state: Carrier,
    },
    /// An operation asked for by [`crate::model::action::Action::Run`] has ended.
    Done {
        /// As given with the action.
        ticket: Ticket,
        outcome: Outcome,
    },
    /// The fencing asked for by [`crate::model::action::Action::Fence`] has ended.
    Fenced {
        /// As given with the action.
        ticket: Ticket,
        /// Whether the node is reset.
        outcome: FenceOutcome,
    },
    /// The write asked for by [`crate::model::action::Action::Write`] has ended.
    Written {
        /// Whether it is on disk; `false` also if that is unknown.
        ok: bool,
    },
    /// The address from which this machine now sends on the link to a witness. Only a native cluster is told.
    OwnAddress {
        /// The link to that witness.
        link: LinkIndex,
        /// The socket's port, and the source address that the routes give; `None` if there is none.
        address: Option<SocketAddr>,
    },
    /// A local script wrote a message to the FIFO: its fields, `t` first. It is not trusted beyond being local: a fault
    /// in it ends in a line of the log.
    Script(&'a [(String, String)]),
    /// Somebody else took a service address of ours from its interface.
    AddressGone(ResourceId),
    /// The interface of a service address can or cannot carry frames now. It is the one on which the address stands or
    /// would be put. Before the first beat the director is told of all that cannot, then of every change.
    Service {
        resource: ResourceId,
        /// Usable, or why not.
        state: Carrier,
    },
    /// A person asks for something.
    Order {
        /// Returned with the answer.
        id: OrderId,
        order: Order,
    },
    /// `authkeys` was read again and is good.
    Keys(Keys),
    /// The first line of the load average file, for the `ld` field.
    Load(&'a str),
}

/// The sender of received bytes, as far as the medium tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A UDP sender. Can be forged.
    Udp(SocketAddr),
    /// The other end of a serial line.
    Serial,
    /// Our own process (a ping reply or a replayed frame).
    Local,
}

/// Whether a link or an interface can carry frames, judged without the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carrier {
    Up,
    /// Not usable, and why, in words for the administrator.
    Down(String),
    /// Not usable whatever the interface does, because this process lacks the right to use it; with the reason. Only for
    /// service addresses.
    Barred(String),
}

/// Connects an action with its answer. One director never uses it twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// How an operation of an agent ended. [`Self::Unknown`] is an answer, and never counts as success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A start or stop worked.
    Ok,
    /// A start or stop failed; the reason in words.
    Failed(String),
    /// It took longer than its limit, and all its processes were killed.
    TimedOut,
    /// Status: the resource runs here.
    Running,
    /// Status: the resource does not run here.
    Stopped,
    /// Status: it cannot be determined; the reason in words.
    Unknown(String),
    /// Any operation: this machine has no agent for the resource, or one that cannot be executed, or the program that the
    /// agent serves is not installed. Nothing was done. The reason in words.
    Missing(String),
}

/// Reads as the end of a sentence that began with the resource.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Failed(reason) | Self::Unknown(reason) | Self::Missing(reason) => reason,
            Self::TimedOut => "it took longer than its limit and was killed",
            Self::Running => "it runs",
            Self::Stopped => "it does not run",
        })
    }
}

/// How fencing a node ended. Everything but [`Self::Ok`] means that the node may still run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FenceOutcome {
    /// The device says that the node is reset.
    Ok,
    /// The device does not know the node, or cannot reset it; the reason in words.
    BadHost(String),
    /// It failed, or took too long; the reason in words.
    Bad(String),
    /// There is no device.
    NotConfigured,
}

impl FenceOutcome {
    /// The result as the message `stonith` carries it.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::BadHost(_) => "badhost",
            Self::Bad(_) => "bad",
            Self::NotConfigured => "n_stnth",
        }
    }
}
