//! Why nobody owns a group. Nothing is decided here: it is told from what [`Ownership`](super::Ownership) goes by.

use alloc::string::String;

use super::{GroupIndex, Instant, Node, NodeIndex, Phase, member_of};
use crate::native::{
    placement,
    status::{Hindered, Hindrance, Unowned},
};

impl Node {
    /// Nothing where somebody owns it, and on a witness.
    pub(in crate::native) fn unowned(&self, now: Instant, group: GroupIndex) -> Option<Unowned> {
        let me = self.node()?;
        if self.owner(now, group).is_some() {
            return None;
        }
        let name = |group: GroupIndex| self.plan.groups[group.0].name.clone();
        let family = self.ownership.family(group);
        if self.board.pinned(None).is_some() {
            return Some(Unowned::Maintenance);
        }
        let is_frozen = |member: &GroupIndex| self.board.pinned(Some(self.ids[member.0])).is_some();
        if let Some(frozen) = family.iter().find(|member| is_frozen(member)) {
            return Some(Unowned::Frozen { group: name(*frozen) });
        }
        if !self.member.is_heard(now) {
            return Some(Unowned::NoMajority);
        }
        if !self.member.may_claim(now) {
            return Some(Unowned::NoMemory);
        }
        if self.ownership.waits_for_links() {
            return Some(Unowned::Links);
        }
        if self.ownership.waits_for_board() {
            return Some(Unowned::Boards);
        }
        let leader = family[0];
        if leader != group {
            return Some(Unowned::Follows { group: name(leader) });
        }
        let is_owned = |other: GroupIndex| self.owner(now, other).is_some();
        if let Some(first) = placement::waits_for(&self.plan, group, is_owned) {
            return Some(Unowned::After { group: name(first) });
        }
        let Some(best) = self.ownership.ranking(group).first() else {
            let nodes = self.plan.groups[leader.0].candidates.iter();
            let hindered = |node: &NodeIndex| Hindered {
                node: self.plan.nodes[node.0].name.clone(),
                by: self.hindrance(now, group, *node),
            };
            return Some(Unowned::NoCandidate { nodes: nodes.map(hindered).collect() });
        };
        if *best != me {
            return Some(Unowned::Turn { node: self.plan.nodes[best.0].name.clone() });
        }
        let is_claiming =
            self.member.claimant().is_some_and(|claimant| claimant.is_claiming(self.ids[group.0]));
        Some(match self.groups.phase(group) {
            Phase::Stuck(_) => Unowned::Stuck,
            Phase::Stopped if is_claiming => Unowned::Claiming,
            Phase::Stopped => Unowned::Soon,
            _ => Unowned::Stopping,
        })
    }

    /// Of a candidate that is not in the ranking.
    fn hindrance(&self, now: Instant, group: GroupIndex, node: NodeIndex) -> Hindrance {
        let name = |group: &GroupIndex| -> String { self.plan.groups[group.0].name.clone() };
        let is_me = self.node() == Some(node);
        let view = &self.views[node.0];
        if !is_me && !view.up {
            return Hindrance::Silent;
        }
        let is_standby = if is_me { self.ownership.is_standby() } else { view.standby };
        if is_standby {
            return Hindrance::Standby;
        }
        let is_unable = |member: &&GroupIndex| match is_me {
            true => self.ownership.is_unable(now, **member),
            false => view.unable.contains(*member),
        };
        if let Some(member) = self.ownership.family(group).iter().find(is_unable) {
            return Hindrance::Unable { group: name(member) };
        }
        let is_there =
            |other: &GroupIndex| self.owner(now, *other).is_some_and(|owner| owner.member == member_of(node));
        let kept_away = self.ownership.kept_away(&self.plan, group);
        match kept_away.iter().find(|other| is_there(other)) {
            Some(other) => Hindrance::Apart { group: name(other) },
            None => Hindrance::Elsewhere,
        }
    }
}
