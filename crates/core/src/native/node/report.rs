//! What the director's report reads from a node.

use super::{GateLease, GossipState, GroupIndex, Instant, MemberIndex, NativeNode, NodePeer, NodeView};
use alloc::{collections::BTreeSet, vec::Vec};

use crate::{
    claims::HeldClaim,
    group::Groups,
    liveness::{Liveness, Watch},
    model::{claim::Ballot, settings},
    native::{gossip::HeldDown, ownership::Ownership},
};

/// What this node knows of another member.
#[derive(Clone, Copy, Debug)]
pub(in crate::native) struct PeerView<'a> {
    pub watch: &'a Watch,
    /// 0 before it was heard.
    pub generation: u64,
    pub standby: bool,
    pub unable: &'a BTreeSet<GroupIndex>,
    pub unreachable: &'a BTreeSet<GroupIndex>,
    /// Its canonical settings differ from ours.
    pub differs: bool,
    pub differences: &'a [settings::SettingDifference],
    /// Its lease differs from ours.
    pub refused: bool,
}

/// Who owns a group, as far as this member knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::native) struct KnownOwner {
    pub member: MemberIndex,
    /// The ballot of its claim as it stands now.
    pub ballot: Ballot,
}

impl NativeNode {
    pub(in crate::native) fn peer(&self, member: MemberIndex) -> Option<PeerView<'_>> {
        let index = member.index();
        let NodePeer { watch, generation, config, refused, differences, .. } =
            self.peers.get(index).filter(|_| member != self.me)?;
        let NodeView { standby, unable, unreachable: cut, .. } = self.views.get(index)?;
        Some(PeerView {
            watch,
            generation: *generation,
            standby: *standby,
            unable,
            unreachable: cut,
            differs: index < self.plan.nodes.len() && config.is_some_and(|config| config != self.config),
            differences,
            refused: *refused,
        })
    }

    pub(in crate::native) const fn me(&self) -> MemberIndex {
        self.me
    }

    /// The digest of our canonical settings, as beats carry it.
    pub(in crate::native) const fn config(&self) -> u64 {
        self.config
    }

    pub(in crate::native) const fn ownership(&self) -> &Ownership {
        &self.ownership
    }

    /// The groups that clients could not reach on this node.
    pub(in crate::native) fn unreachable_groups(&self) -> Vec<GroupIndex> {
        self.services.unreachable()
    }

    /// The gossip state as this node knows it: pins and moves by failure.
    #[must_use]
    pub const fn gossip(&self) -> &GossipState {
        &self.gossip
    }

    /// Whether a group is held because failures have moved it too often, for how long already, and until when.
    #[must_use]
    pub fn held_down(&self, now: Instant, group: GroupIndex) -> Option<HeldDown> {
        self.gossip.held_down(now, self.ids[group.0], &self.plan.groups[group.0].hold_down)
    }

    pub(in crate::native) const fn groups(&self) -> &Groups {
        &self.groups
    }

    pub(in crate::native) const fn next_beat(&self) -> Instant {
        self.next_beat
    }

    /// The lease that the group's gate was last given.
    pub(in crate::native) fn gate(&self, group: GroupIndex) -> Option<GateLease> {
        self.gates.get(&group).copied().flatten()
    }

    pub(in crate::native) fn held(&self, now: Instant, group: GroupIndex) -> Option<&HeldClaim> {
        self.member.claimant()?.held(now, self.ids[group.0])
    }

    /// The owner of a group: this member if it holds the claim; else a living node that lists the claim; else the node
    /// that our own vote is granted to.
    pub(in crate::native) fn owner(&self, now: Instant, group: GroupIndex) -> Option<KnownOwner> {
        if let Some(held) = self.held(now, group) {
            return Some(KnownOwner { member: self.me, ballot: held.claim.ballot });
        }
        let id = self.ids[group.0];
        let says = self.member.owner_elsewhere(id).filter(|claim| self.hears(claim.owner()));
        let granted = || {
            let (claim, until) = self.member.voter()?.holder(id)?;
            (until > now && claim.owner() != self.me).then_some(claim)
        };
        says.or_else(granted).map(|claim| KnownOwner { member: claim.owner(), ballot: claim.ballot })
    }

    /// Until when our own vote keeps others from a group that is granted to another node.
    pub(in crate::native) fn granted_until(&self, now: Instant, group: GroupIndex) -> Option<Instant> {
        let (claim, until) = self.member.voter()?.holder(self.ids[group.0])?;
        (until > now && claim.owner() != self.me).then_some(until)
    }

    pub(in crate::native) fn liveness(&self, member: MemberIndex) -> Liveness {
        self.peer(member).map_or(Liveness::Alive, |peer| peer.watch.state())
    }
}
