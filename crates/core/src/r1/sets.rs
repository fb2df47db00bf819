//! R1's groups: always spoken of as one of two sets, those that prefer this node and those that prefer the peer.

use alloc::{collections::VecDeque, format, vec::Vec};
use core::ops::{Deref, DerefMut};

use super::plan::{Group, Plan};
use crate::{
    group::{Groups, Limits, Member, Restarts, Spec},
    model::{
        action::Action,
        holding::Holding,
        identity::{GroupIndex, ResourceId},
    },
};

/// The groups of an R1 plan. What concerns one group is asked of [`Groups`], which this stands for.
#[derive(Debug)]
pub struct Sets {
    groups: Groups,
    /// By group: whether it prefers this node.
    local: Vec<bool>,
}

impl Sets {
    /// All stopped, but for these members, which an earlier life left running and which could not be stopped.
    #[must_use]
    pub fn new(plan: &Plan, stuck: &[ResourceId]) -> Self {
        Self {
            groups: Groups::new(plan.groups.iter().map(|group| spec(plan, group)).collect(), stuck),
            local: plan.groups.iter().map(|group| group.node == plan.me).collect(),
        }
    }

    /// The groups of a set, as seen from this node.
    pub fn of(&self, set: Holding) -> impl Iterator<Item = GroupIndex> + use<'_> {
        let is_of = move |local: &bool| if *local { set.has_local() } else { set.has_foreign() };
        self.local
            .iter()
            .enumerate()
            .filter(move |(_, local)| is_of(local))
            .map(|(index, _)| GroupIndex(index))
    }

    /// Whether every group of the set has come to rest: it runs, or its start failed.
    #[must_use]
    pub fn acquired(&self, set: Holding) -> bool {
        self.of(set).all(|group| self.has_settled(group))
    }

    /// Whether nothing of the set runs here any more.
    #[must_use]
    pub fn released(&self, set: Holding) -> bool {
        self.of(set).all(|group| self.is_released(group))
    }

    /// Whether something of the set cannot be stopped.
    #[must_use]
    pub fn stuck(&self, set: Holding) -> bool {
        self.of(set).any(|group| self.is_stuck(group))
    }

    /// Whether every group of the set is at rest, wherever.
    #[must_use]
    pub fn at_rest(&self, set: Holding) -> bool {
        self.of(set).all(|group| self.rests(group))
    }

    /// The addresses of the groups of a set that run here.
    pub fn addresses_of(&self, set: Holding) -> impl Iterator<Item = ResourceId> + use<'_> {
        self.of(set).flat_map(|group| self.addresses(group))
    }

    /// Says what is wanted of the groups of a set: that they run here (`true`) or that nothing of them does.
    pub fn want_set(&mut self, set: Holding, run: bool, out: &mut VecDeque<Action>) {
        let groups: Vec<GroupIndex> = self.of(set).collect();
        for group in groups {
            self.want(group, run, out);
        }
    }

    /// The groups of a set run, from an earlier life of this daemon.
    pub fn keep_set(&mut self, set: Holding, out: &mut VecDeque<Action>) {
        let groups: Vec<GroupIndex> = self.of(set).collect();
        for group in groups {
            self.keep(group, out);
        }
    }
}

impl Deref for Sets {
    type Target = Groups;

    fn deref(&self) -> &Groups {
        &self.groups
    }
}

impl DerefMut for Sets {
    fn deref_mut(&mut self) -> &mut Groups {
        &mut self.groups
    }
}

/// The line is the node that is preferred, then all resources, as the original's scripts say it.
fn spec(plan: &Plan, Group { node, key, resources }: &Group) -> Spec {
    let texts: Vec<&str> = resources.iter().map(|resource| resource.text.as_str()).collect();
    let limits = Limits { start: plan.limits.start, stop: plan.limits.stop, status: plan.limits.status };
    Spec {
        key: key.clone(),
        line: format!("{} {}", plan.nodes[node.0], texts.join(" ")),
        members: resources.iter().map(|resource| Member::new(resource, resources, limits)).collect(),
        restarts: Restarts::NONE,
    }
}
