//! The description of a group, in either dialect, for starting and stopping it.

use alloc::{string::String, vec::Vec};

use crate::model::{
    resource::{Agent, Resource},
    time::Duration,
};

/// The description of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSpec {
    /// Its name, unique on this node.
    pub key: String,
    /// How the log calls it when it is acquired or released.
    pub line: String,
    /// At least one; started first to last, stopped last to first.
    pub members: Vec<GroupMember>,
    /// What is done when one of them fails.
    pub restarts: RestartPolicy,
}

/// One resource of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// Its name for people: [`Resource::name`].
    pub text: String,
    /// What the log says when it is run: the script and its arguments.
    pub command: String,
    /// It is a service address, which is announced again when that is asked for.
    pub is_address: bool,
    /// The heart carries or announces it, and must be told of one that an earlier run of the daemon left.
    pub is_carried: bool,
    /// How long its operations may take.
    pub limits: OperationLimits,
    /// The time between two monitors; `None` if it is never monitored.
    pub monitor_every: Option<Duration>,
    /// What is done when it does not stop.
    pub failed_stop: FailedStop,
}

impl GroupMember {
    /// A resource that is never monitored, and whose stop is tried again.
    #[must_use]
    pub fn new<'a>(
        resource: &'a Resource,
        group: impl IntoIterator<Item = &'a Resource>,
        limits: OperationLimits,
    ) -> Self {
        let words: Vec<&str> =
            [&resource.script].into_iter().chain(&resource.args).map(String::as_str).collect();
        Self {
            text: resource.name(group).into(),
            command: words.join(" "),
            is_address: matches!(resource.agent, Agent::Address(_)),
            is_carried: matches!(resource.agent, Agent::Address(_) | Agent::SendArp(_)),
            limits,
            monitor_every: None,
            failed_stop: FailedStop::TryAgain,
        }
    }
}

/// How long operations may take. One that takes longer is killed and has timed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperationLimits {
    pub start: Duration,
    pub stop: Duration,
    pub status: Duration,
}

/// What is done when a stop fails or takes too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedStop {
    /// It is tried again.
    TryAgain,
    /// Its processes are told to terminate, and then killed.
    Ladder {
        /// How long they may take to terminate.
        terminate: Duration,
    },
}

/// How often a failed member is started again in place, and within which time. The next failure ends the group here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartPolicy {
    /// 0 if the first failure ends the group here.
    pub in_place: u32,
    /// Older failures are forgotten.
    pub within: Duration,
}

impl RestartPolicy {
    /// The first failure ends the group here.
    pub const NONE: Self = Self { in_place: 0, within: Duration::ZERO };
}
