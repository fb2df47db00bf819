//! What both dialects show a person in the same form.

use alloc::{borrow::Cow, collections::BTreeMap, string::String};
use core::fmt;

use serde::{Deserialize, Serialize};

/// A planned hand-over that waits until a node can take the group. Times are in seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    /// Why that node cannot yet.
    pub why: String,
    /// How long it has waited, if a person ordered it.
    pub waited: Option<f64>,
    /// The wait after which it is refused; absent if it waits without limit.
    pub at_most: Option<f64>,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "waits until a node can take it: {}", self.why)?;
        match (self.waited, self.at_most) {
            (Some(waited), Some(at_most)) => write!(f, " ({waited:.0} s of {at_most:.0})"),
            (Some(waited), None) => write!(f, " (for {waited:.0} s)"),
            (None, _) => Ok(()),
        }
    }
}

/// Counts frames by what became of them. Every received frame is counted once among accepted, own, echoes, repeated,
/// elsewhere and refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Frames {
    /// Handed to the director: from all links, and answers to pings.
    pub received: u64,
    /// Accepted as the peer's.
    pub accepted: u64,
    /// Our own, heard back.
    pub own: u64,
    /// Answers of ping nodes.
    pub echoes: u64,
    /// Refused, by reason: the names of [`crate::framing::frame::FrameRefusal::name`], and `unknown-node`, `our-name`, `number`,
    /// `generation`, `replayed`, `before-status` for authentic ones.
    pub refused: BTreeMap<Cow<'static, str>, u64>,
    /// Known already: received over another link, or sent again.
    pub repeated: u64,
    /// Addressed to another node than this one.
    pub elsewhere: u64,
    /// Missing, as the numbers of the others show.
    pub lost: u64,
    /// Sent, counted once however many links carry it.
    pub sent: u64,
    /// Sent again on request.
    pub sent_again: u64,
}
