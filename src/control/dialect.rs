//! The differences between the two dialects in the control plane: the plan, the member's identity in a run, and
//! people's orders. [`HostConfig`] holds what both have in common.

use std::sync::Arc;

use locum_core::{
    config::Changes,
    model::{
        holding::Holding,
        identity::{LastHeard, ResourceId},
        keys::Keys,
        note::Level,
        order::Order,
    },
    native::{self, plan::NativeMember},
    r1::{
        director::{self, R1Director},
        plan,
    },
};

use super::{ledger::Ledger, state::StateDirs};
use crate::{
    heart::{self, Director},
    host_config::HostConfig,
    observe::{journal::Journal, socket::OrderRequest},
};

/// A checked configuration of either dialect.
#[derive(Clone, Debug)]
pub enum Plan {
    /// From `ha.cf` and `haresources`.
    R1(Arc<plan::R1Plan>),
    Native(Arc<native::plan::NativePlan>),
}

/// This member's identity in the run that begins.
#[derive(Clone, Debug)]
pub enum Identity {
    R1(director::R1Identity),
    Native(native::director::NativeIdentity),
}

/// A run that begins: the member's identity, and its ledger.
#[derive(Debug)]
pub struct RunStart {
    pub identity: Identity,
    /// Present for a member of a native cluster.
    pub ledger: Option<Ledger>,
}

impl Identity {
    /// Adds the resources that an earlier daemon left running and that could not be stopped.
    #[must_use]
    pub fn with_stop_failed(mut self, found: Vec<ResourceId>) -> Self {
        let (Self::R1(director::R1Identity { stop_failed: stuck, .. })
        | Self::Native(native::director::NativeIdentity { stop_failed: stuck, .. })) = &mut self;
        *stuck = found;
        self
    }

    /// Adds the groups that the earlier run goes on holding, and the newest that it heard of its peer.
    #[must_use]
    pub fn with_past(mut self, kept: Holding, newest: Option<LastHeard>) -> Self {
        if let Self::R1(identity) = &mut self {
            identity.keeps = Some(kept);
            identity.peer_heard = identity.peer_heard.max(newest);
        }
        self
    }
}

impl Plan {
    /// Whether this member only votes.
    #[must_use]
    pub fn is_witness(&self) -> bool {
        matches!(self, Self::Native(plan) if matches!(plan.me, NativeMember::Witness(_)))
    }

    /// The host config of this plan.
    #[must_use]
    pub fn host_config(&self) -> HostConfig {
        match self {
            Self::R1(plan) => HostConfig::from(plan.as_ref()),
            Self::Native(plan) => HostConfig::from(plan.as_ref()),
        }
    }

    /// The director of a run that begins now. `None` for an identity of the other dialect.
    #[must_use]
    pub fn director(&self, keys: Keys, identity: Identity) -> Option<Director> {
        let now = heart::now();
        match (self, identity) {
            (Self::R1(plan), Identity::R1(identity)) => {
                Some(R1Director::new(Arc::clone(plan), keys, identity, now).into())
            }
            (Self::Native(plan), Identity::Native(identity)) => {
                Some(native::director::NativeDirector::new(Arc::clone(plan), keys, identity, now).into())
            }
            _ => None,
        }
    }

    /// The differences in a configuration that was read again.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Changes {
        match (self, new) {
            (Self::R1(old), Self::R1(new)) => Changes::between(old, new),
            (Self::Native(old), Self::Native(new)) => super::native::changes(old, new),
            _ => Changes { restart: vec!["the dialect".to_owned()], ..Changes::default() },
        }
    }

    /// The name of the key file in messages.
    #[must_use]
    pub fn key_file(&self) -> &str {
        match self {
            Self::R1(_) => "authkeys",
            Self::Native(plan) => &plan.local.key_file,
        }
    }

    /// The names of the other files in messages.
    #[must_use]
    pub const fn files(&self) -> &'static str {
        match self {
            Self::R1(_) => "ha.cf and haresources",
            Self::Native(_) => "locum.toml",
        }
    }

    /// Makes this member's identity for the run that begins now.
    ///
    /// # Errors
    /// Another daemon has this member's place, or what must be remembered cannot be read or written.
    pub fn begin_run(&self, state: &StateDirs, journal: &Journal) -> anyhow::Result<RunStart> {
        for doubt in state.reservation().take(&self.host_config())? {
            journal.say(Level::Warning, doubt);
        }
        match self {
            Self::R1(plan) => {
                let identity = Identity::R1(super::r1::begin(state, plan)?);
                Ok(RunStart { identity, ledger: None })
            }
            Self::Native(plan) => {
                let now = locum_sys::clock::unix_nanos() / 1_000_000_000;
                super::native::begin(state, plan, now, |level, text| journal.say(level, text))
            }
        }
    }

    /// The first lines of the log: a greeting without its end, the configuration in one line, and a warning.
    pub(super) fn introduction(&self) -> (String, String, Option<&'static str>) {
        match self {
            Self::R1(plan) => (super::r1::greeting(plan), super::r1::summary(plan), None),
            Self::Native(plan) => {
                (super::native::greeting(plan), super::native::summary(plan), super::native::warning(plan))
            }
        }
    }

    /// Translates a person's request into an order.
    ///
    /// # Errors
    /// Why it cannot be translated, with the possible values.
    pub fn order(&self, request: &OrderRequest) -> Result<Order, String> {
        match self {
            Self::R1(_) => super::r1::order(&request.user_order),
            Self::Native(plan) => super::native::order(plan, request),
        }
    }
}
