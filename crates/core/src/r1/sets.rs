//! R1's groups, in two sets: those that prefer this node and those that prefer the peer.

use alloc::{collections::VecDeque, format, vec::Vec};
use core::ops::{Deref, DerefMut};

use super::plan::{R1Group, R1Plan};
use crate::{
    group::{GroupMember, GroupSpec, Groups, OperationLimits, RestartPolicy},
    model::{
        action::Action,
        holding::Holding,
        identity::{GroupIndex, ResourceId},
    },
};

/// The groups of an R1 plan, by set. It dereferences to [`Groups`] for questions about one group.
#[derive(Debug)]
pub struct Sets {
    groups: Groups,
    /// For each group: whether it prefers this node.
    local: Vec<bool>,
}

impl Sets {
    /// All groups stopped, except these resources: an earlier daemon start left them running and could not stop them.
    #[must_use]
    pub fn new(plan: &R1Plan, stop_failed: &[ResourceId]) -> Self {
        Self {
            groups: Groups::new(plan.groups.iter().map(|group| spec(plan, group)).collect(), stop_failed),
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

    /// Whether every group of the set is settled: it runs, or its start failed.
    #[must_use]
    pub fn acquired(&self, set: Holding) -> bool {
        self.of(set).all(|group| self.has_settled(group))
    }

    /// Whether nothing of the set runs here any more.
    #[must_use]
    pub fn released(&self, set: Holding) -> bool {
        self.of(set).all(|group| self.is_released(group))
    }

    /// Whether a stop in the set failed and the resource may still run.
    #[must_use]
    pub fn stop_failed(&self, set: Holding) -> bool {
        self.of(set).any(|group| self.is_stop_failed(group))
    }

    /// Whether nothing of the set is being started or stopped.
    #[must_use]
    pub fn at_rest(&self, set: Holding) -> bool {
        self.of(set).all(|group| self.rests(group))
    }

    /// The addresses of the groups of a set that run here.
    pub fn addresses_of(&self, set: Holding) -> impl Iterator<Item = ResourceId> + use<'_> {
        self.of(set).flat_map(|group| self.addresses(group))
    }

    /// Starts the groups of a set here (`run`), or stops them.
    pub fn want_set(&mut self, set: Holding, run: bool, out: &mut VecDeque<Action>) {
        let groups: Vec<GroupIndex> = self.of(set).collect();
        for group in groups {
            self.want(group, run, out);
        }
    }

    /// Takes over the running groups of a set from before a reload in place.
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

/// The agent line of a group, as in heartbeat's scripts: the preferred node, then all resources.
fn spec(plan: &R1Plan, R1Group { node, key, resources }: &R1Group) -> GroupSpec {
    let texts: Vec<&str> = resources.iter().map(|resource| resource.text.as_str()).collect();
    let limits =
        OperationLimits { start: plan.limits.start, stop: plan.limits.stop, status: plan.limits.status };
    GroupSpec {
        key: key.clone(),
        line: format!("{} {}", plan.nodes[node.0], texts.join(" ")),
        members: resources.iter().map(|resource| GroupMember::new(resource, resources, limits)).collect(),
        restarts: RestartPolicy::NONE,
    }
}
