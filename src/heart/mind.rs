//! The mind that the heart drives: the director of either dialect. Both are fed the same events and want the same actions
//! performed, so the loop is one.

use locum_core::{
    model::{
        action::Action,
        claim::Epoch,
        event::Event,
        identity::GroupIndex,
        time::{Instant, Now},
    },
    native,
    r1::{director, status},
};

/// A director.
#[derive(Debug)]
pub enum Mind {
    /// Of heartbeat's dialect.
    R1(Box<director::Director>),
    /// Of the native dialect.
    Native(Box<native::director::Director>),
}

/// What a person may see of the cluster, in the terms of its dialect.
#[derive(Clone, Debug, PartialEq)]
pub enum Status {
    /// Of heartbeat's dialect.
    R1(Box<status::Status>),
    /// Of the native dialect.
    Native(Box<native::status::Status>),
}

impl Mind {
    pub(super) fn handle(&mut self, now: Now, event: Event<'_>) {
        match self {
            Self::R1(director) => director.handle(now, event),
            Self::Native(director) => director.handle(now, event),
        }
    }

    pub(super) fn poll(&mut self) -> Option<Action> {
        match self {
            Self::R1(director) => director.poll(),
            Self::Native(director) => director.poll(),
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        match self {
            Self::R1(director) => director.deadline(),
            Self::Native(director) => director.deadline(),
        }
    }

    pub(super) fn next_beat(&self) -> Instant {
        match self {
            Self::R1(director) => director.next_beat(),
            Self::Native(director) => director.next_beat(),
        }
    }

    pub(super) fn is_active(&self) -> bool {
        match self {
            Self::R1(director) => director.is_active(),
            Self::Native(director) => director.is_active(),
        }
    }

    /// Under which ownership a group is here, or was last; R1 has none.
    pub(super) fn epoch(&self, group: GroupIndex) -> Option<Epoch> {
        match self {
            Self::R1(_) => None,
            Self::Native(director) => director.epoch(group),
        }
    }

    pub(super) fn status(&self, now: Now) -> Status {
        match self {
            Self::R1(director) => Status::R1(Box::new(director.status(now))),
            Self::Native(director) => Status::Native(Box::new(director.status(now))),
        }
    }
}

impl From<director::Director> for Mind {
    fn from(director: director::Director) -> Self {
        Self::R1(Box::new(director))
    }
}

impl From<native::director::Director> for Mind {
    fn from(director: native::director::Director) -> Self {
        Self::Native(Box::new(director))
    }
}
