//! The director of either dialect, as the heart drives it. Both take the same events and return the same actions, so
//! there is one loop.

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

/// The director of either dialect.
#[derive(Debug)]
pub enum Director {
    R1(Box<director::R1Director>),
    Native(Box<native::director::NativeDirector>),
}

/// The status of the cluster for people, in the terms of its dialect.
#[derive(Clone, Debug, PartialEq)]
pub enum Status {
    R1(Box<status::R1Status>),
    Native(Box<native::status::NativeStatus>),
}

impl Director {
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

    /// The ownership under which a group is here, or was last; R1 has none.
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

impl From<director::R1Director> for Director {
    fn from(director: director::R1Director) -> Self {
        Self::R1(Box::new(director))
    }
}

impl From<native::director::NativeDirector> for Director {
    fn from(director: native::director::NativeDirector) -> Self {
        Self::Native(Box::new(director))
    }
}
