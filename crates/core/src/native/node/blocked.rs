//! Why nobody owns a group: the blocked reason. This module decides nothing; it reads what
//! [`Ownership`](super::Ownership) goes by.

use super::{GroupIndex, GroupPhase, Instant, NativeNode, NodeIndex};
use crate::native::{
    placement,
    status::{BlockedReason, Disputed},
};

impl NativeNode {
    /// The node whose file gives a resource of this group to another group, if there is one.
    pub(in crate::native) fn disputed(&self, now: Instant, group: GroupIndex) -> Option<Disputed> {
        self.view(now, self.node()?).disputed(self.ownership.family(group))
    }

    /// The reason why the group is blocked; `None` if it has an owner, and on a witness.
    pub(in crate::native) fn blocked_reason(&self, now: Instant, group: GroupIndex) -> Option<BlockedReason> {
        let me = self.node()?;
        if self.owner(now, group).is_some() {
            return None;
        }
        let name = |group: GroupIndex| self.plan.groups[group.0].name.clone();
        let family = self.ownership.family(group);
        if self.gossip.pinned(None).is_some() {
            return Some(BlockedReason::Maintenance);
        }
        let is_frozen = |member: &GroupIndex| self.gossip.pinned(Some(self.ids[member.0])).is_some();
        if let Some(frozen) = family.iter().find(|member| is_frozen(member)) {
            return Some(BlockedReason::Frozen { group: name(*frozen) });
        }
        if !self.member.is_heard(now) {
            return Some(BlockedReason::NoMajority);
        }
        if !self.member.may_claim(now) {
            return Some(BlockedReason::NoMemory);
        }
        if self.ownership.waits_for_links() {
            return Some(BlockedReason::Links);
        }
        if self.ownership.waits_for_gossip() {
            return Some(BlockedReason::Gossip);
        }
        if self.ownership.waits_for_files() {
            return Some(BlockedReason::Files);
        }
        if let Some(disputed) = self.view(now, me).disputed(family) {
            return Some(BlockedReason::Disputed(disputed));
        }
        let leader = family[0];
        if leader != group {
            return Some(BlockedReason::Follows { group: name(leader) });
        }
        let is_owned = |other: GroupIndex| self.owner(now, other).is_some();
        if let Some(first) = placement::waits_for(&self.plan, group, is_owned) {
            return Some(BlockedReason::After { group: name(first) });
        }
        let Some(best) = self.ownership.ranking(group).first() else {
            let nodes = self.plan.groups[leader.0].candidates.iter();
            let view = self.view(now, me);
            let hindered = |node: &NodeIndex| self.ownership.blocked_candidate(&view, group, *node);
            return Some(BlockedReason::NoCandidate { nodes: nodes.map(hindered).collect() });
        };
        if *best != me {
            return Some(BlockedReason::Turn { node: self.plan.nodes[best.0].name.clone() });
        }
        let is_claiming =
            self.member.claimant().is_some_and(|claimant| claimant.is_claiming(self.ids[group.0]));
        Some(match self.groups.phase(group) {
            GroupPhase::StopFailed(_) => BlockedReason::StopFailed,
            GroupPhase::Stopped if is_claiming => BlockedReason::Claiming,
            GroupPhase::Stopped => BlockedReason::Soon,
            _ => BlockedReason::Stopping,
        })
    }
}
