//! What members of a native cluster say to each other, as values: claims and what belongs to them, and what people and
//! `status` need beside it. The bytes are the codec's affair.

use alloc::{string::String, vec::Vec};

use super::board::Entry;
use crate::{
    claims::{self, Digest},
    model::{claim::GroupId, identity::MemberIndex, order::OrderId},
};

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// The periodic word of a member, to all.
    Beat(Beat),
    /// Of claims; never a beat.
    Claims(claims::Message),
    /// A person wants this group, which you own, to move: to this node, or to the best.
    AskMove {
        /// Returned with the answer.
        order: OrderId,
        /// Which.
        group: GroupId,
        /// Where to.
        to: Option<MemberIndex>,
    },
    /// What came of [`Self::AskMove`].
    MoveAnswer {
        /// As asked.
        order: OrderId,
        /// Whether it is done.
        done: bool,
        /// In words.
        text: String,
    },
    /// Your file says something else than mine: in which lines?
    AskMeaning,
    /// What my file means, see [`super::meaning`].
    Meaning(Vec<String>),
    /// What stands on my board, or some of it. Of nodes alone.
    Board(Vec<Entry>),
    /// What did not fit my beat.
    Lists(Lists),
}

/// The periodic word of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Renewals, echoes.
    pub claims: claims::Beat,
    /// The digest of what its file means, shortened.
    pub config: u64,
    /// Of its board.
    pub board: Digest,
    /// Nothing shall run there: a person said so, or it is about to leave.
    pub standby: bool,
    /// It could not claim now what it was given: it has just started, no majority hears it, its links are not tested, or it
    /// does not know yet what others know.
    pub waits: bool,
    /// The lists of groups; `None`: they are too long for a beat, and told by [`Word::Lists`].
    pub lists: Option<Lists>,
}

/// What is to be known of some of a node's groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// Groups that it owns and that do not run yet, or any more: others that come after them wait.
    pub starting: Vec<GroupId>,
    /// Groups that could not be run there.
    pub unable: Vec<GroupId>,
    /// Groups whose service would reach nobody from there.
    pub cut: Vec<GroupId>,
}

impl Lists {
    /// Whether a beat has room for them: it stays one small frame.
    #[must_use]
    pub const fn are_short(&self) -> bool {
        self.starting.len() <= BEAT_LIST_MAX
            && self.unable.len() <= BEAT_LIST_MAX
            && self.cut.len() <= BEAT_LIST_MAX
    }
}

/// Most groups in a list of a beat.
pub const BEAT_LIST_MAX: usize = 16;
