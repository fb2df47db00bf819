//! The messages between members of a native cluster, as values: claims and what belongs to them, and what people and
//! `status` need besides. [`super::wire`] turns them into bytes and back.

use alloc::{string::String, vec::Vec};

use super::gossip::GossipEntry;
use crate::{
    claims::{self, ClaimsDigest},
    model::{claim::GroupId, identity::MemberIndex, order::OrderId},
};

/// A message from one member to another, or to all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NativeMessage {
    /// The periodic status of a member, to all.
    Beat(NativeBeat),
    /// A message about claims; never the claims' part of a beat, which goes inside [`NativeBeat`].
    Claims(claims::ClaimMessage),
    /// A person wants this group, which the receiver owns, to move to another node.
    AskMove {
        order: OrderId,
        group: GroupId,
        /// The target node; `None`: the best one.
        to: Option<MemberIndex>,
    },
    /// The result of [`Self::AskMove`].
    MoveAnswer {
        /// The same as in the request.
        order: OrderId,
        done: bool,
        /// The result in words, for the person.
        text: String,
    },
    /// Asks for the lines of the receiver's canonical settings, because its digest differs from the sender's.
    AskSettings,
    /// The lines of the sender's canonical settings, see [`super::canonical`].
    Settings(Vec<String>),
    /// The sender's gossip state, or some entries of it. Only nodes send it.
    Gossip(Vec<GossipEntry>),
    /// The lists of groups that did not fit the sender's beat.
    Lists(GroupLists),
}

/// The periodic status of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NativeBeat {
    /// The claims' part: renewals and echoes.
    pub claims: claims::ClaimBeat,
    /// The digest of the sender's canonical settings, shortened to 64 bits.
    pub config: u64,
    /// The digest of the sender's gossip state.
    pub gossip: ClaimsDigest,
    /// The sender runs no groups: a person put it on standby, or it is about to leave.
    pub standby: bool,
    /// The sender could not claim a group now. It has just started, no majority hears it, its links are not tested, or
    /// it does not know yet what others know.
    pub waits: bool,
    /// The lists of groups; `None`: they are too long for a beat and follow in [`NativeMessage::Lists`].
    pub lists: Option<GroupLists>,
}

/// What others must know of some of a node's groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupLists {
    /// Groups that the sender owns and that do not run yet, or no longer run. Groups that come after them wait.
    pub starting: Vec<GroupId>,
    /// Groups that could not be run on the sender.
    pub unable: Vec<GroupId>,
    /// Groups that clients could not reach on the sender.
    pub unreachable: Vec<GroupId>,
}

impl GroupLists {
    /// Whether the lists fit into a beat, so that it stays one small frame.
    #[must_use]
    pub const fn are_short(&self) -> bool {
        self.starting.len() <= BEAT_LIST_MAX
            && self.unable.len() <= BEAT_LIST_MAX
            && self.unreachable.len() <= BEAT_LIST_MAX
    }
}

/// Most groups in one list of a beat.
pub const BEAT_LIST_MAX: usize = 16;
