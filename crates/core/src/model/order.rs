//! What people ask for, and what they are answered.

use alloc::string::String;
use core::fmt;

use super::{
    holding::Holding,
    identity::{GroupIndex, MemberIndex, NodeIndex},
};

/// Connects an order with its answer. Its member never uses it twice in a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId(pub u64);

/// Who waits for the answer to an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Asker {
    /// A person at this member.
    Here(OrderId),
    /// A person at another member, which has passed the order on and knows it by this number of its own.
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
    /// HUP with changed files: end this life and keep what runs, for the next one to go on with. Done at once, or
    /// refused.
    Renew,
    /// What only a native cluster knows.
    Native {
        /// What is asked.
        order: NativeOrder,
        /// Which user of this machine asks, by number: `status` shows who pinned what.
        user: u32,
    },
}

/// What a person may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NativeOrder {
    /// Hand over this group, wherever it is: to this node, or to the best.
    Move(GroupIndex, Option<NodeIndex>),
    /// Hand over everything, and take nothing.
    Standby,
    /// Take part again.
    Online,
    /// Watch everything, and start, stop and move nothing in the whole cluster; or no longer so.
    Maintenance(bool),
    /// The same for one group.
    Freeze(GroupIndex, bool),
    /// Leave the cluster.
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

/// What came of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done; in words what was done.
    Done(String),
    /// It will not be done; the reason in words.
    Refused(String),
    /// It was begun and did not end in time.
    TimedOut(String),
}
