//! What people ask for, and the answers they get.

use alloc::string::String;
use core::fmt;

use super::{
    holding::Holding,
    identity::{GroupIndex, MemberIndex, NodeIndex},
};

/// Connects an order with its answer. A member never uses it twice in one run of its daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId(pub u64);

/// The person who waits for the answer to an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Asker {
    /// A person at this member.
    Here(OrderId),
    /// A person at another member. That member has passed the order on and knows it by this number.
    At(MemberIndex, OrderId),
}

/// What a person may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `locum standby SET`: give the set to the peer.
    Standby(Holding),
    /// `locum takeover SET`: get the set from the peer.
    Takeover(Holding),
    /// `locum stop`, TERM: leave the cluster gracefully.
    Leave,
    /// HUP with changed files: reload in place. This run of the daemon ends and keeps the groups running for the next
    /// one. Done at once, or refused.
    Reload,
    /// An order that only a native cluster knows.
    Native {
        order: NativeOrder,
        /// The user id of the person on this machine: `status` shows who pinned what.
        user: u32,
    },
}

/// What a person may ask of a native cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NativeOrder {
    /// Move this group, wherever it is, to this node or to the best one.
    Move(GroupIndex, Option<NodeIndex>),
    /// Put this node on standby: move its groups away and keep new ones off.
    Standby,
    /// End the standby of this node.
    Online,
    /// Begin (`true`) or end maintenance: the whole cluster watches its groups, but starts, stops and moves none.
    Maintenance(bool),
    /// Begin (`true`) or end the same for one group.
    Freeze(GroupIndex, bool),
    /// Leave the cluster gracefully: stop the groups and end the daemon.
    Leave,
}

/// For the log; groups and nodes by number.
impl fmt::Display for NativeOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Move(group, Some(to)) => write!(f, "move of group {} to node {}", group.0, to.0),
            Self::Move(group, None) => write!(f, "move of group {}", group.0),
            Self::Standby => f.write_str("standby"),
            Self::Online => f.write_str("online"),
            Self::Maintenance(on) => write!(f, "maintenance {}", if *on { "on" } else { "off" }),
            Self::Freeze(group, on) => {
                write!(f, "{} of group {}", if *on { "freeze" } else { "thaw" }, group.0)
            }
            Self::Leave => f.write_str("stop"),
        }
    }
}

/// The answer to an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done; says what was done.
    Done(String),
    /// It will not be done; the reason in words.
    Refused(String),
    /// It was begun and did not end in time.
    TimedOut(String),
}
