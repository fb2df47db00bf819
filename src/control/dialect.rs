//! The two dialects as the control plane tells them apart: the plan, who this member is in a life, and what a person asks
//! for. What both have in common is [`Duties`].

use std::sync::Arc;

use locum_core::{
    config::Changes,
    model::{
        holding::Holding,
        identity::{GroupIndex, Heard, NodeIndex, ResourceId},
        keys::Keys,
        note::Escaped,
        order::{NativeOrder, Order},
        settings,
    },
    native::{self, plan::Member},
    r1::{
        director::{self, Director},
        plan,
    },
};

use super::ledger::Ledger;
use crate::{
    duties::Duties,
    heart::{self, Mind},
    voice::socket::{Request, Set, Wish},
};

/// A checked configuration.
#[derive(Clone, Debug)]
pub enum Plan {
    /// Of `ha.cf` and `haresources`.
    R1(Arc<plan::Plan>),
    /// Of `locum.toml`.
    Native(Arc<native::plan::Plan>),
}

/// Who this member is in the life that begins.
#[derive(Clone, Debug)]
pub enum Identity {
    /// In heartbeat's dialect.
    R1(director::Identity),
    /// In the native dialect.
    Native(native::director::Identity),
}

/// A life that begins: who this member is, and where it remembers what it must.
#[derive(Debug)]
pub struct Birth {
    /// Who.
    pub identity: Identity,
    /// Of a member of a native cluster.
    pub ledger: Option<Ledger>,
}

impl Identity {
    /// With what an earlier life left running and could not be stopped.
    #[must_use]
    pub fn with_stuck(mut self, found: Vec<ResourceId>) -> Self {
        let (Self::R1(director::Identity { stuck, .. })
        | Self::Native(native::director::Identity { stuck, .. })) = &mut self;
        *stuck = found;
        self
    }

    /// With what the life before this one goes on holding, and the newest that it heard of its peer.
    #[must_use]
    pub fn with_past(mut self, kept: Holding, newest: Option<Heard>) -> Self {
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
        matches!(self, Self::Native(plan) if matches!(plan.me, Member::Witness(_)))
    }

    /// What the hands have to know of it.
    #[must_use]
    pub fn duties(&self) -> Duties {
        match self {
            Self::R1(plan) => Duties::from(plan.as_ref()),
            Self::Native(plan) => Duties::from(plan.as_ref()),
        }
    }

    /// The mind of a life that begins now. `None` for an identity of the other dialect.
    #[must_use]
    pub fn mind(&self, keys: Keys, identity: Identity) -> Option<Mind> {
        let now = heart::now();
        match (self, identity) {
            (Self::R1(plan), Identity::R1(identity)) => {
                Some(Director::new(Arc::clone(plan), keys, identity, now).into())
            }
            (Self::Native(plan), Identity::Native(identity)) => {
                Some(native::director::Director::new(Arc::clone(plan), keys, identity, now).into())
            }
            _ => None,
        }
    }

    /// What differs in a configuration that was read again.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Changes {
        match (self, new) {
            (Self::R1(old), Self::R1(new)) => Changes::between(old, new),
            (Self::Native(old), Self::Native(new)) => native_changes(old, new),
            _ => Changes { restart: vec!["the dialect".to_owned()], ..Changes::default() },
        }
    }

    /// The file with the keys, as messages call it.
    #[must_use]
    pub fn key_file(&self) -> &str {
        match self {
            Self::R1(_) => "authkeys",
            Self::Native(plan) => &plan.local.key_file,
        }
    }

    /// The files besides, as messages call them.
    #[must_use]
    pub const fn files(&self) -> &'static str {
        match self {
            Self::R1(_) => "ha.cf and haresources",
            Self::Native(_) => "locum.toml",
        }
    }

    /// What a person's words mean here.
    ///
    /// # Errors
    /// Why they mean nothing, with what would.
    pub fn order(&self, request: &Request) -> Result<Order, String> {
        match self {
            Self::R1(_) => r1_order(&request.wish),
            Self::Native(plan) => native_order(plan, request),
        }
    }
}

fn native_changes(old: &native::plan::Plan, new: &native::plan::Plan) -> Changes {
    let says = |text: &Option<String>| text.clone().unwrap_or_else(|| "nothing".to_owned());
    let differences = settings::summary(&old.meaning(), &new.meaning());
    let line = |difference: &settings::Difference| {
        let settings::Difference { name, ours, theirs } = difference;
        format!("{name}: {} runs, the file says {}", says(ours), says(theirs))
    };
    let mut restart: Vec<String> = differences.iter().map(line).collect();
    if old.local != new.local {
        restart.push("[local]".to_owned());
    }
    Changes { restart, ..Changes::default() }
}

fn r1_order(wish: &Wish) -> Result<Order, String> {
    Ok(match wish {
        Wish::Standby(set) => Order::Standby(match set {
            Set::All => Holding::All,
            Set::Foreign | Set::Failback => Holding::Foreign,
            Set::Local => Holding::Local,
        }),
        Wish::Takeover(set) => Order::Takeover(match set {
            Set::All => Holding::All,
            Set::Foreign => Holding::Foreign,
            Set::Local | Set::Failback => Holding::Local,
        }),
        Wish::Leave => Order::Leave,
        Wish::Move { .. } => {
            return Err("a cluster with ha.cf moves sets of groups: `locum standby`, `locum takeover`".into());
        }
        Wish::Online | Wish::Maintenance { .. } | Wish::Freeze { .. } => {
            return Err("a cluster with ha.cf does not know this; one with locum.toml does".into());
        }
    })
}

fn native_order(plan: &native::plan::Plan, Request { wish, user }: &Request) -> Result<Order, String> {
    let group = |name: &str| -> Result<GroupIndex, String> {
        let names = || plan.groups.iter().map(|group| group.name.as_str()).collect::<Vec<_>>().join(" ");
        plan.group(name).ok_or_else(|| {
            format!("there is no group {}; the groups are: {}", Escaped(name.as_bytes()), names())
        })
    };
    let node = |name: &str| -> Result<NodeIndex, String> {
        let names = || plan.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(" ");
        match plan.member(&name.to_lowercase()) {
            Some(Member::Node(node)) => Ok(node),
            Some(Member::Witness(_)) => Err(format!("{name} is a witness, and runs nothing")),
            None => Err(format!("there is no node {}; the nodes are: {}", Escaped(name.as_bytes()), names())),
        }
    };
    let order = match wish {
        Wish::Standby(Set::All) => NativeOrder::Standby,
        Wish::Standby(_) | Wish::Takeover(_) => {
            return Err("a cluster with locum.toml has no sets: `locum move GROUP NODE`".into());
        }
        Wish::Online => NativeOrder::Online,
        Wish::Maintenance { on } => NativeOrder::Maintenance(*on),
        Wish::Freeze { group: name, on } => NativeOrder::Freeze(group(name)?, *on),
        Wish::Move { group: name, to } => {
            NativeOrder::Move(group(name)?, to.as_deref().map(node).transpose()?)
        }
        Wish::Leave => return Ok(Order::Leave),
    };
    Ok(Order::Native { order, user: *user })
}
