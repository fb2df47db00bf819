//! What a group is, for whoever starts and stops it, whatever dialect it belongs to.

use alloc::{string::String, vec::Vec};

use crate::time::Duration;

/// One group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Its name, unique on this node.
    pub key: String,
    /// What the log says of it when it is acquired or released.
    pub line: String,
    /// At least one; started first to last, stopped last to first.
    pub members: Vec<Member>,
}

/// One resource of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// As written in the configuration, for people.
    pub text: String,
    /// What the log says is run: the script and its arguments.
    pub command: String,
    /// It is a service address: announced again when asked for.
    pub is_address: bool,
    /// The heart carries or announces it, and must be told of one that an earlier life left.
    pub is_carried: bool,
    /// How long its operations may take.
    pub limits: Limits,
}

/// How long an operation may take; then it is killed and has timed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of a start.
    pub start: Duration,
    /// Of a stop.
    pub stop: Duration,
    /// Of a status question.
    pub status: Duration,
}
